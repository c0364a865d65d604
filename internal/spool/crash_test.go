package spool

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var crashes = flag.Int("crashes", 1000, "random crash points to try, a fifth of them with -short or -race")

// TestCrash runs random operations against a model over several lives of a
// spool, most of which end in a crash at a random operation of the file
// system.
func TestCrash(t *testing.T) {
	const livesPerRun = 4
	runs := *crashes / livesPerRun
	if testing.Short() || underRace {
		runs /= 5
	}
	var total story
	for seed := range runs {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(seed), 1))
				m := &model{
					t: t, rng: rng, fs: newCrashFS(rand.New(rand.NewPCG(uint64(seed), 2))), story: &total,
					maxBytes: int64(64+rng.IntN(128)) << 10, segmentSize: int64(4+rng.IntN(12)) << 10,
				}
				for range livesPerRun {
					m.live()
				}
			})
		})
	}
	t.Logf("%+v", total)
	if total.compactions == 0 || total.cameBack == 0 || total.failures == 0 || total.full == 0 || total.torn == 0 {
		t.Errorf("some of what is to be tested did not happen: %+v", total)
	}
}

// A story counts what happened.
type story struct {
	appended, lost, cameBack, cleanCloses, compactions, failures, full, behind, torn int
}

// A model knows what a spool must hold.
type model struct {
	t     *testing.T
	rng   *rand.Rand
	fs    *crashFS
	story *story

	maxBytes, segmentSize int64

	serial  uint64        // of the last record
	records []modelRecord // in order
}

type modelRecord struct {
	ref    Ref
	rec    []byte
	safe   bool      // must survive
	doneAt time.Time // zero if it is not done
	gone   bool      // done for good: must not come back at the next Open
}

// live opens the spool, checks what comes back, does random things and ends in
// a crash or a Close.
func (m *model) live() {
	policy := []time.Duration{0, Always, Never, 10 * time.Millisecond, 3 * time.Second}[m.rng.IntN(5)]
	opts := Options{
		fs: m.fs, Sync: policy,
		MaxBytes: m.maxBytes, segmentSize: m.segmentSize, bufferSize: 64 << 10,
	}
	var next []modelRecord
	s, r, err := Open("d", opts, func(ref Ref, rec []byte) {
		next = append(next, modelRecord{ref: ref, rec: slices.Clone(rec), safe: true})
	})
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	defer s.Close()
	if r.Records != len(next) || len(r.Unreadable) > 0 {
		m.t.Fatalf("recovery %+v, but %d records came back", r, len(next))
	}
	m.story.torn += int(r.TornBytes)
	m.check(next)
	m.records = merge(next, m.records, makeRef(s.nextSeq, 0))

	if m.rng.IntN(5) > 0 {
		m.fs.with(func() { m.fs.left = m.rng.IntN(400) })
	}
	healthy := time.Now() // since when
	for range m.rng.IntN(1000) {
		m.step(s, &healthy)
		if size, limit := m.fs.size(), m.maxBytes+m.segmentSize; size > limit {
			m.t.Fatalf("folder has %d bytes, want at most %d", size, limit)
		}
	}
	m.fs.with(func() {
		m.fs.full, m.fs.badSync = false, false
		m.story.failures += m.fs.failures
	})
	names, _ := m.fs.list("d")
	for _, name := range names {
		if i, _, ok := parseName(name); ok && i.gen > 0 {
			m.story.compactions++ // still there
		}
	}

	closeIt := m.rng.IntN(2) == 0
	if closeIt && s.Close() == nil {
		// Nothing but what is not done, and all of that.
		m.story.cleanCloses++
		for i := range m.records {
			e := &m.records[i]
			e.safe, e.gone = true, !e.doneAt.IsZero()
		}
		if policy == Never {
			// The process ended, not the machine.
			next := newCrashFS(m.fs.rng)
			for name, n := range m.fs.names {
				n.stable, n.writes = slices.Clone(n.now), nil
				next.names[name], next.stable[name] = n, n
			}
			m.fs = next
			return
		}
	} else {
		s.mu.Lock()
		safe := s.safe
		s.mu.Unlock()
		m.fs.with(m.fs.halt)
		for i := range m.records {
			e := &m.records[i]
			if policy == Never {
				e.safe = false
				continue
			}
			e.safe = e.safe || e.ref <= safe
			if !e.doneAt.IsZero() && healthy.Before(e.doneAt) && m.fs.crashedAt.Sub(e.doneAt) > 15*time.Second {
				e.gone = true
			}
		}
	}
	m.fs = m.fs.crash()
}

