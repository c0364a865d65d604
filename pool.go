package webhook

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// warnInterval is the least time between two warnings about the same fault of an
// endpoint, so that one that comes and goes does not flood the log.
const warnInterval = time.Minute

// A pool is the workers of one endpoint, as many as it has connections, and
// what they know of its configuration, which does not change: a reload retires
// the pool and starts another one on the same queue. Start starts the workers;
// stop ends them.
type pool struct {
	queue   *queue
	config  *Endpoint
	log     *slog.Logger
	format  *format            // of most events, and of batches
	formats map[uint32]*format // of all, by event.rule
	asIs    bool               // events are whole bodies: redelivery

	// render makes what is sent of one event, all but its id: a request, or what
	// goes into a stream. Its body comes behind what req.body has.
	render func(req *request, ev *event)

	letters letterBox // nil: dead events are only counted
	workers []*worker
	wg      sync.WaitGroup
	live    atomic.Int32 // workers that have not ended
	retired bool         // no attempt begins any more; the queue's lock guards it
	older   []*pool      // retired, with attempts in flight

	lastFailure atomic.Pointer[outcome] // of any attempt

	warned      atomic.Bool // about a configuration at fault, since the last delivery
	configWarn  interval
	readWarn    interval
	lettersWarn interval
}

func newPool(q *queue, config *Endpoint, log *slog.Logger, dial func() poster) *pool {
	p := &pool{queue: q, config: config, log: log}
	p.formats = newFormats(config)
	p.format = p.formats[0]
	p.render = p.renderWebhook
	for range config.PoolSize {
		p.workers = append(p.workers, &worker{pool: p, poster: dial(), wake: make(chan struct{}, 1)})
	}
	return p
}

func (p *pool) start() {
	p.live.Store(int32(len(p.workers)))
	for _, w := range p.workers {
		p.wg.Go(w.run)
	}
}

// stop ends the workers; attempts in progress are cancelled and their events
// wait again. It returns when all have ended, or after stopGrace if a
// foreign http.RoundTripper does not heed its context.
func (p *pool) stop() {
	p.queue.halt()
	pools := append(p.older, p)
	for _, p := range pools {
		for _, w := range p.workers {
			w.poster.cancel()
		}
	}
	endsBefore(time.After(stopGrace), func() {
		for _, p := range pools {
			p.wg.Wait()
		}
	})
}

// formatOf is the format of an event: the usual one if its rule is not there any
// more.
func (p *pool) formatOf(ev *event) *format {
	if ev.rule != 0 {
		if f := p.formats[ev.rule]; f != nil {
			return f
		}
	}
	return p.format
}

// renderWebhook makes the request of one event.
func (p *pool) renderWebhook(req *request, ev *event) {
	f := p.formatOf(ev)
	req.head = f.head
	if p.asIs {
		renderBody(req, ev)
	} else {
		f.render(req, ev)
	}
}

// errUnreadable is the error for a record that is damaged for good.
var errUnreadable = errors.New("record is damaged")

