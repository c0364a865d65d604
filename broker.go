package webhook

import (
	"net"
	"sync"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The broker calls the methods below inline, in the goroutine of whatever
// happened: none blocks, none fails a client or changes a packet, all are safe
// before Init and after Stop. R is the goroutine that reads a connection, W the
// one that writes its queued messages; the broker's own loop is E.

// tracker is what the hook remembers of the broker. Its zero value is ready.
type tracker struct {
	wanted    atomic.Uint32 // kinds that a rule is about, a bit each; see watch
	needs     atomic.Uint32 // what the callbacks are needed for
	syncs     atomic.Bool   // an endpoint records publishes before they are acknowledged
	complete  atomic.Bool   // no connection is older than the tracking
	sessions  sessionTable
	names     recentNames
	late      sync.Map      // weak.Pointer[mqtt.Client] → lateMessages
	leaving   sync.Map      // *mqtt.Client → []string: filters of an UNSUBSCRIBE that is being worked on
	published atomic.Uint32 // messages signed so far: their numbers
	refused   atomic.Uint64 // connections refused so far: their lanes
	seen      sync.Map      // weak.Pointer[mqtt.Client] → nil: connections since the tracking began, while not complete

	resubscribing sync.Map // *mqtt.Client → filterSet: filters of a SUBSCRIBE that is being worked on which were subscribed before
}

// The needs: what a callback is provided for.
const (
	needConnack uint32 = 1 << iota
	needSubscribe
	needSubscribed
	needUnsubscribe
	needUnsubscribed
	needPublish
	needSessions // who is connected, whose session lives
	needMessages // what a session was sent and has not acknowledged
)

// needsOf are the needs of each kind.
var needsOf = [kindEnd]uint32{
	kindConnect:      needConnack,
	kindConnack:      needConnack,
	kindConnected:    needSessions,
	kindDisconnected: needSessions,
	kindSubscribe:    needSubscribe,
	kindUnsubscribe:  needUnsubscribe,
	kindSubscribed:   needSubscribed,
	kindUnsubscribed: needUnsubscribed,
	kindTerminated:   needSessions,
	kindPublish:      needPublish,
	kindDelivered:    needSessions | needMessages,
	kindAcked:        needSessions | needMessages,
}

// watch sets the kinds of event that are wanted, as a set of bits 1<<kind. It
// may be called at any time. What has been tracked once is tracked from then
// on: a gap would make the records wrong.
func (t *tracker) watch(kinds uint32) {
	needs := t.needs.Load() & (needSessions | needMessages)
	for k := kindConnect; k < kindEnd; k++ {
		if kinds&(1<<k) != 0 {
			needs |= needsOf[k]
		}
	}
	t.needs.Store(needs)
	t.wanted.Store(kinds)
}

// need reports whether something of what is needed.
func (t *tracker) need(what uint32) bool { return t.needs.Load()&what != 0 }

// Provides tells the broker which callbacks to call: those that the rules
// need, and those that keep the records which make the bodies true. The broker
// asks before each call.
func (h *Hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnPublished, mqtt.OnWillSent:
		return h.need(needPublish)
	case mqtt.OnPublish:
		return h.need(needMessages) || h.syncs.Load() && h.need(needPublish)
	case mqtt.OnPacketSent:
		return h.need(needConnack | needSessions)
	case mqtt.OnStarted, mqtt.OnPacketRead, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnDisconnect, mqtt.OnClientExpired:
		return h.need(needSessions)
	case mqtt.OnQosPublish, mqtt.OnQosComplete, mqtt.OnQosDropped:
		return h.need(needMessages)
	case mqtt.OnSubscribe:
		return h.need(needSubscribe | needSubscribed)
	case mqtt.OnSubscribed:
		return h.need(needSubscribed)
	case mqtt.OnUnsubscribe:
		return h.need(needUnsubscribe | needUnsubscribed)
	case mqtt.OnUnsubscribed:
		return h.need(needUnsubscribed | needSessions)
	}
	return false
}

// report emits an event if it is wanted.
func (h *Hook) report(ev *event) {
	if h.wants(ev.kind) {
		h.emit(ev)
	}
}

