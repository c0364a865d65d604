package webhook

import (
	"math"
	"slices"
	"strings"
	"time"
)

// A setting is one key of the file and the field that it sets: all that there
// is to say about it, for the decoder, the checks, redaction and suggestions.
// T is the struct whose field it is.
type setting[T any] struct {
	key    string // in the file, after the names of its blocks: "body.encoding"
	field  string // in Go: "Body.Encoding"
	secret bool   // the value is never printed

	// read sets the field from the file, or reports a problem.
	read func(d *decoder, n *node, to *T)
	// fill gives a zero field its default and checks any other value, which
	// it brings into its usual form. nil if there is nothing to do.
	fill func(to *T) error
}

// field makes a setting of a field with a form.
func field[T any, V comparable](key, name string, of func(*T) *V, f form[V]) setting[T] {
	return setting[T]{
		key: key, field: name,
		read: func(d *decoder, n *node, to *T) {
			v, ok := f.read(d, n)
			if !ok {
				return
			}
			v, err := f.check(v)
			if err != nil {
				d.refuse(n.span, err)
				return
			}
			*of(to) = v
		},
		fill: func(to *T) (err error) {
			p := of(to)
			if *p == *new(V) {
				*p = f.standard
				return nil
			}
			*p, err = f.check(*p)
			return err
		},
	}
}

// inverse makes a setting of a boolean whose usual value is true in the file and
// whose field is its opposite.
func inverse[T any](key, name string, of func(*T) *bool) setting[T] {
	return setting[T]{key: key, field: name, read: func(d *decoder, n *node, to *T) {
		if yes, ok := d.bool(n); ok {
			*of(to) = !yes
		}
	}}
}

// list makes a setting of a list of strings.
func list[T any](key, name string, of func(*T) *[]string) setting[T] {
	return setting[T]{key: key, field: name, read: func(d *decoder, n *node, to *T) { *of(to) = d.texts(n) }}
}

func secret[T any](s setting[T]) setting[T] {
	s.secret = true
	return s
}

// ofBatch gives a setting of the batch block its default only where there is
// one.
func ofBatch(s setting[Endpoint]) setting[Endpoint] {
	return fillIf(func(e *Endpoint) bool { return e.Batch.enabled() }, s)
}

// ofStream does so for the settings of a stream.
func ofStream(s setting[Endpoint]) setting[Endpoint] {
	return fillIf(func(e *Endpoint) bool { return e.Stream.enabled() }, s)
}

func fillIf(enabled func(*Endpoint) bool, s setting[Endpoint]) setting[Endpoint] {
	fill := s.fill
	s.fill = func(e *Endpoint) error {
		if !enabled(e) {
			return nil
		}
		return fill(e)
	}
	return s
}

// defaultBatch is the most events of a batch where nothing else is said.
const defaultBatch = 100

// endpointSettings are the keys of a section.
var endpointSettings = slices.Concat(commonSettings, queueSettings("queue.", queueType()))

// streamSettings are those of a section whose queue is a stream, where the queue
// in front of it is a block of its own.
var streamSettings = slices.Concat(commonSettings, []setting[Endpoint]{
	{key: "queue.type", field: "Stream", read: func(*decoder, *node, *Endpoint) {}}, // see decoder.settingsOf
	secret(ofStream(field("queue.url", "Stream.URL", func(e *Endpoint) *Secret { return &e.Stream.URL }, natsURL()))),
	ofStream(field("queue.stream", "Stream.Name", func(e *Endpoint) *string { return &e.Stream.Name }, streamName())),
	ofStream(field("queue.partitions", "Stream.Partitions", func(e *Endpoint) *int { return &e.Stream.Partitions }, number(1024, 64))),
	ofStream(field("queue.replicas", "Stream.Replicas", func(e *Endpoint) *int { return &e.Stream.Replicas }, number(5, 1))),
	ofStream(field("queue.credsfile", "Stream.CredsFile", func(e *Endpoint) *string { return &e.Stream.CredsFile }, optional(filePath()))),
	ofStream(field("queue.max_bytes", "Stream.MaxBytes", func(e *Endpoint) *int64 { return &e.Stream.MaxBytes }, sizeOrUnlimited(10<<30))),
	{key: "queue.max_age", field: "Retry.MaxAge", read: maxAge.read},
}, queueSettings("queue.local.", choice(queueTypes)))

