package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mochi-hooks/webhook/internal/spool"
)

// A disk is the store of a disk queue.
type disk struct {
	spool *spool.Spool
	await func(ctx context.Context, ref uint64) error // until a record is synced

	unread atomic.Pointer[unread] // the last time that a record could not be read
}

// An unread is a record that could not be read for now: it is read again later, and
// what is behind it in its lane waits.
type unread struct {
	err error
	at  time.Time
}

// unreadFor is for how long the queue is unhealthy because of an unread record: longer
// than it takes until the next try, with the default backoff.
const unreadFor = time.Minute

// openDisk opens an endpoint's spool and puts the events that are left there
// from an earlier run into the queue, whose store it becomes.
func openDisk(q *queue, config *Endpoint, log *slog.Logger) (*disk, error) {
	c := &config.Queue
	names, _ := spool.Spools(c.Dir) // opening the folder tells what is wrong
	dir := filepath.Join(c.Dir, folderOf(names, config.Name))
	d := new(disk)
	q.store = d
	q.counters.known = 1 << 0 // a record may be damaged
	var corrupt []spool.Ref
	newer := 0
	s, found, err := spool.Open(dir, spoolOptions(q, c, log), func(ref spool.Ref, rec []byte) {
		var ev event
		q.counters.recovered++
		switch err := decodeRecord(rec, &ev); {
		case errors.Is(err, errRecordNewer):
			newer++
			return
		case err != nil:
			corrupt = append(corrupt, ref)
			return
		}
		q.counters.known |= 1 << ev.kind
		var t ticket
		t.set(&ev, ev.laneKey(q.seed), len(rec))
		q.add(&t, uint64(ref))
	})
	switch {
	case errors.Is(err, spool.ErrLocked):
		return nil, fmt.Errorf("queue: %s is in use by another process or endpoint", dir)
	case err != nil:
		return nil, fmt.Errorf("queue: %w", err)
	case newer > 0: // what is done with the others could not be undone
		_ = s.Close()
		return nil, fmt.Errorf("queue: %s holds %d events of a newer version of this package: "+
			"start that one again, or move the folder away", dir, newer)
	}
	for _, ref := range corrupt {
		s.Done(ref)
	}
	d.spool = s
	d.await = func(ctx context.Context, ref uint64) error { return s.Wait(ctx, spool.Ref(ref)) }
	q.countFound(found, len(corrupt), log)
	return d, nil
}

// spoolOptions are those of the spool of a queue.
func spoolOptions(q *queue, c *Queue, log *slog.Logger) spool.Options {
	opts := spool.Options{
		MaxBytes: c.MaxBytes,
		Sync:     c.Sync,
		Notify: func(err error) {
			if err != nil {
				log.Warn("queue cannot be written, events are kept in memory as far as there is room", "error", err)
			} else {
				log.Info("queue can be written again")
			}
		},
		Room: func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.wakeBlocked()
		},
	}
	switch c.Sync {
	case SyncAlways:
		opts.Sync = spool.Always
	case SyncNever:
		opts.Sync = spool.Never
	}
	return opts
}

// countFound counts and logs what was found in a spool when it was opened. corrupt is
// how many of the records are no events.
func (q *queue) countFound(found spool.Recovery, corrupt int, log *slog.Logger) {
	if found.Records > 0 || found.TornBytes > 0 {
		log.Info("events recovered", "count", found.Records-corrupt, "torn_bytes", found.TornBytes)
	}
	lost := found.Lost + corrupt
	if lost > 0 {
		log.Warn("damaged events in the queue, skipped", "count", lost)
	}
	q.counters.recovered += uint64(found.Lost)
	q.counters.events[0].Dropped += uint64(lost)
	q.counters.dropped[dropCorrupt] += uint64(lost)
	for _, err := range found.Unreadable {
		log.Warn("part of the queue cannot be read", "error", err)
	}
}

// folderOf returns the name of the folder of an endpoint's queue, of those that
// there are. Endpoints are known by their names without regard to case, so one
// that was spelled otherwise in an earlier run goes on where it was.
func folderOf(names []string, name string) string {
	same := func(n string) bool { return equalFold(n, name) }
	if at := slices.IndexFunc(names, same); at >= 0 && !slices.Contains(names, name) {
		return names[at]
	}
	return name
}

func (d *disk) put(rec []byte) (uint64, dropReason) {
	ref, err := d.spool.Append(rec)
	switch {
	case err == nil:
		return uint64(ref), keep
	case errors.Is(err, spool.ErrFull):
		return 0, dropQueueFull
	case errors.Is(err, spool.ErrTooLarge):
		return 0, dropTooLarge
	}
	return 0, dropDisk
}

func (d *disk) load(uint64, int) []byte { return nil }

func (d *disk) fetch(buf []byte, ref uint64) ([]byte, error) {
	rec, err := d.spool.Read(spool.Ref(ref), buf)
	if err != nil && !isGone(err) {
		d.unread.Store(&unread{err, time.Now()})
	}
	return rec, err
}

// err returns what keeps records from being written, or from being read, or nil.
func (d *disk) err() error {
	if err := d.spool.Err(); err != nil {
		return fmt.Errorf("queue cannot be written: %w", err)
	}
	if u := d.unread.Load(); u != nil && time.Since(u.at) < unreadFor {
		return fmt.Errorf("events cannot be read from the queue: %w", u.err)
	}
	return nil
}

func (d *disk) remove(ref uint64) { d.spool.Done(spool.Ref(ref)) }

func (d *disk) cost(size int) int64 { return spool.Cost(size) }

func (d *disk) overhead() int64 { return d.spool.Overhead() }

// wait waits until a record is synced, at most until the deadline, and reports
// whether it is.
func (d *disk) wait(ref uint64, deadline time.Time) bool {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	for {
		err := d.await(ctx, ref)
		if err == nil || ctx.Err() != nil || errors.Is(err, spool.ErrClosed) || errors.Is(err, spool.ErrNotFound) {
			return err == nil
		}
		// The disk failed, and is tried again.
	}
}

// isGone reports whether a record that fetch failed to read will not come back.
func isGone(err error) bool {
	return errors.Is(err, spool.ErrCorrupt) || errors.Is(err, spool.ErrNotFound)
}

// warnOfOtherSpools tells of queues that no endpoint works on: their endpoints
// have been renamed or taken out of the configuration.
func warnOfOtherSpools(endpoints []Endpoint, log *slog.Logger) {
	var bases []string
	for i := range endpoints {
		if q := &endpoints[i].Queue; q.Type == DiskQueue && !slices.Contains(bases, q.Dir) {
			bases = append(bases, q.Dir)
		}
	}
	for _, base := range bases {
		names, err := spool.Spools(base)
		if err != nil {
			log.Warn("cannot look for queues", "error", err)
		}
		for _, name := range names {
			used := func(c Endpoint) bool {
				return c.Queue.Type == DiskQueue && c.Queue.Dir == base && folderOf(names, c.Name) == name
			}
			if dir := filepath.Join(base, name); !slices.ContainsFunc(endpoints, used) && !spool.IsEmpty(dir) {
				log.Warn("queue of no configured endpoint", "dir", dir)
			}
		}
	}
}