// OnPublished makes message_publish, also of messages of the program itself.
// Most messages of a broker may interest nobody, so nothing is built before a
// rule has matched.
func (h *Hook) OnPublished(cl *mqtt.Client, pk packets.Packet) {
	if pk.Ignore || !h.wants(kindPublish) || h.lacksTopic(&pk) {
		return
	}
	if pk.SessionPresent && acknowledged(cl, &pk) { // else it is that of a message which the program publishes once more
		h.emitPublish(cl, &pk, afterAck)
	} else {
		h.emitPublish(cl, &pk, unrecorded)
	}
}

// OnPublish makes message_publish, before the broker acknowledges the message,
// for the endpoints that record it first ([SyncAlways]).
func (h *Hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	// It also signs a message that will be delivered. It is left out when a hook
	// before this one fails in a way that the broker ignores, so it marks the
	// packet for OnPublished, in a field that has no meaning in a PUBLISH.
	if h.need(needMessages) {
		h.signPublish(cl, &pk)
	}
	if h.syncs.Load() && acknowledged(cl, &pk) && !pk.Ignore && pk.TopicName != "" && h.wants(kindPublish) {
		h.emitPublish(cl, &pk, beforeAck)
		pk.SessionPresent = true
	}
	return pk, nil
}

// acknowledged reports whether somebody gets an acknowledgement for a message.
func acknowledged(cl *mqtt.Client, pk *packets.Packet) bool {
	return pk.FixedHeader.Qos > 0 && !cl.Net.Inline
}

// OnWillSent makes message_publish of a will, which the broker does not
// publish like other messages.
func (h *Hook) OnWillSent(cl *mqtt.Client, pk packets.Packet) {
	// For a delayed will this is E.
	if h.wants(kindPublish) && !h.lacksTopic(&pk) {
		var ev event
		ev.setPublish(h.extraWants()&^(wantPacketID|wantDup), cl, &pk) // no packet came
		h.emit(&ev)
	}
}

// lacksTopic counts a message with a topic alias that the client had not
// announced, which the broker publishes all the same.
func (h *Hook) lacksTopic(pk *packets.Packet) bool {
	if pk.TopicName != "" {
		return false
	}
	h.unknownTopic(kindPublish)
	return true
}

// setPublish makes ev, which is zero, the message_publish of a message from cl.
// It sets fields one by one because a composite literal would be copied.
func (ev *event) setPublish(w wants, cl *mqtt.Client, pk *packets.Packet) {
	ev.kind = kindPublish
	if cl.Net.Inline {
		ev.lane = laneTopic
	}
	ev.from = cl.ID
	ev.fromUser = view(cl.Properties.Username)
	ev.topic = pk.TopicName
	ev.payload = pk.Payload
	ev.qos = pk.FixedHeader.Qos
	ev.retain = pk.FixedHeader.Retain
	if cl.Net.Inline {
		w &^= wantPacketID | wantDup // no packet came; what mochi has as its id is the QoS
	}
	ev.extra = messageExtra(w, pk)
	ev.addClient(w, cl)
}

// clientEvent is an event about cl, without what is particular to its kind.
func (h *Hook) clientEvent(k kind, cl *mqtt.Client) event {
	ev := event{kind: k, client: cl.ID, username: view(cl.Properties.Username)}
	ev.addClient(h.extraWants(), cl)
	return ev
}

// connectionEvent is client_connect, client_connack or client_connected.
func (h *Hook) connectionEvent(k kind, cl *mqtt.Client) event {
	ev := h.clientEvent(k, cl)
	ev.ip = hostOf(cl.Net.Remote)
	ev.protoVer = cl.Properties.ProtocolVersion
	ev.keepalive = cl.State.Keepalive
	ev.addUser(h.extraWants(), cl.Properties.Props.User)
	return ev
}

// OnSubscribe makes client_subscribe, one for each filter.
func (h *Hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	w := h.extraWants()
	if !cl.Net.Inline && h.wants(kindSubscribe) {
		for i := range pk.Filters {
			ev := h.clientEvent(kindSubscribe, cl)
			ev.topic, ev.qos = pk.Filters[i].Filter, pk.Filters[i].Qos
			ev.addUser(w, pk.Properties.User)
			ev.addSubscription(w, &pk.Filters[i])
			h.emit(&ev)
		}
	}
	if !cl.Net.Inline && w&wantSubscription != 0 && h.need(needSubscribed) {
		h.resubscribing.Store(cl, subscribedFilters(cl, &pk))
	}
	return pk
}

