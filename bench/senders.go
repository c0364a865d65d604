package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connections is how many all senders use unless it is what is compared.
const connections = 32

// send measures a role that sends to a receiver.
func (b *bench) send(role string, args arguments) (outcome, error) {
	args.Events = max(args.Events/b.scale, 1000)
	if args.Dir != "" {
		dir, err := os.MkdirTemp(b.dir, args.Dir)
		if err != nil {
			return outcome{}, err
		}
		defer os.RemoveAll(dir)
		args.Dir = dir
	}
	r, err := start("receiver", arguments{Hang: role == "enqueue"})
	if err != nil {
		return outcome{}, err
	}
	defer r.kill()
	if args.Addr, err = r.addr(); err != nil {
		return outcome{}, err
	}
	s, err := start(role, args)
	if err != nil {
		return outcome{}, err
	}
	defer s.kill()
	return s.outcome()
}

// body is a message_publish as the hook makes it.
func body(payload int) string {
	return `{"ts":1706703724960,"topic":"` + topic + `","retain":false,"qos":1,"action":"message_publish",` +
		`"from_username":"undefined","from_client_id":"client-00042","payload":"` + strings.Repeat("x", payload) + `"}`
}

// each runs send on so many goroutines until the events are sent.
func each(goroutines, events int, send func(next func() bool) error) error {
	var left atomic.Int64
	left.Store(int64(events))
	failed := make(chan error, goroutines) // all of them may fail
	var wg sync.WaitGroup
	m := startMeter()
	for range goroutines {
		wg.Go(func() {
			if err := send(func() bool { return left.Add(-1) >= 0 }); err != nil {
				failed <- err
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return report(m.outcome(events))
	}
}

// sendLoop is the limit: ready-made bytes, a write and a read for each webhook.
func sendLoop(args arguments) error {
	b := body(args.Payload)
	request := fmt.Appendf(nil, "POST /hook HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nUser-Agent: mochi-webhook/1\r\n"+
		"webhook-id: 018d5f8f-0000-7000-8000-000000000000\r\nwebhook-timestamp: 1706703724\r\nContent-Length: %d\r\n\r\n%s", args.Addr, len(b), b)
	return each(args.Pool, args.Events, func(next func() bool) error {
		conn, err := net.Dial("tcp", args.Addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		reply := make([]byte, 4096)
		for next() {
			if _, err := conn.Write(request); err != nil {
				return err
			}
			if _, err := conn.Read(reply); err != nil {
				return err
			}
		}
		return nil
	})
}

// sendNetHTTP is what a program does that has no package for it.
func sendNetHTTP(args arguments) error {
	transport := &http.Transport{MaxIdleConnsPerHost: args.Pool}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	b := []byte(body(args.Payload))
	return each(args.Pool, args.Events, func(next func() bool) error {
		for next() {
			resp, err := client.Post("http://"+args.Addr+"/hook", "application/json", bytes.NewReader(b))
			if err != nil {
				return err
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return nil
	})
}