// queueSettings are the keys of the queue that events wait in, in a block.
func queueSettings(block string, types form[QueueType]) []setting[Endpoint] {
	return []setting[Endpoint]{
		field(block+"type", "Queue.Type", func(e *Endpoint) *QueueType { return &e.Queue.Type }, types),
		field(block+"capacity", "Queue.Capacity", func(e *Endpoint) *int { return &e.Queue.Capacity }, numberOrUnlimited(100_000)),
		field(block+"max_bytes", "Queue.MaxBytes", func(e *Endpoint) *int64 { return &e.Queue.MaxBytes }, sizeOrUnlimited(64<<20)),
		field(block+"overflow", "Queue.Overflow", func(e *Endpoint) *Overflow { return &e.Queue.Overflow }, choice(overflows)),
		field(block+"block_timeout", "Queue.BlockTimeout", func(e *Endpoint) *time.Duration { return &e.Queue.BlockTimeout }, duration(time.Hour, time.Second)),
		field(block+"dir", "Queue.Dir", func(e *Endpoint) *string { return &e.Queue.Dir }, filePath()),
		field(block+"sync", "Queue.Sync", func(e *Endpoint) *time.Duration { return &e.Queue.Sync }, syncPolicy()),
	}
}

var maxAge = field("retry.max_age", "Retry.MaxAge", func(e *Endpoint) *time.Duration { return &e.Retry.MaxAge }, durationOrUnlimited(5*time.Minute))

