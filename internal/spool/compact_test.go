package spool

import (
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// fillUp appends records of n bytes until the folder is full.
func fillUp(s *Spool, n int) (refs []Ref) {
	for {
		ref, err := s.Append(make([]byte, n))
		if err != nil {
			return refs
		}
		refs = append(refs, ref)
	}
}

// tries reports how many records of so many tries, each after some time, find room.
func tries(s *Spool, n int, every time.Duration) (fit int) {
	for range n {
		if _, err := s.Append(make([]byte, 700)); err == nil {
			fit++
		}
		time.Sleep(every)
	}
	return fit
}

// A renameFS calls during before a segment that was compacted takes its name.
type renameFS struct {
	*crashFS
	during atomic.Pointer[func()]
}

func (r *renameFS) rename(from, to string) error {
	if during := r.during.Load(); during != nil && strings.HasSuffix(from, tempSuffix) {
		(*during)()
	}
	return r.crashFS.rename(from, to)
}

// TestDoneWhileCompacted finishes records of a segment while it is compacted: what
// is left of it is compacted once more.
func TestDoneWhileCompacted(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		r := &renameFS{crashFS: c}
		s, _, _ := mustOpen(t, "d", Options{fs: r, MaxBytes: 128 << 10, segmentSize: 32 << 10})
		refs := fillUp(s, 700)
		time.Sleep(time.Second)
		var first []Ref // of the first segment
		for _, ref := range refs {
			if ref.seq() == refs[0].seq() {
				first = append(first, ref)
			}
		}
		half := len(first) / 2
		var compacted atomic.Int64
		during := func() {
			if compacted.Add(1) == 1 {
				for _, ref := range first[half+1 : len(first)-1] {
					s.Done(ref)
				}
			}
		}
		r.during.Store(&during)
		for _, ref := range first[:half+1] {
			s.Done(ref)
		}
		time.Sleep(10 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if g := s.segments[first[0].seq()]; g.bytes > 2000 || compacted.Load() > 3 {
			t.Errorf("a segment with %d live record of 700 bytes has %d, after %d compactions", g.live, g.bytes, compacted.Load())
		}
	})
}

// TestSealedTail fills a folder whose last segment is then done but for a record.
func TestSealedTail(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		var room atomic.Int64
		s, _, _ := mustOpen(t, "d", Options{fs: c, MaxBytes: 1 << 20, segmentSize: 64 << 10, Room: func() { room.Add(1) }})
		refs := fillUp(s, 700)
		time.Sleep(time.Second)
		last := refs[len(refs)-1]
		for _, ref := range refs[:len(refs)-1] {
			if ref.seq() == last.seq() {
				s.Done(ref)
			}
		}
		time.Sleep(time.Second)
		if fit := tries(s, 1000, 100*time.Millisecond); fit == 0 || room.Load() == 0 {
			t.Errorf("%d records fit; told of room %d times", fit, room.Load())
		}
	})
}

// A tempFS is a file system on which compaction cannot begin.
type tempFS struct {
	*crashFS
	full atomic.Bool
}

func (f *tempFS) open(name string, flag int) (file, error) {
	if f.full.Load() && strings.HasSuffix(name, tempSuffix) {
		return nil, errNoSpace
	}
	return f.crashFS.open(name, flag)
}

// TestCompactionAfterFullDisk has a disk that is full for a while.
func TestCompactionAfterFullDisk(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		f := &tempFS{crashFS: c}
		s, _, _ := mustOpen(t, "d", Options{fs: f, MaxBytes: 1 << 20})
		refs := fillUp(s, 700)
		time.Sleep(time.Second)
		f.full.Store(true)
		for i, ref := range refs {
			if i%60 != 0 { // one in each segment, or so, stays
				s.Done(ref)
			}
		}
		tries(s, 20*60, time.Second)
		f.full.Store(false)
		if fit := tries(s, 24*60, time.Minute); fit < 100 {
			t.Errorf("%d records fit in the day after", fit)
		}
	})
}

// A keepFS is a file system on which no segment can be removed.
type keepFS struct {
	*crashFS
	keep atomic.Bool
}

