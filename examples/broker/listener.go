package main

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// connectTimeout is how long a client may take to send its CONNECT. After
// that the broker sets its own deadlines.
const connectTimeout = 10 * time.Second

// A listener adds to a net.Listener what a public broker needs and mochi does
// not have: it stays up when accepting fails for a while, it lets no client
// hold a connection without a CONNECT, it writes acknowledgements many at a time,
// and it can close all connections.
type listener struct {
	net.Listener
	log *slog.Logger

	mu     sync.Mutex
	conns  map[*conn]struct{} // until their owner closes them
	gone   sync.Cond          // a connection left conns
	closed bool               // by closeConns
}

// A conn leaves its listener when its owner closes it.
type conn struct {
	net.Conn
	from *listener
}

func newListener(l net.Listener, log *slog.Logger) *listener {
	wrapped := &listener{Listener: l, log: log, conns: make(map[*conn]struct{})}
	wrapped.gone.L = &wrapped.mu
	return wrapped
}

// Accept waits for the next connection. Mochi stops listening at the first
// error, so it gets none but the last: running out of file descriptors, for
// example, passes.
func (l *listener) Accept() (net.Conn, error) {
	const longest = time.Second
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, longest) {
		c, err := l.Listener.Accept()
		if err == nil {
			return l.add(c)
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		l.log.Warn("accepting a connection failed", "error", err)
		time.Sleep(pause)
	}
}

func (l *listener) add(c net.Conn) (net.Conn, error) {
	_ = c.SetDeadline(time.Now().Add(connectTimeout)) // fails on a dead connection only
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	added := &conn{Conn: &ackConn{Conn: c}, from: l}
	l.conns[added] = struct{}{}
	return added, nil
}

// Close closes the connection.
func (c *conn) Close() error {
	c.from.mu.Lock()
	delete(c.from.conns, c)
	c.from.gone.Broadcast()
	c.from.mu.Unlock()
	return c.Conn.Close()
}

// closeConns closes the connections that are open and lets no more come.
func (l *listener) closeConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.conns {
		_ = c.Conn.Close() // its owner notices and closes c
	}
}

// wait returns when every connection has been closed by its owner.
func (l *listener) wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.conns) > 0 {
		l.gone.Wait()
	}
}
