package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/mochi-hooks/webhook"
)

// TestMain checks that all tests together leave no goroutine of this package
// or of the client of NATS behind.
func TestMain(m *testing.M) {
	status := m.Run()
	if left := leftBehind(); status == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "left behind by the tests:\n%s\n", left)
		status = 1
	}
	os.Exit(status)
}

// leftBehind waits for what is about to end and returns what does not.
func leftBehind() string {
	http.DefaultClient.CloseIdleConnections()
	var left []string
	for wait := time.Millisecond; wait < 10*time.Second; wait *= 2 {
		stacks := make([]byte, 16<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left = slices.DeleteFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
			ours := strings.Contains(stack, "mochi-hooks/webhook") || strings.Contains(stack, "nats-io/nats.go")
			return !ours || strings.Contains(stack, ".leftBehind(")
		})
		if len(left) == 0 {
			return ""
		}
		time.Sleep(wait) // nothing announces the end of a goroutine
	}
	return strings.Join(left, "\n\n")
}

// stopTime is more than enough for what stops in time, and less than what it
// takes to wait for a server that does not answer.
const stopTime = 3 * time.Second

// stopsInTime ends a worker.
func stopsInTime(t *testing.T, w *worker) {
	t.Helper()
	w.cancel()
	const tick = 10 * time.Millisecond
	for range stopTime / tick { // a machine that stands still for seconds loses one
		select {
		case err := <-w.ended:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(tick):
		}
	}
	t.Error("the worker does not stop")
}

// TestStopWithoutNATS stops workers that have lost NATS, in each way, while
// their attempts hang.
func TestStopWithoutNATS(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*proxy){
		"cut off":        func(p *proxy) { p.cut(true) },
		"without answer": func(p *proxy) { p.stall() },
		"with it":        func(*proxy) {},
	} {
		for _, drain := range []time.Duration{-1, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, drain %v", name, drain), func(t *testing.T) {
				t.Parallel()
				nats := startNATS(t, nil)
				r := startReceiver(t)
				hangs, over := make(chan struct{}, 1000), make(chan struct{})
				t.Cleanup(func() { close(over) })
				r.answer = func(string, int) int {
					hangs <- struct{}{}
					<-over
					return 500
				}
				p := startProxy(t, nats.ClientURL())
				cfg := config(r.URL, p.url(), func(e *webhook.Endpoint) { e.Timeout = time.Minute })
				b := startBroker(t, config(r.URL, nats.ClientURL(), nil), 10)
				w := startWorkerWith(t, &webhook.Deliverer{Config: cfg, DrainTimeout: drain})
				b.publishAll(30)
				for range 10 {
					<-hangs
				}
				lose(p)
				stopsInTime(t, w)
				addUp(t, w.Stats().Endpoints["orders"])
				if s := w.Stats().Endpoints["orders"]; s.Waiting+s.InFlight > 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// TestStartsWithoutAnswer starts a broker with many endpoints whose servers take
// connections and say nothing: it waits for them once.
func TestStartsWithoutAnswer(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	url := "nats://" + mute.Addr().String()
	cfg := config("http://127.0.0.1:1/", strings.Join([]string{url, url, url}, ","), nil)
	for i := range 7 {
		other := cfg.Endpoints[0]
		other.Name = fmt.Sprint("other", i)
		cfg.Endpoints = append(cfg.Endpoints, other)
	}
	begin := time.Now()
	h := new(webhook.Hook)
	log, lines := logger(t, "broker")
	h.SetOpts(log, nil)
	if err := h.Init(&webhook.Options{Config: cfg, DrainTimeout: -1}); err != nil {
		t.Fatal(err)
	}
	if err := h.Healthy(); err == nil || !strings.Contains(err.Error(), "no server answers") {
		t.Errorf("healthy: %v", err)
	}
	_ = h.Stop()
	if took := time.Since(begin); took > 10*time.Second { // with 6 s for each it is 48 s
		t.Errorf("start and stop took %v", took)
	}
	if strings.Contains(lines.String(), "too slow") {
		t.Errorf("log:\n%s", lines)
	}
}

// TestNeverConnected stops a worker that has never reached NATS, because there
// is nobody or because nobody answers.
func TestNeverConnected(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // takes connections into its backlog
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	const nobody = "127.0.0.1:1"
	for name, addr := range map[string]string{"nobody": nobody, "no answer": mute.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := "nats://me:s3cret@" + addr
			cfg := config("http://127.0.0.1:1/", strings.Join([]string{url, url, url}, ","), nil)
			ctx, cancel := context.WithCancel(t.Context())
			log, lines := logger(t, "worker")
			w := &worker{&webhook.Deliverer{Config: cfg, Log: log, DrainTimeout: -1}, cancel, make(chan error, 1)}
			go func() { w.ended <- w.Run(ctx) }()
			if addr == nobody {
				eventually(t, 20*time.Second, func() string {
					if !strings.Contains(lines.String(), "waiting for the stream") {
						return "nothing is logged"
					}
					if err := w.Healthy(); err == nil || !strings.Contains(err.Error(), "refused") {
						return fmt.Sprintf("the reason is not told: %v", err)
					}
					return ""
				})
			}
			if err := w.Healthy(); err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("Healthy: %v", err)
			}
			stopsInTime(t, w)
			if strings.Contains(lines.String(), "s3cret") {
				t.Errorf("the log has the password: %s", lines)
			}
		})
	}
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := webhook.Deliver(ctx, config("http://127.0.0.1:1/", "nats://"+nobody, nil)); err != nil {
			t.Error(err)
		}
	})
}