func (f *keepFS) remove(name string) error {
	if f.keep.Load() && strings.HasSuffix(name, logSuffix) {
		return errIO
	}
	return f.crashFS.remove(name)
}

// TestNothingIsRemoved compacts no further while what it has replaced stays.
func TestNothingIsRemoved(t *testing.T) {
	for name, sync := range map[string]time.Duration{"always": Always, "never": Never, "100ms": 100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *crashFS) {
				f := &keepFS{crashFS: c}
				const limit, segment = 1 << 20, 64 << 10
				s, _, _ := mustOpen(t, "d", Options{fs: f, Sync: sync, MaxBytes: limit, segmentSize: segment})
				f.keep.Store(true)
				most := int64(0)
				for i := range 15000 {
					if ref, err := s.Append(make([]byte, 700)); err == nil && i%20 != 0 {
						s.Done(ref)
					}
					if i%10 == 0 {
						time.Sleep(10 * time.Millisecond)
					}
					most = max(most, c.size())
				}
				if most > limit+3*segment {
					t.Errorf("the folder had %d bytes of %d", most, limit)
				}
			})
		})
	}
}

// TestHugeLimit has a limit near the largest number: nothing may overflow.
func TestHugeLimit(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		f := &keepFS{crashFS: c}
		s, _, _ := mustOpen(t, "d", Options{fs: f, MaxBytes: math.MaxInt64, segmentSize: 64 << 10})
		f.keep.Store(true)
		for range 1000 {
			ref, err := s.Append(make([]byte, 700))
			if err != nil {
				t.Fatal(err)
			}
			s.Done(ref)
			time.Sleep(10 * time.Millisecond)
		}
		f.keep.Store(false)
	})
}

// TestLoweredLimit lowers the limit below what there is. That may stay, and be replaced,
// but once it is less, so is what the folder may have.
func TestLoweredLimit(t *testing.T) {
	const record, lower = 10000, 1 << 20
	for _, tt := range []struct {
		name    string
		segment int64
		act     func(t *testing.T, s *Spool, refs []Ref)
		most    int64 // in the folder
	}{
		{"everything is done", 16 << 20, func(t *testing.T, s *Spool, refs []Ref) {
			s.SetMaxBytes(lower)
			for _, ref := range refs {
				s.Done(ref)
			}
			time.Sleep(time.Minute)
			for range 3000 {
				if ref, err := s.Append(make([]byte, record)); err == nil {
					s.Done(ref)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}, 3 * lower},
		{"lowered again and again", 128 << 10, func(t *testing.T, s *Spool, _ []Ref) {
			for range 20 {
				s.SetMaxBytes(lower)
				fillUp(s, record)
				time.Sleep(time.Second)
			}
		}, 9 << 20},
		{"raised", 16 << 20, func(t *testing.T, s *Spool, _ []Ref) {
			s.SetMaxBytes(lower)
			s.SetMaxBytes(10 << 20)
			fillUp(s, record)
		}, 11 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *crashFS) {
				s, _, _ := mustOpen(t, "d", Options{fs: c, MaxBytes: 8 << 20, segmentSize: tt.segment})
				refs := fillUp(s, record)
				time.Sleep(time.Second)
				tt.act(t, s, refs)
				time.Sleep(time.Second)
				if size := max(sizeOf(s), c.size()); size > tt.most {
					t.Errorf("the folder has %d bytes, more than %d", size, tt.most)
				}
			})
		})
	}
}

// TestKeptFolderIsBounded finishes every record while no segment can be removed: the
// folder does not grow beyond its limit.
func TestKeptFolderIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		f := &keepFS{crashFS: c}
		const limit, segment = 1 << 20, 64 << 10
		s, _, _ := mustOpen(t, "d", Options{fs: f, MaxBytes: limit, segmentSize: segment})
		f.keep.Store(true)
		most := int64(0)
		for range 10000 {
			if ref, err := s.Append(make([]byte, 700)); err == nil {
				s.Done(ref)
			}
			time.Sleep(time.Millisecond)
			most = max(most, c.size())
		}
		if most > limit+3*segment {
			t.Errorf("the folder had %d bytes of %d", most, limit)
		}
	})
}

