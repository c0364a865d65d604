package webhook

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs a test with a broker and clients for which time passes only
// when all of them wait: a second takes none.
func inBubble(t *testing.T, kinds uint32, test func(*testing.T, *bubbleBroker), options ...brokerOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBroker(t, kinds, options...)
		b.serve(t)
		test(t, &bubbleBroker{t, b})
	})
}

// A bubbleBroker is connected to by pipes.
type bubbleBroker struct {
	t *testing.T
	*testBroker
}

func (b *bubbleBroker) connect(c rawConnect) *rawClient {
	b.t.Helper()
	ours, theirs := net.Pipe()
	go func() { _ = b.server.EstablishConnection("tcp", theirs) }()
	cl := newRawClient(b.t, ours)
	cl.mustConnect(c)
	synctest.Wait()
	return cl
}

// leave lets a client go, and the broker do what it has to do then.
func (b *bubbleBroker) leave(c *rawClient) {
	b.t.Helper()
	c.disconnect(0)
	synctest.Wait()
}

// give lets a client be taken over: it reads whatever it is told.
func (b *bubbleBroker) give(c *rawClient) {
	go func() { _, _ = io.Copy(io.Discard, c.r) }()
}

// delivered are the lines of message_delivered and message_acked.
func (b *bubbleBroker) delivered() []string {
	synctest.Wait()
	return b.lines()
}

// from_username names the user who published, whoever has the client id when
// the message is delivered.
func TestPublisherRenamed(t *testing.T) {
	const second = time.Second
	clean := func(user string) rawConnect { return rawConnect{ID: "sensor", User: user, Clean: true} }
	stays := func(user string) rawConnect { return rawConnect{ID: "sensor", User: user} }
	tests := []struct {
		name string
		next func(b *bubbleBroker, alice *rawClient)
		last rawConnect
		want string
	}{
		{"nobody has come", func(b *bubbleBroker, c *rawClient) { b.leave(c) }, clean("alice"), "/alice"},
		{"another user", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.connect(clean("mallory"))
		}, clean("alice"), "/alice"},
		{"another user, long after", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(time.Hour)
			b.connect(clean("mallory"))
			time.Sleep(time.Hour)
		}, clean("alice"), "/alice"},
		{"another user in the same second", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			b.connect(clean("mallory"))
			time.Sleep(second)
		}, clean("alice"), "/alice"},
		{"another user who has left, too", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.leave(b.connect(clean("mallory")))
		}, clean("alice"), "/alice"},
		{"another user who has resumed the session", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.connect(stays("mallory"))
		}, stays("alice"), "/alice"},
		{"another user who has resumed and left", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.leave(b.connect(stays("mallory")))
		}, stays("alice"), "/alice"},
		{"another user who has discarded the session", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.connect(clean("mallory"))
		}, stays("alice"), "/alice"},
		{"another user who has taken over", func(b *bubbleBroker, c *rawClient) {
			time.Sleep(second)
			b.give(c)
			b.connect(clean("mallory"))
		}, stays("alice"), "/alice"},
		{"a client without a user", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.connect(clean(""))
		}, clean("alice"), "/alice"},
		{"no user, and one since", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.connect(clean("mallory"))
		}, clean(""), ""},
		{"the same user in the same second", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			b.connect(clean("alice"))
		}, clean("alice"), "/alice"},
		{"the same user again after another one", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			time.Sleep(second)
			b.leave(b.connect(clean("mallory")))
			time.Sleep(second)
			b.connect(clean("alice"))
		}, clean("alice"), "/alice"},
		{"many others", func(b *bubbleBroker, c *rawClient) {
			b.leave(c)
			for i := range 8 {
				time.Sleep(second)
				b.leave(b.connect(clean(fmt.Sprint("mallory", i))))
			}
		}, clean("alice"), "/alice"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, messageKinds, func(t *testing.T, b *bubbleBroker) {
				offline := b.connect(rawConnect{ID: "offline"})
				offline.subscribe(1, "r")
				b.leave(offline)
				alice := b.connect(test.last)
				alice.publish("r", "x", 1, true)
				synctest.Wait()
				test.next(b, alice)
				viewer := b.connect(rawConnect{ID: "viewer", Clean: true})
				viewer.subscribe(1, "r")
				viewer.take()
				viewer.ping()
				offline = b.connect(rawConnect{ID: "offline"})
				offline.take()
				offline.ping()
				from := "sensor" + test.want
				wantLines(t, b.delivered(),
					"message_delivered r "+from+`->viewer qos1 retain "x"`,
					"message_acked r "+from+`->viewer qos1 retain "x"`,
					"message_delivered r "+from+`->offline qos1 "x"`,
					"message_acked r "+from+`->offline qos1 "x"`)
			})
		})
	}
}

// TestRecentNamesAreBounded gives it long names.
func TestRecentNamesAreBounded(t *testing.T) {
	var n recentNames
	for i := range 1000 {
		n.add(fmt.Sprint(i), "x")
		n.add(fmt.Sprint(i), strings.Repeat("x", 60_000))
	}
	kept := 0
	for id, user := range n.recent {
		kept += len(id) + len(user)
	}
	for id, user := range n.older {
		kept += len(id) + len(user)
	}
	if most := 2*recentNamesBytes + 2*65535; kept > most {
		t.Errorf("%d bytes are kept, more than %d", kept, most)
	}
	if n.find("999") == "" || n.find("0") != "" {
		t.Error("the last name is not there, or the first is")
	}
}
