package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// hung measures the broker's throughput while its endpoint does not answer, with
// publishers that cost next to nothing, or those of a library.
func hung(qos byte, hook, library bool) func(b *bench) (outcome, error) {
	return func(b *bench) (outcome, error) {
		// Enough to fill the queue several times, so that its growth is a part only.
		events, window := 400000, 20
		switch {
		case library:
			events = 200000
		case qos == 0:
			events, window = 2000000, 64
		}
		args := arguments{Hang: true, Library: library, Clients: 50, Window: window, Events: max(events/b.scale, 1000)}
		o, _, err := b.throughBroker(qos, hook, args)
		return o, err
	}
}

// always measures publishes that wait until they are on disk.
func always(publishers int) func(b *bench) (outcome, error) {
	return func(b *bench) (outcome, error) {
		args := arguments{Hang: true, Always: true, Clients: publishers, Window: 1, Events: max(2000*min(publishers, 20)/b.scale, 500)}
		var err error
		if args.Dir, err = os.MkdirTemp(b.dir, "queue"); err != nil {
			return outcome{}, err
		}
		defer os.RemoveAll(args.Dir)
		o, _, err := b.throughBroker(1, true, args)
		return o, err
	}
}

// endToEnd measures webhooks of published messages, from the first publish to
// the last receipt; without the hook the publishes alone.
func endToEnd(hook bool) func(b *bench) (outcome, error) {
	return func(b *bench) (outcome, error) {
		args := arguments{Latency: true, Clients: 50, Window: 20, Events: max(80000/b.scale, 1000)}
		o, received, err := b.throughBroker(1, hook, args)
		if hook {
			o.P50, o.P99, o.Lost = received.P50, received.P99, args.Events-received.Events
		}
		return o, err
	}
}

// throughBroker publishes to the program examples/broker, and returns the
// outcome with that program's CPU time, and the receiver's outcome.
func (b *bench) throughBroker(qos byte, hook bool, args arguments) (o, received outcome, err error) {
	args.Events = args.Events / args.Clients * args.Clients
	r, err := start("receiver", args)
	if err != nil {
		return o, received, err
	}
	defer r.kill()
	addr, err := r.addr()
	if err != nil {
		return o, received, err
	}
	command := exec.Command(b.broker, "-listen", "127.0.0.1:0", "-drain", "0s")
	if hook {
		file := filepath.Join(b.dir, "webhook.hcl")
		queue := ""
		if args.Always {
			queue = fmt.Sprintf("  queue { type = \"disk\", dir = %q, sync = \"always\", block_timeout = \"60s\" }\n", args.Dir)
		}
		text := fmt.Sprintf("webhook {\n  url = \"http://%s/hook\"\n  events = [{ event = \"on_message_publish\", topic = %q }]\n%s}\n", addr, filter, queue)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			return o, received, err
		}
		command.Args = append(command.Args, "-config", file)
	}
	broker, err := startCommand("broker", command)
	if err != nil {
		return o, received, err
	}
	defer broker.kill()
	if addr, err = broker.addr(); err != nil {
		return o, received, err
	}
	begin := time.Now()
	args.Addr, args.QoS, args.Payload = addr, qos, 64
	p, err := start("publishers", args)
	if err != nil {
		return o, received, err
	}
	defer p.kill()
	if o, err = p.outcome(); err != nil {
		return o, received, err
	}
	if hook && !args.Hang {
		if _, err := r.line(); err != nil { // "done"
			return o, received, err
		}
		// The publishers' start is not part of it.
		o.Seconds = max(o.Seconds, time.Since(begin).Seconds()-0.03)
	}
	if o.CPU, err = broker.end(); err != nil {
		return o, received, err
	}
	received, err = r.outcome()
	return o, received, err
}
