package webhook

import (
	"strings"
	"weak"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// aliases are the topics that a connection was told aliases for (MQTT 5,
// 3.3.2.3.4). The broker replaces the topic by the alias when it queues a
// message, so what is queued for an absent client has the aliases of its
// previous connection.
type aliases struct {
	of     weak.Pointer[mqtt.Client]
	topics map[uint16]aliased
}

// aliased is a topic, and what it was before another hook changed it, if it was signed.
type aliased struct{ topic, signed string }

// OnQosPublish learns an alias when the broker gives it to a topic: the message
// itself may be sent much later, after others with the alias alone.
func (h *Hook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	if pk.FixedHeader.Type != packets.Publish || !pk.Properties.TopicAliasFlag || pk.TopicName == "" {
		return
	}
	s := h.sessions.lock(cl.ID)
	defer h.sessions.unlock(s)
	s.topicOf(cl, &pk)
}

// topicOf returns the topic of a message for cl, and learns its alias if it has both.
// A message with an alias alone has the topic that came with the alias before, unless
// it was signed with another topic than the message that brought that: then the alias
// may be another connection's, and its signed topic counts. It returns "" if nobody knows.
func (s *session) topicOf(cl *mqtt.Client, pk *packets.Packet) string {
	if !pk.Properties.TopicAliasFlag {
		return pk.TopicName
	}
	alias, signed := pk.Properties.TopicAlias, ""
	if isSigned(pk) {
		signed = pk.Connect.WillTopic
	}
	known := s.aliasesOf(cl, pk.FixedHeader.Dup)
	told := known.topics[alias]
	switch {
	case pk.TopicName == "" && signed != "" && told.signed != signed:
		return signed
	case pk.TopicName == "":
		return told.topic
	}
	if told.topic != pk.TopicName || told.signed != signed {
		if known.topics == nil {
			known.topics = make(map[uint16]aliased)
		}
		known.topics[alias] = aliased{strings.Clone(pk.TopicName), strings.Clone(signed)} // they are views of the whole packet
	}
	return pk.TopicName
}

// aliasesOf returns the aliases that a message for cl has. What is sent again was
// queued for the previous connection.
func (s *session) aliasesOf(cl *mqtt.Client, again bool) *aliases {
	newest, previous := &s.aliases[0], &s.aliases[1]
	switch me := weak.Make(cl); {
	case newest.of == me && again, newest.of != me && previous.of == me:
		return previous
	case newest.of != me && !again:
		*previous, *newest = *newest, aliases{of: me}
	}
	return newest
}
