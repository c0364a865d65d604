package spool

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

var (
	errCrashed = errors.New("crashed")
	errNoSpace = errors.New("no space left")
	errIO      = errors.New("input/output error")
)

// A crashFS is a file system in memory with one folder, which knows what is
// durable and what a crash may take: each sector of each write, each change of
// length and each change of the folder that was not synced, independently.
type crashFS struct {
	mu     sync.Mutex
	rng    *rand.Rand
	names  map[string]*inode // as the process sees them
	stable map[string]*inode // as a crash leaves them at least
	ops    []nameOp          // since the folder was synced
	locked bool

	left      int  // operations until the crash, if not negative
	crashed   bool // everything fails
	crashedAt time.Time
	full      bool // writes fail after a random part
	badSync   bool // syncs fail, and what was to be synced is not written
	badRead   bool
	failures  int
}

// A nameOp sets a name, or removes it (nil).
type nameOp struct {
	name string
	node *inode
}

type inode struct {
	now    []byte  // as the process sees it
	stable []byte  // what is on disk
	writes []write // since it was synced
}

// A write is one, or a change of length if data is nil.
type write struct {
	off  int64
	data []byte
}

const sector = 512

func newCrashFS(rng *rand.Rand) *crashFS {
	return &crashFS{rng: rng, names: map[string]*inode{}, stable: map[string]*inode{}, left: -1}
}

// step counts an operation that changes something.
func (c *crashFS) step() error {
	if c.left == 0 {
		c.halt()
	}
	if c.crashed {
		return errCrashed
	}
	c.left--
	return nil
}

// halt makes everything fail from now on.
func (c *crashFS) halt() {
	if !c.crashed {
		c.crashed, c.crashedAt = true, time.Now()
	}
}

// crash returns the file system as it is found after a crash.
func (c *crashFS) crash() *crashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halt()
	next := newCrashFS(c.rng)
	names := c.stable
	for _, op := range c.ops {
		if c.rng.IntN(2) == 0 {
			set(names, op)
		}
	}
	done := map[*inode]*inode{}
	for name, n := range names {
		if done[n] == nil {
			data := n.torn(c.rng)
			done[n] = &inode{now: data, stable: slices.Clone(data)}
		}
		next.names[name], next.stable[name] = done[n], done[n]
	}
	return next
}

// torn is what a crash leaves of a file.
func (n *inode) torn(rng *rand.Rand) []byte {
	data := slices.Clone(n.stable)
	keep := rng.IntN(4) // of 3: none, some, most or all
	for _, w := range n.writes {
		if w.data == nil {
			if rng.IntN(3) < keep {
				data = resize(data, w.off)
			}
			continue
		}
		for from := w.off; from < w.off+int64(len(w.data)); {
			to := min((from/sector+1)*sector, w.off+int64(len(w.data)))
			part := w.data[from-w.off : to-w.off]
			switch {
			case rng.IntN(3) < keep:
				data = put(data, from, part)
			case rng.IntN(8) == 0: // torn within the sector
				data = put(data, from, part[:rng.IntN(len(part)+1)])
			case rng.IntN(8) == 0: // what the block held before
				junk := make([]byte, len(part))
				for i := range junk {
					junk[i] = byte(rng.Uint32())
				}
				if from >= int64(len(n.stable)) {
					data = put(data, from, junk)
				}
			}
			from = to
		}
	}
	return data
}

func set(names map[string]*inode, op nameOp) {
	if op.node == nil {
		delete(names, op.name)
	} else {
		names[op.name] = op.node
	}
}

