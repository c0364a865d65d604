package spool

import (
	"errors"
	"io/fs"
	"slices"
)

// maintain writes marks and removes finished segments. With all it leaves
// nothing for later.
func (s *Spool) maintain(all bool) {
	w := &s.writer
	s.mu.Lock()
	marks, graves := s.marks, s.graves
	s.marks, s.graves = w.spare[:0], nil
	s.chores, s.hurry = false, false
	s.mu.Unlock()

	err := errors.Join(s.remove(graves), s.writeMarks(marks), s.syncMarks(all), s.removeLeftovers())
	more := false
	if !all && err == nil {
		more, err = s.compact()
	}

	w.spare = marks[:0]
	if cap(marks) > 1<<16 {
		w.spare = nil
	}
	s.mu.Lock()
	s.chores = s.chores || more || err != nil || len(w.marked) > 0 || len(s.marks) > 0
	before, healed := s.err(), s.choreErr != nil && err == nil
	s.choreErr = err
	after := s.err()
	s.mu.Unlock()
	s.tell(before, after)
	if healed && s.room != nil { // fits is less strict now
		s.room()
	}
}

// remove removes finished segments, and leaves their marks to
// removeLeftovers.
func (s *Spool) remove(graves []*segment) error {
	var errs []error
	for _, g := range graves {
		s.files.drop(g)
		g.close()
		err := s.unlink(g.id.name(logSuffix))
		s.mu.Lock()
		if err == nil {
			s.buried -= g.cost()
		} else {
			s.graves = append(s.graves, g)
		}
		s.mu.Unlock()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.writer.leftovers = append(s.writer.leftovers, g.id.name(doneSuffix))
	}
	return errors.Join(errs...)
}

// removeLeftovers removes the marks of segments that are gone and what
// compaction has replaced, once that is durable: before, a crash could bring
// back a segment without its marks.
func (s *Spool) removeLeftovers() error {
	w := &s.writer
	if len(w.leftovers) == 0 {
		return nil
	}
	if err := s.syncNames(); err != nil {
		return err
	}
	var errs []error
	w.leftovers = slices.DeleteFunc(w.leftovers, func(name string) bool {
		err := s.unlink(name)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// unlink removes a file that need not exist.
func (s *Spool) unlink(name string) error {
	err := s.fs.remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.writer.newNames = true
	return err
}
