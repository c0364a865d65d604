package webhook

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// rawTimeout bounds each wait of a test for the network.
const rawTimeout = 20 * time.Second

// A rawConnect is a CONNECT packet. Its zero value is MQTT 3.1.1 with an empty
// client id and clean session off.
type rawConnect struct {
	Version   byte // 3, 4, 5; 0 is 4
	ID        string
	Clean     bool
	User      string
	Password  string
	Keepalive uint16
	Will      *rawWill

	// MQTT 5 properties; 0 is absent.
	Expiry     uint32
	AliasMax   uint16
	ReceiveMax uint16
	MaxPacket  uint32
}

type rawWill struct {
	Topic, Payload string
	QoS            byte
	Retain         bool
	Delay          uint32 // seconds, MQTT 5
}

func (c rawConnect) packet() packets.Packet {
	pk := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: c.Version,
		Connect: packets.ConnectParams{
			ProtocolName:     []byte("MQTT"),
			ClientIdentifier: c.ID,
			Clean:            c.Clean,
			Keepalive:        c.Keepalive,
			Username:         []byte(c.User),
			UsernameFlag:     c.User != "",
			Password:         []byte(c.Password),
			PasswordFlag:     c.Password != "",
		},
		Properties: packets.Properties{
			SessionExpiryInterval:     c.Expiry,
			SessionExpiryIntervalFlag: c.Expiry > 0,
			TopicAliasMaximum:         c.AliasMax,
			ReceiveMaximum:            c.ReceiveMax,
			MaximumPacketSize:         c.MaxPacket,
		},
	}
	switch c.Version {
	case 0:
		pk.ProtocolVersion = 4
	case 3:
		pk.Connect.ProtocolName = []byte("MQIsdp")
	}
	if w := c.Will; w != nil {
		pk.Connect.WillFlag = true
		pk.Connect.WillTopic, pk.Connect.WillPayload = w.Topic, []byte(w.Payload)
		pk.Connect.WillQos, pk.Connect.WillRetain = w.QoS, w.Retain
		pk.Connect.WillProperties.WillDelayInterval = w.Delay
	}
	return pk
}

// A rawClient is an MQTT client that does what it is told and nothing else.
type rawClient struct {
	t       testing.TB
	conn    net.Conn
	r       *bufio.Reader
	version byte
	id      uint16 // last packet id
}

// rawDial opens a connection, which is closed at the end of the test.
func rawDial(t testing.TB, addr string) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newRawClient(t, conn)
}

func newRawClient(t testing.TB, conn net.Conn) *rawClient {
	t.Cleanup(func() { conn.Close() })
	return &rawClient{t: t, conn: conn, r: bufio.NewReader(conn), version: 4}
}

// dialConnect connects and returns the CONNACK.
func dialConnect(t testing.TB, addr string, c rawConnect) (*rawClient, packets.Packet) {
	t.Helper()
	cl := rawDial(t, addr)
	return cl, cl.connect(c)
}

// mustConnect connects and requires success.
func mustConnect(t testing.TB, addr string, c rawConnect) *rawClient {
	t.Helper()
	cl := rawDial(t, addr)
	cl.mustConnect(c)
	return cl
}

// connect sends a CONNECT and returns the CONNACK.
func (c *rawClient) connect(connect rawConnect) packets.Packet {
	c.t.Helper()
	pk := connect.packet()
	c.version = pk.ProtocolVersion
	c.send(pk)
	return c.expect(packets.Connack)
}

// mustConnect requires success.
func (c *rawClient) mustConnect(connect rawConnect) {
	c.t.Helper()
	if ack := c.connect(connect); ack.ReasonCode != 0 {
		c.t.Fatalf("connect %+v: CONNACK 0x%02x", connect, ack.ReasonCode)
	}
}

// send encodes and writes a packet.
func (c *rawClient) send(pk packets.Packet) {
	c.t.Helper()
	if pk.ProtocolVersion == 0 {
		pk.ProtocolVersion = c.version
	}
	encode := map[byte]func(*packets.Packet, *bytes.Buffer) error{
		packets.Connect:     (*packets.Packet).ConnectEncode,
		packets.Publish:     (*packets.Packet).PublishEncode,
		packets.Puback:      (*packets.Packet).PubackEncode,
		packets.Pubrec:      (*packets.Packet).PubrecEncode,
		packets.Pubrel:      (*packets.Packet).PubrelEncode,
		packets.Pubcomp:     (*packets.Packet).PubcompEncode,
		packets.Subscribe:   (*packets.Packet).SubscribeEncode,
		packets.Unsubscribe: (*packets.Packet).UnsubscribeEncode,
		packets.Pingreq:     (*packets.Packet).PingreqEncode,
		packets.Disconnect:  (*packets.Packet).DisconnectEncode,
		packets.Auth:        (*packets.Packet).AuthEncode,
	}[pk.FixedHeader.Type]
	var b bytes.Buffer
	if err := encode(&pk, &b); err != nil {
		c.t.Fatalf("encode %+v: %v", pk, err)
	}
	c.write(b.Bytes())
}