func resize(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func put(b []byte, off int64, data []byte) []byte {
	if end := off + int64(len(data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[off:], data)
	return b
}

func (c *crashFS) mkdir(string) error { return nil }

func (c *crashFS) list(string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return nil, errCrashed
	}
	var names []string
	for name := range c.names {
		names = append(names, filepath.Base(name))
	}
	return names, nil
}

func (c *crashFS) change(op nameOp) {
	set(c.names, op)
	c.ops = append(c.ops, op)
}

func (c *crashFS) open(name string, flag int) (file, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return nil, errCrashed
	}
	n := c.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if err := c.step(); err != nil {
			return nil, err
		}
		if c.full && c.rng.IntN(2) == 0 {
			c.failures++
			return nil, errNoSpace
		}
		n = &inode{}
		c.change(nameOp{name, n})
	}
	f := &crashFile{fs: c, node: n}
	if flag&os.O_TRUNC != 0 {
		return f, f.truncate(0)
	}
	return f, nil
}

func (c *crashFS) rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	c.change(nameOp{to, c.names[from]})
	c.change(nameOp{from, nil})
	return nil
}

func (c *crashFS) remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	if c.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	c.change(nameOp{name, nil})
	return nil
}

func (c *crashFS) syncDir(string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	if c.badSync {
		c.failures++
		return errIO
	}
	for _, op := range c.ops {
		set(c.stable, op)
	}
	c.ops = nil
	return nil
}

func (c *crashFS) lock(string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked {
		return nil, ErrLocked
	}
	c.locked = true
	return c, nil
}

// Close gives the lock back.
func (c *crashFS) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.locked = false
	return nil
}

// damage calls fn with the content of a random file whose name ends in suffix,
// and puts the result in its place. It reports whether there is one.
func (c *crashFS) damage(suffix string, fn func(data []byte) []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.names {
		if filepath.Ext(name) == suffix {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return false
	}
	slices.Sort(names)
	n := c.names[names[c.rng.IntN(len(names))]]
	n.now = fn(n.now)
	n.stable, n.writes = slices.Clone(n.now), nil
	return true
}

// size is the length of all files, 0 after a crash.
func (c *crashFS) size() (total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return 0
	}
	for _, n := range c.names {
		total += int64(len(n.now))
	}
	return total
}

// with changes the fields that make operations fail.
func (c *crashFS) with(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

type crashFile struct {
	fs     *crashFS
	node   *inode
	closed bool
}

func (f *crashFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	switch {
	case f.closed:
		return 0, os.ErrClosed
	case f.fs.crashed:
		return 0, errCrashed
	case f.fs.badRead:
		return 0, errIO
	case off >= int64(len(f.node.now)):
		return 0, io.EOF
	}
	n := copy(b, f.node.now[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *crashFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, os.ErrClosed
	}
	if f.fs.crashed {
		return 0, errCrashed
	}
	data := slices.Clone(b)
	err := f.fs.step()
	if err == nil && f.fs.full {
		f.fs.failures++
		err = errNoSpace
	}
	if err != nil {
		data = data[:f.fs.rng.IntN(len(data)+1)]
	}
	f.node.now = put(f.node.now, off, data)
	f.node.writes = append(f.node.writes, write{off, data})
	return len(data), err
}

func (f *crashFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.truncate(size)
}

func (f *crashFile) truncate(size int64) error {
	if err := f.fs.step(); err != nil {
		return err
	}
	f.node.now = resize(f.node.now, size)
	f.node.writes = append(f.node.writes, write{off: size})
	return nil
}

func (f *crashFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	if err := f.fs.step(); err != nil {
		return err
	}
	if f.fs.badSync {
		// As Linux does it: the pages are clean now, and not on disk.
		f.node.stable, f.node.writes = f.node.torn(f.fs.rng), nil
		f.fs.failures++
		return errIO
	}
	// What a failed sync has dropped is not written by a later one.
	for _, w := range f.node.writes {
		if w.data == nil {
			f.node.stable = resize(f.node.stable, w.off)
		} else {
			f.node.stable = put(f.node.stable, w.off, w.data)
		}
	}
	f.node.writes = nil
	return nil
}

func (f *crashFile) size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.now)), nil
}

func (f *crashFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	return nil
}