// read sets ev to the event of a job, whose fields are then views of the job's
// record, or of buf if the record has to be fetched from the store, which it
// returns, grown if necessary.
func (q *queue) read(j *job, buf []byte, ev *event) ([]byte, error) {
	if j.rec == nil {
		rec, err := q.store.fetch(buf, j.ref)
		if err != nil {
			if isGone(err) {
				err = fmt.Errorf("%w: %w", errUnreadable, err)
			}
			return buf, err
		}
		j.rec, buf = rec, rec
	}
	if err := decodeRecord(j.rec, ev); err != nil {
		return buf, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return buf, nil
}

// judge sets what an outcome means for each of the jobs of an attempt. They
// have one backoff, so that they go out together again.
func (p *pool) judge(jobs []job, out outcome) {
	retry := &p.config.Retry
	r := result{fate: fateAgain}
	switch out.verdict {
	case delivered:
		r.fate = fateDelivered
	case refused:
		r.fate = fateDead
	case paused:
		r.paused = true
	case canceled:
		r.cut = true
	case failed, misconfigured:
		tries := 0
		for i := range jobs {
			tries = max(tries, jobs[i].tries)
		}
		r = result{fate: fateRetry, status: out.status, backoff: retry.next(tries + 1)}
	}
	for i := range jobs {
		jobs[i].result = r
	}
	if out.verdict == canceled || !r.fate.waits() {
		return
	}
	tooOld := p.tooOld(time.Now())
	for i := range jobs {
		last := r.status != 0 && retry.MaxAttempts >= 0 && jobs[i].attempts+1 >= retry.MaxAttempts && jobs[i].until == 0
		if jobs[i].born <= tooOld || last {
			jobs[i].result = result{fate: fateDead}
		}
	}
}

// conclude counts the attempt that w made for the first n of jobs, tells the gate
// what came of it, and settles them. If the endpoint is at fault, or asks for a pause,
// the other jobs are settled too, to wait again, and goOn is false. suspects is how
// many of jobs, from the first one, were refused together as a batch: those of them
// that wait go alone from then on, as under postpone. w counts as busy until none of
// jobs is left.
func (p *pool) conclude(w *worker, jobs []job, n, suspects int, out outcome, took time.Duration) (goOn bool) {
	goOn = out.verdict == delivered || out.verdict == refused
	p.judge(jobs[:n], out)
	for i := range jobs[n:] {
		jobs[n+i].result = result{fate: fateAgain}
	}
	for i := range jobs[:suspects] {
		jobs[i].result.alone = !goOn
	}
	done := !goOn || n == len(jobs)
	if goOn {
		jobs = jobs[:n]
	} else if out.verdict != canceled {
		failure := out // out itself would be allocated each time
		p.lastFailure.Store(&failure)
	}
	p.buryDead(jobs[:n], out)
	q := p.queue
	var changed, tell bool // the breaker
	q.mu.Lock()
	breaker, probe := q.limits.breaker, w.probe // not p's own: a reload may have changed it meanwhile
	q.attempted(out, took)
	if goOn && q.limits.lenient {
		q.answered = time.Now().UnixMilli()
	}
	if w.target == q.gate.target {
		changed, tell = q.tellGate(out.verdict, out.retryAfter, probe)
	} else { // the endpoint has another URL by now, where nothing has failed yet
		for i := range jobs {
			jobs[i].result.backoff = 0
		}
	}
	if done {
		q.leave(w)
	}
	q.settle(jobs)
	if !done {
		q.dispatch() // for the lanes that this left ready; w is not about to take them
	}
	if changed || out.verdict == paused || probe {
		q.kickClock()
	}
	q.mu.Unlock()
	p.report(out, breaker, tell)
	return goOn
}

// tellGate tells the gate what came of an attempt. It reports whether that opened or
// closed the breaker, and whether the log is to say that it is open, or closed again.
func (q *queue) tellGate(v verdict, retryAfter time.Duration, probe bool) (changed, tell bool) {
	breaker := q.limits.breaker
	switch v {
	case delivered:
		return q.gate.succeeded()
	case failed, misconfigured:
		return q.gate.failed(breaker, probe)
	case paused:
		q.gate.pause(min(retryAfter, q.limits.retry.MaxRetryAfter))
	}
	if probe && (v == paused || v == refused) {
		q.gate.probed(breaker)
	}
	return false, false
}

// countAttempt counts an attempt whose jobs go on.
func (q *queue) countAttempt(out outcome, took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.attempted(out, took)
}

func (q *queue) attempted(out outcome, took time.Duration) {
	if out.verdict != canceled {
		q.counters.attempt(out.status, took)
	}
}

// goesOn reports whether w may make another attempt for jobs, which it holds, and
// takes the token for it. With an open breaker that would be a probe, which is
// for the queue to send; what is too old by now is for the clock to give up.
func (q *queue) goesOn(w *worker, jobs []job) bool {
	if anyBorn(w.pool.tooOld(time.Now()), jobs) {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.gate.admits() || q.gate.open || q.halted || w.pool.retired ||
		slices.ContainsFunc(jobs, func(j job) bool { return q.isOver(j.ref) }) {
		return false
	}
	q.gate.takeToken()
	q.awaitToken()
	return true
}

// text describes an outcome.
func (o *outcome) text() string {
	if o.status != 0 {
		return fmt.Sprintf("status %d", o.status)
	}
	return o.err.Error()
}

func (p *pool) warnUnreadable(err error) {
	if p.readWarn.due() {
		p.log.Warn("events cannot be read from the queue", "error", err)
	}
}

// An interval keeps log lines about the same thing a warnInterval apart.
type interval struct{ last atomic.Pointer[time.Time] }

// due reports whether it is time for the next line.
func (i *interval) due() bool {
	now, last := time.Now(), i.last.Load()
	return (last == nil || now.Sub(*last) >= warnInterval) && i.last.CompareAndSwap(last, &now)
}

func (p *pool) warnOpen(out outcome, breaker Breaker) {
	p.log.Warn("endpoint failing, breaker open", "status", out.status, "error", out.err,
		"failures", breaker.Failures, "cooldown", breaker.Cooldown)
}

// tellOpen tells that the breaker has been open for a while.
func (p *pool) tellOpen() {
	if last := p.lastFailure.Load(); last != nil {
		p.warnOpen(*last, p.config.Breaker)
	}
}

// report logs the changes in an endpoint's health, not its single failures: tell
// says that the breaker is open, or closed again.
func (p *pool) report(out outcome, breaker Breaker, tell bool) {
	switch {
	case !tell:
	case out.verdict == delivered:
		p.log.Info("endpoint recovered")
	default:
		p.warnOpen(out, breaker)
	}
	switch out.verdict {
	case delivered:
		if p.warned.Load() {
			p.warned.Store(false)
		}
	case misconfigured:
		if !p.warned.Load() && p.configWarn.due() {
			p.warned.Store(true)
			p.log.Warn("endpoint or its configuration at fault, retrying", "status", out.status, "error", out.err)
		}
	}
}
