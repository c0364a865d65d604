package webhook

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// A decoder makes a Config of the sections of a file.
type decoder struct {
	src      []byte
	dir      string // of the file
	problems []problem
	files    []string // that values are read from

	key     string          // of the setting being read
	failed  map[string]bool // settings and blocks of the section, or the rule, with a problem
	rules   []ruleNode      // of the section, as the endpoint has them
	partial bool            // the section was cut off: something may be missing
	others  []Endpoint      // of the sections before, as far as they are certain
	inRule  bool            // what is read is a rule

	anyQueue bool // the section's queue may be meant as a stream

	// Keys of sections, for suggestions: what reads a setting cannot name the
	// list that it is part of.
	sectionKeys []string // of any section
	streamKeys  []string // of a section whose queue is a stream
}

// A ruleNode is a rule as it is written.
type ruleNode struct {
	*node
	failed map[string]bool // settings with a problem
}

func (d *decoder) problem(at span, summary, detail string) {
	d.problems = append(d.problems, problem{span: at, summary: summary, detail: detail})
}

// refuse reports a value that does not pass a check.
func (d *decoder) refuse(at span, err error) {
	summary := "Invalid value"
	if e := (*invalid)(nil); errors.As(err, &e) {
		summary = e.summary
	}
	d.problem(at, summary, d.key+" "+err.Error()+".")
}

func (d *decoder) wrongType(n *node, want string) {
	d.problem(n.span, "Wrong type", d.key+" must be "+want+".")
}

func (d *decoder) config(sections []*section) *Config {
	cfg := &Config{Endpoints: make([]Endpoint, 0, len(sections))}
	names := make(map[string]bool)
	var splits []split
	for _, s := range sections {
		e := Endpoint{Name: defaultName}
		at := s.span
		if s.label != nil {
			e.Name, at = s.label.name, s.label.span
		}
		d.key = "The label"
		name, err := strings.ToLower(e.Name), checkName(e.Name)
		switch {
		case err != nil:
			d.refuse(at, err)
		case names[name] && !s.second: // or else that is a problem already
			d.problem(at, "Duplicate section", "Two sections have this label, without regard to case; the section without one is called default.")
		}
		names[name] = true
		d.endpoint(s, &e)
		for _, s := range cfg.add(e) {
			written := d.rules[s.rule]
			s.report = func(key string, err error) {
				if written.failed["name"] {
					return
				}
				d.key = key
				d.refuse(written.place(key, written.span), err)
			}
			splits = append(splits, s)
		}
	}
	checkSplits(splits, names)
	return cfg
}

// endpoint reads one section.
func (d *decoder) endpoint(s *section, e *Endpoint) {
	d.failed, d.rules, d.partial = make(map[string]bool), nil, s.partial
	if s.body == nil {
		return
	}
	if s.body.kind != objectNode {
		d.problem(s.body.span, "Wrong type", "A webhook section is written webhook { … }; for several endpoints write several, each with a label: webhook \"name\" { … }.")
		return
	}
	if tls, ssl := s.body.find("tls"), s.body.find("ssl"); tls != nil && ssl != nil {
		second := tls
		if ssl.start > tls.start {
			second = ssl
		}
		d.problem(second.span, "Duplicate key", "tls and ssl are two names of one block; write one of them.")
		d.failed["tls"] = true
	}
	d.anyQueue = d.mayBeStream(s.body)
	object(d, d.settingsOf(s.body), s.body, "", e)
	if d.isStream(s.body) {
		e.Stream.Name = cmp.Or(e.Stream.Name, defaultStream)
		if age := s.body.at("queue.max_age"); age != nil && s.body.at("retry.max_age") != nil {
			d.problem(age.span, "Duplicate key", "queue.max_age and retry.max_age are two names of one setting; write one of them.")
		}
	}
	if s.body.find("batch") != nil { // also an empty one
		e.Batch.MaxEvents = cmp.Or(e.Batch.MaxEvents, defaultBatch)
	}
	e.fill(func(string, error) {}) // each value has been checked
	if !d.partial {                // what would make it right may be behind the mistake
		d.check(s, e)
	}
}

// check reports what is wrong between several settings of a section, or with what
// is missing, unless a mistake that is reported already may be why.
func (d *decoder) check(s *section, e *Endpoint) {
	if s.body.find("url") == nil && !d.failed["url"] {
		d.key = "url"
		d.refuse(s.span, checkURL(""))
	}
	report := func(key string, err error) {
		block, _, _ := strings.Cut(key, ".")
		if d.failed[block] || d.failed[key] || slices.ContainsFunc(partners[key], func(k string) bool { return d.failed[k] }) {
			return
		}
		d.key = key
		d.refuse(s.body.place(key, s.span), err)
	}
	e.conflicts(report)
	own := d.certain(*e)
	own.disagreements(d.others, report)
	d.others = append(d.others, own)
	e.unused(func(key string) bool { return s.body.at(key) != nil }, report)
	for i := range e.Events {
		written := d.rules[i]
		e.ruleConflicts(&e.Events[i], func(key string, err error) {
			if block, _, _ := strings.Cut(key, "."); written.failed[block] || key == "name" && written.failed["url"] {
				return
			}
			d.key = key
			d.refuse(written.place(key, written.span), err)
		})
	}
}

