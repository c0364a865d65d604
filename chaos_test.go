package webhook

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

var chaosEvents = flag.Int("chaos.events", 20000, "events that TestChaos sends")

// A chaosEndpoint answers at random in every way that endpoints are known for,
// and checks what comes.
type chaosEndpoint struct {
	t *testing.T

	mu    sync.Mutex
	seen  map[string]int // by client: events 1 to n have been received
	away  time.Time      // connections are reset until then
	total int            // first receptions
	again int            // repetitions
	done  chan struct{}  // closed when all have been received
	want  int
}

func (c *chaosEndpoint) counts() (total, again int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total, c.again
}

// receive notes an event. One that is received for the first time must be the
// next of its lane: all earlier ones have been received.
func (c *chaosEndpoint) receive(body string) {
	var event struct{ Payload string }
	var client string
	var n int
	if err := json.Unmarshal([]byte(body), &event); err != nil {
		c.t.Errorf("body %q: %v", body, err)
		return
	}
	if _, err := fmt.Sscanf(event.Payload, "%s %d", &client, &n); err != nil {
		c.t.Errorf("payload %q: %v", event.Payload, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch last := c.seen[client]; {
	case n <= last:
		c.again++
	case n == last+1:
		c.seen[client] = n
		if c.total++; c.total == c.want {
			close(c.done)
		}
	default:
		c.t.Errorf("%s: received %d when %d was the last", client, n, last)
	}
}

func (c *chaosEndpoint) serve(conn *rawConn, _ int) {
	for {
		c.mu.Lock()
		if rand.IntN(5000) == 0 && time.Now().After(c.away) {
			c.away = time.Now().Add(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		}
		away := time.Now().Before(c.away)
		c.mu.Unlock()
		if away {
			conn.reset()
			return
		}
		pick := rand.IntN(200)
		if pick == 0 { // answer early
			if _, err := conn.readHead(); err != nil {
				return
			}
			_ = conn.say(replyText(500, "early", "Connection: close"))
			return
		}
		req, err := conn.read()
		if err != nil {
			return
		}
		c.receive(req.body)
		answer := replyOK
		switch pick {
		case 1, 2, 3:
			answer = replyText(500, "no")
		case 4:
			if rand.IntN(20) == 0 {
				answer = replyText(429, "", "Retry-After: 1")
			}
		case 5:
			conn.reset()
			return
		case 6: // hang longer than the client waits
			select {
			case <-conn.closed:
			case <-time.After(time.Second):
			}
			return
		case 7:
			_ = conn.say(replyOK)
			return // closes the kept-alive connection without a word
		case 8:
			_ = conn.say("garbage\r\n\r\n")
			return
		case 9:
			answer = replyText(401, "")
		case 10:
			answer = replyText(200, strings.Repeat("x", 100000))
		case 11:
			answer = replyText(503, "", "Retry-After: 0")
		}
		if conn.say(answer) != nil {
			return
		}
	}
}

// TestChaos sends events through an endpoint that does everything wrong at
// random: every one arrives, those of each client in order, and the counters add
// up at every moment.
func TestChaos(t *testing.T) {
	for name, queue := range map[string]Queue{
		"memory": {Capacity: -1, MaxBytes: -1},
		"disk":   {Type: DiskQueue},
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			end := &chaosEndpoint{t: t, seen: make(map[string]int), done: make(chan struct{}), want: *chaosEvents}
			server := newRawServer(t, end.serve)
			if queue.Type == DiskQueue {
				queue.Dir = t.TempDir()
			}
			h := new(Hook)
			h.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
			err := h.Init(&Options{Config: &Config{Endpoints: []Endpoint{{
				URL: server.url(), Events: []Rule{{Event: OnMessagePublish}}, Queue: queue,
				Timeout:  200 * time.Millisecond,
				PoolSize: 32,
				Retry:    Retry{MinBackoff: time.Millisecond, MaxBackoff: 100 * time.Millisecond, MaxAge: -1},
				Breaker:  Breaker{Failures: 20, Cooldown: 50 * time.Millisecond},
			}}}, DrainTimeout: rawTimeout})
			if err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var sampler sync.WaitGroup
			samples := 0
			sampler.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						statsOf(t, h)
						samples++
					}
				}
			})
			next := make([]int, 200)
			for range *chaosEvents {
				c := rand.IntN(len(next))
				next[c]++
				h.emit(publishOf(fmt.Sprint("c", c), fmt.Sprintf("c%d %d", c, next[c])))
			}
			begin := time.Now()
			select {
			case <-end.done:
			case <-time.After(time.Minute + time.Duration(*chaosEvents)*5*time.Millisecond):
				total, _ := end.counts()
				t.Errorf("%d of %d events came: %+v", total, end.want, statsOf(t, h))
			}
			took := time.Since(begin)
			_ = h.Stop()
			close(stop)
			sampler.Wait()
			s := statsOf(t, h)
			if int(s.Delivered) != *chaosEvents || s.Waiting+s.InFlight != 0 {
				t.Errorf("stats %+v", s)
			}
			_, again := end.counts()
			t.Logf("%d events in %v, %d received again, %d samples; attempts %+v", *chaosEvents, took.Round(time.Millisecond), again, samples, s.Attempts)
		})
	}
}