// commonSettings are the keys of every section. A new key is a line here and a
// field; a new block is a prefix.
var commonSettings = []setting[Endpoint]{
	inverse("enable", "Disabled", func(e *Endpoint) *bool { return &e.Disabled }),
	{key: "url", field: "URL", secret: true, read: func(d *decoder, n *node, e *Endpoint) { readURL(d, n, &e.URL) }, fill: func(e *Endpoint) error { return checkURL(e.URL) }},
	{key: "headers", field: "Headers", secret: true, read: func(d *decoder, n *node, e *Endpoint) { readHeaders(d, n, &e.Headers) }},
	field("body.encoding", "Body.Encoding", func(e *Endpoint) *Encoding { return &e.Body.Encoding }, choice(encodings)),
	field("body.max_payload", "Body.MaxPayload", func(e *Endpoint) *int64 { return &e.Body.MaxPayload }, size(8<<20)),
	field("body.format", "Body.Format", func(e *Endpoint) *Format { return &e.Body.Format }, choice(formats)),
	field("body.source", "Body.Source", func(e *Endpoint) *string { return &e.Body.Source }, uriReference()),
	field("body.node", "Body.Node", func(e *Endpoint) *string { return &e.Body.Node }, line()),
	{key: "body.fields", field: "Body.Fields", read: readFields, fill: func(e *Endpoint) (err error) {
		e.Body.Fields, err = checkFields(e.Body.Fields)
		return err
	}},
	field("pool_size", "PoolSize", func(e *Endpoint) *int { return &e.PoolSize }, number(4096, 32)),
	field("cancel_timeout", "Timeout", func(e *Endpoint) *time.Duration { return &e.Timeout }, duration(time.Hour, 5*time.Second)),
	{key: "events", field: "Events", read: readEvents},

	inverse("tls.enable", "TLS.Disabled", func(e *Endpoint) *bool { return &e.TLS.Disabled }),
	field("tls.cacertfile", "TLS.CACertFile", func(e *Endpoint) *string { return &e.TLS.CACertFile }, filePath()),
	field("tls.certfile", "TLS.CertFile", func(e *Endpoint) *string { return &e.TLS.CertFile }, filePath()),
	field("tls.keyfile", "TLS.KeyFile", func(e *Endpoint) *string { return &e.TLS.KeyFile }, filePath()),
	secret(field("tls.key_password", "TLS.KeyPassword", func(e *Endpoint) *Secret { return &e.TLS.KeyPassword }, password())),
	field("tls.server_name", "TLS.ServerName", func(e *Endpoint) *string { return &e.TLS.ServerName }, line()),
	inverse("tls.verify_peer", "TLS.InsecureSkipVerify", func(e *Endpoint) *bool { return &e.TLS.InsecureSkipVerify }),
	field("tls.min_version", "TLS.MinVersion", func(e *Endpoint) *uint16 { return &e.TLS.MinVersion }, tlsVersion()),

	field("ordering", "Ordering", func(e *Endpoint) *Ordering { return &e.Ordering }, choice(orderings)),

	secret(field("signing.secret", "Signing.Secret", func(e *Endpoint) *Secret { return &e.Signing.Secret }, signingSecret())),
	secret(field("signing.previous_secret", "Signing.PreviousSecret", func(e *Endpoint) *Secret { return &e.Signing.PreviousSecret }, signingSecret())),

	field("retry.min_backoff", "Retry.MinBackoff", func(e *Endpoint) *time.Duration { return &e.Retry.MinBackoff }, duration(longestBackoff, defaultMinBackoff)),
	field("retry.max_backoff", "Retry.MaxBackoff", func(e *Endpoint) *time.Duration { return &e.Retry.MaxBackoff }, duration(longestBackoff, defaultMaxBackoff)),
	maxAge,
	field("retry.max_attempts", "Retry.MaxAttempts", func(e *Endpoint) *int { return &e.Retry.MaxAttempts }, orMinusOne(number(math.MaxUint16, -1), "no limit")), // an entry counts no more
	field("retry.max_retry_after", "Retry.MaxRetryAfter", func(e *Endpoint) *time.Duration { return &e.Retry.MaxRetryAfter }, duration(24*time.Hour, 5*time.Minute)),

	field("breaker.failures", "Breaker.Failures", func(e *Endpoint) *int { return &e.Breaker.Failures }, numberOrUnlimited(10)),
	field("breaker.cooldown", "Breaker.Cooldown", func(e *Endpoint) *time.Duration { return &e.Breaker.Cooldown }, duration(24*time.Hour, 5*time.Second)),

	field("rate_limit.per_second", "RateLimit.PerSecond", func(e *Endpoint) *float64 { return &e.RateLimit.PerSecond }, rational(0.001, mostRate)),
	field("rate_limit.burst", "RateLimit.Burst", func(e *Endpoint) *int { return &e.RateLimit.Burst }, number(mostRate, 0)),

	field("dead_letter.file", "DeadLetter.File", func(e *Endpoint) *string { return &e.DeadLetter.File }, filePath()),
	field("dead_letter.max_bytes", "DeadLetter.MaxBytes", func(e *Endpoint) *int64 { return &e.DeadLetter.MaxBytes }, size(64<<20)),
	field("dead_letter.keep", "DeadLetter.Keep", func(e *Endpoint) *int { return &e.DeadLetter.Keep }, letterCount()),

	ofBatch(field("batch.max_events", "Batch.MaxEvents", func(e *Endpoint) *int { return &e.Batch.MaxEvents }, number(10000, defaultBatch))),
	ofBatch(field("batch.max_bytes", "Batch.MaxBytes", func(e *Endpoint) *int64 { return &e.Batch.MaxBytes }, size(256<<10))),
	ofBatch(field("batch.linger", "Batch.Linger", func(e *Endpoint) *time.Duration { return &e.Batch.Linger }, orMinusOne(duration(time.Hour, 5*time.Millisecond), "none"))),
	inverse("batch.ids", "Batch.WithoutIDs", func(e *Endpoint) *bool { return &e.Batch.WithoutIDs }),

	field("compression", "Compression", func(e *Endpoint) *Compression { return &e.Compression }, choice(compressions)),
}