// certain returns e without what sections share, where a mistake leaves open what
// that is.
func (d *decoder) certain(e Endpoint) Endpoint {
	for key := range d.failed {
		block, _, _ := strings.Cut(key, ".")
		if block == "queue" || block == "enable" {
			e.Stream = Stream{}
		}
		if block == "dead_letter" || block == "enable" {
			e.DeadLetter = DeadLetter{}
		}
	}
	return e
}

// settingsOf are the keys that a section may have.
func (d *decoder) settingsOf(body *node) []setting[Endpoint] {
	if d.isStream(body) {
		return streamSettings
	}
	return endpointSettings
}

// isStream reports whether the queue of a section is a stream.
func (d *decoder) isStream(body *node) bool {
	n := body.at("queue.type")
	if n == nil {
		return false
	}
	quiet := d.quiet()
	text, ok := quiet.word(n, "")
	return ok && equalFold(text, string(streamQueue))
}

// mayBeStream reports whether the queue of a section may be meant as a stream: its
// type has an unknown value, is misspelled itself, or may be behind what was cut off.
func (d *decoder) mayBeStream(body *node) bool {
	n := body.at("queue.type")
	if n == nil {
		queue := body.at("queue")
		return d.partial || queue != nil && slices.ContainsFunc(queue.members, func(m *member) bool {
			return slices.Contains(meantKeys(m.name, "queue.", d.sectionKeys), "queue.type")
		})
	}
	if d.isStream(body) {
		return false
	}
	quiet := d.quiet()
	text, ok := quiet.word(n, "")
	return !ok || !isOneOf(QueueType(text), queueTypes...)
}

// quiet returns a decoder for a value whose mistakes are told elsewhere.
func (d *decoder) quiet() *decoder { return &decoder{src: d.src, dir: d.dir} }

// partners are, for a setting that [Endpoint.conflicts] reports, the others that
// may be why: while one of those has a problem itself, there may be no conflict.
var partners = map[string][]string{
	"retry.min_backoff":       {"retry.max_backoff"},
	"queue.dir":               {"queue.type"},
	"queue.sync":              {"queue.type"},
	"queue.local.sync":        {"queue.local", "queue.local.type"},
	"queue.max_bytes":         {"queue.type"},
	"queue.local.dir":         {"queue.local", "queue.local.type"},
	"queue.local.max_bytes":   {"queue.local", "queue.local.type"},
	"compression":             {"headers"},
	"headers":                 {"body.format"},
	"body.source":             {"body.format"},
	"body.node":               {"body.format"},
	"signing":                 {"signing.secret", "signing.previous_secret"},
	"signing.previous_secret": {"signing.secret"},
	"dead_letter":             {"dead_letter.file", "dead_letter.max_bytes", "dead_letter.keep"},
	"rate_limit.burst":        {"rate_limit.per_second"},
	"rate_limit":              {"rate_limit.per_second", "rate_limit.burst"},
	"tls.key_password":        {"tls.enable", "tls.keyfile"},
	"tls.cacertfile":          {"tls.enable"},
	"tls.certfile":            {"tls.enable", "tls.keyfile"},
	"tls.keyfile":             {"tls.enable", "tls.certfile", "tls.key_password"},
}

// object reads the members of an object into the struct that to points to.
func object[T any](d *decoder, settings []setting[T], o *node, block string, to *T) {
	for _, m := range o.members {
		key := settingKey(block, m.name)
		s := findSetting(settings, key)
		before := len(d.problems)
		if len(m.again) > 0 {
			d.failed[key] = true // the one may have what the other misses
		}
		d.key = block + strings.ToLower(m.name)
		switch {
		case s != nil:
			s.read(d, m.value, to)
		case !isBlock(settings, key):
			d.unknown(o, m, block, key, keysOf(settings))
		case m.value.kind != objectNode:
			d.wrongType(m.value, "a block: "+d.key+" { … }")
		default:
			object(d, settings, m.value, key+".", to)
			for _, again := range m.again {
				if again.kind == objectNode {
					object(d, settings, again, key+".", new(T))
				}
			}
			continue // its settings have problems of their own
		}
		if len(d.problems) > before {
			d.failed[key] = true
		}
	}
}

