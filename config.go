package webhook

import "time"

// Config is the configuration: what [Parse] makes of a file, or what a program
// writes itself. A Config written in Go passes through the same checks as a
// file, and needs at least one endpoint. Relative paths in it are relative to
// the working directory.
type Config struct {
	Endpoints []Endpoint
}

// Endpoint is one receiver of webhooks: a URL with its own rules, queue,
// connections and counters. The zero value of a field means its documented
// default.
type Endpoint struct {
	// Name is the endpoint's label: 1 to 64 characters of A-Z, a-z, 0-9, _
	// and -, unique without regard to case. Defaults to "default".
	Name string

	// Disabled turns the endpoint off: it is checked, and nothing is sent.
	Disabled bool

	// URL is where webhooks are POSTed, http or https. Path, query and
	// percent escapes are sent as written, a fragment is not; no path means
	// "/". User info becomes Basic Authorization unless Headers has one.
	URL string

	// Headers are sent with every request, names and values as written and
	// in this order. Content-Type defaults to application/json; Host sets
	// the request's host. Names are unique without regard to case; those
	// about the connection, Content-Length and webhook-id, webhook-timestamp
	// and webhook-signature are refused.
	Headers []Header

	// Body says how an event becomes the body of a request.
	Body Body

	// PoolSize is the number of concurrent connections, which is the number
	// of requests in flight: 1 to 4096. Defaults to 32.
	PoolSize int

	// Timeout bounds one attempt, from dial to the last byte of the reply:
	// 1 ms to 1 h. Defaults to 5 s. The file calls it cancel_timeout.
	Timeout time.Duration

	// TLS is for an https URL, and has no effect on others.
	TLS TLS

	// Events are the rules: an event is sent when one of them matches.
	// Without any, nothing is sent.
	Events []Rule

	// Ordering says which events wait for each other.
	// Defaults to OrderClient.
	Ordering Ordering

	// Signing signs each request. Off by default.
	Signing Signing

	// Retry says when a failed attempt is repeated, and for how long.
	Retry Retry

	// Breaker says when an endpoint that keeps failing is left alone.
	Breaker Breaker

	// RateLimit bounds the requests of a second. Off by default.
	RateLimit RateLimit

	// Queue is where events wait, and how many.
	Queue Queue

	// DeadLetter keeps what was refused or given up. Off by default.
	DeadLetter DeadLetter

	// Stream puts a stream between the broker and the workers that deliver
	// the endpoint's events, see [Deliver]. Queue is then where events wait
	// until the stream has them. Off by default.
	Stream Stream

	// Batch puts several events into one request. Off by default.
	Batch Batch

	// Compression of request bodies. Defaults to NoCompression.
	Compression Compression

	known identity // see key
}

// Header is one HTTP header of a request.
type Header struct {
	Name  string
	Value Secret // often a credential, so it never prints
}

// Body says how an event becomes a request body.
type Body struct {
	// Encoding is how a message's payload becomes text. Defaults to Plain.
	Encoding Encoding

	// MaxPayload is the longest payload in bytes; a message with a longer
	// one is dropped and counted (too_large). Defaults to 8 MiB, under
	// Base62 to 256 KiB, because that encoding's cost grows faster than the
	// length, with its power of 1.6.
	MaxPayload int64

	// Format is the form of the whole body. Defaults to FormatNanoMQ.
	Format Format

	// Source is the attribute source of CloudEvents, a URI reference that
	// says which broker the events are from. Defaults to "/mochi-mqtt".
	// Only for the CloudEvents formats.
	Source string

	// Node is the name of the broker under FormatEMQX, and only there.
	// Defaults to EMQX's own, "emqx@127.0.0.1".
	Node string

	// Fields are added to each body that NanoMQ's form is part of, and to
	// EMQX's, at its end and in this order: each where it exists for the
	// event and the body has not got it anyway. Defaults to none, because
	// strict receivers refuse unknown keys.
	Fields []Field
}

// Format names the form of a request's body.
type Format string

