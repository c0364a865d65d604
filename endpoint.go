package webhook

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// The time that Stop takes beside the draining, with a margin to a second.
const (
	// stopGrace is how long Stop waits for cancelled attempts to return, as a
	// foreign http.RoundTripper may not, and for a reload that is under way.
	stopGrace = 300 * time.Millisecond

	// endGrace is how long it waits for that and for the disk together.
	endGrace = 850 * time.Millisecond
)

// tooSlow is logged with what kept Stop waiting for longer.
const tooSlow = "stopped without waiting for what is too slow"

// endsBefore runs do in a goroutine and reports whether it has returned before it is
// late. do may wait for what nobody can end, such as a system call or a foreign
// http.RoundTripper: the goroutine then stays until that has returned.
func endsBefore(late <-chan time.Time, do func()) bool {
	ended := make(chan struct{})
	go func() {
		do()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-late:
		return false
	}
}

// An endpoint is a configured receiver at work: its queue, its workers and its
// clock. It shares nothing with other endpoints. It does not change: a reload
// makes another one that goes on with the queue and the clock; see renew.
type endpoint struct {
	config   *Endpoint
	log      *slog.Logger
	wants    wants    // of events
	ruleKeys []uint32 // of the rules; nil: none has settings of its own
	client   *client
	stream   stream.Publisher // in the client's place, if there is a stream
	queue    *queue
	disk     *disk // the queue's store, if that is on disk
	pool     *pool
	clock    *clock
}

// newEndpoint prepares an endpoint and opens its files, without starting
// anything but what a disk queue needs; discard undoes it. The configuration
// has passed the checks.
func newEndpoint(config *Endpoint, rt http.RoundTripper, log *slog.Logger) (*endpoint, error) {
	log = log.With("endpoint", config.Name)
	e := &endpoint{
		config: config, log: log, wants: config.Body.wants(), ruleKeys: config.ruleKeys(),
		queue: newQueue(limitsOf(config)),
	}
	var err error
	if config.Stream.enabled() {
		e.stream, err = openPublisher(config, log)
	} else {
		e.client, err = newClient(config, rt)
	}
	if err != nil {
		return nil, err
	}
	e.pool = e.newPool(config)
	e.clock = &clock{queue: e.queue, pool: e.pool, stop: make(chan struct{})}
	if config.DeadLetter.File != "" {
		if e.pool.letters, err = openLetterFile(config.DeadLetter); err != nil {
			e.discard()
			return nil, err
		}
	}
	if config.Queue.Type == DiskQueue {
		if e.disk, err = openDisk(e.queue, config, log); err != nil {
			e.discard()
			return nil, err
		}
	}
	return e, nil
}

// newPool makes the endpoint's pool.
func (e *endpoint) newPool(config *Endpoint) *pool {
	if e.stream != nil {
		return newForwardPool(e.queue, config, e.log, e.stream)
	}
	return newPool(e.queue, config, e.log, e.client.conn)
}

// discard closes the files of an endpoint that was not started.
func (e *endpoint) discard() {
	if e.disk != nil {
		_ = e.disk.spool.Close()
	}
	if e.pool.letters != nil {
		_ = e.pool.letters.close()
	}
	if e.stream != nil {
		e.stream.Close()
	}
}

func (e *endpoint) start() {
	e.clock.ended.Go(e.clock.run)
	e.pool.start()
}

// syncs reports whether a publish is acknowledged only when its event is on
// disk.
func (e *endpoint) syncs() bool { return e.disk != nil && e.config.Queue.Sync == SyncAlways }

// awaitSync waits until an event is on disk, at most the block timeout after
// since.
func (e *endpoint) awaitSync(ref uint64, since time.Time) {
	if !e.disk.wait(ref, since.Add(e.config.Queue.BlockTimeout)) {
		e.queue.countSyncLate()
	}
}

// stop takes no new events, delivers what waits for as long as drain allows,
// and ends what is left. It returns within drain and a second.
func (e *endpoint) stop(drain time.Duration) {
	e.queue.close()
	e.drain(drain, nil)
	e.end(dropShutdown)
}

// drain waits until the queue, which is closed, is empty, the time is over or
// canceled is closed.
func (e *endpoint) drain(most time.Duration, canceled <-chan struct{}) {
	timeout := time.NewTimer(most)
	defer timeout.Stop()
	select {
	case <-e.queue.drained:
	case <-timeout.C:
	case <-canceled:
	}
}

