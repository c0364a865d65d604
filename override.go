package webhook

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// key names the rule in records of events, which outlive the process and the
// configuration, if the rule has settings of its own, else it is 0. It is a hash
// of what the rule selects: another place among the rules is no other rule, and
// neither are other settings, which hold for what waits too.
func (r *Rule) key() uint32 {
	if len(r.Headers) == 0 && r.Encoding == "" {
		return 0
	}
	var text []byte
	for _, list := range [][]string{{string(r.Event), r.Topic}, r.Except, r.Clients, r.Users, r.Listeners} {
		text = binary.AppendUvarint(text, uint64(len(list)))
		for _, s := range list {
			text = appendSized(text, s)
		}
	}
	h := fnv.New32a()
	_, _ = h.Write(append(text, b2u(r.WithoutInline)))
	return max(h.Sum32(), 1)
}

// ruleKeys returns the keys of the rules, nil if all are 0.
func (e *Endpoint) ruleKeys() []uint32 {
	if len(e.particular()) == 0 {
		return nil
	}
	keys := make([]uint32, len(e.Events))
	for i := range e.Events {
		keys[i] = e.Events[i].key()
	}
	return keys
}

// particular returns the rules that have settings of their own.
func (e *Endpoint) particular() []Rule {
	return slices.DeleteFunc(slices.Clone(e.Events), func(r Rule) bool { return r.key() == 0 })
}

// maxPayload is the longest payload of the rule's events. The endpoint's limit
// may be meant for another encoding.
func (r *Rule) maxPayload(b *Body) int64 {
	if r.Encoding == Base62 && b.Encoding != Base62 {
		return min(b.MaxPayload, longestBase62)
	}
	return b.MaxPayload
}

// A variant is what is particular to the requests of a rule's events.
type variant struct {
	headers  []Header // that the configuration sets: the endpoint's and the rule's
	head     uint32   // tells different headers apart; 0 is the endpoint's own
	encoding Encoding
}

// variants returns those of the rules that have settings of their own, by their
// keys, and by 0 that of all others.
func (e *Endpoint) variants() map[uint32]variant {
	heads := []variant{{headers: e.Headers, encoding: e.Body.Encoding}}
	all := map[uint32]variant{0: heads[0]}
	for i := range e.Events {
		r := &e.Events[i]
		key := r.key()
		if _, hidden := all[key]; hidden {
			continue
		}
		v := variant{mergeHeaders(e.Headers, r.Headers), key, cmp.Or(r.Encoding, e.Body.Encoding)}
		at := slices.IndexFunc(heads, func(o variant) bool { return slices.Equal(o.headers, v.headers) })
		if at >= 0 {
			v.head = heads[at].head
		} else {
			heads = append(heads, v)
		}
		all[key] = v
	}
	return all
}

// mergeHeaders returns headers with own in place of those that have the same
// name.
func mergeHeaders(headers, own []Header) []Header {
	merged := slices.Clone(headers)
	for _, h := range own {
		at := slices.IndexFunc(merged, func(m Header) bool { return equalFold(m.Name, h.Name) })
		if at >= 0 {
			merged[at] = h
		} else {
			merged = append(merged, h)
		}
	}
	return merged
}
