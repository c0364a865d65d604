package webhook

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// A session is what is remembered of one client id while its session lives in
// the broker. The events of one client id that come from several goroutines
// are emitted under its lock, so their order is the order of its states.
type session struct {
	mu   sync.Mutex
	id   string
	gone bool // not in the table any more

	// cl is the connection that has the session, or had it last; nil: this
	// session is not known, or not any more. Written under mu.
	cl    atomic.Pointer[mqtt.Client]
	state sessionState

	known      bool // the session was there before cl, or cl was reported as connected
	resumed    bool // cl has the session from the connection before
	persistent bool // the session outlives cl
	bye        farewell

	connectedAt int64 // when cl was reported as connected, Unix milliseconds

	coming    int         // connections that may discard the session: those that have yet to be sent their CONNACK
	discarded bool        // a clean start ended the session; not reported yet
	expired   bool        // the broker ended the session while cl's OnDisconnect is yet to come
	closed    int64       // when a takeover closed cl, Unix milliseconds; not reported yet
	wait      *time.Timer // for the CONNACK that reports those

	messages map[uint16]*message // sent and not acknowledged, by packet id
	aliases  [2]aliases          // of the newest connection that uses aliases, and of the one before
	queued   *time.Timer         // ends awaitQueued of all messages; see limitQueued
	early    []earlyMessage      // delivered before their connection was reported
}

type sessionState uint8

const (
	sessionAccepted  sessionState = iota // cl was sent its CONNACK
	sessionConnected                     // cl was reported as connected
	sessionOffline                       // cl was reported as disconnected
	sessionOver                          // the end was reported; the broker has yet to end it
)

// takeoverWait bounds how long the end of a connection that was taken over
// waits for the new connection's CONNACK, which normally follows at once. It
// never comes if it could not be written.
const takeoverWait = 5 * time.Second

// begin makes cl the session's connection.
func (s *session) begin(cl *mqtt.Client, state sessionState) {
	if s.wait != nil {
		s.wait.Stop()
	}
	s.cl.Store(cl)
	s.state, s.known = state, true
	s.resumed, s.persistent, s.bye = false, true, farewell{}
	s.discarded, s.expired, s.closed, s.wait = false, false, 0, nil
	s.connectedAt = 0
}

// OnSessionEstablish learns of a connection that is about to take over its client id.
func (h *Hook) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	// This is R.
	if h.sessions.find(cl.ID) == nil {
		return // as for most
	}
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	s.coming++
}

// connackSent makes client_connect and client_connack, which for an accepted
// connection is the moment when the broker has done everything that a takeover
// means: what became of the previous connection and session comes in between.
func (h *Hook) connackSent(cl *mqtt.Client, code byte, resumed bool) {
	accepted := code == packets.CodeSuccess.Code
	connect := h.connectionEvent(kindConnect, cl)
	connack := h.connectionEvent(kindConnack, cl)
	connack.accepted = accepted
	connack.addCode(h.extraWants(), code)
	if !accepted {
		connect.lane, connect.conn = laneConn, h.refused.Add(1)
		connack.lane, connack.conn = connect.lane, connect.conn
	}
	if !accepted || !h.need(needSessions) {
		h.report(&connect)
		h.report(&connack)
		return
	}
	h.see(cl)
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	s.coming = max(s.coming-1, 0)
	next := s.cl.Load() != cl && !isTakeover(cl.StopCause()) // else yet another one has come already
	if prev := s.cl.Load(); next && prev != nil && s.state == sessionAccepted && isTakeover(prev.StopCause()) {
		h.connected(s, prev) // it was taken over before it got to OnSessionEstablished
	}
	h.report(&connect)
	if next {
		resumed = resumed && !s.discarded // else it is a session of which nothing is known
		h.handOver(s, cl, resumed)
		h.keepLate(s)
		known := s.known && s.state != sessionOver
		if s.cl.Load() == nil {
			known = !h.complete.Load()
		}
		s.begin(cl, sessionAccepted)
		s.known, s.resumed, s.persistent = resumed && known, resumed, outlives(cl)
		if resumed {
			s.forgetLost()
		} else {
			s.messages, s.aliases, s.early = nil, [2]aliases{}, nil
		}
	}
	h.report(&connack)
}

// handOver reports what became of the session's connection, and of the session
// if it was not resumed, now that next has the client id.
func (h *Hook) handOver(s *session, next *mqtt.Client, resumed bool) {
	prev := s.cl.Load()
	if prev == nil || s.state == sessionOver {
		return
	}
	end := reasonDiscarded
	switch s.state {
	case sessionConnected:
		reason := reasonTakenOver
		if cause := prev.StopCause(); prev.Closed() && !isTakeover(cause) { // it ended by itself at the same time
			reason = reasonOf(cause, nil, s.bye)
			switch {
			case !s.persistent:
				end = reason
			case s.expired:
				end = reasonExpired
			}
		} else if !resumed {
			reason = reasonDiscarded
		}
		h.disconnected(s, prev, reason)
	case sessionOffline:
		if !s.discarded && !next.Properties.Clean {
			end = reasonExpired // OnClientExpired is about to run
		}
	}
	if !resumed {
		h.reportEarly(s)
		h.terminated(s, prev, end)
	}
}