// unknown reports a member m of o that is no setting.
func (d *decoder) unknown(o *node, m *member, block, key string, keys []string) {
	ofStream := block == "queue." && slices.ContainsFunc(d.streamKeys, func(k string) bool { return k == key || strings.HasPrefix(k, key+".") })
	if ofStream && d.anyQueue {
		return // what is wrong is the type
	}
	detail := m.quoted() + " is not a setting"
	ofSection := d.inRule && slices.Contains(d.sectionKeys, key)
	switch {
	case block != "" && !ofSection:
		detail += " of " + strings.TrimSuffix(block, ".")
	case d.inRule:
		detail += " of a rule"
	}
	meant := meantKeys(m.name, block, keys)
	switch {
	case ofSection:
		detail += ", but of the section: it belongs outside of events"
	case ofStream:
		detail += `, unless its type is "jetstream"`
	case block == "" && equalFold(m.name, "name"):
		detail += `; an endpoint's name is its label: webhook "NAME" { … }`
	case len(meant) > 0:
		detail += " (did you mean " + strings.Join(meant, " or ") + "?)"
		for _, key := range meant {
			if n := o.at(key); block != "" || n == nil || n.kind == objectNode {
				d.failed[settingKey("", key)] = true // its lack, or that of what is in it, is no mistake of its own
			}
		}
	}
	d.problems = append(d.problems, problem{span: m.span, summary: "Unknown key", detail: detail + ".", names: true})
}

func readEvents(d *decoder, n *node, e *Endpoint) {
	rules := n.items
	if n.kind == objectNode { // events.1 { … } events.2 { … }
		for _, m := range n.members {
			if strings.Trim(m.name, "0123456789") != "" {
				rules = nil
				break
			}
			rules = append(rules, m.value)
		}
	}
	if len(rules) == 0 {
		if n.kind == listNode && !d.partial {
			d.problem(n.span, "Empty list", "events needs a rule: events = [ { event = \"on_message_publish\" } ].")
		} else if n.kind != listNode {
			d.wrongType(n, "a list: events = [ { event = \"on_message_publish\" } ]")
		}
		return
	}
	for i := 0; i < len(rules); i++ {
		n := rules[i]
		if n.kind == objectNode {
			e.Events = append(e.Events, d.rule(n))
			continue
		}
		assigned := d.isAssigned(rules[i:])
		if key := d.sectionKey(n); assigned && key != "" {
			d.problem(n.span, "Misplaced setting", key+" is a setting of the section: it belongs outside of events.")
			d.failed[key] = true // or else it would be missing, too
		} else {
			d.key = "A rule"
			d.wrongType(n, "an object: { event = \"on_message_publish\" }")
		}
		if assigned {
			i += 2 // one mistake, not three
		}
	}
}

// isAssigned reports whether items of a list begin with NAME = VALUE, which reads
// as three of them.
func (d *decoder) isAssigned(items []*node) bool {
	return len(items) >= 3 && items[0].kind != objectNode && string(d.src[items[1].start:items[1].end]) == "="
}

// sectionKey returns the setting or block of a section that a node names, or "".
func (d *decoder) sectionKey(n *node) string {
	key := strings.ToLower(string(d.src[n.start:n.end]))
	if block, _, _ := strings.Cut(key, "."); !slices.Contains(d.sectionKeys, key) { // headers.x
		key = block
	}
	if !slices.Contains(d.sectionKeys, key) {
		return ""
	}
	return key
}

// rule reads a rule, which has failed settings of its own.
func (d *decoder) rule(n *node) (rule Rule) {
	outer := d.failed
	d.failed, d.inRule = make(map[string]bool), true
	defer func() { d.failed, d.inRule = outer, false }()
	object(d, ruleSettings, n, "", &rule)
	if n.find("event") == nil && !d.partial && !d.failed["event"] {
		d.problem(n.span, "Missing event", "A rule says which event it takes: { event = \"on_message_publish\" }.")
	}
	event := rule.Event
	if event == "" {
		event = d.meantEvent(n)
	}
	if topic := n.find("topic"); topic != nil && !d.failed["topic"] && event != "" {
		d.key = "topic"
		if err := checkTopic(event, rule.Topic); err != nil {
			d.refuse(topic.value.span, err)
		}
	}
	if except := n.find("except"); except != nil && event != "" {
		d.key = "except"
		quiet := d.quiet()
		for _, item := range except.value.items { // also beside one that is no text
			filter, ok := quiet.text(item)
			if !ok {
				continue
			}
			if err := checkExcept(event, filter); err != nil {
				d.refuse(item.span, err)
			}
		}
	}
	d.rules = append(d.rules, ruleNode{n, d.failed})
	return rule
}

// meantEvent returns the event that a rule with an unknown one may mean, or "".
func (d *decoder) meantEvent(rule *node) EventName {
	event := rule.find("event")
	if event == nil {
		return ""
	}
	quiet := d.quiet()
	name, _ := quiet.word(event.value, "")
	return EventName(nearest(name, eventNames))
}

func readEvent(d *decoder, n *node, rule *Rule) {
	name, ok := d.word(n, "the name of an event in quotes")
	if !ok {
		return
	}
	event, err := checkEvent(EventName(name))
	if err != nil {
		d.refuse(n.span, err)
	}
	rule.Event = event
}

func readTopic(d *decoder, n *node, rule *Rule) {
	rule.Topic, _ = d.text(n)
}
