package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// resolve returns a copy of c with every default filled in, or all problems
// of c, joined. Its checks are those that a file passes through: a setting's
// own check (forms.go), and for what concerns several, Endpoint.conflicts.
func (c *Config) resolve() (*Config, error) {
	if c == nil || len(c.Endpoints) == 0 {
		return nil, errors.New("the configuration has no endpoints")
	}
	resolved := new(Config)
	var problems []error
	names := make(map[string]bool)
	var splits []split
	for _, e := range c.Endpoints {
		if e.Name == "" {
			e.Name = defaultName
		}
		problem := func(field string, err error) {
			problems = append(problems, fmt.Errorf("endpoint %q: %s %w", e.Name, field, err))
		}
		if err := checkName(e.Name); err != nil {
			problem("Name", err)
		} else if name := strings.ToLower(e.Name); names[name] {
			problem("Name", errors.New("is used twice, without regard to case"))
		} else {
			names[name] = true
		}
		e.resolve(problem)
		e.disagreements(resolved.Endpoints, func(key string, err error) { problem(fieldOf(streamSettings, key), err) })
		for _, s := range resolved.add(e) {
			s.report = func(key string, err error) {
				problem(fmt.Sprintf("Events[%d].%s", s.rule, fieldOf(ruleSettings, key)), err)
			}
			splits = append(splits, s)
		}
	}
	known := make(map[identity]bool)
	for i := range resolved.Endpoints {
		e := &resolved.Endpoints[i]
		if known[e.known] {
			e.known = identity{} // a copy of another one
		}
		known[e.known] = true
	}
	checkSplits(splits, names)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return resolved, nil
}

const (
	defaultName = "default"
	longestName = 64
)

// resolve fills in defaults and reports what is wrong, by field. It does not
// write to what other copies of e share.
func (e *Endpoint) resolve(report func(field string, err error)) {
	e.Headers = slices.Clone(e.Headers)
	e.Events = slices.Clone(e.Events)
	e.fill(report)
	checkHeaders(e.Headers, report)
	for i := range e.Events {
		rule := &e.Events[i]
		in := func(field string, err error) { report(fmt.Sprintf("Events[%d].%s", i, field), err) }
		rule.resolve(in)
		e.ruleConflicts(rule, func(key string, err error) { in(fieldOf(ruleSettings, key), err) })
	}
	byKey := func(key string, err error) { report(fieldOf(e.settings(), key), err) }
	e.conflicts(byKey)
	e.unused(e.differing(), byKey)
}

// differing returns what reports whether a setting is not its default, which here
// tells that it is there: those of which unused asks.
func (e *Endpoint) differing() func(key string) bool {
	standard := Endpoint{URL: e.URL}
	standard.fill(func(string, error) {})
	return func(key string) bool {
		switch key {
		case "queue.sync", "queue.local.sync":
			return e.Queue.Sync != standard.Queue.Sync
		case "tls.key_password":
			return e.TLS.KeyPassword != ""
		case "tls.keyfile":
			return e.TLS.KeyFile != ""
		case "dead_letter":
			return e.DeadLetter != standard.DeadLetter
		case "dead_letter.file":
			return e.DeadLetter.File != ""
		case "body.encoding":
			return e.Body.Encoding != standard.Body.Encoding
		}
		return false
	}
}

// resolve is that of an endpoint, for one of its rules.
func (r *Rule) resolve(report func(field string, err error)) {
	r.Except, r.Clients = slices.Clone(r.Except), slices.Clone(r.Clients)
	r.Users, r.Listeners = slices.Clone(r.Users), slices.Clone(r.Listeners)
	r.Headers = slices.Clone(r.Headers)
	fillAll(ruleSettings, r, report)
	checkHeaders(r.Headers, report)
	if r.Event == "" { // which is reported
		return
	}
	for i, filter := range r.Except {
		if err := checkExcept(r.Event, filter); err != nil {
			report(fmt.Sprintf("Except[%d]", i), err)
		}
	}
}

// checkHeaders checks headers of a Config that was written in Go.
func checkHeaders(headers []Header, report func(field string, err error)) {
	names := make(map[string]bool)
	for i, h := range headers {
		at := fmt.Sprintf("Headers[%d].", i)
		if err := checkHeaderName(h.Name); err != nil {
			report(at+"Name", err)
		} else if name := strings.ToLower(h.Name); names[name] {
			report(at+"Name", errors.New("is there twice"))
		} else {
			names[name] = true
		}
		if err := checkHeaderValue(h.Name, string(h.Value)); err != nil {
			report(at+"Value", err)
		}
	}
}

// fill gives zero fields their defaults, and reports what is wrong with others.
func (e *Endpoint) fill(report func(field string, err error)) {
	// The defaults that depend on another setting.
	if retry := &e.Retry; retry.MinBackoff == 0 && retry.MaxBackoff > 0 {
		retry.MinBackoff = min(defaultMinBackoff, retry.MaxBackoff)
	} else if retry.MaxBackoff == 0 && retry.MinBackoff > defaultMaxBackoff {
		retry.MaxBackoff = min(retry.MinBackoff, longestBackoff)
	}
	if e.Body.MaxPayload == 0 && isOneOf(e.Body.Encoding, Base62) {
		e.Body.MaxPayload = longestBase62
	}
	if r := &e.RateLimit; r.Burst == 0 && r.PerSecond > 0 {
		r.Burst = min(max(int(math.Ceil(r.PerSecond/10)), 1), mostRate)
	}
	switch b := &e.Body; {
	case isOneOf(b.Format, FormatCloudEvents, FormatCloudEventsBinary):
		b.Source = cmp.Or(b.Source, defaultSource)
	case isOneOf(b.Format, FormatEMQX):
		b.Node = cmp.Or(b.Node, defaultNode)
	}
	onDisk := isOneOf(e.Queue.Type, DiskQueue)
	if onDisk || e.Stream.enabled() {
		e.Retry.MaxAge = cmp.Or(e.Retry.MaxAge, 24*time.Hour)
	}
	if onDisk {
		e.Queue.MaxBytes = cmp.Or(e.Queue.MaxBytes, 1<<30)
		e.Queue.Overflow = cmp.Or(e.Queue.Overflow, DropNewest)
	}
	fillAll(e.settings(), e, report)
}

// fillAll calls fill of the settings that have one, and reports its errors by field.
func fillAll[T any](settings []setting[T], to *T, report func(field string, err error)) {
	for _, s := range settings {
		if s.fill == nil {
			continue
		}
		if err := s.fill(to); err != nil {
			report(s.field, err)
		}
	}
}

// settings are those of a section that would say what e says.
func (e *Endpoint) settings() []setting[Endpoint] {
	if e.Stream.enabled() {
		return streamSettings
	}
	return endpointSettings
}

// isOneOf reports whether a word is one of some, in any letter case.
func isOneOf[W ~string](given W, words ...W) bool {
	return slices.ContainsFunc(words, func(w W) bool { return equalFold(string(given), string(w)) })
}

const (
	defaultSource     = "/mochi-mqtt"
	defaultNode       = "emqx@127.0.0.1"
	defaultMinBackoff = 500 * time.Millisecond
	defaultMaxBackoff = 30 * time.Second
	longestBackoff    = 24 * time.Hour
	mostRate          = 1_000_000
)
