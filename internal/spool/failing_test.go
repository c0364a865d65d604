package spool

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailingDisk(t *testing.T) {
	for name, fail := range map[string]func(c *crashFS, on bool){
		"no space":   func(c *crashFS, on bool) { c.full = on },
		"sync fails": func(c *crashFS, on bool) { c.badSync = on },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *crashFS) {
				var told []error
				s, _, _ := mustOpen(t, "d", Options{
					fs: c, Sync: Always, bufferSize: 1 << 20,
					Notify: func(err error) { told = append(told, err) },
				})
				var want []string
				put := func(rec string) (Ref, error) {
					ref, err := s.Append([]byte(rec))
					if err == nil {
						want = append(want, rec)
					}
					return ref, err
				}
				if ref, err := put("before"); err != nil || s.Wait(t.Context(), ref) != nil {
					t.Fatal(err)
				}
				c.with(func() { fail(c, true) })
				ref, err := put("during")
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Wait(t.Context(), ref); !errors.Is(err, errNoSpace) && !errors.Is(err, errIO) {
					t.Errorf("wait: %v", err)
				}
				synctest.Wait() // waiters are woken before Notify is called
				if s.Err() == nil || len(told) != 1 || told[0] == nil {
					t.Errorf("Err() %v, told %v", s.Err(), told)
				}
				wantRead(t, s, ref, "during")
				for err == nil {
					_, err = put(strings.Repeat("y", 10000))
					time.Sleep(time.Millisecond)
				}
				if !errors.Is(err, ErrBehind) || len(want) < 50 {
					t.Errorf("after %d records: %v, want %v", len(want), err, ErrBehind)
				}
				time.Sleep(time.Minute)
				c.with(func() { fail(c, false) })
				time.Sleep(time.Second)
				synctest.Wait()
				if s.Err() != nil || len(told) != 2 || told[1] != nil {
					t.Errorf("Err() %v, told %v", s.Err(), told)
				}
				if ref, err := put("after"); err != nil || s.Wait(t.Context(), ref) != nil {
					t.Errorf("after: %v", err)
				}
				if got := survivors(t, c); !slices.Equal(got, want) {
					t.Errorf("%d records are durable, want %d", len(got), len(want))
				}
			})
		})
	}
}

// TestFailingDiskIsAMemoryQueue shows that a spool whose disk fails goes on as
// long as records are finished.
func TestFailingDiskIsAMemoryQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c, bufferSize: 1 << 20})
		c.with(func() { c.full = true })
		for i := range 1000 {
			ref, err := s.Append(make([]byte, 10000))
			if err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			time.Sleep(10 * time.Millisecond)
			s.Done(ref)
		}
		c.with(func() { c.full = false })
		add(t, s, "kept")
		mustClose(t, s)
		if got := survivors(t, c); !slices.Equal(got, []string{"kept"}) {
			t.Errorf("%d records are left", len(got))
		}
	})
}

// TestFailingDiskMakesRoom fills the buffer of a spool whose disk fails: once all
// records are done there is room, before the next attempt to write.
func TestFailingDiskMakesRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c, bufferSize: 1 << 20})
		c.with(func() { c.full = true })
		refs := []Ref{add(t, s, "x")}
		time.Sleep(time.Second)
		for {
			ref, err := s.Append(make([]byte, 10000))
			if errors.Is(err, ErrBehind) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, ref)
		}
		for _, ref := range refs {
			s.Done(ref)
		}
		add(t, s, "y")
		c.with(func() { c.full = false })
	})
}

// TestFullDiskRecovers has a record that does not fit on the disk and is done
// nevertheless: nothing is left to write.
func TestFullDiskRecovers(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c})
		c.with(func() { c.full = true })
		ref := add(t, s, "x")
		time.Sleep(time.Second)
		if s.Err() == nil {
			t.Error("the disk does not fail")
		}
		s.Done(ref)
		time.Sleep(time.Second)
		if err := s.Err(); err != nil {
			t.Error(err)
		}
		mustClose(t, s)
	})
}

// TestHangingDisk has a disk that takes its time with the events, or with the mark of
// one that is done: there is an error for as long as it does.
func TestHangingDisk(t *testing.T) {
	for _, at := range []string{"record", "mark"} {
		t.Run(at, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *crashFS) {
				s, _, _ := mustOpen(t, "d", Options{fs: &slowFS{fileSystem: c, delay: time.Minute}})
				if ref := add(t, s, "x"); at == "mark" {
					add(t, s, "y") // or the segment goes
					time.Sleep(2 * time.Minute)
					s.Done(ref)
				}
				for _, hangs := range []bool{false, true} {
					time.Sleep(4 * time.Second)
					if err := s.Err(); (err != nil) != hangs {
						t.Errorf("hangs %v: %v", hangs, err)
					}
				}
				time.Sleep(2 * time.Minute)
				if err := s.Err(); err != nil {
					t.Errorf("when it goes on: %v", err)
				}
				mustClose(t, s)
			})
		})
	}
}

