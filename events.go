package webhook

// EventName names a broker event as the configuration file spells it.
type EventName string

// The twelve events, in the order of a client's life. The names are NanoMQ's.
const (
	OnClientConnect       EventName = "on_client_connect"
	OnClientConnack       EventName = "on_client_connack"
	OnClientConnected     EventName = "on_client_connected"
	OnClientDisconnected  EventName = "on_client_disconnected"
	OnClientSubscribe     EventName = "on_client_subscribe"
	OnClientUnsubscribe   EventName = "on_client_unsubscribe"
	OnSessionSubscribed   EventName = "on_session_subscribed"
	OnSessionUnsubscribed EventName = "on_session_unsubscribed"
	OnSessionTerminated   EventName = "on_session_terminated"
	OnMessagePublish      EventName = "on_message_publish"
	OnMessageDelivered    EventName = "on_message_delivered"
	OnMessageAcked        EventName = "on_message_acked"
)

// kind is an EventName as a small number, for switches, bit sets and records
// on disk: the values must not change.
type kind uint8

const (
	kindConnect kind = 1 + iota
	kindConnack
	kindConnected
	kindDisconnected
	kindSubscribe
	kindUnsubscribe
	kindSubscribed
	kindUnsubscribed
	kindTerminated
	kindPublish
	kindDelivered
	kindAcked
	kindEnd // one past the last
)

// kinds is what is fixed about each kind: its name in the file, the value of
// "action" in its body, and whether a rule's topic filter applies to it.
var kinds = [kindEnd]struct {
	name   EventName
	action string
	topic  bool
}{
	kindConnect:      {OnClientConnect, "client_connect", false},
	kindConnack:      {OnClientConnack, "client_connack", false},
	kindConnected:    {OnClientConnected, "client_connected", false},
	kindDisconnected: {OnClientDisconnected, "client_disconnected", false},
	kindSubscribe:    {OnClientSubscribe, "client_subscribe", true},
	kindUnsubscribe:  {OnClientUnsubscribe, "client_unsubscribe", true},
	kindSubscribed:   {OnSessionSubscribed, "session_subscribed", true},
	kindUnsubscribed: {OnSessionUnsubscribed, "session_unsubscribed", true},
	kindTerminated:   {OnSessionTerminated, "session_terminated", false},
	kindPublish:      {OnMessagePublish, "message_publish", true},
	kindDelivered:    {OnMessageDelivered, "message_delivered", true},
	kindAcked:        {OnMessageAcked, "message_acked", true},
}

// isMessage reports whether events of the kind are about a message.
func (k kind) isMessage() bool { return k >= kindPublish }

// kindOf returns the kind that name stands for, in any letter case, or 0.
func kindOf(name EventName) kind {
	for k := kindConnect; k < kindEnd; k++ {
		if equalFold(string(name), string(kinds[k].name)) {
			return k
		}
	}
	return 0
}

// equalFold compares without regard to ASCII letter case.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// An event is one thing that happened in the broker. The strings and slices of
// an event that a callback builds are views of the broker's memory: a queue
// copies what it keeps before the callback returns.
type event struct {
	id   eventID // zero until the event is offered to an endpoint
	kind kind
	lane laneKind
	rule uint32 // key of the rule that selected it, if that has settings of its own
	conn uint64 // of laneConn: which connection

	time      int64 // when it happened, Unix milliseconds, the hook's clock; 0 before emit: now
	stamped   int64 // when it got its id, Unix nanoseconds, the hook's clock; no part of its record
	published int64 // delivered and acked: when it was published, Unix milliseconds

	client   string // clientid: whose event it is; for delivered and acked the receiver
	username string // of client; "" for none
	from     string // from_client_id of the message events
	fromUser string // from_username of the message events; "" for none
	topic    string // topic name, or topic filter as the client wrote it
	payload  []byte
	reason   string // disconnected, terminated
	ip       string // connect, connack, connected, and where wanted: address without port

	protoVer  byte   // 3, 4 or 5
	keepalive uint16 // seconds
	qos       byte   // of the message; requested or granted on subscription events
	retain    bool
	accepted  bool // connack: the connection was accepted

	extra *extra // nil for none
}

// actor is the client whose event it is: the publisher of a message_publish,
// for delivered and acked the receiver.
func (ev *event) actor() string {
	if ev.kind == kindPublish {
		return ev.from
	}
	return ev.client
}

// laneKind says by what the events of one lane belong together. Events of one
// lane are delivered in order; see queue.
type laneKind uint8

const (
	laneClient laneKind = iota // the acting client: from of a publish, else client
	laneTopic                  // messages of the program itself (inline client): by topic
	laneConn                   // a refused connection, which may carry anybody's client id
)
