package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/mochi-hooks/webhook/internal/stream"
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
	var reports []func(field string, err error) // of the endpoints that splits come from
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
		own := e.split()
		resolved.Endpoints = append(resolved.Endpoints, e)
		for _, s := range own {
			resolved.Endpoints = append(resolved.Endpoints, s.Endpoint)
			splits, reports = append(splits, s), append(reports, problem)
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
	checkSplits(splits, names, func(i int, key string, err error) {
		reports[i](fmt.Sprintf("Events[%d].%s", splits[i].rule, fieldOf(ruleSettings, key)), err)
	})
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
	e.unused(e.differs, byKey)
}

// differs reports whether a setting is not its default, which here tells that it is
// there: those of which unused asks.
func (e *Endpoint) differs(key string) bool {
	standard := Endpoint{URL: e.URL}
	standard.fill(func(string, error) {})
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

// resolve is that of an endpoint, for one of its rules.
func (r *Rule) resolve(report func(field string, err error)) {
	r.Except, r.Clients = slices.Clone(r.Except), slices.Clone(r.Clients)
	r.Users, r.Listeners = slices.Clone(r.Users), slices.Clone(r.Listeners)
	r.Headers = slices.Clone(r.Headers)
	checkHeaders(r.Headers, report)
	if r.Encoding != "" {
		enc, err := choice(encodings).check(r.Encoding)
		if err != nil {
			report("Encoding", err)
		}
		r.Encoding = enc
	}
	if r.URL != "" {
		if err := checkURL(r.URL); err != nil {
			report("URL", err)
		}
	}
	if r.Name != "" {
		if err := checkName(r.Name); err != nil {
			report("Name", err)
		}
	}
	name, err := checkEvent(r.Event)
	if err != nil {
		report("Event", err)
		return
	}
	r.Event = name
	checkExcept(*r, func(at int, err error) { report(fmt.Sprintf("Except[%d]", at), err) })
	if r.Topic == "" {
		return
	}
	if err := checkTopic(*r); err != nil {
		report("Topic", err)
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
	if e.Body.MaxPayload == 0 && equalFold(string(e.Body.Encoding), string(Base62)) {
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
	if e.Stream.enabled() {
		e.Retry.MaxAge = cmp.Or(e.Retry.MaxAge, 24*time.Hour)
	}
	if equalFold(string(e.Queue.Type), string(DiskQueue)) {
		e.Retry.MaxAge = cmp.Or(e.Retry.MaxAge, 24*time.Hour)
		e.Queue.MaxBytes = cmp.Or(e.Queue.MaxBytes, 1<<30)
		e.Queue.Overflow = cmp.Or(e.Queue.Overflow, DropNewest)
	}
	for _, s := range e.settings() {
		if s.fill == nil {
			continue
		}
		if err := s.fill(e); err != nil {
			report(s.field, err)
		}
	}
}

// settings are the keys under which a file has what is set.
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

// fieldOf is the Go name of a setting or a block of the file.
func fieldOf[T any](settings []setting[T], key string) string {
	for _, s := range settings {
		if s.key == key {
			return s.field
		}
		if strings.HasPrefix(s.key, key+".") {
			block, _, _ := strings.Cut(s.field, ".")
			return block
		}
	}
	return key
}

// conflicts reports, by the key of the file, which may be that of a block, what
// is wrong between several settings, or outside of the configuration. Defaults
// are filled in.
func (e *Endpoint) conflicts(report func(key string, err error)) {
	if e.Retry.MaxBackoff < e.Retry.MinBackoff {
		report("retry.min_backoff", outOfRange("must not be longer than max_backoff"))
	}
	q, block := &e.Queue, "queue."
	if e.Stream.enabled() {
		block = "queue.local."
		if e.Stream.URL == "" {
			report("queue.url", &invalid{"Missing url", `is required: where NATS is, such as "nats://127.0.0.1:4222"`})
		}
		if file := e.Stream.CredsFile; file != "" {
			if err := readable(file); err != nil {
				report("queue.credsfile", &invalid{"Unreadable file", "cannot be read: " + reason(err)})
			}
		}
	}
	if r := &e.RateLimit; r.Burst != 0 && r.PerSecond == 0 {
		report("rate_limit.burst", &invalid{"Missing per_second", "needs a per_second beside it"})
	}
	switch onDisk := q.Type == DiskQueue; {
	case onDisk && q.Dir == "":
		report(block+"dir", &invalid{"Missing dir", `is required for a disk queue: the folder where its data lies`})
	case !onDisk && q.Dir != "":
		report(block+"dir", &invalid{"Unused setting", `has no effect without type = "disk"`})
	}
	if q.Type == DiskQueue && q.MaxBytes >= 0 && q.MaxBytes < 1<<20 {
		report(block+"max_bytes", outOfRange("must be at least 1 MiB for a disk queue, or -1 for no limit"))
	}
	if e.Compression == Gzip && hasHeader(e.Headers, "Content-Encoding") {
		report("compression", &invalid{"Conflicting settings", "cannot be used beside a Content-Encoding header"})
	}
	b := &e.Body
	if b.Source != "" && !b.Format.isCloudEvents() {
		report("body.source", &invalid{"Unused setting", `has no effect without format = "cloudevents" or "cloudevents-binary"`})
	}
	if b.Node != "" && b.Format != FormatEMQX {
		report("body.node", &invalid{"Unused setting", `has no effect without format = "emqx"`})
	}
	if b.Format == FormatCloudEventsBinary && e.Batch.enabled() {
		report("body.format", &invalid{"Conflicting settings", `cannot be "cloudevents-binary" beside batch, because a payload is a whole body; use "cloudevents"`})
	}
	if err := b.checkAttributes(e.Headers); err != nil {
		report("headers", err)
	}
	if e.Signing.Secret == "" && e.Signing.PreviousSecret != "" {
		report("signing.previous_secret", &invalid{"Missing secret", "needs a secret beside it, the one that is used from now on"})
	}
	if !e.TLS.Disabled {
		e.TLS.conflicts(report)
	}
}

// disagreements reports, by the key of the file, where e contradicts one of others
// about something that both use.
func (e *Endpoint) disagreements(others []Endpoint, report func(key string, err error)) {
	e.streamConflicts(others, report)
	e.letterConflicts(others, report)
}

// sharing returns the first of others that is in use, as e is, and shares something
// with it, or nil: a third one is compared with the first, too.
func (e *Endpoint) sharing(others []Endpoint, shares func(*Endpoint) bool) *Endpoint {
	for i := range others {
		if other := &others[i]; !e.Disabled && !other.Disabled && shares(other) {
			return other
		}
	}
	return nil
}

// streamConflicts is disagreements about a stream: it can be made only one way, by
// whoever is first.
func (e *Endpoint) streamConflicts(others []Endpoint, report func(key string, err error)) {
	own := &e.Stream
	isLetters := func(o *Stream) bool {
		return own.Name == o.Name+stream.DeadSuffix || o.Name == own.Name+stream.DeadSuffix
	}
	other := e.sharing(others, func(o *Endpoint) bool {
		return own.URL != "" && own.URL == o.Stream.URL && (own.Name == o.Stream.Name || isLetters(&o.Stream))
	})
	if other == nil {
		return
	}
	if isLetters(&other.Stream) {
		report("queue.stream", &invalid{"Conflicting settings", "must not be that of another endpoint's dead letters, which are in a stream with _DEAD behind the name"})
		return
	}
	const want = "must be the same for all endpoints that use the stream"
	if own.Partitions != other.Stream.Partitions {
		report("queue.partitions", &invalid{"Conflicting settings", want})
	}
	if own.Replicas != other.Stream.Replicas {
		report("queue.replicas", &invalid{"Conflicting settings", want})
	}
	if own.MaxBytes != other.Stream.MaxBytes {
		report("queue.max_bytes", &invalid{"Conflicting settings", want})
	}
}

// letterConflicts is disagreements about a dead letter file: one endpoint would throw
// away what another wants to keep.
func (e *Endpoint) letterConflicts(others []Endpoint, report func(key string, err error)) {
	own := &e.DeadLetter
	other := e.sharing(others, func(o *Endpoint) bool { return own.File != "" && samePath(own.File, o.DeadLetter.File) })
	if other == nil {
		return
	}
	const want = "must be the same for all endpoints that share the file"
	if own.MaxBytes != other.DeadLetter.MaxBytes {
		report("dead_letter.max_bytes", &invalid{"Conflicting settings", want})
	}
	if own.Keep != other.DeadLetter.Keep {
		report("dead_letter.keep", &invalid{"Conflicting settings", want})
	}
}

// samePath reports whether two paths are written alike, but for where they start
// and for what is not needed in them.
func samePath(a, b string) bool {
	a, errA := filepath.Abs(a)
	b, errB := filepath.Abs(b)
	return errA == nil && errB == nil && a == b
}

// unused is conflicts for what has no effect as it stands: is there a setting, or a
// block? A file tells them from defaults, in Go they are what differs from those.
func (e *Endpoint) unused(isThere func(key string) bool, report func(key string, err error)) {
	lacks := func(block, key string, err error) {
		if isThere(block) && !isThere(block+"."+key) {
			report(block, err)
		}
	}
	if e.Signing.PreviousSecret == "" {
		lacks("signing", "secret", &invalid{"Missing secret", "needs a secret: without it nothing is signed"})
	}
	lacks("dead_letter", "file", &invalid{"Missing file", "needs a file: without it there are no dead letters"})
	if e.RateLimit.Burst == 0 {
		lacks("rate_limit", "per_second", &invalid{"Missing per_second", "needs a per_second: without it there is no limit"})
	}
	block := "queue."
	if e.Stream.enabled() {
		block = "queue.local."
	}
	if e.Queue.Type != DiskQueue && isThere(block+"sync") {
		report(block+"sync", &invalid{"Unused setting", `has no effect without type = "disk"`})
	}
	if e.Body.Format == FormatCloudEventsBinary && isThere("body.encoding") {
		report("body.encoding", &invalid{"Unused setting", `has no effect under format = "cloudevents-binary", where a payload goes as it is`})
	}
	if e.TLS.KeyPassword != "" && isThere("tls.key_password") && !isThere("tls.keyfile") && !e.TLS.Disabled {
		report("tls.key_password", &invalid{"Unused setting", "has no effect without a keyfile"})
	}
}

// checkAttributes refuses headers that are CloudEvents' own.
func (b *Body) checkAttributes(headers []Header) error {
	own := func(h Header) bool { return len(h.Name) > 3 && equalFold(h.Name[:3], "ce-") }
	if b.Format == FormatCloudEventsBinary && slices.ContainsFunc(headers, own) {
		return &invalid{"Reserved header", "must not have names that begin with ce- under this body.format, which sends its own"}
	}
	return nil
}

func hasHeader(headers []Header, name string) bool {
	return slices.ContainsFunc(headers, func(h Header) bool { return equalFold(h.Name, name) })
}

// ruleConflicts is conflicts, for a rule.
func (e *Endpoint) ruleConflicts(r *Rule, report func(key string, err error)) {
	if err := e.Body.checkAttributes(r.Headers); err != nil {
		report("headers", err)
	}
	if e.Compression == Gzip && hasHeader(r.Headers, "Content-Encoding") {
		report("headers", &invalid{"Conflicting settings", "cannot have a Content-Encoding beside compression"})
	}
	switch k := kindOf(r.Event); {
	case r.Encoding == "" || k == 0:
	case !k.isMessage():
		report("body.encoding", &invalid{"Unused setting", "has no effect on this event, which has no payload"})
	case e.Body.Format == FormatCloudEventsBinary:
		report("body.encoding", &invalid{"Unused setting", `has no effect under format = "cloudevents-binary", where a payload goes as it is`})
	}
	if r.Name != "" && r.URL == "" {
		report("name", &invalid{"Unused setting", "has no effect without a url beside it, which makes the rule an endpoint"})
	}
}

// conflicts is that of an endpoint, for its tls block.
func (t TLS) conflicts(report func(key string, err error)) {
	found := false
	refuse := func(key string, err error) {
		found = true
		report(key, err)
	}
	for _, f := range []struct{ key, path string }{
		{"tls.cacertfile", t.CACertFile}, {"tls.certfile", t.CertFile}, {"tls.keyfile", t.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		if err := readable(f.path); err != nil {
			refuse(f.key, &invalid{"Unreadable file", "cannot be read: " + reason(err)})
		}
	}
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		refuse("tls.certfile", &invalid{"Missing keyfile", "needs a keyfile beside it"})
	case t.CertFile == "" && t.KeyFile != "":
		refuse("tls.keyfile", &invalid{"Missing certfile", "needs a certfile beside it"})
	}
	if found {
		return
	}
	_, problems := t.clientConfig("")
	for _, p := range problems {
		refuse(p.key, &invalid{"Unusable file", "cannot be used: " + p.err.Error()})
	}
}

// readable tries to open a file.
func readable(path string) error {
	if err := checkRegular(path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// checkName checks an endpoint's name, the label of a section. It becomes a
// metric label, a folder and a NATS subject.
func checkName(name string) error {
	other := func(r rune) bool { return r >= 0x80 || !isWord(byte(r)) }
	if name == "" || len(name) > longestName || strings.ContainsFunc(name, other) {
		return &invalid{"Invalid label", "must be 1 to 64 letters A-Z and a-z, digits, _ and -"}
	}
	return nil
}

// checkURL checks where webhooks go. No error has a part of the URL: it may
// hold credentials, in the query too.
func checkURL(text string) error {
	bad := func(what string) error { return &invalid{"Invalid url", what} }
	if text == "" {
		return &invalid{"Missing url", `is required: where to send webhooks to, such as "http://127.0.0.1:80/hook"`}
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return bad("must not contain blanks or control characters")
	}
	scheme, _, _ := strings.Cut(text, "://")
	if !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return bad("must begin with http:// or https://")
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("is not a URL: check the host, the port, the brackets around an IPv6 address and the percent escapes (a literal % is %25)")
	}
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	switch bracketed := strings.HasPrefix(u.Host, "["); {
	case host == "":
		return bad("must have a host after " + strings.ToLower(scheme) + "://")
	case bracketed && (err != nil || !addr.Is6()), !bracketed && strings.Contains(host, ":"):
		return bad("must have an IPv6 address in brackets if the host is one, as in http://[::1]:8080/")
	case bracketed && strings.ContainsFunc(addr.Zone(), func(r rune) bool { return r >= 0x80 }):
		return bad("must have an IPv6 zone without letters beyond ASCII")
	case !bracketed && strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 || !isWord(byte(r)) && r != '.' }):
		return bad("must have a host of letters A-Z and a-z, digits, dots, - and _; an international name is written in its xn-- form")
	}
	if u.Port() == "" && !strings.HasSuffix(u.Host, ":") {
		return nil
	}
	if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
		return bad("must have a port of 1 to 65535, or no colon after the host")
	}
	return nil
}

// checkHeaderName checks the name of a header that the configuration sets.
func checkHeaderName(name string) error {
	other := func(r rune) bool {
		return r >= 0x80 || !isWord(byte(r)) && !strings.ContainsRune("!#$%&'*+.^`|~", r)
	}
	if name == "" || strings.ContainsFunc(name, other) { // RFC 9110, section 5.6.2
		return &invalid{"Invalid header name", "must be letters, digits and some of !#$%&'*+-.^_`|~"}
	}
	switch strings.ToLower(name) {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
		"te", "trailer", "trailers", "transfer-encoding", "upgrade": // RFC 9110, section 7.6.1
		return &invalid{"Reserved header", "must not be set: it is about the connection to the next hop, which the webhook manages itself"}
	case "content-length":
		return &invalid{"Reserved header", "must not be set: it is counted from each body"}
	case "webhook-id", "webhook-timestamp", "webhook-signature":
		return &invalid{"Reserved header", "must not be set: the webhook sends its own with every request"}
	}
	return nil
}

// checkHeaderValue refuses what could end a header line, and a Host that is none.
// A tab is fine (RFC 9110, section 5.5).
func checkHeaderValue(name, value string) error {
	if equalFold(name, "host") && (strings.ContainsAny(value, "/?#@") || checkURL("http://"+value) != nil) {
		return &invalid{"Invalid header value", "must be a host for this header, with its port if it has one: example.com:8080"}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return &invalid{"Invalid header value", "must not contain line breaks or other control characters"}
		}
	}
	return nil
}