// TestFailedSyncIsTriedSoon: a failed sync is tried again long before the next one is
// due.
func TestFailedSyncIsTriedSoon(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c, Sync: time.Hour})
		c.with(func() { c.badSync = true })
		if err := s.Wait(t.Context(), add(t, s, "x")); !errors.Is(err, errIO) {
			t.Fatalf("got %v, want %v", err, errIO)
		}
		c.with(func() { c.badSync = false })
		time.Sleep(time.Second)
		synctest.Wait()
		if err := s.Err(); err != nil {
			t.Errorf("a second after the disk is well: %v", err)
		}
	})
}

func TestCloseTellsOfLoss(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c})
		add(t, s, "x")
		c.with(func() { c.full = true })
		for range 2 {
			if err := s.Close(); !errors.Is(err, errNoSpace) {
				t.Errorf("got %v, want %v", err, errNoSpace)
			}
		}
		c.with(func() { c.full = false })
		mustOpen(t, "d", Options{fs: c}) // unlocked
	})
}

// TestCloseTellsOfNoLoss closes on a failing disk when all records are done: that they
// may come back is all there is to tell.
func TestCloseTellsOfNoLoss(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c})
		ref := add(t, s, "x")
		if err := s.Wait(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		c.with(func() { c.badSync = true })
		s.Done(ref)
		if err := s.Close(); !errors.Is(err, errIO) || strings.Contains(err.Error(), "lost") {
			t.Errorf("got %v, want %v and no word of a loss", err, errIO)
		}
	})
}

func TestUnreadableSegment(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c})
		add(t, s, "x")
		mustClose(t, s)
		c.with(func() { c.badRead = true })
		s, got, r := mustOpen(t, "d", Options{fs: c})
		if len(got) > 0 || len(r.Unreadable) != 1 || !errors.Is(r.Unreadable[0], errIO) {
			t.Errorf("got %v, %+v", got, r)
		}
		add(t, s, "y")
		mustClose(t, s)
		c.with(func() { c.badRead = false })
		_, got, r = mustOpen(t, "d", Options{fs: c})
		if len(got) != 2 || got[0].rec != "x" || got[1].rec != "y" || r.Unreadable != nil {
			t.Errorf("later: got %v, %+v", got, r)
		}
	})
}

// A marksFS is a file system whose files of marks cannot be read.
type marksFS struct {
	*crashFS
	bad bool
}

func (m *marksFS) open(name string, flag int) (file, error) {
	f, err := m.crashFS.open(name, flag)
	if err == nil && m.bad && strings.HasSuffix(name, doneSuffix) {
		f = unreadable{f}
	}
	return f, err
}

type unreadable struct{ file }

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, errIO }

// TestUnreadableMarks compacts while marks can be read again that could not be
// read by Open: what it has handed back must stay.
func TestUnreadableMarks(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		m := &marksFS{crashFS: c}
		opts := Options{fs: m, MaxBytes: 80 << 10, segmentSize: 16 << 10}
		s, _, _ := mustOpen(t, "d", opts)
		for i := range 60 { // three segments
			if ref := add(t, s, string(make([]byte, 700))); i%3 == 0 {
				s.Done(ref)
			}
		}
		mustClose(t, s)
		m.bad = true
		s, got, r := mustOpen(t, "d", opts)
		if len(got) != 60 || len(r.Unreadable) != 3 {
			t.Fatalf("%d records came back, %+v", len(got), r)
		}
		m.bad = false
		for i, b := range got {
			if i%3 != 0 {
				s.Done(b.ref)
			}
		}
		time.Sleep(time.Minute)
		for i, b := range got {
			if i%3 == 0 {
				wantRead(t, s, b.ref, b.rec)
			}
		}
		mustClose(t, s)
	})
}

// TestRoomWhileSyncing finishes records for others while the disk is busy: what the
// writer has not seen of the first makes room at once.
func TestRoomWhileSyncing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: &slowFS{fileSystem: c, delay: time.Second}, MaxBytes: 1 << 20})
		add(t, s, "x")
		time.Sleep(200 * time.Millisecond) // the sync is under way
		var waiting []Ref
		for i := range 1000 {
			if len(waiting) == 70 {
				s.Done(waiting[0])
				waiting = waiting[1:]
			}
			ref, err := s.Append(make([]byte, 10_000))
			if err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			waiting = append(waiting, ref)
		}
		mustClose(t, s)
		if got := survivors(t, c); len(got) != 71 {
			t.Errorf("%d records are left, want 71", len(got))
		}
	})
}

// A slowWriteFS is a file system whose writes take their time.
type slowWriteFS struct {
	*crashFS
	delay atomic.Int64 // a time.Duration
}

func (f *slowWriteFS) open(name string, flag int) (file, error) {
	inner, err := f.crashFS.open(name, flag)
	if err != nil {
		return nil, err
	}
	return &slowWriteFile{inner, f}, nil
}

type slowWriteFile struct {
	file
	fs *slowWriteFS
}

