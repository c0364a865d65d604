package examples_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What clients do in a recording, a line each.
var (
	connectAction = regexp.MustCompile(`^CONNECT ver=(\d) cid='(.*)' clean=(True|False) keepalive=(\d+) user=(None|'.*') pw=(None|'.*') will=None -> 20 .. 00 00`)
	publishAction = regexp.MustCompile(`^PUBLISH topic='(.*)' qos=(\d) retain=(True|False) dup=(True|False) pid=(None|\d+) props=([0-9a-f ]*?) ?payload\(\d+\)=([0-9a-f]*)(?:\.\.\.)? -> (.*)$`)
	bigAction     = regexp.MustCompile(`^PUBLISH (\S+) size=(\d+) payload = repeated bytes 0x20..0x7e;`)
	pubrelAction  = regexp.MustCompile(`^PUBREL (\d+) -> (.*)$`)
	answerAction  = regexp.MustCompile(`^-> (.*)$`)
)

// replay does what the clients of a recording did, waits for the same answers,
// and returns the payload that was published to each topic.
func (rec *recording) replay(t *testing.T, broker string) map[string][]byte {
	t.Helper()
	payloads := make(map[string][]byte)
	var c *rawClient
	for _, action := range rec.Actions {
		if m := connectAction.FindStringSubmatch(action); m != nil {
			c = &rawClient{t: t, conn: dial(t, broker), version: m[1][0] - '0'}
			c.r = bufio.NewReader(c.conn)
			c.connect(m[2], m[3] == "True", number(t, m[4]), pythonString(m[5]), pythonString(m[6]))
		} else if m := publishAction.FindStringSubmatch(action); m != nil {
			payload := unhex(t, m[7])
			if m[1] == "t/pay/all256" { // cut off in the recording
				payload = make([]byte, 256)
				for i := range payload {
					payload[i] = byte(i)
				}
			}
			payloads[m[1]] = payload
			qos := number(t, m[2])
			c.publish(m[1], qos, m[3] == "True", m[4] == "True", m[5], unhex(t, m[6]), payload)
			acked := !strings.HasPrefix(m[1], "$SYS") // mochi drops what clients publish there
			for _, answer := range strings.Split(m[8], " / PUBREL -> ") {
				if answer == "(qos0)" || !acked { // or the answer is on a line of its own
					break
				}
				if strings.HasPrefix(answer, "70") {
					c.send(0x62, be16(number(t, m[5])))
				}
				c.expect(answer)
			}
		} else if m := bigAction.FindStringSubmatch(action); m != nil {
			payload := make([]byte, number(t, m[2]))
			for i := range payload {
				payload[i] = ' ' + byte(i%('~'-' '+1))
			}
			payloads[m[1]] = payload
			c.publish(m[1], 1, false, false, "99", nil, payload)
			c.expect("40 02 00 63")
		} else if m := answerAction.FindStringSubmatch(action); m != nil {
			c.expect(m[1])
		} else if m := pubrelAction.FindStringSubmatch(action); m != nil {
			c.send(0x62, be16(number(t, m[1])))
			c.expect(m[2])
		} else if action == "DISCONNECT reason=None props=" {
			c.send(0xe0, nil)
			readAll(t, c.conn)
		} else if action == "TCP close (FIN) without DISCONNECT" {
			c.conn.Close()
		} else if action == "TCP RST without DISCONNECT" {
			_ = c.conn.(*net.TCPConn).SetLinger(0)
			c.conn.Close()
		} else if !strings.HasPrefix(action, "#") && !strings.Contains(action, "MATCHED ") {
			t.Fatalf("unknown action %q", action)
		}
	}
	return payloads
}

// A rawClient is an MQTT client that writes its own bytes.
type rawClient struct {
	t       *testing.T
	conn    net.Conn
	r       *bufio.Reader
	version byte
}

func (c *rawClient) connect(id string, clean bool, keepalive int, user, password *string) {
	c.t.Helper()
	name := "MQTT"
	if c.version == 3 {
		name = "MQIsdp"
	}
	b := append(field(name), c.version, 0)
	flags := &b[len(b)-1]
	if clean {
		*flags |= 0x02
	}
	if user != nil {
		*flags |= 0x80
	}
	if password != nil {
		*flags |= 0x40
	}
	b = append(b, be16(keepalive)...)
	if c.version == 5 {
		b = append(b, 0) // no properties
	}
	b = append(b, field(id)...)
	for _, s := range []*string{user, password} {
		if s != nil {
			b = append(b, field(*s)...)
		}
	}
	c.send(0x10, b)
	if got := c.read(); got[0] != 0x20 || got[3] != 0 {
		c.t.Fatalf("CONNECT of %q: got %x, want a CONNACK of success", id, got)
	}
}

func (c *rawClient) publish(topic string, qos int, retain, dup bool, pid string, props, payload []byte) {
	c.t.Helper()
	first := byte(0x30 | qos<<1)
	if retain {
		first |= 0x01
	}
	if dup {
		first |= 0x08
	}
	b := field(topic)
	if qos > 0 {
		b = append(b, be16(number(c.t, pid))...)
	}
	if c.version == 5 {
		b = append(append(b, byte(len(props))), props...)
	}
	c.send(first, append(b, payload...))
}

// send writes a packet.
func (c *rawClient) send(first byte, rest []byte) {
	c.t.Helper()
	packet := binary.AppendUvarint([]byte{first}, uint64(len(rest)))
	if _, err := c.conn.Write(append(packet, rest...)); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next packet, which is short.
func (c *rawClient) read() []byte {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	packet := make([]byte, 2)
	_, err := io.ReadFull(c.r, packet)
	if err == nil {
		packet = append(packet, make([]byte, packet[1]&0x7f)...)
		_, err = io.ReadFull(c.r, packet[2:])
	}
	if err != nil {
		c.t.Fatalf("reading a packet: %v", err)
	}
	return packet
}

// expect waits for an answer, which is given as it was recorded. Under MQTT 5,
// mochi adds a reason and properties.
func (c *rawClient) expect(recorded string) {
	c.t.Helper()
	got, want := c.read(), unhex(c.t, recorded)
	if got[0] != want[0] || !bytes.HasPrefix(got[2:], want[2:]) {
		c.t.Fatalf("got %x, want %x", got, want)
	}
}

// field is a string as it stands in a packet.
func field(s string) []byte { return append(be16(len(s)), s...) }

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pythonString reads None or a quoted string.
func pythonString(s string) *string {
	if s == "None" {
		return nil
	}
	s = strings.Trim(s, "'")
	return &s
}
