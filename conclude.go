package webhook

import (
	"slices"
	"time"
)

// What comes of an attempt.

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
