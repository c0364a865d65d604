package webhook

import (
	"path/filepath"
	"slices"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// conflicts reports, by the key of the file, which may be that of a block, what
// is wrong between several settings, or outside of the configuration. Defaults
// are filled in.
func (e *Endpoint) conflicts(report func(key string, err error)) {
	if e.Retry.MaxBackoff < e.Retry.MinBackoff {
		report("retry.min_backoff", outOfRange("must not be longer than max_backoff"))
	}
	q, block := &e.Queue, e.queueBlock()
	if e.Stream.enabled() {
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

// queueBlock is the block that has Endpoint.Queue in a file.
func (e *Endpoint) queueBlock() string {
	if e.Stream.enabled() {
		return "queue.local."
	}
	return "queue."
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
	const sharing = "use the stream"
	agree("queue.partitions", own.Partitions, other.Stream.Partitions, sharing, report)
	agree("queue.replicas", own.Replicas, other.Stream.Replicas, sharing, report)
	agree("queue.max_bytes", own.MaxBytes, other.Stream.MaxBytes, sharing, report)
}

// letterConflicts is disagreements about a dead letter file: one endpoint would throw
// away what another wants to keep.
func (e *Endpoint) letterConflicts(others []Endpoint, report func(key string, err error)) {
	own := &e.DeadLetter
	other := e.sharing(others, func(o *Endpoint) bool { return own.File != "" && samePath(own.File, o.DeadLetter.File) })
	if other == nil {
		return
	}
	const sharing = "share the file"
	agree("dead_letter.max_bytes", own.MaxBytes, other.DeadLetter.MaxBytes, sharing, report)
	agree("dead_letter.keep", own.Keep, other.DeadLetter.Keep, sharing, report)
}

// agree reports a setting that is not the same for two endpoints which share
// something.
func agree[V comparable](key string, own, other V, sharing string, report func(key string, err error)) {
	if own != other {
		report(key, &invalid{"Conflicting settings", "must be the same for all endpoints that " + sharing})
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
	if key := e.queueBlock() + "sync"; e.Queue.Type != DiskQueue && isThere(key) {
		report(key, &invalid{"Unused setting", `has no effect without type = "disk"`})
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
