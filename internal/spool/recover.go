package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// A Recovery is what Open found.
type Recovery struct {
	Records int // handed back

	// Lost counts damaged places between good records: at least one record
	// each, which may have been done.
	Lost int

	// TornBytes is what was cut from the ends of segments, where a crash
	// leaves half-written records.
	TornBytes int64

	// Unreadable are the disk's errors. A segment with one is handed back as
	// far as it could be read and stays in the folder until a later Open can
	// read it. Where a file of marks has one, the records come back.
	Unreadable []error
}

// Open opens the spool in a folder, which it creates (0700) with its parents
// if necessary, and calls recovered, if not nil, for every record that is not
// done, in the order of appending. The bytes are valid during the call.
// Damaged records are skipped; see Recovery. It reads the whole folder.
//
// The errors are ErrLocked and the disk's.
func Open(dir string, opts Options, recovered func(Ref, []byte)) (*Spool, Recovery, error) {
	s := newSpool(dir, opts)
	if err := s.fs.mkdir(dir); err != nil {
		return nil, Recovery{}, err
	}
	var err error
	if s.lock, err = s.fs.lock(s.path(lockName)); err != nil {
		return nil, Recovery{}, err
	}
	if recovered == nil {
		recovered = func(Ref, []byte) {}
	}
	r, err := s.recover(recovered)
	if err != nil {
		_ = s.lock.Close()
		return nil, Recovery{}, err
	}
	s.setMaxBytes(s.maxBytes.Load()) // there may be more, from under another limit
	if s.news {
		s.signal()
	}
	go s.run()
	return s, r, nil
}

func newSpool(dir string, opts Options) *Spool {
	maxBytes := cmp.Or(opts.MaxBytes, defaultMaxBytes)
	s := &Spool{
		dir:         dir,
		fs:          cmp.Or[fileSystem](opts.fs, osFS{}),
		segmentSize: cmp.Or(opts.segmentSize, segmentSize(maxBytes)),
		bufferSize:  cmp.Or(opts.bufferSize, defaultBufferSize),
		sync:        cmp.Or(opts.Sync, defaultSync),
		notify:      opts.Notify,
		room:        opts.Room,
		seed:        rand.Uint64(),
		segments:    map[uint64]*segment{},
		wake:        make(chan struct{}, 1),
		exited:      make(chan struct{}),
	}
	s.maxBytes.Store(maxBytes)
	return s
}

// recover reads the folder.
func (s *Spool) recover(recovered func(Ref, []byte)) (r Recovery, err error) {
	names, err := s.fs.list(s.dir)
	if err != nil {
		return r, err
	}
	var ids []id // of segments, in order, a compacted one before what it replaces
	logs := map[id]bool{}
	for _, name := range names {
		i, suffix, ok := parseName(name)
		if !ok {
			continue
		}
		s.nextSeq = max(s.nextSeq, i.seq)
		if suffix == logSuffix {
			ids = append(ids, i)
			logs[i] = true
		}
	}
	s.nextSeq++
	slices.SortFunc(ids, func(a, b id) int {
		return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(b.gen, a.gen), cmp.Compare(a.seed, b.seed))
	})

	// The process before may have been killed before it had synced what it did: its
	// names have to be durable before anything is removed that they replace, and what it
	// has removed before its numbers are used again.
	if err := s.fs.syncDir(s.dir); err != nil {
		return r, err
	}
	// What a compaction or a removal left over does no harm, and the next
	// Open tries again to remove it: errors are of no consequence.
	unreadable := false // the newest of a segment's files
	for n, i := range ids {
		switch {
		case n == 0 || ids[n-1].seq != i.seq:
			err := s.recoverSegment(newSegment(i), &r, recovered)
			if unreadable = err != nil; unreadable {
				r.Unreadable = append(r.Unreadable, err)
			}
		case unreadable: // then it may be the only one
		case ids[n-1].gen > i.gen:
			_ = s.fs.remove(s.path(i.name(logSuffix)))
			_ = s.fs.remove(s.path(i.name(doneSuffix)))
		default:
			r.Unreadable = append(r.Unreadable, fmt.Errorf("%s: another file has its number", s.path(i.name(logSuffix))))
		}
	}
	for _, name := range names {
		if i, suffix, ok := parseName(name); ok && (suffix == tempSuffix || !logs[i]) {
			_ = s.fs.remove(s.path(name))
		}
	}
	s.safe = makeRef(s.nextSeq, 0) - 1
	s.last = s.safe
	return r, nil
}

// recoverSegment reads a segment and hands its live records back.
func (s *Spool) recoverSegment(g *segment, r *Recovery, recovered func(Ref, []byte)) error {
	s.segments[g.id.seq] = g
	g.sealed, g.broken = true, true // until it was read to its end
	done, marks, err := s.marksOf(g)
	if err != nil { // then all comes back
		r.Unreadable = append(r.Unreadable, err)
		g.fixed = true // a compaction that can read them must not take it away again
	}
	g.marks = marks
	name := s.path(g.id.name(logSuffix))
	f, err := s.fs.open(name, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	result, err := g.scan(f, func(pos, off int64, raw []byte) error {
		g.records++
		if _, found := slices.BinarySearch(done, uint32(pos)); found {
			return nil
		}
		g.live++
		if g.id.gen > 0 {
			g.moves = append(g.moves, move{uint32(pos), uint32(off)})
		}
		r.Records++
		recovered(makeRef(g.id.seq, pos), raw[headerSize:])
		return nil
	})
	g.bytes = result.end
	if err != nil {
		g.bytes = result.size
	}
	s.size += g.cost()
	r.Lost += result.lost
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if s.sync != Never && result.size > 0 { // what was written may not be synced
		if err := f.Sync(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if g.marks > 0 {
			s.writer.marked = append(s.writer.marked, g)
			s.chores = true
		}
	}
	g.broken = false
	if torn := result.size - result.end; torn > 0 {
		r.TornBytes += torn
		_ = f.Truncate(result.end) // or else it is found again by the next Open
	}
	s.bury(g)
	return nil
}

// Spools returns the names of the folders in base that hold a spool, sorted.
// A base that does not exist holds none.
func Spools(base string) ([]string, error) {
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Lstat(filepath.Join(base, e.Name(), lockName)); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// IsEmpty reports whether a spool's folder has nothing but its lock in it.
func IsEmpty(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false // nobody can tell
	}
	defer f.Close()
	names, err := f.Readdirnames(2)
	return err == nil && len(names) == 1
}