func (f *slowWriteFile) WriteAt(b []byte, off int64) (int, error) {
	time.Sleep(time.Duration(f.fs.delay.Load()))
	return f.file.WriteAt(b, off)
}

// TestDoneDuringSlowWrite has a full buffer whose records are done while a disk that
// failed is written to again: what comes then does not get the memory that is being
// written.
func TestDoneDuringSlowWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		slow := &slowWriteFS{crashFS: c}
		s, _, _ := mustOpen(t, "d", Options{fs: slow, bufferSize: 1 << 20})
		c.with(func() { c.full = true })
		refs := []Ref{add(t, s, "x")}
		time.Sleep(time.Second)
		long := strings.Repeat("x", 10000)
		for {
			ref, err := s.Append([]byte(long))
			if errors.Is(err, ErrBehind) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, ref)
		}
		c.with(func() { c.full = false })
		slow.delay.Store(int64(time.Second))
		time.Sleep(retryDelay + time.Second/2) // the write is under way
		if s.Err() == nil {
			t.Fatal("the disk does not fail any more")
		}
		for _, ref := range refs {
			s.Done(ref)
		}
		var kept []string
		for i := range 200 {
			rec := fmt.Sprintf("%d %s", i, long)
			if _, err := s.Append([]byte(rec)); err == nil {
				kept = append(kept, rec)
			} else if !errors.Is(err, ErrBehind) {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if err := s.Err(); err != nil || len(kept) < 100 {
			t.Errorf("%d records were taken, %v", len(kept), err)
		}
		if got := survivors(t, c); !slices.Equal(got, kept) {
			t.Errorf("%d records are durable, want the %d that are not done", len(got), len(kept))
		}
		mustClose(t, s)
	})
}

// A logsFS is a file system that has room for so many segments.
type logsFS struct {
	*crashFS
	room atomic.Int64
}

func (l *logsFS) open(name string, flag int) (file, error) {
	if strings.HasSuffix(name, logSuffix) && flag&os.O_CREATE != 0 {
		if l.room.Add(-1) < 0 {
			return nil, errNoSpace
		}
	}
	return l.crashFS.open(name, flag)
}

// TestDurableInPart writes more than there is room for: what was written is
// durable, and known to be.
func TestDurableInPart(t *testing.T) {
	for name, sync := range map[string]time.Duration{"never": Never, "100ms": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *crashFS) {
				l := &logsFS{crashFS: c}
				l.room.Store(2)
				s, _, _ := mustOpen(t, "d", Options{fs: l, Sync: sync, segmentSize: 16 << 10})
				var refs []Ref
				for range 60 { // three segments
					refs = append(refs, add(t, s, strings.Repeat("x", 700)))
				}
				time.Sleep(time.Minute)
				for i, ref := range refs {
					if got, want := ref <= s.Synced(), ref.seq() < refs[59].seq(); got != want {
						t.Fatalf("record %d of segment %d: synced %t", i, ref.seq(), got)
					}
				}
				l.room.Store(1)
				time.Sleep(time.Minute)
				if s.Synced() != refs[59] {
					t.Error("not all is synced when there is room")
				}
				mustClose(t, s)
			})
		})
	}
}

// A badSyncFS is a file system on which segments from a number on cannot be synced.
type badSyncFS struct {
	*crashFS
	from atomic.Uint64
}

func (f *badSyncFS) open(name string, flag int) (file, error) {
	inner, err := f.crashFS.open(name, flag)
	if err != nil {
		return nil, err
	}
	i, _, _ := parseName(filepath.Base(name))
	return &badSyncFile{inner, f, i.seq}, nil
}

type badSyncFile struct {
	file
	fs  *badSyncFS
	seq uint64
}

func (f *badSyncFile) Sync() error {
	if f.seq >= f.fs.from.Load() {
		return errIO
	}
	return f.file.Sync()
}

// TestDurableNames makes two files, the second of which cannot be synced: the content
// of the first one is durable, but not its name.
func TestDurableNames(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		bad := &badSyncFS{crashFS: c}
		s, _, _ := mustOpen(t, "d", Options{fs: bad, segmentSize: 16 << 10})
		var refs []Ref
		for range 40 { // two segments
			refs = append(refs, add(t, s, strings.Repeat("x", 700)))
		}
		bad.from.Store(refs[39].seq())
		synced := func() (n int) {
			for n < len(refs) && refs[n] <= s.Synced() {
				n++
			}
			return n
		}
		for range 3 {
			time.Sleep(time.Second)
			synctest.Wait()
			if got := len(survivors(t, c)); synced() > got {
				t.Fatalf("%d records are said to be synced, %d are", synced(), got)
			}
		}
		if err := s.Err(); !errors.Is(err, errIO) {
			t.Errorf("got %v, want %v", err, errIO)
		}
		bad.from.Store(math.MaxUint64)
		time.Sleep(time.Second)
		synctest.Wait()
		if synced() != 40 || len(survivors(t, c)) != 40 {
			t.Errorf("%d are said to be synced, %d are, want 40", synced(), len(survivors(t, c)))
		}
		mustClose(t, s)
	})
}
