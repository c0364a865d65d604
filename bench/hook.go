package main

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mochi-hooks/webhook"
)

// newHook starts a hook whose endpoint is a receiver.
func newHook(args arguments) (*webhook.Hook, error) {
	e := webhook.Endpoint{
		URL:      "http://" + args.Addr + "/hook",
		PoolSize: args.Pool,
		Queue:    webhook.Queue{Capacity: -1, MaxBytes: -1}, // nothing is dropped
		Retry:    webhook.Retry{MaxAge: -1},
	}
	for i := range max(args.Rules, 1) {
		rule := webhook.Rule{Event: webhook.OnMessagePublish, Topic: fmt.Sprintf("site/%d/+/%d/#", i%100, i+1000)}
		if args.Match && i == 0 {
			rule.Topic = filter
		}
		e.Events = append(e.Events, rule)
	}
	if args.Batch {
		e.Batch.MaxEvents = 100
		// There are too many for the memory: who publishes waits.
		e.Queue.Overflow, e.Queue.BlockTimeout = webhook.Block, time.Hour
	}
	if args.Batch || args.Full {
		e.Queue.Capacity = args.Capacity
	}
	if args.Gzip {
		e.Compression = webhook.Gzip
	}
	if args.NATS != "" {
		e.Stream = stream(args)
	}
	if args.Dir != "" {
		// A burst that the disk does not take at once waits.
		e.Queue.Type, e.Queue.Dir = webhook.DiskQueue, args.Dir // MaxBytes is -1
		e.Queue.Overflow, e.Queue.BlockTimeout = webhook.Block, time.Hour
	}
	drain := 5 * time.Minute
	if args.Hang {
		e.Timeout, drain = time.Hour, -1
	}
	h := new(webhook.Hook)
	return h, h.Init(&webhook.Options{Config: &webhook.Config{Endpoints: []webhook.Endpoint{e}}, DrainTimeout: drain})
}

// newClients are clients as the broker has them.
func newClients(n int) []*mqtt.Client {
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	clients := make([]*mqtt.Client, max(n, 1))
	for i := range clients {
		clients[i] = server.NewClient(nil, "tcp", clientID(i), false)
	}
	return clients
}

// publishFrom calls the hook as the broker does, for one client after the
// other.
func publishFrom(clients []*mqtt.Client, h *webhook.Hook, args arguments) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1},
		TopicName:   topic,
		Payload:     []byte(strings.Repeat("x", args.Payload)),
	}
	for i := range args.Events {
		h.OnPublished(clients[i%len(clients)], pk)
	}
}

// sendHook is this package, from the broker's callback to the last reply.
func sendHook(args arguments) error {
	args.Match = true
	h, err := newHook(args)
	if err != nil {
		return err
	}
	clients := newClients(args.Clients)
	m := startMeter()
	publishFrom(clients, h, args)
	_ = h.Stop() // returns when all is delivered
	o := m.outcome(args.Events)
	s := h.Stats().Endpoints["default"]
	o.Lost = args.Events - int(s.Delivered+s.Forwarded)
	return report(o)
}

// enqueue measures the callback alone: the endpoint does not answer.
func enqueue(args arguments) error {
	args.Hang = true
	h, err := newHook(args)
	if err != nil {
		return err
	}
	clients := newClients(args.Clients)
	if args.Full {
		publishFrom(clients, h, args) // more than there is room for
	}
	m := startMeter()
	publishFrom(clients, h, args)
	o := m.outcome(args.Events)
	_ = h.Stop()
	return report(o)
}
