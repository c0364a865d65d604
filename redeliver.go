package webhook

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Redeliver sends the events of a dead letter file again, each to the endpoint
// of cfg that has its name, with the id that it had: a receiver that keeps ids
// sees a repetition as one. Order, retry and breaker are the endpoint's. The age
// of an event, for Retry.MaxAge, begins when it is read from the file, and again
// whenever the endpoint answers, until the event has been sent once. With Batch,
// what is not in the endpoint's present format goes alone, as it was. The file
// stays as it is, and no dead letters are written: what is refused again is still
// in the file, and sending the file once more does no harm.
//
// Redeliver returns when every event is delivered or given up, or when ctx is
// done. The Stats tell what became of them. The error joins what was wrong with
// single lines, a hundred of them at most and the number of the others, and, for each
// endpoint, how many events were not delivered and why the last of those was not.
func Redeliver(ctx context.Context, cfg *Config, file string) (Stats, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return Stats{}, fmt.Errorf("webhook: %w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return Stats{}, fmt.Errorf("webhook: %w", err)
	}
	defer f.Close()
	r, err := newRedelivery(cfg)
	if err != nil {
		return Stats{}, fmt.Errorf("webhook: %w", err)
	}
	stats, err := r.run(ctx, f)
	if err != nil {
		err = fmt.Errorf("webhook: %s: %w", file, err)
	}
	return stats, err
}

// A redelivery is a set of endpoints that send bodies as they are.
type redelivery struct {
	endpoints map[string]*endpoint // by name in lower case: names differ in more than case
}

func newRedelivery(cfg *Config) (*redelivery, error) {
	r := &redelivery{endpoints: make(map[string]*endpoint)}
	for i := range cfg.Endpoints {
		c := cfg.Endpoints[i]
		if c.Disabled {
			continue
		}
		// The reader waits for the endpoint: nothing is dropped.
		c.Queue = Queue{Type: MemoryQueue, Capacity: 1000, MaxBytes: -1, Overflow: Block, BlockTimeout: math.MaxInt64}
		c.Body.MaxPayload = math.MaxInt64
		c.DeadLetter, c.Stream = DeadLetter{}, Stream{}
		c.Events = slices.Clone(c.Events)
		for i := range c.Events {
			c.Events[i].Encoding = "" // base62 would bound whole bodies
		}
		e, err := newEndpoint(&c, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", c.Name, err)
		}
		e.pool.asIs, e.pool.letters = true, new(lastCause)
		e.queue.limits.lenient = true
		r.endpoints[strings.ToLower(c.Name)] = e
	}
	return r, nil
}

// renderBody makes the request for an event whose payload is a whole body,
// whose reason is its content type and whose trace is all its header lines.
func renderBody(req *request, ev *event) {
	req.contentType = strings.Clone(ev.reason) // a view of the record, which the request outlives
	req.header = req.header[:0]
	if ev.extra != nil {
		req.header = append(req.header, ev.extra.trace...)
	}
	req.body = append(req.body, ev.payload...)
}

// fitsBatch reports whether a letter's body can be a member of a batch: whether it
// is of the endpoint's format, as far as its headers tell.
func (f *format) fitsBatch(ev *event) bool {
	own := f.contentType
	if f.batchType != "" {
		own = cloudEventType
	}
	isBinary := ev.extra != nil && strings.Contains(strings.ToLower(ev.extra.trace), "ce-specversion:")
	return ev.reason == own && !isBinary
}

// hasMemberID reports whether a body has an id: a letter may be from a time when id
// was among body.fields.
func hasMemberID(body []byte) bool {
	var members map[string]json.RawMessage
	return json.Unmarshal(body, &members) == nil && members["id"] != nil
}

// A lastCause is where the dead letters of a redelivery end. It remembers why the
// last one was given up.
type lastCause struct{ atomic.Pointer[string] }

