package webhook

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"
)

// What becomes of events that end without having been delivered.

// giveUpOld ends the jobs whose events are too old, and returns the others. The
// clock misses such events when they have not come in the order of their age.
func (p *pool) giveUpOld(jobs []job) []job {
	tooOld := p.tooOld(time.Now())
	if !anyBorn(tooOld, jobs) {
		return jobs
	}
	var old []job
	kept := jobs[:0]
	for _, j := range jobs {
		if j.born <= tooOld {
			old = append(old, j)
		} else {
			kept = append(kept, j)
		}
	}
	p.giveUp(old)
	return kept
}

// tooOld returns the time, in Unix milliseconds, of the youngest event that has to be
// given up now.
func (p *pool) tooOld(now time.Time) int64 {
	if p.config.Retry.MaxAge < 0 {
		return math.MinInt64
	}
	return now.Add(-p.config.Retry.MaxAge).UnixMilli()
}

// anyBorn reports whether the event of one of the jobs happened by then, in Unix
// milliseconds.
func anyBorn(until int64, jobs []job) bool {
	for i := range jobs {
		if jobs[i].born <= until {
			return true
		}
	}
	return false
}

// giveUp ends events that have become too old.
func (p *pool) giveUp(jobs []job) {
	r := result{fate: fateDead}
	if p.bury(jobs, p.ofAge()) != nil {
		r.fate = fateReturned
	}
	p.queue.finish(jobs, r)
}

// buryDead writes the dead letters of the jobs that an attempt's outcome ends.
func (p *pool) buryDead(jobs []job, out outcome) {
	if p.letters == nil || out.verdict == delivered {
		return
	}
	var dead []job
	for _, j := range jobs {
		if j.result.fate == fateDead {
			dead = append(dead, j)
		}
	}
	if len(dead) == 0 {
		return
	}
	for i := range dead {
		dead[i].tries++
		dead[i].status = out.status
	}
	if p.bury(dead, p.causeOf(out)) == nil {
		return
	}
	for i := range jobs {
		if j := &jobs[i]; j.result.fate == fateDead {
			j.result = result{fate: fateReturned}
		}
	}
}

// causeOf says why an attempt's outcome ends its event.
func (p *pool) causeOf(out outcome) string {
	why := "refused"
	if out.verdict != refused {
		why = "given up"
	}
	return why + ": " + out.text()
}

// ofAge says why an event was given up between attempts.
func (p *pool) ofAge() string {
	why := fmt.Sprintf("given up: older than %v", p.config.Retry.MaxAge)
	if last := p.lastFailure.Load(); last != nil {
		why += "; the endpoint's last failure: " + last.text()
	}
	return why
}

// bury writes the dead letters of jobs, whose tries are all the attempts there were.
// A letter that a file does not take, or whose record cannot be read, is lost, which
// is counted and logged. A stream has to take all: else there is an error.
func (p *pool) bury(jobs []job, cause string) error {
	if p.letters == nil {
		return nil
	}
	var buf []byte
	var ev event
	var req request
	var letters []*deadLetter
	size := 0
	for i := range jobs {
		j := &jobs[i]
		var err error
		if buf, err = p.queue.read(j, buf, &ev); err != nil {
			p.warnUnreadable(err)
			p.queue.countLostLetters(1)
			continue
		}
		req.body = req.body[:0]
		p.renderWebhook(&req, &ev)
		l := &deadLetter{
			ID: ev.id.String(), Time: time.UnixMilli(ev.time).UTC(),
			Endpoint: p.config.Name, Event: kinds[ev.kind].name, Client: strings.Clone(ev.actor()),
			Attempts: j.tries, Status: j.status, Error: cause,
			ContentType: cmp.Or(req.contentType, p.formatOf(&ev).contentType),
		}
		l.setBody(req.body)
		l.setHeaders(req.header)
		l.setRule(ev.rule)
		letters = append(letters, l)
		if size += len(l.Body); size >= letterChunk {
			if err := p.writeLetters(letters); err != nil {
				return err
			}
			letters, size = letters[:0], 0
		}
	}
	return p.writeLetters(letters)
}

// letterChunk is the size of dead letters that are written together: events may
// be large, and copies of many would be another queue.
const letterChunk = 1 << 20

func (p *pool) writeLetters(letters []*deadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	kept, err := p.letters.write(letters...)
	if _, ok := p.letters.(*streamLetters); ok {
		if err != nil && p.lettersWarn.due() {
			p.log.Warn("dead letters cannot be written, events stay in the stream", "error", err)
		}
		return err
	}
	if err != nil {
		if lost := p.queue.countLostLetters(len(letters) - kept); p.lettersWarn.due() {
			p.log.Warn("dead letters cannot be written, events are lost", "count", lost, "error", err)
		}
	}
	return nil
}

// takeWaiting takes at most n of the events that wait, oldest first, in order
// to end them.
func (q *queue) takeWaiting(n int) (jobs []job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(jobs) < n {
		at := q.age.oldestWaiting(&q.entries)
		if at == 0 {
			break
		}
		jobs = q.takeOut(jobs, at)
	}
	return jobs
}

// takeBehind takes those of the events that wait whose records lie behind a place in
// the store, in order to end them. They are at the ends of their lanes.
func (q *queue) takeBehind(ref uint64) (jobs []job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for at, newer := q.age.head, uint32(0); at != 0; at = newer {
		e := q.entries.at(at)
		newer = e.newer
		if e.ref > ref && e.flags&entryInFlight == 0 {
			jobs = q.takeTail(jobs, e.lane, at)
		}
	}
	return jobs
}

// behind returns how many events have records that lie behind a place in the store.
func (q *queue) behind(ref uint64) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for at := q.age.head; at != 0; at = q.entries.at(at).newer {
		if q.entries.at(at).ref > ref {
			n++
		}
	}
	return n
}

// takeTail is begin for an entry and all that wait behind it in their lane.
func (q *queue) takeTail(jobs []job, laneAt, at uint32) []job {
	l := q.lanes.at(laneAt)
	if l.head == at {
		for range l.waiting {
			first := l.head
			q.takeHead(laneAt)
			jobs = q.begin(jobs, first)
		}
		return jobs
	}
	l.tail = l.head
	for q.entries.at(l.tail).next != at {
		l.tail = q.entries.at(l.tail).next
	}
	q.entries.at(l.tail).next = 0
	for at != 0 {
		e := q.entries.at(at)
		q.countWaiting(e, -1)
		l.waiting--
		if l.state == laneReady {
			q.batching.ready--
		}
		jobs = q.begin(jobs, at)
		at, e.next = e.next, 0
	}
	return jobs
}

// takeOut is begin for the oldest entry that waits, in order to end it.
func (q *queue) takeOut(jobs []job, at uint32) []job {
	lane := q.entries.at(at).lane
	status := q.lanes.at(lane).status
	q.takeHead(lane)
	jobs = q.begin(jobs, at)
	if j := &jobs[len(jobs)-1]; j.tries > 0 {
		j.status = int(status)
	}
	return jobs
}
