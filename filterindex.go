package webhook

import (
	"cmp"
	"math/bits"
	"slices"
	"strings"
)

// A filterIndex finds the topic filters that match a topic. It is a tree of
// levels whose nodes are found by parent and text in one hash table, so that a
// match costs a few nanoseconds per level however many filters there are, in
// memory without pointers, so that they cost the garbage collector nothing.
// Once built it does not change: any number of goroutines may match.
//
// The zero value has no filters.
type filterIndex struct {
	nodes []filterNode // the root first; as a link, 0 is none
	slots []filterSlot // open addressing; a power of two, at most half full
	texts []byte       // of levels longer than shortLevel
	lists []filterHit  // the first is unused; as a link, 0 is none

	// How every topic that matches begins, and the node where matching goes
	// on after that: one comparison tells most topics from those of a single
	// rule, or of many below one root.
	stem  string
	start uint32
}

// A filterNode is one level of all filters that are the same up to it.
type filterNode struct {
	word   uint64 // see level
	parent uint32
	size   uint32 // length of the level's text
	text   uint32 // where it is in texts
	plus   uint32 // the child node for "+"
	here   uint32 // list of the filter that ends here
	below  uint32 // list of the filter that has only "#" after this level
	named  bool   // has children with a text
}

type filterSlot struct {
	hash uint32 // of the node; spares a look at most others
	node uint32
}

type filterHit struct {
	hit
	next uint32
}

// add puts a valid filter into the index. Hits must come in falling order, by
// endpoint and then by rule.
func (x *filterIndex) add(filter string, h hit) {
	if x.nodes == nil {
		x.nodes = make([]filterNode, 1)
		x.slots = make([]filterSlot, 4)
		x.stem = filter
	}
	x.stem = x.stem[:stemLen(x.stem, filter)]
	node, pos := uint32(0), 0
	for pos <= len(filter) {
		if pos == len(x.stem) {
			x.start = node
		}
		var l level
		l, pos = nextLevel(filter, pos)
		if l.text == "#" {
			x.push(&x.nodes[node].below, h)
			return
		}
		node = x.grow(node, l)
	}
	x.push(&x.nodes[node].here, h)
}

// stemLen returns how much of stem, up to a slash, begins every topic that
// matches filter. The level before # does not count, because a/# matches a.
func stemLen(stem, filter string) int {
	text, _, _ := strings.Cut(filter, "+")
	text = strings.TrimSuffix(text, "/#")
	n := 0
	for n < min(len(stem), len(text)) && stem[n] == text[n] {
		n++
	}
	return strings.LastIndexByte(text[:n], '/') + 1
}

// grow returns a node's child for a level of a filter, a new one if need be.
func (x *filterIndex) grow(parent uint32, l level) uint32 {
	id := uint32(len(x.nodes))
	if l.text == "+" {
		if plus := x.nodes[parent].plus; plus != 0 {
			return plus
		}
		x.nodes[parent].plus = id
		x.nodes = append(x.nodes, filterNode{parent: parent})
		return id
	}
	if child := x.child(parent, l); child != 0 {
		return child
	}
	n := filterNode{word: l.word, parent: parent, size: uint32(len(l.text))}
	if len(l.text) > shortLevel {
		n.text = uint32(len(x.texts))
		x.texts = append(x.texts, l.text...)
	}
	x.nodes[parent].named = true
	x.nodes = append(x.nodes, n)
	if 2*len(x.nodes) > len(x.slots) {
		old := x.slots
		x.slots = make([]filterSlot, 2*len(old))
		for _, s := range old {
			x.place(s)
		}
	}
	x.place(filterSlot{l.hash(parent), id})
	return id
}