// ruleSettings are the keys of an object in events.
var ruleSettings = []setting[Rule]{
	{key: "event", field: "Event", read: readEvent, fill: func(r *Rule) (err error) {
		r.Event, err = checkEvent(r.Event)
		return err
	}},
	{key: "topic", field: "Topic", read: readTopic, fill: func(r *Rule) error {
		if r.Topic == "" {
			return nil
		}
		return checkTopic(r.Event, r.Topic)
	}},
	list("except", "Except", func(r *Rule) *[]string { return &r.Except }),
	list("clients", "Clients", func(r *Rule) *[]string { return &r.Clients }),
	list("users", "Users", func(r *Rule) *[]string { return &r.Users }),
	list("listeners", "Listeners", func(r *Rule) *[]string { return &r.Listeners }),
	inverse("inline", "WithoutInline", func(r *Rule) *bool { return &r.WithoutInline }),
	{key: "headers", field: "Headers", secret: true, read: func(d *decoder, n *node, r *Rule) { readHeaders(d, n, &r.Headers) }},
	field("body.encoding", "Encoding", func(r *Rule) *Encoding { return &r.Encoding }, withoutDefault(choice(encodings))),
	{key: "url", field: "URL", secret: true, read: func(d *decoder, n *node, r *Rule) { readURL(d, n, &r.URL) }, fill: func(r *Rule) error {
		if r.URL == "" {
			return nil
		}
		return checkURL(r.URL)
	}},
	field("name", "Name", func(r *Rule) *string { return &r.Name }, label()),
}

// The words that settings take, the usual one first.
var (
	encodings  = []Encoding{Plain, Base64, Base62}
	formats    = []Format{FormatNanoMQ, FormatCloudEvents, FormatCloudEventsBinary, FormatEMQX}
	fieldNames = []Field{FieldID, FieldTS, FieldSeq, FieldIPAddress, FieldListener, FieldReasonCode, FieldUserProperties,
		FieldContentType, FieldResponseTopic, FieldCorrelationData, FieldPacketID, FieldDup}
	orderings  = []Ordering{OrderClient, OrderNone}
	overflows  = []Overflow{DropOldest, DropNewest, Block}
	queueTypes = []QueueType{MemoryQueue, DiskQueue}

	compressions = []Compression{NoCompression, Gzip}
)

// bareWords are all words that may be a value without quotes.
var bareWords = func() map[string]bool {
	words := map[string]bool{"true": true, "false": true, "null": true, "always": true, "never": true}
	add(words, encodings)
	add(words, formats)
	add(words, fieldNames)
	add(words, orderings)
	add(words, overflows)
	add(words, queueTypes)
	add(words, []QueueType{streamQueue})
	add(words, compressions)
	add(words, eventNames)
	return words
}()

func add[S ~string](set map[string]bool, words []S) {
	for _, w := range words {
		set[string(w)] = true
	}
}

// eventNames are the twelve events, in the order of a client's life.
var eventNames = func() (names []EventName) {
	for k := kindConnect; k < kindEnd; k++ {
		names = append(names, kinds[k].name)
	}
	return names
}()

// settingKey is the key of a member as the settings have it: NanoMQ's files
// call the tls block ssl.
func settingKey(block, name string) string {
	key := block + strings.ToLower(name)
	if key == "ssl" {
		return "tls"
	}
	return key
}

func findSetting[T any](settings []setting[T], key string) *setting[T] {
	for i := range settings {
		if settings[i].key == key {
			return &settings[i]
		}
	}
	return nil
}

// isBlock reports whether key is the name of a block.
func isBlock[T any](settings []setting[T], key string) bool {
	for i := range settings {
		if strings.HasPrefix(settings[i].key, key+".") {
			return true
		}
	}
	return false
}

// keysOf returns what may stand before an equals sign: all keys and blocks.
func keysOf[T any](settings []setting[T]) []string {
	var keys []string
	for _, s := range settings {
		for i, c := range s.key {
			if block := s.key[:i]; c == '.' && !slices.Contains(keys, block) {
				keys = append(keys, block)
				if block == "tls" {
					keys = append(keys, "ssl")
				}
			}
		}
		keys = append(keys, s.key)
	}
	return keys
}

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
