package webhook

import (
	"strings"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// signPublish writes into a message who publishes it, its topic, and a number that tells
// it from other messages. It uses the fields that hold what a CONNECT says: in a PUBLISH
// the broker does nothing with them, but copies them wherever it keeps the message. By
// the time of a delivery the client id may be another user's, and an alias may stand in
// place of the topic.
func (t *tracker) signPublish(cl *mqtt.Client, pk *packets.Packet) {
	pk.Connect.Keepalive = uint16(t.published.Add(1))
	pk.Connect.ClientIdentifier, pk.Connect.Username = cl.ID, cl.Properties.Username
	pk.Connect.WillTopic = pk.TopicName
}

// isSigned reports whether a message has been signed, and nobody has changed its
// publisher since, as another hook may.
func isSigned(pk *packets.Packet) bool {
	return pk.Connect.ClientIdentifier != "" && pk.Connect.ClientIdentifier == pk.Origin
}

// numberOf returns the number of a message that is signed, which is not 0, or 0.
func numberOf(pk *packets.Packet) int {
	if !isSigned(pk) {
		return 0
	}
	return int(pk.Connect.Keepalive) + 1
}

// publisherOf returns the user name of a message's publisher, "" for none. What
// is not signed, such as a will, has that of its client id, if that is known.
func (h *Hook) publisherOf(pk *packets.Packet) string {
	if isSigned(pk) {
		return view(pk.Connect.Username)
	}
	return h.userOf(pk.Origin)
}

// userOf returns the user name of the client id's session, "" if there is none.
func (h *Hook) userOf(id string) string {
	if s := h.sessions.find(id); s != nil {
		if cl := s.cl.Load(); cl != nil {
			return view(cl.Properties.Username)
		}
	}
	return h.names.find(id)
}

// recentNames are the user names of sessions that ended lately: what a client
// published last is delivered after it has gone. It holds a bounded number of
// them, in two generations.
type recentNames struct {
	mu            sync.Mutex
	recent, older map[string]string // by client id
	since         time.Time         // when recent was begun
	bytes         int               // of recent
}

// The bounds of a generation. Anybody can make long names.
const (
	recentNamesMax   = 4096
	recentNamesBytes = 1 << 20
	recentNamesAge   = 30 * time.Second
)

func (n *recentNames) add(id, user string) {
	if user == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if n.recent == nil || len(n.recent) >= recentNamesMax || n.bytes >= recentNamesBytes || now.Sub(n.since) > recentNamesAge {
		n.older, n.recent, n.since, n.bytes = n.recent, make(map[string]string), now, 0
	}
	before, known := n.recent[id]
	n.bytes += len(user) - len(before)
	if !known {
		n.bytes += len(id)
	}
	n.recent[strings.Clone(id)] = strings.Clone(user)
}

func (n *recentNames) find(id string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if user, ok := n.recent[id]; ok {
		return user
	}
	return n.older[id]
}