const (
	FormatNanoMQ            Format = "nanomq"             // NanoMQ's JSON
	FormatCloudEvents       Format = "cloudevents"        // CloudEvents 1.0, structured mode, with NanoMQ's JSON as data
	FormatCloudEventsBinary Format = "cloudevents-binary" // CloudEvents 1.0, binary mode: a message's payload is the body
	FormatEMQX              Format = "emqx"               // the JSON of EMQX 4
)

// Field names a member that Body.Fields adds.
type Field string

const (
	FieldID              Field = "id"               // string: the event's id, that of the webhook-id header
	FieldTS              Field = "ts"               // number: when it happened, Unix milliseconds
	FieldSeq             Field = "seq"              // number that rises from event to event of a client, over restarts too
	FieldIPAddress       Field = "ipaddress"        // string: the client's address without port
	FieldListener        Field = "listener"         // string: the id of the broker's listener
	FieldReasonCode      Field = "reason_code"      // number: of CONNACK, DISCONNECT, SUBACK or the acknowledgement
	FieldUserProperties  Field = "user_properties"  // array of {"key":…,"value":…} in the order of the packet
	FieldContentType     Field = "content_type"     // string: of a message
	FieldResponseTopic   Field = "response_topic"   // string: of a message
	FieldCorrelationData Field = "correlation_data" // string: of a message, base64
	FieldPacketID        Field = "packet_id"        // number: of a message with QoS 1 or 2
	FieldDup             Field = "dup"              // bool: the DUP flag of a message that was published or delivered
)

// Encoding names how a payload becomes text.
type Encoding string

const (
	Plain  Encoding = "plain"  // as it is; what is not UTF-8 goes as marked base64
	Base64 Encoding = "base64" // RFC 4648, section 4, with padding
	Base62 Encoding = "base62" // a big-endian integer in 0-9A-Za-z
)

// TLS says how an https endpoint is verified and how this side proves itself.
// Files are PEM.
type TLS struct {
	// Disabled ignores the other settings: the system's roots, no client
	// certificate.
	Disabled bool

	CACertFile  string // roots to trust instead of the system's
	CertFile    string // client certificate chain; needs KeyFile
	KeyFile     string // its private key, PKCS #1, SEC 1 or PKCS #8
	KeyPassword Secret // of an encrypted KeyFile

	// ServerName is the name to verify and to send as SNI.
	// Defaults to the URL's host.
	ServerName string

	// InsecureSkipVerify accepts any certificate (verify_peer = false).
	InsecureSkipVerify bool

	// MinVersion is tls.VersionTLS10 to tls.VersionTLS13.
	// Defaults to TLS 1.2.
	MinVersion uint16
}

// Rule selects events of one kind, and may say how they are sent. Of several
// rules that match an event the first one decides.
type Rule struct {
	// Event is one of the twelve names, in any letter case.
	Event EventName

	// Topic is a topic filter for message_publish, message_delivered,
	// message_acked and the four subscription events; on other events it
	// has no effect. Without it the rule takes every topic except those
	// that begin with $SYS.
	Topic string

	// Except are topic filters: events that match one of them are not
	// selected. Like Topic, they have no effect on events without one.
	Except []string

	// Clients, Users and Listeners are patterns, of which one has to match:
	// the client id, the user name ("" for none) of the client whose event
	// it is, which for message_delivered and message_acked is the receiver,
	// and the id of the broker's listener that it is connected to. * stands
	// for any text, ? for one character. Without any, all match.
	Clients, Users, Listeners []string

	// WithoutInline leaves out what the program itself publishes
	// (inline = false).
	WithoutInline bool

	// Headers are sent too, in place of those of the endpoint that have the
	// same name. What holds for the endpoint's holds for them.
	Headers []Header

	// Encoding is that of the payloads (body.encoding), only for the three
	// message events. Where it is Base62, and the endpoint's is not, payloads
	// have at most 256 KiB. Defaults to the endpoint's.
	Encoding Encoding

	// URL makes the rule an endpoint of its own, with its own queue,
	// connections, breaker and counters, as soon as the configuration is
	// checked. Its settings are the endpoint's; but where the URL has another
	// scheme, host or port, no credentials go along: no user info, no Signing,
	// no client certificate and no TLS.ServerName, and of the endpoint's
	// headers none that is called Host or whose name has auth, cookie,
	// credential, key, password, secret, session, signature or token in it.
	URL string

	// Name is that endpoint's, and only for a rule with a URL. Defaults to
	// the endpoint's name, a dash, and which of its rules this is, counting
	// from 1.
	Name string
}

