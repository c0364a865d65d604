package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook"
	_ "github.com/mochi-hooks/webhook/jetstream"
)

// partitions is how many partitions the stream has.
const partitions = 16

// stream is the stream of an endpoint.
func stream(args arguments) webhook.Stream {
	return webhook.Stream{URL: webhook.Secret(args.NATS), Name: "BENCH", Partitions: partitions, MaxBytes: -1}
}

// throughStream puts events into a stream and then lets a worker deliver them.
// It returns the outcome of one of those who take part.
func (b *bench) throughStream(args arguments, of string) (o outcome, err error) {
	args.Events = max(args.Events/b.scale, 1000)
	n, err := b.startNATS(&args)
	if err != nil {
		return o, err
	}
	defer n.kill()
	defer os.RemoveAll(args.Dir)
	r, err := start("receiver", arguments{})
	if err != nil {
		return o, err
	}
	defer r.kill()
	if args.Addr, err = r.addr(); err != nil {
		return o, err
	}
	args.Dir = "" // that of NATS
	outcomes := make(map[string]outcome)
	for _, role := range []string{"hook", "worker"} {
		c, err := start(role, args)
		if err != nil {
			return o, err
		}
		outcomes[role], err = c.outcome()
		c.kill()
		if err != nil {
			return o, err
		}
		if role == of {
			return outcomes[role], nil
		}
	}
	cpu, err := n.end()
	seconds := outcomes["hook"].Seconds + outcomes["worker"].Seconds
	return outcome{Events: args.Events, Seconds: seconds, CPU: cpu}, err
}

// workers measures how fast so many workers deliver together, from the first
// event to the last reply.
func (b *bench) workers(args arguments, n int) (o outcome, err error) {
	args.Events = max(args.Events/b.scale, 1000)
	ns, err := b.startNATS(&args)
	if err != nil {
		return o, err
	}
	defer ns.kill()
	defer os.RemoveAll(args.Dir)
	args.Dir = ""
	r, err := start("receiver", args)
	if err != nil {
		return o, err
	}
	defer r.kill()
	if args.Addr, err = r.addr(); err != nil {
		return o, err
	}
	var workers []*child
	for range n {
		forever := args
		forever.Events = 0
		w, err := start("worker", forever)
		if err != nil {
			return o, err
		}
		defer w.kill()
		workers = append(workers, w)
	}
	if err := awaitShares(args.NATS, n); err != nil {
		return o, err
	}
	begin := time.Now()
	h, err := start("hook", args)
	if err != nil {
		return o, err
	}
	defer h.kill()
	if _, err := r.line(); err != nil { // "done"
		return o, err
	}
	o = outcome{Events: args.Events, Seconds: time.Since(begin).Seconds()}
	if _, err := h.outcome(); err != nil {
		return o, err
	}
	for _, w := range workers {
		cpu, err := w.end()
		if err != nil {
			return o, err
		}
		o.CPU += cpu
	}
	return o, nil
}

// awaitShares waits until the partitions are evenly shared.
func awaitShares(url string, workers int) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
		s, err := js.Stream(ctx, "BENCH")
		if err != nil {
			continue // nobody has made it yet
		}
		shares, all, most := make(map[string]int), 0, 0
		names := s.ConsumerNames(ctx)
		for name := range names.Name() {
			worker, _, _ := strings.Cut(name[strings.LastIndexByte(name, '-')+1:], "_")
			shares[worker]++
			all, most = all+1, max(most, shares[worker])
		}
		if all == partitions && most == (partitions+workers-1)/workers {
			return nil
		}
	}
	return errors.New("the workers do not share the partitions")
}

// startNATS starts a NATS server and sets where it is.
func (b *bench) startNATS(args *arguments) (*child, error) {
	var err error
	if args.Dir, err = os.MkdirTemp(b.dir, "nats"); err != nil {
		return nil, err
	}
	n, err := start("nats", *args)
	if err != nil {
		return nil, err
	}
	if args.NATS, err = n.addr(); err != nil {
		n.kill()
		return nil, err
	}
	return n, nil
}

// serveNATS is the role of the NATS server.
func serveNATS(args arguments) error {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: args.Dir,
	})
	if err != nil {
		return err
	}
	go s.Start() // ends with Shutdown
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("NATS does not start")
	}
	fmt.Println(s.ClientURL())
	untilStdinCloses()
	s.Shutdown()
	return nil
}

// work is the role of a worker. It ends when it has delivered the events, or by
// its standard input if there are none.
func work(args arguments) error {
	e := webhook.Endpoint{URL: "http://" + args.Addr + "/hook", PoolSize: args.Pool, Stream: stream(args)}
	d := &webhook.Deliverer{Config: &webhook.Config{Endpoints: []webhook.Endpoint{e}}, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := startMeter()
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }() // ends with ctx
	if args.Events == 0 {
		untilStdinCloses()
		cancel()
		return <-ended
	}
	for d.Stats().Endpoints["default"].Delivered < uint64(args.Events) {
		select {
		case err := <-ended:
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
	o := m.outcome(args.Events)
	cancel()
	return errors.Join(<-ended, report(o))
}