// merge adds to what came back what is done and may still come back: without
// syncing, marks can be lost later than the records. From end on, references
// are used again.
func merge(back, before []modelRecord, end Ref) []modelRecord {
	for _, e := range before {
		known := slices.ContainsFunc(back, func(b modelRecord) bool { return b.ref == e.ref })
		if !known && !e.doneAt.IsZero() && e.ref < end {
			e.gone = false
			back = append(back, e)
		}
	}
	slices.SortFunc(back, func(a, b modelRecord) int { return cmp.Compare(a.ref, b.ref) })
	return back
}

// check compares what came back with what had to and what might.
func (m *model) check(got []modelRecord) {
	m.t.Helper()
	want := m.records
	for _, g := range got {
		for len(want) > 0 && want[0].ref != g.ref {
			m.missed(want[0])
			want = want[1:]
		}
		if len(want) == 0 {
			m.t.Fatalf("record %x of %d bytes was never appended, or is out of order", g.ref, len(g.rec))
		}
		if !bytes.Equal(g.rec, want[0].rec) {
			m.t.Fatalf("record %x came back with other bytes", g.ref)
		}
		if want[0].gone {
			m.t.Fatalf("record %x came back though its mark was durable", g.ref)
		}
		if !want[0].doneAt.IsZero() {
			m.story.cameBack++
		}
		want = want[1:]
	}
	for _, w := range want {
		m.missed(w)
	}
}

func (m *model) missed(w modelRecord) {
	m.t.Helper()
	if w.doneAt.IsZero() {
		if w.safe {
			m.t.Fatalf("record %x of %d bytes is lost though it was durable", w.ref, len(w.rec))
		}
		m.story.lost++
	}
}

// step does one random thing.
func (m *model) step(s *Spool, healthy *time.Time) {
	switch m.rng.IntN(20) {
	default:
		rec := m.record()
		ref, err := s.Append(rec)
		switch {
		case errors.Is(err, ErrFull):
			m.story.full++
			return
		case errors.Is(err, ErrBehind):
			m.story.behind++
			return
		case err != nil:
			m.t.Fatalf("append: %v", err)
		}
		if n := len(m.records); n > 0 && ref <= m.records[n-1].ref {
			m.t.Fatalf("ref %x after %x", ref, m.records[n-1].ref)
		}
		m.story.appended++
		m.records = append(m.records, modelRecord{ref: ref, rec: rec})
	case 0, 1, 2, 3, 4, 5:
		if len(m.records) == 0 {
			return
		}
		// Mostly the oldest, but a few stay for long.
		i := m.rng.IntN(len(m.records))
		if m.rng.IntN(3) > 0 {
			i = slices.IndexFunc(m.records, func(e modelRecord) bool { return e.doneAt.IsZero() && len(e.rec)%8 > 0 })
		}
		if i >= 0 && m.records[i].doneAt.IsZero() {
			m.records[i].doneAt = time.Now()
			s.Done(m.records[i].ref)
		}
	case 6:
		if len(m.records) == 0 {
			return
		}
		i := m.rng.IntN(len(m.records))
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Second)
		defer cancel()
		if err := s.Wait(ctx, m.records[i].ref); err == nil {
			for j := range i + 1 {
				m.records[j].safe = true
			}
		}
	case 7, 8:
		time.Sleep(time.Duration(m.rng.IntN(300)) * time.Millisecond)
	case 9, 10:
		if len(m.records) == 0 {
			return
		}
		e := m.records[m.rng.IntN(len(m.records))]
		got, err := s.Read(e.ref, make([]byte, m.rng.IntN(100)))
		if err == nil && !bytes.Equal(got, e.rec) {
			m.t.Fatalf("record %x reads as other bytes", e.ref)
		}
		if err != nil && e.doneAt.IsZero() && !errors.Is(err, errCrashed) {
			m.t.Fatalf("read %x: %v", e.ref, err)
		}
	case 11:
		switch m.rng.IntN(12) {
		case 0:
			m.fs.with(func() { m.fs.full, m.fs.badSync = m.rng.IntN(2) == 0, m.rng.IntN(2) == 0 })
			*healthy = time.Now().Add(time.Hour)
		case 1:
			time.Sleep(20 * time.Second)
		default:
			m.fs.with(func() { m.fs.full, m.fs.badSync = false, false })
			if healthy.After(time.Now()) {
				*healthy = time.Now()
			}
		}
	}
}