// Ordering says which events of an endpoint wait for each other.
type Ordering string

const (
	OrderClient Ordering = "client" // a client's events are delivered one after the other
	OrderNone   Ordering = "none"   // no order, full concurrency even for one client
)

// Retry says when an attempt that failed because of the endpoint is repeated.
// The delay before attempt n+1 is uniform in [MinBackoff, min(MaxBackoff,
// MinBackoff·3ⁿ)].
type Retry struct {
	// MinBackoff and MaxBackoff are 1 ms to 24 h. They default to 500 ms
	// and 30 s, or to the other one where that contradicts it.
	MinBackoff, MaxBackoff time.Duration

	// MaxAge is how long after it happened an event is given up.
	// -1 is never. Defaults to 5 min, with a disk queue or a stream to 24 h.
	MaxAge time.Duration

	// MaxAttempts bounds the attempts that got an HTTP status: 1 to 65535.
	// Defaults to -1, unlimited.
	MaxAttempts int

	// MaxRetryAfter caps the pause that a Retry-After header asks for:
	// 1 ms to 24 h. Defaults to 5 min.
	MaxRetryAfter time.Duration
}

// Breaker says when an endpoint that keeps failing is left alone.
type Breaker struct {
	// Failures in a row open the breaker. -1 never opens it.
	// Defaults to 10.
	Failures int

	// Cooldown is the time between two probes of an open breaker: 1 ms to
	// 24 h. Defaults to 5 s.
	Cooldown time.Duration
}

// RateLimit bounds the requests to an endpoint, retries included; a batch is
// one. What has to wait for it is not late, it just waits. The zero value sets
// no limit.
type RateLimit struct {
	// PerSecond is how many requests may begin in a second, on average:
	// 0.001 to 1000000, fractions too.
	PerSecond float64

	// Burst is how many may begin at once after a time without: 1 to
	// 1000000. Defaults to those of a tenth of a second, at least 1.
	Burst int
}

// Queue says where events wait and what happens when too many do.
type Queue struct {
	// Type is where events wait. Defaults to MemoryQueue.
	Type QueueType

	// Capacity bounds the waiting events of a memory queue; -1 is
	// unlimited. Defaults to 100000. A disk queue is bounded by MaxBytes
	// alone.
	Capacity int

	// MaxBytes bounds the memory of waiting events, or the size of the
	// endpoint's folder, at least 1 MiB; -1 is unlimited. Defaults to 64 MiB,
	// for a disk queue to 1 GiB.
	MaxBytes int64

	// Overflow says what gives way when the queue is full.
	// Defaults to DropOldest, for a disk queue to DropNewest.
	Overflow Overflow

	// BlockTimeout is how long a network client's publish waits under
	// Block, and with SyncAlways for the disk: 1 ms to 1 h. Defaults to 1 s.
	// Its acknowledgement waits with SyncAlways only.
	BlockTimeout time.Duration

	// Dir is the folder of disk queues: an endpoint's lies in Dir/Name.
	// Required for a disk queue, and only for one.
	Dir string

	// Sync is at most how long a disk queue leaves an event unsynced
	// (fsync): 1 ms to 1 h, SyncAlways or SyncNever. A crash of the
	// machine or the process costs what came in that time. Defaults to
	// 100 ms.
	Sync time.Duration
}

// QueueType names where events wait.
type QueueType string

