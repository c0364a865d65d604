package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook"
	"github.com/mochi-hooks/webhook/internal/stream"
)

// TestConnectionsCut cuts the connections of brokers and workers over and over
// while events flow.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	r := startReceiver(t)
	proxies := []*proxy{startProxy(t, nats.ClientURL()), startProxy(t, nats.ClientURL()), startProxy(t, nats.ClientURL())}
	b := startBroker(t, config(r.URL, proxies[0].url(), nil), 50)
	for _, p := range proxies[1:] {
		startWorker(t, config(r.URL, p.url(), nil))
	}
	r.mu.Lock()
	r.answer = func(string, int) int { // slow enough for something to be on its way
		time.Sleep(5 * time.Millisecond)
		return 200
	}
	r.mu.Unlock()
	const n, cuts = 9000, 18
	for i := range cuts {
		b.publishAll(n / cuts)
		time.Sleep(time.Duration(50+rand.IntN(100)) * time.Millisecond)
		proxies[i%len(proxies)].cut(false)
	}
	r.await(n)
	awaitForwarded(t, b, n)
	first, again := r.counts()
	t.Logf("%d messages, %d came again", first, again)
}

func awaitForwarded(t testing.TB, b *broker, n uint64) {
	t.Helper()
	for last, moved := uint64(0), time.Now(); ; time.Sleep(10 * time.Millisecond) {
		s := b.Stats().Endpoints["orders"]
		addUp(t, s)
		switch {
		case s.Forwarded == n:
			return
		case s.Forwarded != last:
			last, moved = s.Forwarded, time.Now()
		case time.Since(moved) > 30*time.Second:
			t.Fatalf("%+v", s)
		}
	}
}

// TestWorkerCutOff takes the network from a worker that has half of the
// partitions, with attempts that hang: they go to the other worker, in order.
func TestWorkerCutOff(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	r := startReceiver(t)
	p := startProxy(t, nats.ClientURL())
	b := startBroker(t, config(r.URL, nats.ClientURL(), nil), 50)
	lost := startWorker(t, config(r.URL, p.url(), nil))
	startWorker(t, config(r.URL, nats.ClientURL(), nil))
	const n = 8000
	b.publishAll(n / 4)
	r.await(n / 4)
	r.mu.Lock()
	r.answer = func(string, int) int { // slow enough for a backlog
		time.Sleep(time.Millisecond)
		return 200
	}
	r.mu.Unlock()
	b.publishAll(n / 2)
	time.Sleep(100 * time.Millisecond)
	p.cut(true)
	b.publishAll(n / 4)
	r.await(n)
	if lost.Healthy() == nil {
		t.Error("a worker without NATS is healthy")
	}
	eventually(t, 20*time.Second, func() string { // by its own clock, as it cannot ask anybody
		s := lost.Stats().Endpoints["orders"]
		addUp(t, s)
		if s.InFlight > 0 {
			return fmt.Sprintf("in flight: %+v", s)
		}
		return ""
	})
	p.open()
	eventually(t, 20*time.Second, func() string {
		if s := lost.Stats().Endpoints["orders"]; s.Waiting > 0 {
			return fmt.Sprintf("%d wait in the lost worker", s.Waiting)
		}
		return ""
	})
	_, again := r.counts()
	t.Logf("%d came again", again)
}

// TestWithoutNATS starts a broker when there is no NATS, which comes, goes with
// all that it has in memory, and comes again.
func TestWithoutNATS(t *testing.T) {
	t.Parallel()
	p := startProxy(t, "") // keeps the address for NATS
	p.cut(true)
	dir := t.TempDir()
	start := func() *server.Server {
		s := startNATS(t, func(o *server.Options) { o.StoreDir = dir })
		p.moveTo(s.ClientURL())
		p.open()
		return s
	}
	r := startReceiver(t)
	cfg := config(r.URL, p.url(), func(e *webhook.Endpoint) { // which are for the receiver
		e.Breaker.Cooldown, e.Retry.MinBackoff, e.Retry.MaxBackoff = time.Hour, time.Hour, time.Hour
	})
	b := startBroker(t, cfg, 10)
	b.publishAll(1000)
	if s := b.Stats().Endpoints["orders"]; s.Waiting+s.InFlight != 1000 {
		t.Fatalf("without NATS: %+v", s)
	}
	eventually(t, 10*time.Second, func() string {
		if err := b.Healthy(); err == nil || !strings.Contains(err.Error(), "NATS") {
			return fmt.Sprintf("healthy without NATS: %v", err)
		}
		return ""
	})
	nats := start()
	startWorker(t, cfg)
	r.await(1000)
	p.cut(true)
	stopNATS(nats)
	b.publishAll(1000)
	start()
	r.await(2000)
	awaitForwarded(t, b, 2000)
	eventually(t, 10*time.Second, func() string {
		if err := b.Healthy(); err != nil {
			return err.Error()
		}
		return ""
	})
}

