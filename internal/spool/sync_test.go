package spool

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs fn with virtual time and a file system in memory.
func inBubble(t *testing.T, fn func(t *testing.T, c *crashFS)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fn(t, newCrashFS(rand.New(rand.NewPCG(1, 2))))
	})
}

// survivors are the records that a crash now would leave for certain.
func survivors(t *testing.T, c *crashFS) (recs []string) {
	t.Helper()
	c.mu.Lock()
	after := newCrashFS(c.rng)
	for name, n := range c.stable {
		after.names[name] = &inode{now: slices.Clone(n.stable), stable: slices.Clone(n.stable)}
		after.stable[name] = after.names[name]
	}
	c.mu.Unlock()
	s, got, _ := mustOpen(t, "d", Options{fs: after})
	mustClose(t, s)
	for _, b := range got {
		recs = append(recs, b.rec)
	}
	return recs
}

func TestSyncPolicies(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sync  time.Duration
		early time.Duration // nothing is durable
		late  time.Duration // all is
	}{
		{"default", 0, 99 * time.Millisecond, 101 * time.Millisecond},
		{"2s", 2 * time.Second, 1999 * time.Millisecond, 2001 * time.Millisecond},
		{"always", Always, -1, 0},
		{"never", Never, time.Hour, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *crashFS) {
				s, _, _ := mustOpen(t, "d", Options{fs: c, Sync: tt.sync})
				for _, rec := range []string{"first", "second"} {
					time.Sleep(10 * time.Minute) // idle
					start := time.Now()
					ref := add(t, s, rec)
					s.Done(add(t, s, "done"))
					if tt.early >= 0 {
						time.Sleep(tt.early)
						synctest.Wait()
						if got := survivors(t, c); slices.Contains(got, rec) {
							t.Errorf("%s is durable after %v", rec, tt.early)
						}
					}
					if tt.late >= 0 {
						time.Sleep(tt.late - time.Since(start))
						synctest.Wait()
						if got := survivors(t, c); !slices.Contains(got, rec) {
							t.Errorf("after %v only %q are durable", tt.late, got)
						}
					}
					wantRead(t, s, ref, rec)
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if got := survivors(t, c); tt.sync != Never && !slices.Equal(got, []string{"first", "second"}) {
					t.Errorf("got %q, want what is not done", got)
				}
				mustClose(t, s)
			})
		})
	}
}

func TestNeverIsWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c, Sync: Never})
		add(t, s, "x")
		if c.size() > 0 {
			t.Errorf("%d bytes written at once", c.size())
		}
		time.Sleep(101 * time.Millisecond)
		synctest.Wait()
		if want := recordSize(1); c.size() != want {
			t.Errorf("%d bytes written, want %d", c.size(), want)
		}
	})
}

// TestWaitSharesSyncs counts fsyncs: the writer waits for all who are about to
// wait for one.
func TestWaitSharesSyncs(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		slow := &slowFS{fileSystem: c, delay: 10 * time.Millisecond}
		s, _, _ := mustOpen(t, "d", Options{fs: slow, Sync: Always})
		if err := s.Wait(t.Context(), add(t, s, "the file exists")); err != nil {
			t.Fatal(err)
		}
		before := slow.count()
		start := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 20 {
					if err := s.Wait(t.Context(), add(t, s, "x")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if n := slow.count() - before; n > 25 {
			t.Errorf("%d syncs for 20 rounds of 50 waiters", n)
		}
		if took := time.Since(start); took > 250*time.Millisecond {
			t.Errorf("took %v, want about a sync a round", took)
		}
	})
}

// TestWaitOfStrangers has appenders that do not come again when they are done: a
// sync that is put off for them is for nothing, and mostly is not.
func TestWaitOfStrangers(t *testing.T) {
	const delay, appenders = 2 * time.Millisecond, 2000
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: &slowFS{fileSystem: c, delay: delay}, Sync: Always})
		rng := rand.New(rand.NewPCG(3, 4))
		var waited atomic.Int64
		var wg sync.WaitGroup
		for range appenders {
			time.Sleep(time.Duration(rng.Int64N(int64(delay / 5))))
			wg.Go(func() {
				begin := time.Now()
				if err := s.Wait(t.Context(), add(t, s, "x")); err != nil {
					t.Error(err)
				}
				waited.Add(int64(time.Since(begin)))
			})
		}
		wg.Wait()
		// The rest of one sync and the whole of another are one and a half;
		// with one more to wait for strangers it is two.
		if mean := time.Duration(waited.Load() / appenders); mean > 7*delay/4 {
			t.Errorf("waited %v on average, a sync takes %v", mean, delay)
		}
	})
}

// TestFullBufferEndsGathering fills the buffer while the writer waits for another
// appender.
func TestFullBufferEndsGathering(t *testing.T) {
	const delay = 4 * time.Millisecond
	inBubble(t, func(t *testing.T, c *crashFS) {
		slow := &slowFS{fileSystem: c, delay: delay}
		s, _, _ := mustOpen(t, "d", Options{fs: slow, Sync: Always})
		if err := s.Wait(t.Context(), add(t, s, "the file exists")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.writer.expected, s.writer.took = 2, delay
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Wait(t.Context(), add(t, s, "x")); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // the writer waits for another one
		before := slow.count()
		add(t, s, strings.Repeat("y", defaultBufferSize*3/4))
		time.Sleep(delay)
		synctest.Wait()
		if slow.count() == before {
			t.Error("the flush was put off although the buffer was nearly full")
		}
		wg.Wait()
	})
}

// TestWaitBehindFlight waits for a record that came when the sync under way had
// begun: it is not covered by that one.
func TestWaitBehindFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		slow := &slowFS{fileSystem: c, delay: time.Second}
		s, _, _ := mustOpen(t, "d", Options{fs: slow, Sync: Always})
		add(t, s, "x")
		time.Sleep(500 * time.Millisecond)
		if err := s.Wait(t.Context(), add(t, s, "y")); err != nil {
			t.Fatal(err)
		}
		if got := survivors(t, c); len(got) != 2 {
			t.Errorf("got %q, want what was waited for among it", got)
		}
		mustClose(t, s)
	})
}

func TestWaitGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		slow := &slowFS{fileSystem: c, delay: time.Minute}
		s, _, _ := mustOpen(t, "d", Options{fs: slow, Sync: Always})
		ref := add(t, s, "x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := s.Wait(ctx, ref); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if err := s.Wait(t.Context(), ref); err != nil {
			t.Errorf("later: %v", err)
		}
		if got := survivors(t, c); len(got) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

// A slowFS delays syncs, and counts them.
type slowFS struct {
	fileSystem
	delay time.Duration

	mu    sync.Mutex
	syncs int
}

func (f *slowFS) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.syncs
}

func (f *slowFS) open(name string, flag int) (file, error) {
	inner, err := f.fileSystem.open(name, flag)
	if err != nil {
		return nil, err
	}
	return &slowFile{inner, f}, nil
}

type slowFile struct {
	file
	fs *slowFS
}

func (f *slowFile) Sync() error {
	time.Sleep(f.fs.delay)
	f.fs.mu.Lock()
	f.fs.syncs++
	f.fs.mu.Unlock()
	return f.file.Sync()
}