const (
	MemoryQueue QueueType = "memory" // lost when the process dies
	DiskQueue   QueueType = "disk"   // kept until delivered, at least once
)

// Overflow names what gives way when a queue is full.
type Overflow string

const (
	DropOldest Overflow = "drop_oldest" // the oldest waiting event
	DropNewest Overflow = "drop_newest" // the event that comes
	Block      Overflow = "block"       // the event that comes, after its publish has waited for room
)

// Special values of Queue.Sync.
const (
	// SyncAlways syncs at once, and makes a network client's publish with
	// QoS 1 or 2 wait until its event is on disk, at most BlockTimeout:
	// what the broker has acknowledged is not lost.
	SyncAlways time.Duration = -1

	// SyncNever leaves it to the operating system.
	SyncNever time.Duration = -2
)

// Stream is a NATS JetStream stream. The zero value is none; any field that is
// set turns it on, URL is required and the others have their defaults. The
// program imports github.com/mochi-hooks/webhook/jetstream, too. Endpoints and
// brokers may share a stream. It is made, or checked if it is there: a
// difference is an error.
type Stream struct {
	// URL is that of a NATS server, or of several of one cluster with commas
	// between. It may hold credentials, so it never prints. Required.
	URL Secret

	// Name is the name of the stream: 1 to 64 characters of A-Z, a-z, 0-9, _
	// and -. Defaults to "MQTT_WEBHOOKS". Dead letters are in Name_DEAD.
	Name string

	// Partitions is the number of parts that workers can share, and so the
	// most workers that have something to do: 1 to 1024. Defaults to 64. It is
	// the same for all that use the stream, for good.
	Partitions int

	// Replicas is the number of servers that have a copy: 1 to 5.
	// Defaults to 1.
	Replicas int

	// CredsFile is a file with NATS credentials. Defaults to none.
	CredsFile string

	// MaxBytes bounds the stream; -1 is unlimited. A full one takes no events,
	// which then wait in Queue. Defaults to 10 GiB.
	MaxBytes int64
}

// enabled reports whether there is a stream.
func (s *Stream) enabled() bool { return *s != Stream{} }

// DeadLetter says where events go that an endpoint has refused or that were
// given up.
type DeadLetter struct {
	// File gets a line of JSON for each; see [Redeliver]. Without it they
	// are only counted.
	File string

	// MaxBytes is how long the file may be: before it would be longer it is
	// renamed to FILE.1 and a new one begun. A letter that is longer by itself
	// has a file of its own. Defaults to 64 MiB.
	MaxBytes int64

	// Keep is the number of renamed files that stay: 1 to 1000. -1 keeps none.
	// Defaults to 5.
	Keep int
}

// Batch says how events are put together into one request, whose body is then
// a JSON array of what would be their bodies. The zero value sends each event
// on its own; any field that is set turns batching on and the others have
// their defaults. Order, retries, dead letters and counters stay those of single
// events.
type Batch struct {
	// MaxEvents is the most events of one request: 1 to 10000.
	// Defaults to 100.
	MaxEvents int

	// MaxBytes is the longest body, before compression. An event that is
	// longer by itself goes alone. Defaults to 256 KiB.
	MaxBytes int64

	// Linger is how long an event waits for others, if a request is not
	// full before that: 1 ms to 1 h. -1 sends at once what is there.
	// Defaults to 5 ms.
	Linger time.Duration

	// WithoutIDs leaves out the member "id" that is added at the end of each
	// object of a batch, unless it has one by Body.Fields or as a CloudEvent
	// (ids = false).
	WithoutIDs bool
}

// enabled reports whether events are sent in batches.
func (b *Batch) enabled() bool { return *b != Batch{} }

// Compression names how request bodies are compressed.
type Compression string

const (
	// NoCompression sends bodies as they are.
	NoCompression Compression = "none"

	// Gzip compresses bodies of 256 bytes or more, and says so in
	// Content-Encoding. Shorter ones would hardly get shorter.
	Gzip Compression = "gzip"
)