// write writes bytes as they are.
func (c *rawClient) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read returns the next packet, or the error of the connection.
func (c *rawClient) read() (packets.Packet, error) {
	pk := packets.Packet{ProtocolVersion: c.version}
	_ = c.conn.SetReadDeadline(time.Now().Add(rawTimeout))
	first, err := c.r.ReadByte()
	if err != nil {
		return pk, err
	}
	if err := pk.FixedHeader.Decode(first); err != nil {
		return pk, err
	}
	n, _, err := packets.DecodeLength(c.r)
	if err != nil {
		return pk, err
	}
	pk.FixedHeader.Remaining = n
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return pk, err
	}
	switch pk.FixedHeader.Type {
	case packets.Connack:
		err = pk.ConnackDecode(b)
	case packets.Publish:
		err = pk.PublishDecode(b)
	case packets.Puback:
		err = pk.PubackDecode(b)
	case packets.Pubrec:
		err = pk.PubrecDecode(b)
	case packets.Pubrel:
		err = pk.PubrelDecode(b)
	case packets.Pubcomp:
		err = pk.PubcompDecode(b)
	case packets.Suback:
		err = pk.SubackDecode(b)
	case packets.Unsuback:
		err = pk.UnsubackDecode(b)
	case packets.Disconnect:
		err = pk.DisconnectDecode(b)
	}
	if err != nil {
		err = fmt.Errorf("decode packet type %d: %w", pk.FixedHeader.Type, err)
	}
	return pk, err
}

// expect reads the next packet, which must be of the given type.
func (c *rawClient) expect(typ byte) packets.Packet {
	c.t.Helper()
	pk, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for %s: %v", packets.PacketNames[typ], err)
	}
	if pk.FixedHeader.Type != typ {
		c.t.Fatalf("got %s, want %s", packets.PacketNames[pk.FixedHeader.Type], packets.PacketNames[typ])
	}
	return pk
}

// awaitClose reads until the broker closes the connection.
func (c *rawClient) awaitClose() {
	c.t.Helper()
	for {
		if _, err := c.read(); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				c.t.Fatal("the broker did not close the connection")
			}
			return
		}
	}
}

// nextID returns a fresh packet id. They start high, because the broker keeps
// its own ids, which start at 1, in the same table.
func (c *rawClient) nextID() uint16 {
	c.id++
	return 30000 + c.id
}

// publish sends a message and completes its exchange.
func (c *rawClient) publish(topic, payload string, qos byte, retain bool) {
	c.t.Helper()
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: retain},
		TopicName:   topic,
		Payload:     []byte(payload),
	}
	if qos > 0 {
		pk.PacketID = c.nextID()
	}
	c.send(pk)
	switch qos {
	case 1:
		c.expect(packets.Puback)
	case 2:
		c.expect(packets.Pubrec)
		c.ack(packets.Pubrel, pk.PacketID)
		c.expect(packets.Pubcomp)
	}
}

// ack sends PUBACK, PUBREC, PUBREL or PUBCOMP.
func (c *rawClient) ack(typ byte, id uint16) {
	c.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: typ}, PacketID: id}
	if typ == packets.Pubrel {
		pk.FixedHeader.Qos = 1
	}
	c.send(pk)
}

// subscribe subscribes to filters, all with one QoS, and returns the codes.
func (c *rawClient) subscribe(qos byte, filters ...string) []byte {
	c.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: c.nextID()}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: qos})
	}
	c.send(pk)
	return c.expect(packets.Suback).ReasonCodes
}

func (c *rawClient) unsubscribe(filters ...string) {
	c.t.Helper()
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: c.nextID()}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	c.send(pk)
	c.expect(packets.Unsuback)
}

// ping waits until the broker has handled everything that was sent.
func (c *rawClient) ping() {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.expect(packets.Pingresp)
}

// disconnect sends DISCONNECT, with the code under MQTT 5, and waits for the
// end of the connection.
func (c *rawClient) disconnect(code byte) {
	c.t.Helper()
	c.disconnectWith(code, packets.Properties{})
}

func (c *rawClient) disconnectWith(code byte, props packets.Properties) {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: code, Properties: props})
	c.awaitClose()
}

// fin closes the connection, rst resets it.
func (c *rawClient) fin() { c.conn.Close() }

func (c *rawClient) rst() {
	_ = c.conn.(*net.TCPConn).SetLinger(0)
	c.conn.Close()
}
