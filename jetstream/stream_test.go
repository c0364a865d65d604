package jetstream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook"
	"github.com/mochi-hooks/webhook/internal/stream"
)

// client connects a test to NATS.
func client(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// letter is a dead letter.
type letter struct {
	ID, Endpoint, Event, Client, Error, Body string
	Attempts, Status                         int
	BodyEncoding                             string `json:"body_encoding"`
}

// letters returns n dead letters.
func letters(t testing.TB, js jetstream.JetStream, n int) (found []letter) {
	t.Helper()
	eventually(t, 20*time.Second, func() string {
		s, err := js.Stream(t.Context(), "MQTT_WEBHOOKS_DEAD")
		if err != nil {
			return err.Error()
		}
		if have := s.CachedInfo().State.Msgs; have != uint64(n) {
			return fmt.Sprintf("%d dead letters, want %d", have, n)
		}
		return ""
	})
	s, _ := js.Stream(t.Context(), "MQTT_WEBHOOKS_DEAD")
	for seq := range n {
		m, err := s.GetMsg(t.Context(), uint64(seq+1))
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != "MQTT_WEBHOOKS_DEAD.orders" {
			t.Errorf("subject %s", m.Subject)
		}
		var l letter
		if err := json.Unmarshal(m.Data, &l); err != nil {
			t.Fatalf("%s: %v", m.Data, err)
		}
		found = append(found, l)
	}
	return found
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	r.answer = func(client string, n int) int {
		if n%10 == 3 {
			r.count(client, n) // as far as the order is concerned
			return 422
		}
		return 200
	}
	b := startBroker(t, config(r.URL, s.ClientURL(), nil), 4)
	file := filepath.Join(t.TempDir(), "dead.jsonl") // which is a broker's
	w := startWorker(t, config(r.URL, s.ClientURL(), func(e *webhook.Endpoint) {
		e.Timeout, e.DeadLetter.File = time.Minute, file
	}))
	const n = 400
	b.publishAll(n)
	r.await(n)
	found := letters(t, js, n/10)
	for _, l := range found {
		if l.Status != 422 || l.Attempts != 1 || l.Endpoint != "orders" || l.Event != "on_message_publish" ||
			l.Error != "refused: status 422" || !strings.Contains(l.Body, `"from_client_id":"`+l.Client+`"`) || len(l.ID) != 36 {
			t.Fatalf("letter %+v", l)
		}
	}
	eventually(t, 10*time.Second, func() string {
		s := w.Stats().Endpoints["orders"]
		addUp(t, s)
		if s.Dead != n/10 || s.Delivered != n-n/10 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	awaitEmpty(t, js)
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file for dead letters: %v", err)
	}
}

// awaitEmpty waits until nothing is left in the stream.
func awaitEmpty(t testing.TB, js jetstream.JetStream) {
	t.Helper()
	awaitLeft(t, js, 0)
}

// awaitLeft waits until n events are left in the stream.
func awaitLeft(t testing.TB, js jetstream.JetStream, n uint64) {
	t.Helper()
	eventually(t, 30*time.Second, func() string {
		s, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
		if err != nil {
			return err.Error()
		}
		if left := s.CachedInfo().State.Msgs; left != n {
			return fmt.Sprintf("%d events are left in the stream, want %d", left, n)
		}
		return ""
	})
}

// consumers returns the names of the stream's consumers, of which there are none
// before it is made.
func consumers(t testing.TB, js jetstream.JetStream) (names []string) {
	t.Helper()
	s, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	l := s.ConsumerNames(t.Context())
	for name := range l.Name() {
		names = append(names, name)
	}
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTooOld gives events up that are older than max_age, without an attempt.
func TestTooOld(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	cfg := config(r.URL, s.ClientURL(), func(e *webhook.Endpoint) { e.Retry.MaxAge = 300 * time.Millisecond })
	b := startBroker(t, config(r.URL, s.ClientURL(), nil), 2) // whatever time it takes
	b.publishAll(20)
	awaitForwarded(t, b, 20)
	time.Sleep(400 * time.Millisecond)
	w := startWorker(t, cfg)
	for _, l := range letters(t, js, 20) {
		if l.Attempts != 0 || !strings.Contains(l.Error, "older than 300ms") {
			t.Errorf("letter %+v", l)
		}
	}
	awaitEmpty(t, js)
	if s := w.Stats().Endpoints["orders"]; s.Dead != 20 || s.Attempts != (webhook.Attempts{}) {
		t.Errorf("%+v", s)
	}
}

// TestUnreadable puts what is not an event, and one of a version to come, among
// the events.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	cfg := config(r.URL, s.ClientURL(), func(e *webhook.Endpoint) { e.Stream.Partitions = 1 })
	b := startBroker(t, cfg, 2)
	put := func(data string) {
		t.Helper()
		if _, err := js.Publish(t.Context(), "MQTT_WEBHOOKS.orders.0", []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	b.publishAll(10)
	awaitForwarded(t, b, 10)
	put("\x01junk")
	b.publishAll(10)
	awaitForwarded(t, b, 20)
	put("\xffnewer")
	b.publishAll(10)
	awaitForwarded(t, b, 30)
	w := startWorker(t, cfg)
	r.await(20)
	found := letters(t, js, 1)
	if body, _ := base64.StdEncoding.DecodeString(found[0].Body); string(body) != "\x01junk" && found[0].Body != "\x01junk" {
		t.Errorf("letter %+v", found[0])
	}
	addUp(t, w.Stats().Endpoints["orders"])
	// The newer one holds the partition up until somebody understands it.
	awaitLeft(t, js, 11)
}

// TestDeadLettersFull lets a stream of dead letters be full: what is refused
// stays, nothing overtakes it.
func TestDeadLettersFull(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	r.answer = func(string, int) int { return 400 }
	cfg := config(r.URL, s.ClientURL(), func(e *webhook.Endpoint) { e.Stream.MaxBytes = 4 << 10 })
	b := startBroker(t, cfg, 1)
	w := startWorker(t, cfg)
	b.publishAll(30) // fits, but not as letters
	eventually(t, 20*time.Second, func() string {
		s := w.Stats().Endpoints["orders"]
		addUp(t, s)
		if s.Dead == 0 || s.Forwarded == 0 {
			return fmt.Sprintf("%+v", s)
		}
		if err := w.Healthy(); err == nil || !strings.Contains(err.Error(), "dead letters: ") {
			return fmt.Sprintf("healthy: %v", err)
		}
		return ""
	})
	// The last may be on its way into the stream.
	eventually(t, 10*time.Second, func() string {
		st, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
		if err != nil {
			return err.Error()
		}
		left, dead, broker := st.CachedInfo().State.Msgs, w.Stats().Endpoints["orders"].Dead, b.Stats().Endpoints["orders"]
		if waiting := broker.Waiting + broker.InFlight; left+dead+uint64(waiting) < 30 {
			return fmt.Sprintf("%d are dead, %d left in the stream and %d in the broker, of 30", dead, left, waiting)
		}
		return ""
	})
}

// TestLetterStream keeps letters for people to look at, whoever else has, and each
// once; a worker works with no stream that does otherwise.
func TestLetterStream(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	source, _ := startSource(t, s.ClientURL(), s.ClientURL(), 1, newSink())
	for range 2 {
		if err := source.DeadLetter(t.Context(), "a", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	dead, err := js.Stream(t.Context(), "MQTT_WEBHOOKS_DEAD")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		reader, err := dead.CreateConsumer(t.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
		if err != nil {
			t.Fatal(err)
		}
		m, err := reader.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	info, err := dead.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs != 1 {
		t.Errorf("%d letters are in the stream, want 1", info.State.Msgs)
	}

	const other = "OTHER_DEAD"
	wrong := info.Config
	wrong.Name, wrong.Subjects, wrong.Retention, wrong.Duplicates = other, []string{other + ".*"}, jetstream.WorkQueuePolicy, time.Second
	if _, err := js.CreateStream(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	cfg := config("http://127.0.0.1:1/", s.ClientURL(), func(e *webhook.Endpoint) { e.Stream.Name = "OTHER" })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	log, _ := logger(t, "worker")
	err = (&webhook.Deliverer{Config: cfg, Log: log}).Run(ctx)
	for _, want := range []string{"stream OTHER_DEAD has other settings", "retention is WorkQueue, not Limits", "duplicate_window is 1s, less than 1m0s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("worker: got %v, want %q", err, want)
		}
	}
}

// TestDeadLettersGone takes the stream of dead letters away: a worker makes it
// again.
func TestDeadLettersGone(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	r.answer = func(string, int) int { return 400 }
	cfg := config(r.URL, s.ClientURL(), nil)
	b := startBroker(t, cfg, 1)
	w := startWorker(t, cfg)
	if err := js.DeleteStream(t.Context(), "MQTT_WEBHOOKS_DEAD"); err != nil {
		t.Fatal(err)
	}
	b.publishAll(3)
	letters(t, js, 3)
	awaitEmpty(t, js)
	if err := w.Healthy(); err != nil {
		t.Error(err)
	}
}

func TestDifferences(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	start := func() error {
		h := new(webhook.Hook)
		err := h.Init(&webhook.Options{Config: config("http://127.0.0.1:1/", s.ClientURL(), nil)})
		_ = h.Stop()
		return err
	}
	var made jetstream.StreamConfig
	eventually(t, 30*time.Second, func() string { // a slow connection is no error of Init
		if err := start(); err != nil {
			t.Fatal(err)
		}
		st, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
		if err != nil {
			return err.Error()
		}
		made = st.CachedInfo().Config
		return ""
	})
	if made.Retention != jetstream.WorkQueuePolicy || made.Discard != jetstream.DiscardNew || made.MaxAge != 0 {
		t.Errorf("the stream is %+v", made)
	}
	if err := start(); err != nil {
		t.Errorf("its own stream: %v", err)
	}
	for _, tt := range []struct {
		change func(*jetstream.StreamConfig)
		want   string
	}{
		{func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }, "retention is Limits, not WorkQueue"},
		{func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, "discard is DiscardOld, not DiscardNew"},
		{func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, "max_age is 1h0m0s, not 0s"},
		{func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }, "max_bytes is 1048576, not 1073741824"},
		{func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }, "max_msgs is 10, not -1"},
		{func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 10 }, "max_msgs_per_subject is 10, not -1"},
		{func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 }, "max_msg_size is 1000, not -1"},
		{func(c *jetstream.StreamConfig) { c.MaxConsumers = 10 }, "max_consumers is 10, not -1"},
		{func(c *jetstream.StreamConfig) { c.Duplicates = time.Second }, "duplicate_window is 1s, less than 1m0s"},
		{func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "storage is Memory, not File"},
		{func(c *jetstream.StreamConfig) { c.Subjects = []string{"other"} }, `subjects are ["other"], without "MQTT_WEBHOOKS.*.*"`},
		{func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "MQTT_WEBHOOKS.*.*", Destination: "MQTT_WEBHOOKS.$1.X.$2"}
		}, "it has a subject_transform"},
		{func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }, "it is made of other streams"},
		{func(c *jetstream.StreamConfig) { c.NoAck = true }, "no_ack is true, not false"},
		{func(c *jetstream.StreamConfig) { c.Metadata["mochi-webhook-partitions"] = "16" }, "partitions (metadata mochi-webhook-partitions) is 16, not 8"},
		{func(c *jetstream.StreamConfig) { c.Metadata = nil }, "is not set, not 8"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			changed := made
			changed.Metadata = map[string]string{"mochi-webhook-partitions": "8"}
			tt.change(&changed)
			_ = js.DeleteStream(context.Background(), "MQTT_WEBHOOKS")
			eventually(t, 10*time.Second, func() string { // the old one's files go after a while
				if _, err := js.CreateStream(t.Context(), changed); err != nil {
					return err.Error()
				}
				return ""
			})
			eventually(t, 30*time.Second, func() string {
				if err := start(); err == nil || !strings.Contains(err.Error(), tt.want) {
					return fmt.Sprintf("got %v, want %q", err, tt.want)
				}
				return ""
			})
			err := (&webhook.Deliverer{Config: config("http://127.0.0.1:1/", s.ClientURL(), nil)}).Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("worker: got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestShares lets workers come and go: each has its part of the partitions.
func TestShares(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	cfg := config("http://127.0.0.1:1/", s.ClientURL(), nil)
	shares := func(want ...int) {
		t.Helper()
		eventually(t, 30*time.Second, func() string {
			byWorker := make(map[string]int)
			for _, name := range consumers(t, js) {
				worker, _, _ := strings.Cut(name[strings.LastIndexByte(name, '-')+1:], "_")
				byWorker[worker]++
			}
			if len(byWorker) != len(want) {
				return fmt.Sprintf("shares %v, want %v", byWorker, want)
			}
			all := 0
			for _, n := range byWorker {
				all += n
				if n > want[0] {
					return fmt.Sprintf("shares %v, want %v", byWorker, want)
				}
			}
			if all != 8 {
				return fmt.Sprintf("%d partitions are taken", all)
			}
			return ""
		})
	}
	first := startWorker(t, cfg)
	shares(8)
	second := startWorker(t, cfg)
	shares(4, 4)
	startWorker(t, cfg)
	shares(3, 3, 2)
	fourth, fifth := startWorker(t, cfg), startWorker(t, cfg)
	shares(2, 2, 2, 1, 1) // four would do with two each
	fourth.stop()
	fifth.stop()
	shares(3, 3, 2)
	second.stop()
	shares(4, 4)
	first.stop()
	shares(8)
}

// TestLargerThanTheStream has events that the stream can never take: they must not
// wait as if it were full for now.
func TestLargerThanTheStream(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	r := startReceiver(t)
	cfg := config(r.URL, s.ClientURL(), func(e *webhook.Endpoint) { e.Stream.MaxBytes = 100 << 10 })
	b := startBroker(t, cfg, 1)
	large := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)}).NewClient(nil, "tcp", "large", false)
	for range 3 {
		b.OnPublished(large, packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t", Payload: make([]byte, 200<<10)})
	}
	b.publishAll(10)
	awaitForwarded(t, b, 10)
	if s := b.Stats().Endpoints["orders"]; s.Dead != 3 || s.Retried != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestTooLarge publishes events about as large as the stream and as NATS take
// them: each is there, or refused for good. One that waited as if there were no
// room for now would hold its client up until max_age.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	const most, maxPayload = 100 << 10, 200 << 10
	s := startNATS(t, func(o *server.Options) { o.MaxPayload = maxPayload })
	js := client(t, s.ClientURL())
	engine, err := stream.Find("jetstream")
	if err != nil {
		t.Fatal(err)
	}
	log, _ := logger(t, "publisher")
	publisher := func(name string, maxBytes int64) stream.Publisher {
		t.Helper()
		p, err := engine.Publisher(stream.Config{URL: s.ClientURL(), Name: name, Endpoint: strings.Repeat("e", 64), Partitions: 1, Replicas: 1, MaxBytes: maxBytes, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	publish := func(p stream.Publisher, name string, size int) (err error) {
		t.Helper()
		eventually(t, 20*time.Second, func() string { // it may not be connected yet
			if err := p.Err(); err != nil {
				return err.Error()
			}
			return ""
		})
		err = p.Publish(t.Context(), 0, fmt.Sprint(size), make([]byte, size))
		if refused := new(stream.Refused); err != nil && !errors.As(err, &refused) {
			t.Errorf("%d bytes: %v", size, err)
		}
		st, inStream := js.Stream(t.Context(), name)
		if inStream == nil {
			inStream = st.Purge(t.Context())
		}
		if inStream != nil {
			t.Fatal(inStream)
		}
		return err
	}

	name := strings.Repeat("S", 64)
	p := publisher(name, most)
	for size := most - 800; size < most+50; size += 25 {
		if err := publish(p, name, size); err != nil && size == most-800 || err == nil && size >= most {
			t.Errorf("%d bytes in a stream of %d: %v", size, most, err)
		}
	}
	p = publisher("UNBOUND", -1)
	for size := maxPayload - 400; size < maxPayload+50; size += 25 {
		if err := publish(p, "UNBOUND", size); err != nil && size == maxPayload-400 || err == nil && size >= maxPayload {
			t.Errorf("%d bytes of %d that NATS takes: %v", size, maxPayload, err)
		}
	}
}

// TestLetterTooLarge has a stream of dead letters that somebody has forbidden long
// ones: they are refused for good, and come without their bodies.
func TestLetterTooLarge(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	source, _ := startSource(t, s.ClientURL(), s.ClientURL(), 1, newSink())
	dead, err := js.Stream(t.Context(), "MQTT_WEBHOOKS_DEAD")
	if err != nil {
		t.Fatal(err)
	}
	short := dead.CachedInfo().Config
	short.MaxMsgSize = 1000
	if _, err := js.UpdateStream(t.Context(), short); err != nil {
		t.Fatal(err)
	}
	err = source.DeadLetter(t.Context(), "a", make([]byte, 2000))
	if refused := new(stream.Refused); !errors.As(err, &refused) {
		t.Errorf("got %v, want one that is refused for good", err)
	}
	if err := source.Err(); err != nil {
		t.Errorf("the source is not well: %v", err)
	}
	if err := source.DeadLetter(t.Context(), "a", make([]byte, 500)); err != nil {
		t.Error(err)
	}
}

// TestLetterLargerThanTheStream has an event that fits into the stream, and whose
// dead letter, which has it as JSON within JSON, never will: it comes without its
// body, and what is behind it does not wait forever.
func TestLetterLargerThanTheStream(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	r.answer = func(string, int) int { return 400 }
	cfg := config(r.URL, s.ClientURL(), func(e *webhook.Endpoint) { e.Stream.MaxBytes = 100 << 10 })
	b := startBroker(t, cfg, 1)
	b.OnPublished(b.clients[0], packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "t", Payload: bytes.Repeat([]byte{1}, 40<<10),
	})
	b.publish(0)
	awaitForwarded(t, b, 2)
	startWorker(t, cfg)
	found := letters(t, js, 2)
	if l := found[0]; l.BodyEncoding != "omitted" || !strings.Contains(l.Error, "too long for the stream") {
		t.Errorf("letter %+v", l)
	}
	if l := found[1]; l.Body == "" {
		t.Errorf("letter %+v", l)
	}
	awaitEmpty(t, js)
}

// TestSharedStream has endpoints in one stream that get the same events, and
// refuse some.
func TestSharedStream(t *testing.T) {
	t.Parallel()
	nats := startNATS(t, nil)
	js := client(t, nats.ClientURL())
	cfg := new(webhook.Config)
	var receivers []*receiver
	for _, name := range []string{"a", "a-1", "A_b-2"} {
		r := startReceiver(t)
		r.answer = func(client string, n int) int {
			if n == 5 {
				r.count(client, n) // as far as the order is concerned
				return 422
			}
			return 200
		}
		receivers = append(receivers, r)
		one := config(r.URL, nats.ClientURL(), func(e *webhook.Endpoint) { e.Name = name })
		cfg.Endpoints = append(cfg.Endpoints, one.Endpoints...)
	}
	b := startBroker(t, cfg, 20)
	startWorker(t, cfg)
	startWorker(t, cfg)
	const n = 400
	b.publishAll(n)
	for _, r := range receivers {
		r.await(n)
	}
	awaitEmpty(t, js)
	dead, err := js.Stream(t.Context(), "MQTT_WEBHOOKS_DEAD")
	if err != nil {
		t.Fatal(err)
	}
	if got := dead.CachedInfo().State.Msgs; got != 3*20 {
		t.Errorf("%d dead letters, want %d", got, 3*20)
	}
}

// TestStreamGone deletes the stream under a broker and a worker.
func TestStreamGone(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	r := startReceiver(t)
	cfg := config(r.URL, s.ClientURL(), nil)
	b := startBroker(t, cfg, 5)
	w := startWorker(t, cfg)
	b.publishAll(100)
	r.await(100)
	awaitEmpty(t, js)
	if err := js.DeleteStream(t.Context(), "MQTT_WEBHOOKS"); err != nil {
		t.Fatal(err)
	}
	b.publishAll(100) // makes it anew
	r.await(200)
	awaitForwarded(t, b, 200)
	addUp(t, w.Stats().Endpoints["orders"])
}

// startPassing starts a worker's source, and a publisher whose first event has gone
// through. pass has another one go through; right is the stream as they have it.
func startPassing(t *testing.T, url string, js jetstream.JetStream) (source stream.Source, pass func(id string), right jetstream.StreamConfig) {
	t.Helper()
	to := newSink()
	close(to.ended)
	source, p := startSource(t, url, url, 8, to)
	pass = func(id string) {
		t.Helper()
		publishOne(t, p, id)
		to.next(t).Ack()
		awaitEmpty(t, js)
	}
	pass("a")
	st, err := js.Stream(t.Context(), "MQTT_WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	return source, pass, st.CachedInfo().Config
}

// TestStreamMadeAnew puts another stream in the place of a worker's: it must not
// work on one that is not as it has to be, nor count where others share it.
func TestStreamMadeAnew(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	source, pass, right := startPassing(t, s.ClientURL(), js)
	wrong := right
	wrong.Retention, wrong.Metadata = jetstream.LimitsPolicy, nil
	makeAnew := func(cfg jetstream.StreamConfig) jetstream.Stream {
		t.Helper()
		if err := js.DeleteStream(t.Context(), "MQTT_WEBHOOKS"); err != nil {
			t.Fatal(err)
		}
		var st jetstream.Stream
		var err error
		eventually(t, 10*time.Second, func() (problem string) { // the old one's files go after a while
			if st, err = js.CreateStream(t.Context(), cfg); err != nil {
				return err.Error()
			}
			return ""
		})
		return st
	}
	st := makeAnew(wrong)
	eventually(t, 20*time.Second, func() string {
		if err := source.Err(); err == nil || !strings.Contains(err.Error(), "retention is Limits, not WorkQueue") {
			return fmt.Sprintf("worker: %v", err)
		}
		info, err := st.Info(t.Context())
		if err != nil {
			return err.Error()
		}
		if n := info.State.Consumers; n > 0 {
			return fmt.Sprintf("%d consumers", n)
		}
		return ""
	})
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if m, err := conn.Request("MQTT_WEBHOOKS_WORKERS.orders", nil, time.Second); err == nil {
		t.Errorf("the worker answers a roll call: %s", m.Data)
	}
	makeAnew(right)
	pass("b")
	if err := source.Err(); err != nil {
		t.Error(err)
	}
}

// TestStreamEdited changes the settings of a stream in which a worker is at work: it
// gives back what it has, and goes on when they are as they were.
func TestStreamEdited(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	source, pass, right := startPassing(t, s.ClientURL(), js)
	wrong := right
	wrong.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() string {
		if err := source.Err(); err == nil || !strings.Contains(err.Error(), "max_age is 1h0m0s, not 0s") {
			return fmt.Sprintf("worker: %v", err)
		}
		if have := consumers(t, js); len(have) > 0 {
			return fmt.Sprintf("consumers %v", have)
		}
		return ""
	})
	if _, err := js.UpdateStream(t.Context(), right); err != nil {
		t.Fatal(err)
	}
	pass("b")
}

// TestSubjectsOfAnotherStream has another stream take the subjects: at the start
// that is a mistake to tell of, later no event is to vanish in it.
func TestSubjectsOfAnotherStream(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	_, p := startSource(t, s.ClientURL(), s.ClientURL(), 1, newSink())
	publishOne(t, p, "a")
	if err := js.DeleteStream(t.Context(), "MQTT_WEBHOOKS"); err != nil {
		t.Fatal(err)
	}
	other, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALL", Subjects: []string{"MQTT_WEBHOOKS.>"}})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Publish(t.Context(), 0, "b", []byte("b"))
	if wrong := new(stream.Misconfigured); !errors.As(err, &wrong) {
		t.Errorf("got %v, want one that says that the stream is another", err)
	}
	info, err := other.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.State.Msgs > 0 {
		t.Errorf("%d events are in the other stream", info.State.Msgs)
	}

	cfg := config("http://127.0.0.1:1/", s.ClientURL(), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	log, _ := logger(t, "others")
	if err := (&webhook.Deliverer{Config: cfg, Log: log}).Run(ctx); err == nil || !strings.Contains(err.Error(), "subjects overlap") {
		t.Errorf("worker: got %v, want one about subjects that overlap", err)
	}
	eventually(t, 30*time.Second, func() string { // a slow connection is no error of Init
		h := new(webhook.Hook)
		h.SetOpts(log, nil)
		err := h.Init(&webhook.Options{Config: cfg})
		_ = h.Stop()
		if err == nil || !strings.Contains(err.Error(), "subjects overlap") {
			return fmt.Sprintf("broker: got %v, want one about subjects that overlap", err)
		}
		return ""
	})
}

// TestForeignConsumer has a consumer of somebody else on the stream, which keeps
// workers from all partitions: they say so.
func TestForeignConsumer(t *testing.T) {
	t.Parallel()
	s := startNATS(t, nil)
	js := client(t, s.ClientURL())
	cfg := config("http://127.0.0.1:1/", s.ClientURL(), nil)
	startBroker(t, cfg, 1)
	var st jetstream.Stream
	eventually(t, 20*time.Second, func() (problem string) {
		var err error
		if st, err = js.Stream(t.Context(), "MQTT_WEBHOOKS"); err != nil {
			return err.Error()
		}
		return ""
	})
	if _, err := st.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "debug", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	to := newSink()
	source, p := startSource(t, s.ClientURL(), s.ClientURL(), 8, to)
	publishOne(t, p, "a")
	eventually(t, 20*time.Second, func() string {
		if err := source.Err(); err == nil || !strings.Contains(err.Error(), "a consumer that is no worker's") {
			return fmt.Sprintf("worker: %v", err)
		}
		return ""
	})
	if err := st.DeleteConsumer(t.Context(), "debug"); err != nil {
		t.Fatal(err)
	}
	to.next(t).Ack()
	eventually(t, 20*time.Second, func() string {
		if err := source.Err(); err != nil {
			return err.Error()
		}
		return ""
	})
}
