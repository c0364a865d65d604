package webhook

import (
	"encoding/binary"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// An extra is what only some endpoints want to know of an event. The zero
// value of a field means that there is none.
type extra struct {
	user          string // user properties, see appendUser
	contentType   string
	responseTopic string
	correlation   string
	listener      string
	trace         string // header lines, see traceHeader

	seq         uint64
	packetID    uint16
	code        uint16 // reason code plus one
	marks       marks
	subID       uint32 // subscription identifier
	connectedAt int64  // disconnected: since when it was connected, Unix milliseconds
}

// marks are small facts about an event. They are in records on disk: what is
// there must not move.
type marks uint16

const (
	markDup         marks = 1 << iota // the packet had the DUP flag
	markPacket                        // there was a packet that could have had it
	markText                          // the payload format indicator says UTF-8
	markNoLocal                       // of a subscription, with the next three
	markAsPublished                   // retain as published
	markNew                           // the filter was not subscribed before
	markHandling1                     // retain handling, two bits
	markHandling2
	marksEnd
)

// wants says what an endpoint wants to know of events, a bit for each.
type wants uint32

const (
	wantUser wants = 1 << iota
	wantContentType
	wantText
	wantResponseTopic
	wantCorrelation
	wantListener
	wantSeq
	wantPacketID
	wantCode
	wantDup
	wantIP
	wantSubscription // its options
	wantConnectedAt
	wantTrace
)

// wants returns what the endpoint's bodies and headers are made of.
func (b *Body) wants() wants {
	w := wantTrace
	for _, f := range b.Fields {
		w |= fieldForms[f].needs
	}
	switch b.Format {
	case FormatEMQX:
		w |= wantCode | wantSubscription | wantConnectedAt
	case FormatCloudEventsBinary:
		w |= wantContentType | wantText
	}
	return w
}

// more returns ev's extra, which it makes if there is none.
func (ev *event) more() *extra {
	if ev.extra == nil {
		ev.extra = new(extra)
	}
	return ev.extra
}

// only returns ev without what is not among w.
func (ev *event) only(w wants) event {
	out := *ev
	if w&wantIP == 0 && !hasIP(ev.kind) {
		out.ip = ""
	}
	if ev.extra == nil {
		return out
	}
	x := *ev.extra
	clearUnless(w&wantUser, &x.user)
	clearUnless(w&wantContentType, &x.contentType)
	clearUnless(w&wantResponseTopic, &x.responseTopic)
	clearUnless(w&wantCorrelation, &x.correlation)
	clearUnless(w&wantListener, &x.listener)
	clearUnless(w&wantTrace, &x.trace)
	clearUnless(w&wantSeq, &x.seq)
	clearUnless(w&wantPacketID, &x.packetID)
	clearUnless(w&wantCode, &x.code)
	clearUnless(w&wantSubscription, &x.subID)
	clearUnless(w&wantConnectedAt, &x.connectedAt)
	if w&wantDup == 0 {
		x.marks &^= markDup | markPacket
	}
	if w&wantText == 0 {
		x.marks &^= markText
	}
	if w&wantSubscription == 0 {
		x.marks &^= markNoLocal | markAsPublished | markNew | markHandling1 | markHandling2
	}
	out.extra = nil
	if x != (extra{}) {
		out.extra = &x
	}
	return out
}

func clearUnless[T any](wanted wants, field *T) {
	if wanted == 0 {
		*field = *new(T)
	}
}

// hasIP reports whether events of a kind have their address in any case.
func hasIP(k kind) bool { return k == kindConnect || k == kindConnack || k == kindConnected }

// extraWants returns what some endpoint wants to know.
func (h *Hook) extraWants() wants {
	if a := h.active.Load(); a != nil {
		return a.wants
	}
	return 0
}

// addClient adds to ev what is wanted of its client.
func (ev *event) addClient(w wants, cl *mqtt.Client) {
	if cl.Net.Inline {
		return
	}
	if w&wantIP != 0 {
		ev.ip = hostOf(cl.Net.Remote)
	}
	if w&wantListener != 0 && cl.Net.Listener != "" {
		ev.more().listener = cl.Net.Listener
	}
}

// addMessage adds what is known of the message that an event is about. It copies x,
// which other events about the message share.
func (ev *event) addMessage(x *extra) {
	if x == nil {
		return
	}
	own := *x
	if ev.extra != nil {
		own.listener = ev.extra.listener
	}
	if ev.kind == kindAcked {
		own.marks &^= markDup | markPacket // of the packet that delivered it
	}
	ev.extra = &own
}

// messageExtra returns what is wanted of a message, nil for nothing.
func messageExtra(w wants, pk *packets.Packet) *extra {
	props := &pk.Properties
	trace := ""
	if w&wantTrace != 0 && len(props.User) > 0 {
		trace = traceHeader(props.User)
	}
	if w&^wantTrace == 0 && trace == "" {
		return nil // the usual case, which allocates nothing
	}
	x := &extra{trace: trace}
	if w&wantUser != 0 {
		x.user = string(appendUser(nil, props.User))
	}
	if w&wantContentType != 0 {
		x.contentType = props.ContentType
	}
	if w&wantText != 0 && props.PayloadFormatFlag && props.PayloadFormat == 1 {
		x.marks |= markText
	}
	if w&wantResponseTopic != 0 {
		x.responseTopic = props.ResponseTopic
	}
	if w&wantCorrelation != 0 {
		x.correlation = view(props.CorrelationData)
	}
	if w&wantPacketID != 0 {
		x.packetID = pk.PacketID
	}
	if w&wantDup != 0 {
		x.marks |= markPacket
		if pk.FixedHeader.Dup {
			x.marks |= markDup
		}
	}
	if *x == (extra{}) {
		return nil
	}
	return x
}

// addUser adds the user properties of the packet that an event is about.
func (ev *event) addUser(w wants, user []packets.UserProperty) {
	if w&wantUser != 0 && len(user) > 0 {
		ev.more().user = string(appendUser(nil, user))
	}
}

// addCode adds a reason code.
func (ev *event) addCode(w wants, code byte) {
	if w&wantCode != 0 {
		ev.more().code = uint16(code) + 1
	}
}

// addSubscription adds the options of a subscription.
func (ev *event) addSubscription(w wants, sub *packets.Subscription) {
	if w&wantSubscription == 0 {
		return
	}
	m := marks(sub.RetainHandling&3) * markHandling1
	if sub.NoLocal {
		m |= markNoLocal
	}
	if sub.RetainAsPublished {
		m |= markAsPublished
	}
	if id := uint32(max(sub.Identifier, 0)); m != 0 || id != 0 {
		ev.more().marks |= m
		ev.extra.subID = id
	}
}

// retainHandling is that of a subscription.
func (m marks) retainHandling() uint64 { return uint64(m / markHandling1 & 3) }

// appendUser appends user properties, each as its key and its value, each of
// those as its length (uvarint) and its bytes.
func appendUser(dst []byte, user []packets.UserProperty) []byte {
	for i := range user {
		dst = appendSized(dst, user[i].Key)
		dst = appendSized(dst, user[i].Val)
	}
	return dst
}

func appendSized(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// cutSized cuts the first text off what appendUser has made.
func cutSized(s string) (text, rest string, ok bool) {
	size, n := binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
	if n <= 0 || size > uint64(len(s)-n) {
		return "", "", false
	}
	end := n + int(size)
	return s[n:end], s[end:], true
}

// The texts and numbers of an extra in the order of their bits in a record.
const (
	extraTexts   = 6
	extraNumbers = 6
)

func (x *extra) texts() [extraTexts]string {
	return [extraTexts]string{x.user, x.contentType, x.responseTopic, x.correlation, x.listener, x.trace}
}

func (x *extra) numbers() [extraNumbers]uint64 {
	return [extraNumbers]uint64{x.seq, uint64(x.packetID), uint64(x.code), uint64(x.marks), uint64(x.subID), uint64(x.connectedAt)}
}
