package webhook

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// letterFile is an endpoint's dead letter file: lines are appended until it is
// full, then FILE becomes FILE.1, FILE.1 becomes FILE.2 and so on, and the
// oldest goes. It is safe for concurrent use. Endpoints of one process may
// share a file.
type letterFile struct {
	*sharedFile
	maxBytes int64
	keep     int
}

// A sharedFile is a file that all its users append to through one descriptor,
// because one of them renames it.
type sharedFile struct {
	path   string
	users  int                       // under sharedFiles.mu
	closed atomic.Bool               // a letter that still comes opens the file for itself
	begun  atomic.Pointer[time.Time] // when who has the turn began; nil for nobody

	// turn holds one while somebody has the rest.
	turn    chan struct{}
	file    *os.File // nil where the next letter has to open it
	regular bool     // else it is a pipe or a device, which is never full and stays where it is
	size    int64
}

// letterTimeout is how long a file, or a stream, may take for a dead letter. A file
// system may not answer at all, and deliveries must go on then.
const letterTimeout = 5 * time.Second

var errNotTaken = fmt.Errorf("the file has not taken what was written to it for %v", letterTimeout)

// inTime calls do when nobody else uses the file, and returns its error. It gives up
// when that takes longer than letterTimeout, the wait for others included, and at once
// if the file is known to hang; do may still end later.
func (f *sharedFile) inTime(do func() error) error {
	if begun := f.begun.Load(); begun != nil && time.Since(*begun) >= letterTimeout {
		return errNotTaken
	}
	timeout := time.NewTimer(letterTimeout)
	defer timeout.Stop()
	select {
	case f.turn <- struct{}{}:
	case <-timeout.C:
		return errNotTaken
	}
	now := time.Now()
	f.begun.Store(&now)
	done := make(chan error, 1)
	go func() { // ends when the file system lets it
		err := do()
		if f.closed.Load() {
			err = errors.Join(err, f.closeFile())
		}
		f.begun.Store(nil)
		<-f.turn
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return errNotTaken
	}
}

// sharedFiles are those that are open, by their cleaned path.
var sharedFiles = struct {
	mu     sync.Mutex
	byPath map[string]*sharedFile
}{byPath: make(map[string]*sharedFile)}

// openLetterFile opens the file for appending, and makes its folder if need be. It
// holds what clients sent, so only its owner may read it.
func openLetterFile(d DeadLetter) (letterBox, error) {
	path, err := filepath.Abs(d.File)
	if err != nil {
		return nil, fmt.Errorf("dead_letter: %w", err)
	}
	sharedFiles.mu.Lock()
	defer sharedFiles.mu.Unlock()
	f := sharedFiles.byPath[path]
	if f == nil {
		f = &sharedFile{path: path, turn: make(chan struct{}, 1)}
		if err := f.open(); err != nil {
			return nil, fmt.Errorf("dead_letter: %w", err)
		}
		sharedFiles.byPath[path] = f
	}
	f.users++
	return &letterFile{sharedFile: f, maxBytes: d.MaxBytes, keep: max(d.Keep, 0)}, nil
}

func (f *sharedFile) open() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	size, regular, err := endLine(file)
	if err != nil {
		file.Close()
		return err
	}
	f.file, f.size, f.regular = file, size, regular
	return nil
}

// moved reports whether the file is not where it was opened any more: people
// move or remove it once they have dealt with its letters, and the next ones
// must not follow it. Or they truncate it.
func (f *sharedFile) moved() bool {
	opened, err := f.file.Stat()
	if err != nil {
		return true
	}
	if f.regular {
		f.size = opened.Size()
	}
	there, err := os.Stat(f.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return !os.SameFile(opened, there)
}

// endLine ends the last line of a file that a crash has cut short, so that
// the next letter is whole, and returns the file's size and whether it is a
// regular one.
func endLine(file *os.File) (size int64, regular bool, err error) {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, false, err
	}
	if info.Size() == 0 {
		return 0, true, nil
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, info.Size()-1); err != nil {
		return 0, true, err
	}
	if last[0] == '\n' {
		return info.Size(), true, nil
	}
	_, err = file.Write([]byte{'\n'})
	return info.Size() + 1, true, err
}

// write appends letters, each a whole line.
func (f *letterFile) write(letters ...*deadLetter) (kept int, err error) {
	lines, err := marshalLetters(letters...)
	if err != nil {
		return 0, err
	}
	written := new(atomic.Int64) // which the file may go on with when nobody waits any more
	err = f.inTime(func() error { return f.append(lines, written) })
	return int(written.Load()), err
}

// append appends lines, and counts them.
func (f *letterFile) append(lines []byte, written *atomic.Int64) error {
	if f.file != nil && f.moved() {
		_ = f.closeFile() // what was written to it is written
	}
	if f.file == nil { // moved, closed, or a rotation failed half-way
		if err := f.open(); err != nil {
			return err
		}
	}
	for len(lines) > 0 {
		n := len(lines)
		if f.regular {
			n = wholeLines(lines, f.maxBytes-f.size)
		}
		switch {
		case n == 0 && f.size > 0:
			if err := f.rotate(); err != nil {
				return err
			}
			continue
		case n == 0: // a letter that is longer than a file may be has one of its own
			n = bytes.IndexByte(lines, '\n') + 1
		}
		if err := f.writeLines(lines[:n]); err != nil {
			return err
		}
		written.Add(int64(bytes.Count(lines[:n], []byte{'\n'})))
		lines = lines[n:]
	}
	return nil
}

// wholeLines returns the length of the first lines that fit into so many bytes.
func wholeLines(lines []byte, room int64) int {
	if int64(len(lines)) <= room {
		return len(lines)
	}
	return bytes.LastIndexByte(lines[:max(room, 0)], '\n') + 1
}

// writeLines appends lines to the file: all or, where it is regular, none.
func (f *letterFile) writeLines(lines []byte) error {
	n, err := f.file.Write(lines)
	if !f.regular {
		return err
	}
	f.size += int64(n)
	if err != nil && n > 0 { // a full disk: take the torn line back
		if f.file.Truncate(f.size-int64(n)) == nil {
			f.size -= int64(n)
		}
	}
	return err
}

// rotate moves the files on by one and starts a new one.
func (f *letterFile) rotate() error {
	err := f.file.Close()
	f.file = nil
	if err != nil {
		return err
	}
	for i := f.keep; i > 0; i-- {
		from := f.path
		if i > 1 {
			from = f.numbered(i - 1)
		}
		if err := os.Rename(from, f.numbered(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if f.keep == 0 {
		if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return f.open()
}

func (f *sharedFile) numbered(i int) string { return fmt.Sprintf("%s.%d", f.path, i) }

// close closes the file for one of its users.
func (f *sharedFile) close() error {
	sharedFiles.mu.Lock()
	f.users--
	last := f.users == 0
	if last {
		delete(sharedFiles.byPath, f.path)
	}
	sharedFiles.mu.Unlock()
	if !last {
		return nil
	}
	f.closed.Store(true)
	return f.inTime(f.closeFile)
}

func (f *sharedFile) closeFile() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