// A firstFS is a keepFS whose compacted segments cannot be opened.
type firstFS struct {
	keepFS
	bad bool
}

func (f *firstFS) open(name string, flag int) (file, error) {
	if f.bad && strings.HasSuffix(name, logSuffix) && !strings.Contains(name, "-00-") {
		return nil, errIO
	}
	return f.keepFS.open(name, flag)
}

// TestUnreadableKeepsWhatItReplaces opens a folder where compacted segments cannot be
// read and those that they replace are still there: these may be all that is left.
func TestUnreadableKeepsWhatItReplaces(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		f := &firstFS{keepFS: keepFS{crashFS: c}}
		opts := Options{fs: f, MaxBytes: 80 << 10, segmentSize: 16 << 10}
		s, _, _ := mustOpen(t, "d", opts)
		f.keep.Store(true)
		for i, ref := range fillUp(s, 700) {
			if i%3 != 0 {
				s.Done(ref)
			}
		}
		time.Sleep(time.Minute)
		_ = s.Close() // it tells of what it cannot remove
		segments := func() (first, compacted int) {
			for name := range c.names {
				switch {
				case !strings.HasSuffix(name, logSuffix):
				case strings.Contains(name, "-00-"):
					first++
				default:
					compacted++
				}
			}
			return first, compacted
		}
		want, compacted := segments()
		if compacted == 0 {
			t.Fatal("nothing was compacted")
		}
		f.keep.Store(false)
		f.bad = true
		_, _, r := mustOpen(t, "d", opts)
		if first, _ := segments(); first != want || len(r.Unreadable) != compacted {
			t.Errorf("%d of %d segments are left, %d are unreadable, want %d", first, want, len(r.Unreadable), compacted)
		}
	})
}

// TestMarksOfFresh finishes records out of order as fast as they come: segments
// that are done before they were written leave no marks behind.
func TestMarksOfFresh(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		s, _, _ := mustOpen(t, "d", Options{fs: c, MaxBytes: 1 << 20})
		var refs []Ref
		for n := range 2500 {
			for range 8 {
				refs = append(refs, add(t, s, strings.Repeat("x", 1000)))
			}
			time.Sleep(2 * time.Millisecond)
			for len(refs) > 40 {
				at := 0
				if n%3 == 0 {
					at = n * 7919 % len(refs)
				}
				s.Done(refs[at])
				refs = append(refs[:at], refs[at+1:]...)
			}
		}
		for _, ref := range refs {
			s.Done(ref)
		}
		time.Sleep(time.Minute)
		names, err := c.list("d")
		if err != nil || len(names) > 5 {
			t.Errorf("%d files are left, error %v", len(names), err)
		}
	})
}

// TestFinishedWhileCompacted finishes the last record of a segment while it is
// compacted: its bytes must leave the accounts all the same.
func TestFinishedWhileCompacted(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		r := &renameFS{crashFS: c}
		s, _, _ := mustOpen(t, "d", Options{fs: r, MaxBytes: 64 << 10, segmentSize: 16 << 10})
		var refs []Ref
		for {
			ref, err := s.Append(make([]byte, 700))
			if err != nil {
				break
			}
			refs = append(refs, ref)
		}
		time.Sleep(time.Second)
		var first []Ref // of the first segment
		for _, ref := range refs {
			if ref.seq() == refs[0].seq() {
				first = append(first, ref)
			}
		}
		last := len(first) - 1
		var compacted atomic.Int64
		during := func() {
			compacted.Add(1)
			s.Done(first[last])
		}
		r.during.Store(&during)
		for _, ref := range first[:last] {
			s.Done(ref)
		}
		time.Sleep(time.Minute)
		if n := compacted.Load(); n != 1 {
			t.Fatalf("%d segments compacted", n)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		var size int64
		for _, g := range s.segments {
			size += g.cost()
		}
		if s.size != size || s.buried != 0 || len(s.graves) > 0 {
			t.Errorf("size %d, want %d; buried %d in %d graves, want none", s.size, size, s.buried, len(s.graves))
		}
	})
}