// OnSessionEstablished makes client_connected.
func (h *Hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	// This is R.
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	if s.cl.Load() == nil && !h.complete.Load() {
		s.begin(cl, sessionAccepted)
		s.persistent = outlives(cl)
	}
	if s.cl.Load() == cl { // else it was taken over, and reported, before it got here
		h.connected(s, cl)
	}
}

// connected reports the session's connection as connected.
func (h *Hook) connected(s *session, cl *mqtt.Client) {
	s.state, s.known = sessionConnected, true
	ev := h.connectionEvent(kindConnected, cl)
	ev.time = time.Now().UnixMilli()
	s.connectedAt = ev.time
	h.report(&ev)
	h.reportEarly(s)
}

// OnStarted runs when the broker has begun to listen, unless the hook was
// added later.
func (h *Hook) OnStarted() { h.complete.Store(h.need(needSessions)) }

// see remembers that a connection is not older than the tracking.
func (h *Hook) see(cl *mqtt.Client) {
	if h.complete.Load() {
		return // none is
	}
	me := weak.Make(cl)
	h.seen.Store(me, nil)
	runtime.AddCleanup(cl, func(me weak.Pointer[mqtt.Client]) { h.seen.Delete(me) }, me)
}

func (h *Hook) isSeen(cl *mqtt.Client) bool {
	_, ok := h.seen.Load(weak.Make(cl))
	return ok
}

// adopt makes a record for a connection that is older than the tracking, when
// it does something that the record is needed for.
func (h *Hook) adopt(cl *mqtt.Client) {
	if h.complete.Load() || !h.need(needSessions) || cl.Net.Inline || cl.Closed() || h.isSeen(cl) || h.sessions.find(cl.ID) != nil {
		return
	}
	s := h.sessions.lock(cl.ID)
	if s.cl.Load() == nil {
		s.begin(cl, sessionConnected)
	}
	h.sessions.unlock(s)
}

// disconnectRead remembers a DISCONNECT, in R: the broker tells its reason
// code to nobody.
func (h *Hook) disconnectRead(cl *mqtt.Client, pk *packets.Packet) {
	h.adopt(cl)
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	if s.cl.Load() != cl {
		return
	}
	s.bye = farewell{read: true, code: pk.ReasonCode}
	s.persistent = outlives(cl)
	if props := &pk.Properties; props.SessionExpiryIntervalFlag && s.persistent { // 0 may not become more: MQTT 5, 3.14.2.2.2
		s.persistent = props.SessionExpiryInterval > 0
	}
}

// OnDisconnect makes client_disconnected, and session_terminated if the
// session ends with the connection.
func (h *Hook) OnDisconnect(cl *mqtt.Client, err error, expire bool) {
	// This is R; for sessions that a storage hook restores it is Serve's
	// goroutine, without a connection and without events.
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	cause := cl.StopCause()
	if s.cl.Load() == nil {
		switch {
		case cl.Net.Conn == nil:
			s.begin(cl, sessionOffline)
			if expire {
				s.state = sessionOver
			}
			return
		case h.complete.Load(), h.isSeen(cl), cl.IsTakenOver(), isTakeover(cause):
			return // reported long ago, when another one took over
		}
		s.begin(cl, sessionConnected)
		s.bye.read = true // the cause tells
	}
	if s.cl.Load() != cl || s.state != sessionConnected {
		return // reported when it was taken over
	}
	s.persistent = !expire
	if isTakeover(cause) {
		s.closed = time.Now().UnixMilli()
		h.awaitConnack(s)
		return
	}
	reason := reasonOf(cause, err, s.bye)
	h.disconnected(s, cl, reason)
	switch {
	case s.expired && !expire:
		h.expire(s)
		return
	case !expire:
		s.state = sessionOffline
		return
	}
	h.terminated(s, cl, reason)
	if cl.IsTakenOver() {
		h.forget(s) // OnUnsubscribed is not called
	} else {
		s.state = sessionOver
	}
}