// TestHealthyDoesNotWait asks for the health of a broker while NATS is silent, and
// the stream is to be looked at.
func TestHealthyDoesNotWait(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	p := startProxy(t, nats.ClientURL())
	b := startBroker(t, config("http://127.0.0.1:1/", p.url(), nil), 3)
	b.publish(0)
	awaitForwarded(t, b, 1)
	healthy := func(want bool) {
		t.Helper()
		eventually(t, 15*time.Second, func() string {
			begin := time.Now()
			err := b.Healthy()
			if took := time.Since(begin); took > time.Second {
				t.Fatalf("Healthy took %v", took)
			}
			if (err == nil) != want {
				return fmt.Sprintf("healthy: %v", err)
			}
			return ""
		})
	}
	p.cut(true)
	healthy(false)
	p.open()
	healthy(true)
	p.stall()
	b.publishAll(3)
	healthy(false)
	p.cut(false) // what connects now is not answered
	healthy(false)
	for range 200 { // while it tries to connect
		healthy(false)
		time.Sleep(10 * time.Millisecond)
	}
}

// TestPublishWaitsByItsContext publishes while another call waits for the stream.
func TestPublishWaitsByItsContext(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	p := startProxy(t, nats.ClientURL())
	log, lines := logger(t, "publisher")
	pub := newPublisher(t, p.url(), log)
	p.cut(false)
	eventually(t, 10*time.Second, func() string { // it has to look at the stream then
		if strings.Count(lines.String(), "connected to NATS") < 2 || pub.Err() != nil {
			return "not connected"
		}
		return ""
	})
	p.stall()
	first := make(chan error, 1)
	go func() { first <- pub.Publish(t.Context(), 0, "1", []byte("x")) }() // ends with the request
	time.Sleep(100 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	err := pub.Publish(ctx, 0, "2", []byte("x"))
	if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 2*time.Second {
		t.Errorf("got %v after %v", err, took)
	}
	if err := <-first; err == nil {
		t.Error("published through nothing")
	}
}

// TestAnotherServer lets the connection come back at a server whose stream is another
// one: it is looked at before the next event, which must not go there, and once for
// all events.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	first, second := startNATS(t, nil), startNATS(t, nil)
	js := client(t, second.ClientURL())
	wrong := jetstream.StreamConfig{Name: "S", Subjects: []string{"S.*.*"}, Discard: jetstream.DiscardOld}
	if _, err := js.CreateStream(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, first.ClientURL())
	log, _ := logger(t, "publisher")
	pub := newPublisher(t, p.url(), log)
	again := func(to *server.Server) {
		t.Helper()
		p.moveTo(to.ClientURL())
		p.cut(false)
		for _, up := range []bool{false, true} {
			eventually(t, 20*time.Second, func() string {
				if err := pub.Err(); (err == nil) != up {
					return fmt.Sprintf("connected: %v", err)
				}
				return ""
			})
		}
	}
	requests := func() uint64 {
		t.Helper()
		info, err := first.Jsz(nil)
		if err != nil {
			t.Fatal(err)
		}
		return info.JetStreamStats.API.Total
	}
	publishOne(t, pub, "a")
	again(first)
	before := requests()
	for i := range 20 {
		publishOne(t, pub, fmt.Sprint("b", i))
	}
	if n := requests() - before; n > 2 {
		t.Errorf("%d requests about the stream of the same server", n)
	}
	again(second)
	err := pub.Publish(t.Context(), 0, "c", []byte("c"))
	if misconfigured := new(stream.Misconfigured); !errors.As(err, &misconfigured) {
		t.Errorf("got %v, want one about another stream", err)
	}
}

