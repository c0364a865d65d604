package webhook

import (
	"bytes"
	"time"
	"unsafe"
	"weak"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// A message is one that a session was sent and has not acknowledged. Its
// payload and topic are those of the broker's own record, not copies.
type message struct {
	topic     string // "" if it could not be resolved
	payload   []byte
	from      string
	fromUser  string
	published int64 // Unix seconds
	number    int   // of its publication, see signPublish; 0 if it is not signed
	qos       byte
	retain    bool

	extra *extra // nil for none

	done   bool // acknowledged: it is kept only for what it awaits
	awaits awaits
}

// awaits says what the broker may yet tell of a message that has been reported, and
// must not be taken for another one.
type awaits uint8

const (
	// OnPacketSent: the client may answer before the goroutine that wrote the
	// message gets to report it.
	awaitSent awaits = 1 << iota

	// Another sending: what is published while a session resumes is sent by R, with
	// all that is in flight, and once more by W, in whose queue it is, too.
	awaitQueued

	// OnQosComplete: until the broker has dealt with an acknowledgement, a takeover
	// may have the message sent again.
	awaitBroker
)

// An earlyMessage was delivered before its connection was reported.
type earlyMessage struct {
	to      *mqtt.Client
	message message
}

// earlyMax bounds the early messages of a session: as many as the broker keeps
// in flight for a client by default.
const earlyMax = 8192

// reportEarly makes the message_delivered of early messages: now that their connection
// is reported, or that the session ends without that.
func (h *Hook) reportEarly(s *session) {
	for i := range s.early {
		h.delivered(s.early[i].to, &s.early[i].message)
	}
	s.early = nil
}

// newMessage is what is remembered of a message for cl; s is locked.
func (h *Hook) newMessage(s *session, cl *mqtt.Client, pk *packets.Packet) message {
	return message{
		topic:     s.topicOf(cl, pk),
		payload:   pk.Payload,
		from:      pk.Origin,
		fromUser:  h.publisherOf(pk),
		published: publishedAt(pk),
		number:    numberOf(pk),
		qos:       pk.FixedHeader.Qos,
		retain:    pk.FixedHeader.Retain,
		extra:     messageExtra(h.extraWants(), pk),
	}
}

// is reports whether pk is m once more. A packet id alone does not tell: the
// broker forgets messages without saying so and gives their ids to others.
// Neither does DUP: it is not set on every repetition, and it is set on the first
// sending of what was queued for an absent client. Payload and topic need not be the
// same, as another hook may change them at each sending. The number does tell, but not
// for a retained message, which has that of its publication whenever a client subscribes.
func (m *message) is(pk *packets.Packet) bool {
	if m.published != publishedAt(pk) || m.from != pk.Origin || m.number != numberOf(pk) {
		return false
	}
	return m.number != 0 && !m.retain || len(m.payload) == len(pk.Payload) &&
		(pk.TopicName == "" || pk.TopicName == m.topic) &&
		(unsafe.SliceData(m.payload) == unsafe.SliceData(pk.Payload) || pk.FixedHeader.Dup && bytes.Equal(m.payload, pk.Payload))
}

// publishedAt returns when a message was published, in Unix seconds. A will was
// created when its client was lost, and is published after its delay.
func publishedAt(pk *packets.Packet) int64 {
	return pk.Created + int64(pk.Connect.WillProperties.WillDelayInterval)
}

// lateMessages are, by packet id, the messages of a connection that have been reported
// although their OnPacketSent is yet to come, when another connection has followed it or
// its session has ended.
type lateMessages map[uint16]*message

// lateWait is how long OnPacketSent may be late: W needs nothing for it but time on a
// processor, and a client that reads.
const lateWait = 10 * time.Second

// keepLate remembers the late messages of s.cl apart, when that gives way, so that they
// are not reported once more: in the session their packet ids are other messages' now.
func (h *Hook) keepLate(s *session) {
	late := make(lateMessages)
	for id, m := range s.messages {
		if m.awaits&(awaitSent|awaitQueued) != 0 {
			late[id] = m
			s.settle(id, awaitSent|awaitQueued)
		}
	}
	if len(late) > 0 {
		cl := weak.Make(s.cl.Load())
		h.late.Store(cl, late)
		time.AfterFunc(lateWait, func() { h.late.Delete(cl) })
	}
}

// isLate reports whether a message is one of cl's late ones.
func (h *Hook) isLate(cl *mqtt.Client, pk *packets.Packet) bool {
	late, ok := h.late.Load(weak.Make(cl))
	if !ok {
		return false
	}
	m := late.(lateMessages)[pk.PacketID]
	return m != nil && m.is(pk)
}

// messageSent makes message_delivered, in W or R.
func (h *Hook) messageSent(cl *mqtt.Client, pk *packets.Packet) {
	h.adopt(cl)
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	qos := pk.FixedHeader.Qos
	if qos > 0 && s.cl.Load() != cl && (s.hasResent(cl) || h.isLate(cl, pk)) {
		return
	}
	if m := s.messages[pk.PacketID]; qos > 0 && m != nil && m.is(pk) {
		s.settle(pk.PacketID, awaitSent|awaitQueued)
		return
	}
	m := h.newMessage(s, cl, pk)
	if qos > 0 && s.awaitsAck(cl) {
		if pk.FixedHeader.Dup {
			m.awaits = awaitQueued
			s.limitQueued()
		}
		s.remember(pk.PacketID, &m)
	}
	if s.isEarly(cl) && len(s.early) < earlyMax {
		s.early = append(s.early, earlyMessage{cl, m})
		return
	}
	h.delivered(cl, &m)
}

// remember keeps a copy of m until it is acknowledged.
func (s *session) remember(id uint16, m *message) *message {
	if s.messages == nil {
		s.messages = make(map[uint16]*message)
	}
	kept := *m
	s.messages[id] = &kept
	return &kept
}

// limitQueued ends the wait for awaitQueued, of all messages of s, lateWait after it was
// called last.
func (s *session) limitQueued() {
	if s.queued != nil {
		s.queued.Reset(lateWait)
		return
	}
	s.queued = time.AfterFunc(lateWait, func() {
		s.mu.Lock() // the client may have another session by now
		defer s.mu.Unlock()
		for id := range s.messages {
			s.settle(id, awaitQueued)
		}
	})
}

// forgetLost forgets what the broker has not taken along to s.cl, its new connection,
// and so does not send again. It gives away the packet ids of messages that it held
// back as soon as it has sent them (see the Receive Maximum of MQTT 5, 3.3.4).
func (s *session) forgetLost() {
	inFlight := s.cl.Load().State.Inflight
	for id := range s.messages {
		if _, ok := inFlight.Get(id); !ok {
			delete(s.messages, id)
		}
	}
}

// awaitsAck reports whether s awaits the acknowledgement of what cl was sent. If cl is
// the connection before s.cl and tells late what it has written, that is so until s.cl is
// connected, whose R is about to send it again. After that, and in another session, it
// has been sent again or never will be, and its packet id is another message's.
func (s *session) awaitsAck(cl *mqtt.Client) bool {
	return s.cl.Load() == cl || s.resumed && s.state == sessionAccepted || s.isEarly(cl)
}

// hasResent reports whether what cl, which is not s.cl, was sent has been sent again
// since: it was in flight before cl was closed, so s.cl has taken it along, unless it was
// acknowledged before that.
func (s *session) hasResent(cl *mqtt.Client) bool {
	return s.resumed && s.state != sessionAccepted && cl.Closed()
}

// isEarly reports whether cl has not been reported as connected but will be:
// the broker sends a resumed session's messages before it calls
// OnSessionEstablished, and now and then before the CONNACK.
func (s *session) isEarly(cl *mqtt.Client) bool {
	switch s.cl.Load() {
	case cl:
		return s.state == sessionAccepted
	case nil:
		return false
	}
	return !cl.Closed() // else it is the one before, sending its last
}

// ackRead makes message_acked, in R: with PUBACK for QoS 1 and with PUBCOMP for
// QoS 2. The broker's OnQosComplete is not called for everything that was sent.
func (h *Hook) ackRead(cl *mqtt.Client, pk *packets.Packet) {
	h.adopt(cl)
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	if s.cl.Load() != cl {
		return // taken over: what it has not acknowledged is sent again
	}
	m, unfinished := h.answered(s, cl, pk.PacketID)
	if m == nil || m.done {
		return
	}
	switch pk.FixedHeader.Type {
	case packets.Pubrec:
		if pk.ReasonCode < packets.ErrUnspecifiedError.Code {
			return // PUBREL and PUBCOMP follow
		}
	case packets.Puback:
		if m.qos == 1 {
			h.acked(cl, m, pk.ReasonCode)
		}
	case packets.Pubcomp:
		if m.qos == 2 {
			h.acked(cl, m, pk.ReasonCode)
		}
	}
	m.done = true
	if unfinished || cl.Closed() { // a takeover has taken along what was in flight, and cleared it here
		m.awaits |= awaitBroker
	}
	s.settle(pk.PacketID, 0)
}

// OnQosComplete learns that the broker is done with a message, whose packet id may
// stand for another one from then on.
func (h *Hook) OnQosComplete(cl *mqtt.Client, pk packets.Packet) {
	if pk.Created != 0 || pk.FixedHeader.Type == packets.Pubrel {
		return // it is about what cl has published
	}
	if cl.Closed() {
		return // another connection may have taken along what was in flight before
	}
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	if s.cl.Load() == cl {
		s.settle(pk.PacketID, awaitBroker)
	}
}

// answered returns the message that a client answers, and whether the broker still has
// it in flight, which it does not when it has a PUBREL in its place: that is what a
// takeover sends then. If OnPacketSent has not been called for the message, because W has
// written it but got no further, answered makes message_delivered.
func (h *Hook) answered(s *session, cl *mqtt.Client, id uint16) (m *message, unfinished bool) {
	m = s.messages[id]
	if cl.State.Inflight == nil {
		return m, false
	}
	pk, ok := cl.State.Inflight.Get(id)
	if !ok || pk.FixedHeader.Type != packets.Publish {
		return m, false
	}
	if m == nil || m.done && !m.is(&pk) {
		unseen := h.newMessage(s, cl, &pk)
		unseen.awaits = awaitSent
		h.delivered(cl, &unseen)
		m = s.remember(id, &unseen)
	}
	return m, true
}

// OnQosDropped forgets a message that the broker gave up: no client will
// acknowledge it.
func (h *Hook) OnQosDropped(cl *mqtt.Client, pk packets.Packet) {
	// This is E or R.
	if cl.IsTakenOver() {
		return // called for everything that the new connection takes along
	}
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	if m := s.messages[pk.PacketID]; m != nil && s.cl.Load() == cl {
		m.done = true
		s.settle(pk.PacketID, awaitBroker)
	}
}

// settle ends the wait of a message for what has come. It forgets the message when that
// is done and awaits nothing more.
func (s *session) settle(id uint16, what awaits) {
	m := s.messages[id]
	if m == nil {
		return
	}
	m.awaits &^= what
	if m.done && m.awaits == 0 {
		delete(s.messages, id)
	}
}

func (h *Hook) delivered(cl *mqtt.Client, m *message) { h.reportMessage(kindDelivered, cl, m, 0) }

func (h *Hook) acked(cl *mqtt.Client, m *message, code byte) {
	h.reportMessage(kindAcked, cl, m, code)
}

// reportMessage emits an event about m; code is that of the acknowledgement.
func (h *Hook) reportMessage(k kind, cl *mqtt.Client, m *message, code byte) {
	if !h.wants(k) {
		return
	}
	if m.topic == "" {
		h.unknownTopic(k)
		return
	}
	ev := h.clientEvent(k, cl)
	ev.topic, ev.payload, ev.qos, ev.retain = m.topic, m.payload, m.qos, m.retain
	ev.from, ev.fromUser, ev.published = m.from, m.fromUser, m.published*1000
	ev.addMessage(m.extra)
	if k == kindAcked {
		ev.addCode(h.extraWants(), code)
	}
	h.emit(&ev)
}