func (c *lastCause) write(letters ...*deadLetter) (kept int, err error) {
	c.Store(&letters[len(letters)-1].Error)
	return len(letters), nil
}

func (c *lastCause) close() error { return nil }

// whyNot says why events of a redelivery were not delivered, as far as it is known.
func whyNot(p *pool) string {
	if cause := p.letters.(*lastCause).Load(); cause != nil {
		return ", the last one " + *cause
	}
	if failure := p.lastFailure.Load(); failure != nil {
		return "; the endpoint's last failure: " + failure.text()
	}
	return ""
}

func (r *redelivery) run(ctx context.Context, letters io.Reader) (Stats, error) {
	for _, e := range r.endpoints {
		e.start()
	}
	closed := context.AfterFunc(ctx, func() { // wakes an offer that waits
		for _, e := range r.endpoints {
			e.queue.close()
		}
	})
	errs := r.offerAll(ctx, letters)
	var wg sync.WaitGroup
	for _, e := range r.endpoints {
		wg.Go(func() {
			e.queue.close()
			e.drain(math.MaxInt64, ctx.Done())
			e.end(dropShutdown)
		})
	}
	wg.Wait()
	closed()

	stats := Stats{Endpoints: make(map[string]EndpointStats)}
	for _, e := range r.endpoints {
		s := e.queue.stats()
		stats.Endpoints[e.config.Name] = s
		if failed := s.Offered - s.Delivered; failed > 0 {
			errs = append(errs, fmt.Errorf("endpoint %q: %d of %d events not delivered%s", e.config.Name, failed, s.Offered, whyNot(e.pool)))
		}
	}
	if ctx.Err() != nil {
		errs = append(errs, ctx.Err())
	}
	return stats, errors.Join(errs...)
}

// mostBadLines bounds the lines whose mistakes are told one by one: a file may have
// millions.
const mostBadLines = 100

// offerAll offers each line's event to its endpoint.
func (r *redelivery) offerAll(ctx context.Context, letters io.Reader) (errs []error) {
	bad := 0
	defer func() {
		if bad > mostBadLines {
			errs = append(errs, fmt.Errorf("%d more lines cannot be sent", bad-mostBadLines))
		}
	}()
	lines := bufio.NewReader(letters)
	for n := 1; ctx.Err() == nil; n++ {
		line, err := lines.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := r.offer(line); err != nil {
				if bad++; bad <= mostBadLines {
					errs = append(errs, fmt.Errorf("line %d: %w", n, err))
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return append(errs, err)
		}
	}
	return errs
}

func (r *redelivery) offer(line []byte) error {
	var l struct {
		deadLetter
		Body *string `json:"body"` // one that is missing is not an empty one
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return errors.New("not a dead letter: " + err.Error())
	}
	if l.Body == nil {
		return errors.New("not a dead letter: it has no body")
	}
	l.deadLetter.Body = *l.Body
	id, err := parseID(l.ID)
	if err != nil {
		return err
	}
	body, err := l.body()
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if err := checkHeaderValue("content-type", l.ContentType); err != nil {
		return fmt.Errorf("content_type %w", err)
	}
	e := r.endpoints[strings.ToLower(l.Endpoint)]
	if e == nil {
		return fmt.Errorf("endpoint %q is not configured or not enabled", l.Endpoint)
	}
	k := kindOf(l.Event)
	if k == 0 {
		return fmt.Errorf("unknown event %q", l.Event)
	}
	header, err := l.header()
	if err != nil {
		return err
	}
	rule, err := l.rule()
	if err != nil {
		return err
	}
	ev := &event{
		id: id, kind: k, rule: rule, time: time.Now().UnixMilli(),
		client: l.Client, from: l.Client, reason: l.ContentType, payload: body,
	}
	if header != "" {
		ev.extra = &extra{trace: header}
	}
	e.queue.offerWith(ev, &patience{waits: true})
	return nil
}