func newPublisher(t *testing.T, url string, log *slog.Logger) stream.Publisher {
	t.Helper()
	engine, err := stream.Find("jetstream")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := engine.Publisher(stream.Config{
		URL: url, Name: "S", Endpoint: "orders", Partitions: 4, Replicas: 1, MaxBytes: 1 << 30, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	return pub
}

// TestFlappingConnection cuts a connection again and again: the log has one pair of
// lines about that, and in the end that it is lost.
func TestFlappingConnection(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	p := startProxy(t, nats.ClientURL())
	log, lines := logger(t, "publisher")
	pub := newPublisher(t, p.url(), log)
	for range 4 {
		p.cut(false)
		for _, up := range []bool{false, true} {
			eventually(t, 10*time.Second, func() string {
				if err := pub.Err(); (err == nil) != up {
					return fmt.Sprintf("connected: %v", err)
				}
				return ""
			})
		}
	}
	lost := func() int { return strings.Count(lines.String(), "connection to NATS lost") }
	if up := strings.Count(lines.String(), "connected to NATS"); lost() != 1 || up != 2 {
		t.Errorf("%d lines that it is lost, %d that it is there; want 1 and 2", lost(), up)
	}
	p.cut(true)
	eventually(t, 15*time.Second, func() string {
		if lost() != 2 {
			return "not told that it is lost in the end"
		}
		return ""
	})
}

// TestCauseIsLogged starts brokers that cannot connect, for all that may be wrong.
func TestCauseIsLogged(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	creds := filepath.Join(t.TempDir(), "hunter2.creds")
	if err := os.WriteFile(creds, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, url, creds, want string }{
		{"refused", "nats://127.0.0.1:1", "", "connection refused"},
		{"TLS", "tls://" + nats.Addr().String(), "", "secure connection not available"},
		{"credentials", nats.ClientURL(), creds, "no nkey seed found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log, lines := logger(t, "broker")
			h := new(webhook.Hook)
			h.SetOpts(log, nil)
			cfg := config("http://127.0.0.1:1/", tt.url, func(e *webhook.Endpoint) { e.Stream.CredsFile = tt.creds })
			if err := h.Init(&webhook.Options{Config: cfg}); err != nil {
				t.Fatal(err)
			}
			defer h.Stop()
			eventually(t, 10*time.Second, func() string {
				if !strings.Contains(lines.String(), tt.want) {
					return "no cause in the log"
				}
				return ""
			})
			time.Sleep(3 * time.Second) // some more attempts
			if text := lines.String(); strings.Count(text, "cannot connect to NATS") > 1 || strings.Contains(text, "hunter2") {
				t.Errorf("log %s", text)
			}
			if err := h.Healthy(); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("healthy: %v", err)
			}
		})
	}
}

// startCluster starts three servers.
func startCluster(t testing.TB) []*server.Server {
	t.Helper()
	var ports []int
	var routes []*url.URL
	var held []net.Listener // so that nobody else takes the ports
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
	}
	var servers []*server.Server
	for i := range 3 {
		opts := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]},
		}
		s, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		held[i].Close()
		go s.Start() // ends with Shutdown
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("NATS does not start")
		}
		t.Cleanup(func() { stopNATS(s) })
		servers = append(servers, s)
	}
	eventually(t, 30*time.Second, func() string {
		for _, s := range servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(servers) {
				return ""
			}
		}
		return "the cluster does not come together"
	})
	return servers
}

// TestLeaderKilled takes the stream's leader from a cluster of three while
// events flow.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	r := startReceiver(t)
	cfg := config(r.URL, strings.Join(urls, ","), func(e *webhook.Endpoint) { e.Stream.Replicas, e.Stream.Partitions = 3, 4 })
	b := startBroker(t, cfg, 50)
	startWorker(t, cfg)
	startWorker(t, cfg)
	const n = 6000
	b.publishAll(n / 3)
	r.await(n / 3)
	b.publishAll(n / 3)
	time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	eventually(t, 20*time.Second, func() string {
		for _, s := range servers {
			if s.JetStreamIsStreamLeader("$G", "MQTT_WEBHOOKS") {
				stopNATS(s)
				return ""
			}
		}
		return "the stream has no leader"
	})
	b.publishAll(n / 3)
	r.await(n)
	awaitForwarded(t, b, n)
	_, again := r.counts()
	t.Logf("%d came again", again)
}

// TestLeaderAlone takes all others from a stream's leader. It answers as before for
// up to twenty seconds, which says nothing about who has a partition: together the
// others could have chosen another leader, if they were cut off instead.
func TestLeaderAlone(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	replicated := func(e *webhook.Endpoint) { e.Stream.Replicas, e.Stream.Partitions = 3, 4 }
	startBroker(t, config("http://127.0.0.1:1/", servers[0].ClientURL(), replicated), 1)
	var leader *server.Server
	eventually(t, 20*time.Second, func() string {
		for _, s := range servers {
			if s.JetStreamIsStreamLeader("$G", "MQTT_WEBHOOKS") {
				leader = s
				return ""
			}
		}
		return "the stream has no leader"
	})
	w := startWorker(t, config("http://127.0.0.1:1/", leader.ClientURL(), replicated))
	healthy := func() string {
		if err := w.Healthy(); err != nil {
			return err.Error()
		}
		return ""
	}
	eventually(t, 20*time.Second, healthy)
	time.Sleep(3 * time.Second) // it stays so
	if problem := healthy(); problem != "" {
		t.Error(problem)
	}
	for _, s := range servers {
		if s != leader {
			stopNATS(s)
		}
	}
	eventually(t, 7*time.Second, func() string {
		if problem := healthy(); !strings.Contains(problem, "hears from 1 of 3 servers") {
			return "healthy: " + problem
		}
		return ""
	})
}