// sessionEnded is OnUnsubscribed at the end of a session: in cl's R after
// OnDisconnect, or in R of a new connection whose clean start discards it.
func (h *Hook) sessionEnded(cl *mqtt.Client) {
	if !h.need(needSessions) || !cl.Closed() { // else the program called UnsubscribeClient
		return
	}
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	switch s.cl.Load() {
	case cl:
		if s.state == sessionOver {
			h.forget(s)
			return
		}
		if s.closed != 0 && !s.persistent {
			return // the broker ends it, if the new connection has not resumed it in the meantime
		}
		if s.coming == 0 {
			return // the program called UnsubscribeClient
		}
	case nil:
		switch cause := cl.StopCause(); {
		case h.complete.Load(), cause == nil, cl.IsTakenOver():
			return // never reported, see OnClientExpired; or the second call for one session
		case isTakeover(cause):
			s.begin(cl, sessionConnected)
		case !outlives(cl):
			return // it ended with its connection, as OnDisconnect has reported
		default:
			s.begin(cl, sessionOffline)
		}
	default:
		return
	}
	s.discarded = true
	h.awaitConnack(s)
}

// awaitConnack leaves the end of a connection or session that was taken over
// to the new connection's CONNACK, for a while.
func (h *Hook) awaitConnack(s *session) {
	if s.wait != nil {
		return
	}
	cl, id := s.cl.Load(), s.id
	s.wait = time.AfterFunc(takeoverWait, func() {
		s := h.sessions.lock(id)
		defer h.sessions.unlock(s)
		if s.cl.Load() == cl && s.wait != nil {
			h.giveUpConnack(s, cl)
		}
	})
}

// giveUpConnack reports the end of a connection or session that was taken over
// by a connection which did not get its CONNACK. If none took over, then the
// program closed the connection or called UnsubscribeClient.
func (h *Hook) giveUpConnack(s *session, cl *mqtt.Client) {
	s.wait = nil
	s.discarded = (s.discarded || !s.persistent) && cl.IsTakenOver()
	reason := reasonTakenOver
	if s.discarded {
		reason = reasonDiscarded
	}
	if s.state == sessionConnected {
		if s.closed == 0 {
			return // OnDisconnect is yet to come
		}
		h.disconnected(s, cl, reason)
		s.state = sessionOffline
	}
	if s.discarded || !s.persistent {
		h.reportEarly(s)
		h.terminated(s, cl, reason)
		h.forget(s)
	}
}

// OnClientExpired makes session_terminated, of a session that was kept for as
// long as it may be.
func (h *Hook) OnClientExpired(cl *mqtt.Client) {
	// This is E.
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	current := s.cl.Load()
	switch {
	case current == nil:
		if h.complete.Load() || cl.StopCause() == nil {
			return // it was never reported: its CONNACK could not be written
		}
		s.begin(cl, sessionOffline)
	case s.state == sessionOver, !current.Closed():
		return // reported; or resumed while it expired
	case s.state == sessionConnected:
		if s.closed == 0 {
			s.expired = current == cl // R is busy with a packet
			return
		}
		h.disconnected(s, current, reasonTakenOver)
	}
	h.expire(s)
}

// expire ends a session because of its time.
func (h *Hook) expire(s *session) {
	h.reportEarly(s)
	h.terminated(s, s.cl.Load(), reasonExpired)
	h.forget(s)
}

func (h *Hook) disconnected(s *session, cl *mqtt.Client, reason string) {
	ev := h.clientEvent(kindDisconnected, cl)
	ev.reason, ev.time = reason, s.closed
	if w := h.extraWants(); w != 0 {
		if code, ok := endCode(reason, cl.StopCause(), s.bye); ok {
			ev.addCode(w, code)
		}
		if w&wantConnectedAt != 0 && s.connectedAt != 0 {
			ev.more().connectedAt = s.connectedAt
		}
	}
	h.report(&ev)
}

func (h *Hook) terminated(s *session, cl *mqtt.Client, reason string) {
	if s.known {
		ev := h.clientEvent(kindTerminated, cl)
		ev.reason = reason
		h.report(&ev)
	}
}

// forget removes the record of a session that has ended.
func (h *Hook) forget(s *session) {
	if s.wait != nil {
		s.wait.Stop()
		s.wait = nil
	}
	cl := s.cl.Load()
	if cl == nil {
		return
	}
	if h.need(needMessages) { // first, as userOf takes no lock
		h.names.add(cl.ID, view(cl.Properties.Username))
		h.keepLate(s)
	}
	s.cl.Store(nil)
}

func isTakeover(cause error) bool {
	code, ok := cause.(packets.Code)
	return ok && code.Code == packets.ErrSessionTakenOver.Code
}

// outlives reports whether cl's session outlives the connection, as the broker
// decides it. Only for R of cl: it changes the interval.
func outlives(cl *mqtt.Client) bool {
	if cl.Properties.ProtocolVersion == 5 {
		return cl.Properties.Props.SessionExpiryInterval > 0
	}
	return !cl.Properties.Clean
}
