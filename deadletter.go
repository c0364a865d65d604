package webhook

import (
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
	write(...*deadLetter) error
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
	path  string
	users int // under sharedFiles.mu

	mu      sync.Mutex
	file    *os.File // nil where the next letter has to open it
	regular bool     // else it is a pipe or a device, which is never full and stays where it is
	size    int64
	closed  bool // a letter that still comes opens the file for itself
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
		f = &sharedFile{path: path}
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
// must not follow it.
func (f *sharedFile) moved() bool {
	opened, err := f.file.Stat()
	if err != nil {
		return true
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

// write appends letters. Either all of one call's letters end up in one file,
// each a whole line, or there is an error.
func (f *letterFile) write(letters ...*deadLetter) error {
	lines, err := marshal(letters...)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil && f.moved() {
		_ = f.closeFile() // what was written to it is written
	}
	if f.file == nil { // moved, closed, or a rotation failed half-way
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.closed {
		defer f.closeFile()
	}
	if f.size > 0 && f.size+int64(len(lines)) > f.maxBytes {
		if err := f.rotate(); err != nil {
			return err
		}
	}
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
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.closeFile()
}

func (f *sharedFile) closeFile() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
