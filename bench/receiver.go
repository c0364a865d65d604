package main

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// reply is the whole reply of the receiver.
const reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// A receiver is an HTTP server that does as little as it can, as it shares the
// machine with what is measured.
type receiver struct {
	args     arguments
	requests atomic.Int64

	latencies []time.Duration // by request
}

// receive is the role of the receiver. It prints its address, "done" after as
// many requests as there are events, and its outcome at the end.
func receive(args arguments) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	r := &receiver{args: args}
	if args.Latency {
		r.latencies = make([]time.Duration, args.Events)
	}
	go func() { // ends with the process
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(conn)
		}
	}()
	untilStdinCloses()
	o := outcome{Events: int(r.requests.Load())}
	if n := min(o.Events, len(r.latencies)); n > 0 {
		slices.Sort(r.latencies[:n])
		o.P50 = r.latencies[n/2].Seconds() * 1000
		o.P99 = r.latencies[n*99/100].Seconds() * 1000
	}
	return report(o)
}

func (r *receiver) serve(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, 64<<10)
	n := 0
	for {
		got, err := conn.Read(buf[n:])
		if err != nil {
			return
		}
		if r.args.Hang {
			continue
		}
		n += got
		size := requestSize(buf[:n])
		if size > len(buf) {
			buf = append(buf, make([]byte, size-len(buf))...)
		}
		if size == 0 || n < size {
			continue
		}
		i := r.requests.Add(1)
		if r.args.Latency && i <= int64(len(r.latencies)) {
			r.latencies[i-1] = age(buf[:n])
		}
		time.Sleep(r.args.Delay)
		n = 0 // no client here sends a request before it has the reply
		if _, err := conn.Write([]byte(reply)); err != nil {
			return
		}
		if i == int64(r.args.Events) {
			fmt.Println("done")
		}
	}
}

// requestSize returns the length of the request that b begins with, or 0 if
// its head is not there yet.
func requestSize(b []byte) int {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0
	}
	_, after, _ := bytes.Cut(b[:end+2], []byte("Content-Length: "))
	value, _, _ := bytes.Cut(after, []byte("\r\n"))
	n, _ := strconv.Atoi(string(value))
	return end + 4 + n
}

// age returns how long ago the payload's time is.
func age(body []byte) time.Duration {
	_, after, ok := bytes.Cut(body, []byte(`"payload":"`))
	if !ok || len(after) < stampLen {
		return 0
	}
	ns, _ := strconv.ParseInt(string(after[:stampLen]), 10, 64)
	return time.Duration(time.Now().UnixNano() - ns)
}

// stampLen is the number of digits of a time in nanoseconds at the beginning of
// a payload.
const stampLen = 19