// record makes a record that no other is equal to.
func (m *model) record() []byte {
	m.serial++
	n := 8 + m.rng.IntN(300)
	if m.rng.IntN(50) == 0 {
		n += m.rng.IntN(20 << 10)
	}
	rec := binary.LittleEndian.AppendUint64(nil, m.serial)
	if m.rng.IntN(10) == 0 && len(m.records) > 0 {
		// What looks like records.
		other := m.records[m.rng.IntN(len(m.records))]
		k := newKey(m.rng.Uint64(), other.ref.seq())
		for len(rec) < n {
			rec = k.appendRecord(rec, int64(len(rec)), other.rec, 0)
		}
	}
	for len(rec) < n {
		rec = append(rec, byte(m.rng.Uint32()))
	}
	return rec
}

// TestMarksOutliveTheirSegment crashes around the removal of a segment: as
// long as it can come back, so can its marks.
func TestMarksOutliveTheirSegment(t *testing.T) {
	for seed := range 400 {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			c := newCrashFS(rand.New(rand.NewPCG(uint64(seed), 8)))
			opts := Options{fs: c, segmentSize: 256}
			s, _, _ := mustOpen(t, "d", opts)
			first, second := add(t, s, "first"), add(t, s, "second")
			s.Done(first)
			time.Sleep(time.Second)
			c.with(func() { c.left = rng.IntN(12) })
			s.Done(second)
			add(t, s, string(make([]byte, 256))) // begins another segment
			time.Sleep(time.Second)
			c = c.crash()
			_ = s.Close()
			opts.fs = c
			s, got, _ := mustOpen(t, "d", opts)
			mustClose(t, s)
			if len(got) > 0 && got[0].ref == first {
				t.Errorf("seed %d: a record came back that was done a second before", seed)
			}
		})
	}
}

// killed is the file system as another process finds it: nothing is lost, and
// nothing more is durable than was.
func killed(c *crashFS) *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halt()
	n := newCrashFS(c.rng)
	n.names, n.stable, n.ops = maps.Clone(c.names), maps.Clone(c.stable), slices.Clone(c.ops)
	return n
}

// TestKilledThenCrash kills a process between writing and syncing. The next one goes
// on for an hour, then the machine crashes.
func TestKilledThenCrash(t *testing.T) {
	lost := 0
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrashFS(rand.New(rand.NewPCG(seed, 1)))
			s, _, _ := mustOpen(t, "d", Options{fs: c})
			c.with(func() { c.left = 2 }) // create, write
			add(t, s, "x")
			time.Sleep(time.Second)
			c = killed(c)
			_ = s.Close()

			s, got, _ := mustOpen(t, "d", Options{fs: c})
			if len(got) != 1 {
				return
			}
			if err := s.Wait(t.Context(), got[0].ref); err != nil || got[0].ref > s.Synced() {
				t.Fatal("not synced, as it says")
			}
			ref := add(t, s, "y")
			if err := s.Wait(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			c = c.crash()
			_ = s.Close()
			_, got, _ = mustOpen(t, "d", Options{fs: c})
			if !slices.ContainsFunc(got, func(b back) bool { return b.rec == "x" }) {
				lost++
			}
		})
	}
	if lost > 0 {
		t.Errorf("what Open has handed back, and says is synced, is lost %d times", lost)
	}
}

// TestKilledWhileCompacting kills it between a compaction's rename and the sync of
// the folder.
func TestKilledWhileCompacting(t *testing.T) {
	lost := 0
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrashFS(rand.New(rand.NewPCG(seed, 1)))
			r := &renameFS{crashFS: c}
			during := func() { c.with(func() { c.left = 1 }) }
			r.during.Store(&during)
			opts := Options{fs: r, MaxBytes: 128 << 10, segmentSize: 32 << 10}
			s, _, _ := mustOpen(t, "d", opts)
			refs := fillUp(s, 700)
			time.Sleep(time.Second)
			for i, ref := range refs {
				if ref.seq() == refs[0].seq() && i > 3 {
					s.Done(ref)
				}
			}
			time.Sleep(time.Second)
			c = killed(c)
			_ = s.Close()
			opts.fs = c
			s, got, _ := mustOpen(t, "d", opts)
			time.Sleep(time.Hour)
			c = c.crash()
			_ = s.Close()
			opts.fs = c
			_, again, _ := mustOpen(t, "d", opts)
			if len(again) < len(got) {
				lost++
			}
		})
	}
	if lost > 0 {
		t.Errorf("records are lost %d times", lost)
	}
}