// TestWrongPassword does not fill the log, in which the password is not.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, func(o *server.Options) { o.Username, o.Password = "me", "right" })
	url := strings.Replace(nats.ClientURL(), "nats://", "nats://me:s3cret@", 1)
	cfg := config("http://127.0.0.1:1/", url, nil)
	log, lines := logger(t, "worker")
	h := new(webhook.Hook)
	h.SetOpts(log, nil)
	if err := h.Init(&webhook.Options{Config: cfg, DrainTimeout: -1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Stop() })
	ctx, cancel := context.WithCancel(t.Context())
	w := &worker{&webhook.Deliverer{Config: cfg, Log: log, DrainTimeout: -1}, cancel, make(chan error, 1)}
	go func() { w.ended <- w.Run(ctx) }()
	eventually(t, 20*time.Second, func() string {
		if nats.NumClients() == 0 {
			if v, err := nats.Varz(nil); err == nil && v.TotalConnections >= 20 { // of two that try twice a second
				return ""
			}
		}
		return "there were too few attempts"
	})
	if err := errors.Join(h.Healthy(), w.Healthy()); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Healthy: %v", err)
	}
	stopsInTime(t, w)
	if strings.Contains(lines.String(), "s3cret") {
		t.Errorf("the log has the password: %s", lines)
	}
	if n := strings.Count(lines.String(), "\n"); n > 4 {
		t.Errorf("%d lines in the log, at more than one each second: %s", n, lines)
	}
}

// TestMisconfigured has an error that says what is wrong and nothing else, whatever
// another endpoint waits for.
func TestMisconfigured(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	cfg := config("http://127.0.0.1:1/", nats.ClientURL(), func(e *webhook.Endpoint) { e.Stream.Replicas = 3 })
	waits := config("http://127.0.0.1:1/", "nats://127.0.0.1:1", func(e *webhook.Endpoint) { e.Name = "waits" })
	cfg.Endpoints = append(cfg.Endpoints, waits.Endpoints...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := webhook.Deliver(ctx, cfg)
	if err == nil || !strings.Contains(err.Error(), "replicas > 1") || strings.Contains(err.Error(), "context") {
		t.Errorf("got %v", err)
	}
}

// TestStopAtOnce stops workers while they take their partitions: what they have
// begun to take they give back, and nothing of them stays.
func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	cfg := config("http://127.0.0.1:1/", s.ClientURL(), func(e *webhook.Endpoint) { e.Stream.Partitions = 32 })
	for i := range 40 {
		w := startWorker(t, cfg)
		time.Sleep(time.Duration(i) * 400 * time.Microsecond) // a little later each time
		w.stop()
	}
	eventually(t, 30*time.Second, func() string {
		st, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
		if err != nil {
			return err.Error()
		}
		if n := st.CachedInfo().State.Consumers; n > 0 {
			return fmt.Sprintf("%d consumers are left", n)
		}
		return ""
	})
}