// checkEvent returns the name of an event as it is usually spelled.
func checkEvent(name EventName) (EventName, error) {
	k := kindOf(name)
	if k == 0 {
		return "", &invalid{"Unknown event", "must be " + oneOf(eventNames) + suggest(string(name), eventNames)}
	}
	return kinds[k].name, nil
}

// checkFields returns the names of fields as they are usually spelled.
func checkFields(given []Field) ([]Field, error) {
	want := choice(fieldNames)
	var checked []Field
	for _, f := range given {
		f, err := want.check(f)
		if err != nil {
			return given, err
		}
		if slices.Contains(checked, f) {
			return given, &invalid{"Duplicate field", fmt.Sprintf("must not have %q twice", string(f))}
		}
		checked = append(checked, f)
	}
	return checked, nil
}

// checkExcept checks the topic filters of what a rule leaves out, and reports
// each that is wrong.
func checkExcept(rule Rule, report func(at int, err error)) {
	for at, filter := range rule.Except {
		if err := checkTopic(Rule{Event: rule.Event, Topic: filter}); filter == "" {
			report(at, &invalid{"Invalid topic filter", "must have no empty filter"})
		} else if err != nil {
			report(at, err)
		}
	}
}

// checkTopic checks the topic filter of a rule, if its event has topics.
func checkTopic(rule Rule) error {
	if !kinds[kindOf(rule.Event)].topic {
		return nil
	}
	return checkFilter(rule.Topic)
}
