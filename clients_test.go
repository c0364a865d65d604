package webhook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqttv3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/mochi-mqtt/server/v2/packets"
)

func TestPahoV5(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), rawTimeout)
	defer cancel()
	b := startBroker(t, allKinds)
	got := make(chan *paho.Publish, 10)
	dial := func(id, user string) *paho.Client {
		conn, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
			func(p paho.PublishReceived) (bool, error) { got <- p.Packet; return true, nil },
		}})
		aliases := uint16(10)
		if _, err := c.Connect(ctx, &paho.Connect{ClientID: id, Username: user, UsernameFlag: true, CleanStart: true, KeepAlive: 30,
			Properties: &paho.ConnectProperties{TopicAliasMaximum: &aliases}}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	s, p := dial("s", "su"), dial("p", "pu")
	if _, err := s.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "a/#", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := p.Publish(ctx, &paho.Publish{Topic: "a/b", QoS: byte(i), Payload: []byte{byte('0' + i)}}); err != nil {
			t.Fatal(err)
		}
		<-got
	}
	b.waitFor(t, `message_acked a/b p/pu->s/su qos1 "1"`, `message_acked a/b p/pu->s/su qos2 "2"`)
	if err := s.Disconnect(&paho.Disconnect{ReasonCode: 0}); err != nil {
		t.Fatal(err)
	}
	if err := p.Disconnect(&paho.Disconnect{ReasonCode: 0x99}); err != nil {
		t.Fatal(err)
	}
	b.waitFor(t,
		"subscribe s/su a/# qos2", "session_subscribed s/su a/# qos2",
		`message_publish p/pu a/b qos0 "0"`, `message_delivered a/b p/pu->s/su qos0 "0"`,
		`message_publish p/pu a/b qos1 "1"`, `message_delivered a/b p/pu->s/su qos1 "1"`,
		`message_publish p/pu a/b qos2 "2"`, `message_delivered a/b p/pu->s/su qos2 "2"`,
		"session_terminated s/su normal", "session_terminated p/pu payload_format_invalid")
}

func TestPahoV3(t *testing.T) {
	for _, version := range []uint{3, 4} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			b := startBroker(t, allKinds)
			options := mqttv3.NewClientOptions().AddBroker("tcp://"+b.addr).SetClientID("c").SetUsername("u").
				SetProtocolVersion(version).SetAutoReconnect(false).SetWill("will", "gone", 1, false)
			c := mqttv3.NewClient(options)
			do := func(token mqttv3.Token) {
				t.Helper()
				if !token.WaitTimeout(rawTimeout) || token.Error() != nil {
					t.Fatal(token.Error())
				}
			}
			do(c.Connect())
			do(c.Subscribe("a/+", 2, func(mqttv3.Client, mqttv3.Message) {}))
			for qos := range byte(3) {
				do(c.Publish("a/b", qos, qos == 1, fmt.Sprint(qos)))
			}
			b.waitFor(t, `message_acked a/b c/u->c/u qos2 "2"`)
			do(c.Unsubscribe("a/+"))
			c.Disconnect(uint(rawTimeout.Milliseconds())) // at most
			b.waitFor(t, "connect c/u", "connack c/u", "connected c/u",
				"subscribe c/u a/+ qos2", "session_subscribed c/u a/+ qos2",
				`message_publish c/u a/b qos0 "0"`, `message_delivered a/b c/u->c/u qos0 "0"`,
				`message_publish c/u a/b qos1 retain "1"`, `message_delivered a/b c/u->c/u qos1 "1"`, `message_acked a/b c/u->c/u qos1 "1"`,
				`message_publish c/u a/b qos2 "2"`, `message_delivered a/b c/u->c/u qos2 "2"`,
				"unsubscribe c/u a/+", "session_unsubscribed c/u a/+",
				"disconnected c/u normal", "session_terminated c/u normal")
		})
	}
}

