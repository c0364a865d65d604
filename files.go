package webhook

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
)

const (
	maxConfigFile = 64 << 20 // of the configuration, and of a file of certificates or keys
	maxValueFile  = 1 << 20  // of a value that file() reads
)

// files is a configuration file and those that it names: certificates, keys,
// and what file() reads.
type files struct {
	path    string
	watched bool

	mu    sync.Mutex
	names []string            // of the files last read
	seen  map[string][32]byte // what was in them before they were read
}

// parse reads the configuration. The digests of watched files are taken before
// they are read, so that a change in between is seen later. A file that is named
// for the first time has none yet: then all is read again.
func (f *files) parse() (cfg *Config, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	read := readFile
	if f.watched || f.names != nil {
		read = readRegular // as it is not for the only time
	}
	const most = 3
	for range most {
		if f.watched {
			f.seen = sums(append(f.names, f.path))
		}
		var names []string
		cfg, names, err = parseFile(f.path, read)
		if err != nil {
			names = append(names, f.names...) // a mistake may hide some
		}
		slices.Sort(names)
		f.names = slices.Compact(names)
		if !f.watched || !slices.ContainsFunc(names, func(name string) bool { _, ok := f.seen[name]; return !ok }) {
			break
		}
	}
	return cfg, err
}

// list returns the names of the files.
func (f *files) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.names)
}

// changed reports whether a file has other contents than when it was read.
func (f *files) changed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, sum := range sums(f.names) {
		if f.seen[name] != sum {
			return true
		}
	}
	return false
}

// sums returns digests of files; one for a file that cannot be read is zero.
func sums(names []string) map[string][32]byte {
	sums := make(map[string][32]byte, len(names))
	for _, name := range names {
		sums[name] = [32]byte{}
		if text, err := readRegular(name, maxConfigFile); err == nil {
			sums[name] = sha256.Sum256(text)
		}
	}
	return sums
}

// readFile reads a file of at most limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("it is longer than %d bytes", limit)
	}
	return text, err
}

// readRegular is readFile for what is read more than once, which a pipe does not
// allow: it has nothing the second time, or waits for ever.
func readRegular(path string, limit int64) ([]byte, error) {
	if err := checkRegular(path); err != nil {
		return nil, err
	}
	return readFile(path, limit)
}

// checkRegular returns an error unless path is that of a regular file.
func checkRegular(path string) error {
	switch info, err := os.Stat(path); {
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return errors.New("it is not a regular file")
	}
	return nil
}

// reason is err without the path, which may be secret.
func reason(err error) string {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}

// readable tries to open a file.
func readable(path string) error {
	if err := checkRegular(path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}