func (x *filterIndex) place(s filterSlot) {
	if s.node == 0 {
		return
	}
	mask := uint32(len(x.slots) - 1)
	i := s.hash & mask
	for x.slots[i].node != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// child returns a node's child for a level as text, or 0.
func (x *filterIndex) child(parent uint32, l level) uint32 {
	hash, mask := l.hash(parent), uint32(len(x.slots)-1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s.node == 0 {
			return 0
		}
		if s.hash != hash {
			continue
		}
		n := &x.nodes[s.node]
		if n.word == l.word && n.parent == parent && int(n.size) == len(l.text) &&
			(n.size <= shortLevel || string(x.texts[n.text:n.text+n.size]) == l.text) {
			return s.node
		}
	}
}

// match collects the hits of the filters that match topic. Wildcards in topic
// are text. Whatever a client sends, no level is read twice, no node is visited
// twice or in vain, and nothing recurses.
func (x *filterIndex) match(topic string, hits []hit) []hit {
	if x.nodes == nil || !strings.HasPrefix(topic, x.stem) {
		return hits
	}
	node, pos := x.start, len(x.stem)
	// A filter that starts with a wildcard does not match a topic that
	// starts with $ (MQTT 5, 4.7.2).
	wild := pos > 0 || topic == "" || topic[0] != '$'
	for ; pos <= len(topic); wild = true {
		n := &x.nodes[node]
		plus := n.plus
		if !wild {
			plus = 0
		} else if n.below != 0 { // a call less for most
			hits = x.collect(n.below, hits)
		}
		if !n.named && plus == 0 { // most often below "#"
			return hits
		}
		var l level
		l, pos = nextLevel(topic, pos)
		child := uint32(0)
		if n.named {
			child = x.child(node, l)
		}
		if child != 0 && plus != 0 {
			return x.matchForks(topic, pos, child, plus, hits)
		}
		node = child | plus
		if node == 0 {
			return hits
		}
	}
	hits = x.collect(x.nodes[node].below, hits)
	return x.collect(x.nodes[node].here, hits)
}

// matchForks goes on with match where more than one node matches the topic up
// to pos. It allocates when they are more than room has.
func (x *filterIndex) matchForks(topic string, pos int, a, b uint32, hits []hit) []hit {
	room := [16]uint32{a, b}
	at := room[:2]
	for {
		for _, node := range at {
			hits = x.collect(x.nodes[node].below, hits)
		}
		if pos > len(topic) {
			break
		}
		var l level
		l, pos = nextLevel(topic, pos)
		// Backwards, so that what is appended or moved is not seen again.
		for i := len(at) - 1; i >= 0; i-- {
			child, plus := x.child(at[i], l), x.nodes[at[i]].plus
			switch {
			case child != 0 && plus != 0:
				at[i] = child
				at = append(at, plus)
			case child != 0 || plus != 0:
				at[i] = child | plus
			default:
				at[i] = at[len(at)-1]
				at = at[:len(at)-1]
			}
		}
		if len(at) == 0 {
			return hits
		}
	}
	for _, node := range at {
		hits = x.collect(x.nodes[node].here, hits)
	}
	return hits
}

// A level is the text between two slashes, and a word to tell it by: the text
// itself if that is at most shortLevel bytes, else a hash of it.
type level struct {
	text string
	word uint64
}

const shortLevel = 7

// nextLevel returns the level of s that starts at pos and where the next one
// starts: beyond the end of s if this was the last.
func nextLevel(s string, pos int) (level, int) {
	var w uint64
	rest := len(s) - pos
	switch {
	case rest >= 8:
		w = loadWord(s[pos:])
	case len(s) >= 8:
		w = loadWord(s[len(s)-8:])>>(64-8*rest) | '/'<<(8*rest)
	default:
		w = '/'
		for i := len(s) - 1; i >= pos; i-- {
			w = w<<8 | uint64(s[i])
		}
	}
	// A zero byte of diff is a slash; the lowest one has the lowest bit of
	// slashes, its highest.
	diff := w ^ ones*'/'
	slashes := (diff - ones) &^ diff & (ones * 0x80)
	if slashes == 0 {
		return nextLongLevel(s, pos)
	}
	end := pos + bits.TrailingZeros64(slashes)/8
	return level{s[pos:end], w & (slashes&-slashes>>7 - 1)}, end + 1
}

func nextLongLevel(s string, pos int) (level, int) {
	text, _, _ := strings.Cut(s[pos:], "/")
	word := loadWord(text[len(text)-8:])
	for i := 0; i < len(text)-8; i += 8 {
		word = mix(word, loadWord(text[i:]))
	}
	return level{text, word}, pos + len(text) + 1
}

func (l level) hash(parent uint32) uint32 {
	return uint32(mix(l.word, uint64(parent)<<32|uint64(len(l.text))))
}

// mix is the step of wyhash: the halves of a 128-bit product.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	return hi ^ lo
}

// push puts h in front of a list, or in the place of its first hit if that is
// a later rule of the same endpoint.
func (x *filterIndex) push(list *uint32, h hit) {
	if x.lists == nil {
		x.lists = make([]filterHit, 1)
	}
	if first := &x.lists[*list]; *list != 0 && first.endpoint == h.endpoint {
		first.rule = h.rule
		return
	}
	x.lists = append(x.lists, filterHit{h, *list})
	*list = uint32(len(x.lists) - 1)
}

// collect adds a list to hits, which stay sorted by endpoint and have an
// endpoint once, with its first rule.
func (x *filterIndex) collect(list uint32, hits []hit) []hit {
	for list != 0 {
		h := x.lists[list]
		list = h.next
		if n := len(hits); n == 0 || hits[n-1].endpoint < h.endpoint {
			hits = append(hits, h.hit)
			continue
		}
		hits = addHit(hits, h.hit)
	}
	return hits
}

// addHit adds h to hits where it belongs.
func addHit(hits []hit, h hit) []hit {
	i, found := slices.BinarySearchFunc(hits, h.endpoint, func(o hit, endpoint int32) int {
		return cmp.Compare(o.endpoint, endpoint)
	})
	if found {
		hits[i].rule = min(hits[i].rule, h.rule)
		return hits
	}
	return slices.Insert(hits, i, h)
}