// end stops the deliveries and ends what is left: it stays on disk, becomes
// dead letters, or is dropped.
func (e *endpoint) end(reason dropReason) {
	late := time.After(endGrace)
	e.pool.stop()
	e.clock.end()
	unsynced := 0
	if !endsBefore(late, func() { e.closeFiles(reason) }) {
		attrs := []any{"what", "disk"}
		switch {
		case e.disk != nil:
			if unsynced = e.queue.behind(uint64(e.disk.spool.Synced())); unsynced > 0 {
				attrs = append(attrs, "unsynced", unsynced)
			}
		case e.stream != nil:
			attrs[1] = "NATS"
		}
		e.log.Warn(tooSlow, attrs...)
	}
	switch s := e.queue.stats(); {
	case e.disk == nil:
		if n := e.queue.abandon(reason); n > 0 {
			e.log.Warn("events dropped", dropNames[reason], n)
		}
	case s.Waiting+s.InFlight > unsynced:
		e.log.Info("events stay on disk", "count", s.Waiting+s.InFlight-unsynced)
	}
}

// causes are the errors in the dead letters of events that were left when an
// endpoint ended.
var causes = map[dropReason]string{
	dropDisk:            "the disk did not take them before shutdown",
	dropShutdown:        "not delivered at shutdown",
	dropEndpointRemoved: "not delivered before their endpoint was removed",
}

// closeFiles writes what is left of the events, as far as there is a file for
// them. No attempts are made any more, but for what a foreign
// http.RoundTripper does not end.
func (e *endpoint) closeFiles(reason dropReason) {
	e.clock.ended.Wait()
	if e.disk != nil {
		e.endUnwritten()
		if err := e.disk.spool.Close(); err != nil {
			e.log.Warn("queue closed with an error", "error", err)
		}
	}
	if e.stream != nil {
		e.stream.Close()
	}
	if e.pool.letters == nil {
		return
	}
	if e.disk == nil && !e.pool.asIs { // what is redelivered is in its file already
		e.buryRest(reason)
	}
	if err := e.pool.letters.close(); err != nil {
		e.log.Warn("dead letter file was not closed", "error", err)
	}
}

// endUnwritten ends the events that wait and that a failing disk does not take:
// they become dead letters, or are dropped.
func (e *endpoint) endUnwritten() {
	ctx, cancel := context.WithTimeout(context.Background(), endGrace/4)
	defer cancel()
	err := e.disk.spool.Sync(ctx)
	if ctx.Err() != nil {
		err = e.disk.spool.WriteErr() // a disk that is only slow may take them yet
	}
	if err == nil {
		return
	}
	lost := e.queue.takeBehind(uint64(e.disk.spool.Synced()))
	if len(lost) == 0 {
		return
	}
	if e.pool.letters == nil {
		e.queue.finish(lost, result{fate: fateUnwritten})
		e.log.Warn("events dropped", dropNames[dropDisk], len(lost), "error", err)
		return
	}
	before := e.queue.countLostLetters(0)
	_ = e.pool.bury(lost, causes[dropDisk])
	e.queue.finish(lost, result{fate: fateDead})
	e.tellLetters(len(lost), before, dropDisk, "error", err)
}

// buryRest writes dead letters for all events that wait.
func (e *endpoint) buryRest(reason dropReason) {
	n, before := 0, e.queue.countLostLetters(0)
	for {
		jobs := e.queue.takeWaiting(mostExpired)
		if len(jobs) == 0 {
			break
		}
		_ = e.pool.bury(jobs, causes[reason]) // into a file
		e.queue.finish(jobs, result{fate: fateDead})
		n += len(jobs)
	}
	e.tellLetters(n, before, reason)
}

// tellLetters logs what became of n events that were left: dead letters, but for
// those that have been lost since before.
func (e *endpoint) tellLetters(n int, before uint64, reason dropReason, attrs ...any) {
	lost := e.queue.countLostLetters(0)
	if written := n - int(lost-before); written > 0 {
		e.log.Warn("events written as dead letters", append([]any{dropNames[reason], written}, attrs...)...)
	}
	if lost > before { // the line about the first of them may not have had all
		e.log.Warn("dead letters cannot be written, events are lost", "count", lost)
	}
}