// Random packets, most of them well formed, some of them not, on connections
// that share a few client ids: whatever comes, nothing panics, and what is
// reported adds up. There are no retained messages, because the broker handles
// them with data races, and no Receive Maximum, because with one it can lock
// itself up (Inflight.NextImmediate locks for reading twice).
func TestRandomPackets(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rounds := 60
	if testing.Short() {
		rounds = 20
	}
	b := startBroker(t, allKinds)
	var wg sync.WaitGroup
	for worker := range 4 {
		rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
		wg.Go(func() {
			for range rounds {
				randomConnection(t, b, rnd)
			}
		})
	}
	wg.Wait()
	b.awaitGone(t)
	if c := mustConnect(t, b.addr, rawConnect{ID: "after", Clean: true}); c != nil {
		c.disconnect(0)
	}
	b.waitFor(t, "session_terminated after normal")
	b.awaitGone(t)
	for i := range 5 {
		checkBalance(t, fmt.Sprint("c", i), b.all())
	}
}

func randomConnection(t *testing.T, b *testBroker, rnd *rand.Rand) {
	connect := rawConnect{
		Version: byte(3 + rnd.IntN(3)), ID: fmt.Sprint("c", rnd.IntN(5)), User: "u", Clean: rnd.IntN(2) == 0,
		Expiry: uint32(rnd.IntN(2)) * 100, AliasMax: uint16(rnd.IntN(3)),
	}
	if rnd.IntN(3) == 0 {
		connect.Will = &rawWill{Topic: "a", Payload: "will", QoS: byte(rnd.IntN(3))}
	}
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	c := &rawClient{t: t, conn: sloppyConn{conn}, version: connect.Version}
	go func() { // read, or the broker blocks
		buf := make([]byte, 4096)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	c.send(connect.packet())
	topics := []string{"a", "a/b", "denied", "ignored", "rejected", "failing", "$SYS/x", ""}
	for range rnd.IntN(30) {
		id, code := uint16(rnd.IntN(4)), []byte{0, 0, 4, 0x80, 0x8e, 0xff}[rnd.IntN(6)]
		pk := packets.Packet{PacketID: id}
		switch n := rnd.IntN(40); {
		case n < 16:
			pk.FixedHeader = packets.FixedHeader{Type: packets.Publish, Qos: byte(rnd.IntN(3))}
			pk.TopicName, pk.Payload = topics[rnd.IntN(len(topics))], make([]byte, rnd.IntN(20))
			if rnd.IntN(4) == 0 {
				pk.Properties = packets.Properties{TopicAlias: uint16(rnd.IntN(3)), TopicAliasFlag: true}
			}
			if pk.FixedHeader.Qos > 0 && pk.PacketID == 0 {
				pk.PacketID = 1
			}
		case n < 28:
			pk.FixedHeader.Type = []byte{packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp}[rnd.IntN(4)]
			if pk.FixedHeader.Type == packets.Pubrel {
				pk.FixedHeader.Qos = 1
			}
			pk.ReasonCode = code
		case n < 34:
			pk.FixedHeader = packets.FixedHeader{Type: packets.Subscribe, Qos: 1}
			pk.Filters = packets.Subscriptions{{Filter: "#", Qos: byte(rnd.IntN(3))}, {Filter: topics[rnd.IntN(len(topics))]}}
			pk.PacketID += 100
		case n < 37:
			pk.FixedHeader = packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}
			pk.Filters = packets.Subscriptions{{Filter: "#"}, {Filter: "a"}}
			pk.PacketID += 100
		case n == 37:
			pk.FixedHeader.Type, pk.ReasonCode = packets.Disconnect, code
		case n == 38:
			garbage := make([]byte, rnd.IntN(10))
			for i := range garbage {
				garbage[i] = byte(rnd.Uint32())
			}
			c.write(garbage)
			continue
		default:
			time.Sleep(time.Millisecond) // let others in
			continue
		}
		c.send(pk)
	}
}

// A sloppyConn does not care whether anybody listens.
type sloppyConn struct{ net.Conn }

func (c sloppyConn) Write(b []byte) (int, error) {
	_, _ = c.Conn.Write(b)
	return len(b), nil
}
