package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// publish is the role of the MQTT clients: each waits for the acknowledgement
// of its message before the next at QoS 1, for how long it tells, and sends 64 at
// a time at QoS 0.
func publish(args arguments) error {
	errs := make(chan error, args.Clients) // each sends one
	waits := make([][]time.Duration, args.Clients)
	var ready, begin sync.WaitGroup
	ready.Add(args.Clients)
	begin.Add(1)
	for i := range args.Clients {
		n := args.Events / args.Clients
		go func() {
			conn, err := connectMQTT(args.Addr, i)
			ready.Done()
			begin.Wait()
			if err == nil {
				waits[i], err = publishOver(conn, args.QoS, n, args.Payload)
				conn.Close()
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

// connectMQTT connects by MQTT 3.1.1.
func connectMQTT(addr string, i int) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("client-%05d", i)
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
	return conn, nil
}

// publishOver returns how long each acknowledgement took.
func publishOver(conn net.Conn, qos byte, n, size int) (waits []time.Duration, err error) {
	const topic = "site/1/device/12/temperature"
	perWrite, in := 1, make([]byte, 4)
	if qos == 0 {
		perWrite, in = 64, in[:2]
	}
	var out []byte
	for sent := 0; sent < n; {
		out = out[:0]
		for range min(perWrite, n-sent) {
			length := 2 + len(topic) + 2*int(qos) + size
			out = append(out, 0x30|qos<<1)
			out = binary.AppendUvarint(out, uint64(length))
			out = binary.BigEndian.AppendUint16(out, uint16(len(topic)))
			out = append(out, topic...)
			if qos > 0 {
				out = binary.BigEndian.AppendUint16(out, uint16(sent%60000+1))
			}
			from := len(out)
			out = fmt.Appendf(out, "%0*d", stampLen, time.Now().UnixNano())
			for len(out) < from+size {
				out = append(out, 'x')
			}
			sent++
		}
		begin := time.Now()
		if _, err := conn.Write(out); err != nil {
			return nil, err
		}
		if qos > 0 {
			if _, err := io.ReadFull(conn, in); err != nil {
				return nil, err
			}
			waits = append(waits, time.Since(begin))
		}
	}
	if qos == 0 { // the answer to a ping comes after all that was before it
		if _, err := conn.Write([]byte{0xc0, 0}); err != nil {
			return nil, err
		}
		_, err = io.ReadFull(conn, in)
	}
	return waits, err
}
