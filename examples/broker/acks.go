package main

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ackDelay is how long an acknowledgement waits at most for others to go
	// out with it.
	ackDelay = time.Millisecond

	// lastAcks is how long closing a connection may take because its last
	// acknowledgements do not go out.
	lastAcks = 10 * time.Millisecond
)

// An ackConn gathers the acknowledgements that mochi writes one by one while it
// works on what it has read, and writes them when it reads again: of a client
// that has 20 messages on their way, the broker answers all with one system call,
// which for it are half the cost of a message at QoS 1.
//
// Everything goes out in the order in which it was written.
type ackConn struct {
	net.Conn
	several atomic.Bool // packets were read at once, so there may be more to acknowledge

	mu    sync.Mutex
	acks  []byte      // wait to be written
	timer *time.Timer // writes them when the broker takes long to read again
	err   error       // in writing: what came after it would be within a packet
}

// Read writes the acknowledgements that wait, and reads. If a client took too long to
// take them, that is the end of reading, too; of one that is gone, there may be what it
// sent before, a DISCONNECT even. Who is writing takes them along, and may have to wait
// for a client that waits itself for the broker to read.
func (c *ackConn) Read(b []byte) (int, error) {
	if c.mu.TryLock() {
		if len(c.acks) > 0 {
			_ = c.writeAcks()
		}
		err := c.err
		c.mu.Unlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
	}
	n, err := c.Conn.Read(b)
	c.several.Store(!isOne(b[:n]))
	return n, err
}

// Write writes a packet, or keeps it for a while if it is an acknowledgement.
func (c *ackConn) Write(packet []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	none, wait := len(c.acks) == 0, isAck(packet) && c.several.Load()
	if none && !wait {
		return c.write(packet)
	}
	c.acks = append(c.acks, packet...)
	switch {
	case !wait:
		return len(packet), c.writeAcks()
	case c.timer == nil:
		c.timer = time.AfterFunc(ackDelay, c.flush)
	case none:
		c.timer.Reset(ackDelay)
	}
	return len(packet), nil
}

// Close writes the acknowledgements that wait, unless somebody is writing, and
// closes the connection.
func (c *ackConn) Close() error {
	if c.mu.TryLock() { // who writes to a client that does not read has it for long
		if len(c.acks) > 0 {
			late := time.AfterFunc(lastAcks, func() { _ = c.Conn.Close() })
			_ = c.writeAcks()
			late.Stop()
		}
		c.mu.Unlock()
	}
	return c.Conn.Close()
}

func (c *ackConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.acks) > 0 {
		_ = c.writeAcks()
	}
}

// writeAcks writes what waits; it needs the lock.
func (c *ackConn) writeAcks() error {
	c.timer.Stop()
	_, err := c.write(c.acks)
	c.acks = c.acks[:0]
	return err
}

// write writes, unless that has failed; it needs the lock.
func (c *ackConn) write(b []byte) (n int, err error) {
	if c.err == nil {
		n, c.err = c.Conn.Write(b)
	}
	return n, c.err
}

// isOne reports whether what was read looks like one packet, or less. It is wrong
// where that begins within a packet, which costs time and nothing else.
func isOne(read []byte) bool {
	const header = 1 // before the remaining length
	if len(read) <= header {
		return true
	}
	remaining, n := binary.Uvarint(read[header:])
	return n <= 0 || remaining >= uint64(len(read)-header-n)
}

// isAck reports whether a packet is a PUBACK, PUBREC, PUBREL or PUBCOMP.
func isAck(packet []byte) bool {
	return len(packet) > 0 && packet[0]>>4 >= 4 && packet[0]>>4 <= 7
}
