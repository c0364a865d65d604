package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A deadLetter is an event that was refused or given up: one line of JSON in
// a dead letter file, complete enough to be sent again.
type deadLetter struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"` // of the event
	Endpoint    string    `json:"endpoint"`
	Event       EventName `json:"event"`
	Client      string    `json:"client"`   // whose event it is
	Attempts    int       `json:"attempts"` // 256 stands for more, too
	Status      int       `json:"status"`   // of the last attempt, 0 if it got none
	Error       string    `json:"error"`
	ContentType string    `json:"content_type"`
	Body        string    `json:"body"`

	// Headers are those that the event brought along, by name.
	Headers map[string]string `json:"headers,omitempty"`

	// Rule is the key of the rule that selected the event, in hexadecimal, if
	// it has settings of its own: those of its headers are not written down.
	Rule string `json:"rule,omitempty"`

	// BodyEncoding is "base64" when the body is not UTF-8, which a JSON
	// string cannot carry.
	BodyEncoding string `json:"body_encoding,omitempty"`
}

// setBody keeps the body as it was sent.
func (l *deadLetter) setBody(body []byte) {
	if utf8.Valid(body) {
		l.Body = string(body)
		return
	}
	l.Body, l.BodyEncoding = base64.StdEncoding.EncodeToString(body), "base64"
}

// setHeaders keeps the header lines of a request.
func (l *deadLetter) setHeaders(lines []byte) {
	for line := range strings.Lines(string(lines)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r\n"), ": "); ok {
			if l.Headers == nil {
				l.Headers = make(map[string]string)
			}
			l.Headers[name] = value
		}
	}
}

// setRule keeps which rule selected the event.
func (l *deadLetter) setRule(key uint32) {
	if key != 0 {
		l.Rule = fmt.Sprintf("%08x", key)
	}
}

// rule returns which rule selected the event.
func (l *deadLetter) rule() (key uint32, err error) {
	if l.Rule == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(l.Rule, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("rule %.20q is not a number of 8 hexadecimal digits", l.Rule)
	}
	return uint32(n), nil
}

// header returns the header lines of the request. A file can be edited, so
// they are checked.
func (l *deadLetter) header() (string, error) {
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		value := l.Headers[name]
		if err := errors.Join(checkHeaderName(name), checkHeaderValue(name, value)); err != nil {
			return "", fmt.Errorf("headers: %w", err)
		}
		lines.WriteString(name + ": " + value + "\r\n")
	}
	return lines.String(), nil
}

// body returns the body as it was sent.
func (l *deadLetter) body() ([]byte, error) {
	switch l.BodyEncoding {
	case "":
		return []byte(l.Body), nil
	case "base64":
		return base64.StdEncoding.DecodeString(l.Body)
	case bodyOmitted:
		return nil, errors.New("the letter has no body: it was too long for the stream")
	}
	return nil, fmt.Errorf("body_encoding %q is not known", l.BodyEncoding)
}

// A letterBox keeps dead letters. It is safe for concurrent use.
type letterBox interface {
	// write returns how many of the letters, the first ones, it has kept for
	// sure: all, or there is an error.
	write(...*deadLetter) (kept int, err error)
	close() error
}

// marshal returns letters as lines. At the end of a hook there may be many, and
// little time, of which encoding/json would take a third to a half.
func marshal(letters ...*deadLetter) ([]byte, error) {
	var lines []byte
	for _, l := range letters {
		lines = appendText(lines, `{"id":"`, l.ID)
		lines = append(lines, `,"time":"`...)
		lines = append(l.Time.AppendFormat(lines, time.RFC3339Nano), '"')
		lines = appendText(lines, `,"endpoint":"`, l.Endpoint)
		lines = appendText(lines, `,"event":"`, string(l.Event))
		lines = appendText(lines, `,"client":"`, l.Client)
		lines = strconv.AppendInt(append(lines, `,"attempts":`...), int64(l.Attempts), 10)
		lines = strconv.AppendInt(append(lines, `,"status":`...), int64(l.Status), 10)
		lines = appendText(lines, `,"error":"`, l.Error)
		lines = appendText(lines, `,"content_type":"`, l.ContentType)
		lines = appendText(lines, `,"body":"`, l.Body)
		if len(l.Headers) > 0 {
			headers, err := json.Marshal(l.Headers)
			if err != nil {
				return nil, err
			}
			lines = append(append(lines, `,"headers":`...), headers...)
		}
		lines = appendIfAny(lines, `,"rule":"`, l.Rule)
		lines = appendIfAny(lines, `,"body_encoding":"`, l.BodyEncoding)
		lines = append(lines, "}\n"...)
	}
	return lines, nil
}

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

// inTime does something with the file, or gives up waiting for that or for others,
// at once if the file is known to hang.
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
	lines, err := marshal(letters...)
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