// OnSubscribed makes session_subscribed, one for each granted filter.
func (h *Hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, reasonCodes []byte) {
	if cl.Net.Inline || !h.wants(kindSubscribed) {
		return
	}
	w := h.extraWants()
	var before filterSet
	if v, ok := h.resubscribing.LoadAndDelete(cl); ok {
		before = v.(filterSet)
	}
	for i := range min(len(pk.Filters), len(reasonCodes)) {
		if reasonCodes[i] < packets.ErrUnspecifiedError.Code {
			ev := h.clientEvent(kindSubscribed, cl)
			ev.topic, ev.qos = pk.Filters[i].Filter, reasonCodes[i]
			ev.addCode(w, reasonCodes[i])
			ev.addUser(w, pk.Properties.User)
			ev.addSubscription(w, &pk.Filters[i])
			if w&wantSubscription != 0 && !before[ev.topic] {
				ev.more().marks |= markNew
			}
			h.emit(&ev)
		}
	}
}

// OnUnsubscribe makes client_unsubscribe, one for each filter, and remembers
// which filters are subscribed: afterwards nobody can tell.
func (h *Hook) OnUnsubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if cl.Net.Inline {
		return pk
	}
	var subscribed []string
	known := make(filterSet)
	for i := range pk.Filters {
		filter := pk.Filters[i].Filter
		ev := h.clientEvent(kindUnsubscribe, cl)
		ev.topic = filter
		ev.addUser(h.extraWants(), pk.Properties.User)
		h.report(&ev)
		if isSubscribed(cl, filter) && !known[filter] {
			known[filter] = true
			subscribed = append(subscribed, filter)
		}
	}
	if len(subscribed) > 0 && h.need(needUnsubscribed) {
		h.leaving.Store(cl, subscribed)
	}
	return pk
}

// OnUnsubscribed makes session_unsubscribed for the filters that were
// subscribed and are not any more. The broker also calls it, without a packet
// id and without OnUnsubscribe, when a session ends, or when the program has all
// subscriptions of a client end.
func (h *Hook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	if cl.Net.Inline {
		return
	}
	if pk.PacketID == 0 && cl.Closed() {
		h.sessionEnded(cl)
		return
	}
	var filters []string
	if v, ok := h.leaving.LoadAndDelete(cl); ok {
		filters = v.([]string)
	} else if pk.PacketID == 0 && h.wants(kindUnsubscribed) {
		for i := range pk.Filters {
			filters = append(filters, pk.Filters[i].Filter)
		}
	}
	for _, filter := range filters {
		if !isSubscribed(cl, filter) {
			ev := h.clientEvent(kindUnsubscribed, cl)
			ev.topic = filter
			ev.addUser(h.extraWants(), pk.Properties.User)
			h.report(&ev)
		}
	}
}

// A filterSet is a set of topic filters. A packet may have a hundred thousand.
type filterSet map[string]bool

// subscribedFilters are the filters of a packet that are subscribed.
func subscribedFilters(cl *mqtt.Client, pk *packets.Packet) filterSet {
	filters := make(filterSet)
	for i := range pk.Filters {
		if filter := pk.Filters[i].Filter; isSubscribed(cl, filter) {
			filters[filter] = true
		}
	}
	return filters
}

func isSubscribed(cl *mqtt.Client, filter string) bool {
	if cl.State.Subscriptions == nil {
		return false
	}
	_, ok := cl.State.Subscriptions.Get(filter)
	return ok
}

// OnPacketSent makes client_connect, client_connack and message_delivered, of what was
// written to a client.
func (h *Hook) OnPacketSent(cl *mqtt.Client, pk packets.Packet, _ []byte) {
	// This is R or W; for the DISCONNECT of a takeover it is R of the new connection.
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if h.need(needMessages) {
			h.messageSent(cl, &pk)
		}
	case packets.Connack:
		h.connackSent(cl, pk.ReasonCode, pk.SessionPresent)
	case packets.Disconnect:
		h.adopt(cl)
	}
}

// OnPacketRead makes message_acked, of the acknowledgements that a client sends.
func (h *Hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	// This is R, before the broker checks and handles the packet.
	switch pk.FixedHeader.Type {
	case packets.Publish:
		h.adopt(cl) // deliveries tell the publisher's name
	case packets.Puback, packets.Pubrec, packets.Pubcomp:
		if h.need(needMessages) {
			h.ackRead(cl, &pk)
		}
	case packets.Disconnect:
		h.disconnectRead(cl, &pk)
	}
	return pk, nil
}

// hostOf returns an address without its port.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // a unix socket
	}
	return host
}
