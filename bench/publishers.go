package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// A publisher publishes n messages of a size, and returns how long each
// acknowledgement took.
type publisher func(qos byte, n, size, window int) ([]time.Duration, error)

// publish is the role of the MQTT clients. At QoS 1 each has a window of messages
// that are not acknowledged, and tells how long that takes; at QoS 0 each sends
// as many at a time, or with a library as the library does.
func publish(args arguments) error {
	connect := connectMQTT
	if args.Library {
		connect = connectPaho
	}
	errs := make(chan error, args.Clients) // each sends one
	waits := make([][]time.Duration, args.Clients)
	var ready, begin sync.WaitGroup
	ready.Add(args.Clients)
	begin.Add(1)
	for i := range args.Clients {
		n := args.Events / args.Clients
		go func() {
			client, err := connect(args.Addr, i)
			ready.Done()
			begin.Wait()
			if err == nil {
				waits[i], err = client(args.QoS, n, args.Payload, args.Window)
			}
			errs <- err
		}()
	}
	ready.Wait()
	m := startMeter()
	begin.Done()
	var err error
	for range args.Clients {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	o := m.outcome(args.Events)
	if all := slices.Sorted(slices.Values(slices.Concat(waits...))); len(all) > 0 {
		o.AckP50, o.AckP99 = all[len(all)/2].Seconds()*1000, all[len(all)*99/100].Seconds()*1000
	}
	return report(o)
}

// clientID is the name of the i-th publisher.
func clientID(i int) string { return fmt.Sprintf("client-%05d", i) }

// connectMQTT connects by MQTT 3.1.1.
func connectMQTT(addr string, i int) (publisher, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	id := clientID(i)
	packet := []byte{0x10, byte(12 + len(id)), 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(id))}
	if _, err := conn.Write(append(packet, id...)); err != nil {
		return nil, err
	}
	connack := make([]byte, 4)
	if _, err := io.ReadFull(conn, connack); err != nil {
		return nil, err
	}
	if connack[3] != 0 {
		return nil, fmt.Errorf("refused with code %d", connack[3])
	}
	return func(qos byte, n, size, window int) ([]time.Duration, error) {
		defer conn.Close()
		return publishOver(conn, qos, n, size, window)
	}, nil
}

// connectPaho connects with the library that most Go programs use.
func connectPaho(addr string, i int) (publisher, error) {
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(clientID(i)))
	if t := client.Connect(); t.Wait() && t.Error() != nil {
		return nil, t.Error()
	}
	return func(qos byte, n, size, window int) ([]time.Duration, error) {
		defer client.Disconnect(0)
		pending := make(chan mqtt.Token, window)
		errs := make(chan error, 1)
		go func() {
			var err error
			for t := range pending {
				t.Wait()
				err = errors.Join(err, t.Error())
			}
			errs <- err
		}()
		payload := bytes.Repeat([]byte{'x'}, size)
		for range n {
			pending <- client.Publish(topic, qos, false, payload)
		}
		pending <- client.Publish(topic, 1, false, payload) // acknowledged after all that was before it
		close(pending)
		return nil, <-errs
	}, nil
}

// publishOver returns how long each acknowledgement took.
func publishOver(conn net.Conn, qos byte, n, size, window int) (waits []time.Duration, err error) {
	const ackLen = 4
	in := make([]byte, ackLen*window)
	half := 0                        // bytes of an acknowledgement that is not complete
	begun := make([]time.Time, 0, n) // of the messages at QoS 1
	var out []byte
	for sent := 0; sent < n || len(waits) < len(begun); {
		most := min(window, n-sent)
		if qos > 0 {
			most = min(window-(sent-len(waits)), n-sent)
		}
		out = out[:0]
		for range most {
			out = appendPublish(out, qos, sent, size)
			sent++
			if qos > 0 {
				begun = append(begun, time.Now())
			}
		}
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		if qos > 0 {
			got, err := conn.Read(in[half:])
			if err != nil {
				return nil, err
			}
			got += half
			for half = got; half >= ackLen; half -= ackLen {
				waits = append(waits, time.Since(begun[len(waits)]))
			}
			copy(in, in[got-half:got])
		}
	}
	if qos == 0 { // the answer to a ping comes after all that was before it
		if _, err := conn.Write([]byte{0xc0, 0}); err != nil {
			return nil, err
		}
		_, err = io.ReadFull(conn, in[:2])
	}
	return waits, err
}

// What is published, and the rule that takes it.
const (
	topic  = "site/1/device/12/temperature"
	filter = "site/+/device/#"
)

// appendPublish appends a PUBLISH packet whose payload begins with the time.
func appendPublish(out []byte, qos byte, number, size int) []byte {
	out = append(out, 0x30|qos<<1)
	out = binary.AppendUvarint(out, uint64(2+len(topic)+2*int(qos)+size))
	out = binary.BigEndian.AppendUint16(out, uint16(len(topic)))
	out = append(out, topic...)
	if qos > 0 {
		out = binary.BigEndian.AppendUint16(out, uint16(number%60000+1))
	}
	from := len(out)
	out = fmt.Appendf(out, "%0*d", stampLen, time.Now().UnixNano())
	for len(out) < from+size {
		out = append(out, 'x')
	}
	return out
}
