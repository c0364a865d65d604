package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func openTestLetters(t testing.TB, d DeadLetter) *letterFile {
	t.Helper()
	f, err := openLetterFile(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.close() })
	return f.(*letterFile)
}

// readLetters reads a dead letter file, each of whose lines must be whole.
func readLetters(t testing.TB, path string) (letters []deadLetter) {
	t.Helper()
	for line := range strings.Lines(contentOf(t, path)) {
		var l deadLetter
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		letters = append(letters, l)
	}
	return letters
}

func TestDeadLetterLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dead.jsonl")
	f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1 << 20})
	l := &deadLetter{
		ID: "0197f3c0-0000-7000-8000-000000000001", Time: time.UnixMilli(1706703724960).UTC(), Endpoint: "audit",
		Event: OnMessagePublish, Client: "c<1>", Attempts: 3, Status: 422, Error: "refused: status 422", ContentType: "application/json",
	}
	l.setBody([]byte(`{"payload":"<&>é"}`))
	binary := *l
	binary.setBody([]byte("\x00\xff"))
	if _, err := f.write(l, &binary); err != nil {
		t.Fatal(err)
	}
	const head = `{"id":"0197f3c0-0000-7000-8000-000000000001","time":"2024-01-31T12:22:04.96Z","endpoint":"audit",` +
		`"event":"on_message_publish","client":"c<1>","attempts":3,"status":422,"error":"refused: status 422",` +
		`"content_type":"application/json",`
	want := head + `"body":"{\"payload\":\"<&>é\"}"}` + "\n" + head + `"body":"AP8=","body_encoding":"base64"}` + "\n"
	if got := contentOf(t, path); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for i, want := range []string{`{"payload":"<&>é"}`, "\x00\xff"} {
		l := readLetters(t, path)[i]
		if got, err := l.body(); err != nil || string(got) != want {
			t.Errorf("body %d: got %q, %v, want %q", i, got, err, want)
		}
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v: only the owner may read it", name, info.Mode(), err)
		}
	}
}

// TestDeadLetterLineIsJSON compares lines with what encoding/json makes of the
// same letters.
func TestDeadLetterLineIsJSON(t *testing.T) {
	for _, text := range []string{"", "a", "é\u2028<&>", "\"\\\x00\x1f\x7f", "\xff\xed\xa0\x80", strings.Repeat("\"x", 500)} {
		for _, headers := range []map[string]string{nil, {"a": text, text: "b"}} {
			l := deadLetter{
				ID: text, Time: time.UnixMilli(1706703724960).UTC(), Endpoint: text, Event: EventName(text), Client: text, Attempts: 256, Status: 999,
				Error: text, ContentType: text, Headers: headers, Rule: text, BodyEncoding: text,
			}
			l.setBody([]byte(text))
			lines, err := marshalLetters(&l, &l)
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			var wanted map[string]any
			if err := json.Unmarshal(want, &wanted); err != nil {
				t.Fatal(err)
			}
			for line := range bytes.Lines(lines) {
				var got map[string]any
				if err := json.Unmarshal(line, &got); err != nil || !reflect.DeepEqual(got, wanted) {
					t.Errorf("got %s, %v\nwant %s", line, err, want)
				}
			}
		}
	}
}

func TestDeadLetterRotation(t *testing.T) {
	for _, tt := range []struct{ keep, atOnce int }{{-1, 1}, {1, 1}, {3, 1}, {3, 7}, {1, 50}} {
		t.Run(fmt.Sprintf("keep=%d,%d at once", tt.keep, tt.atOnce), func(t *testing.T) {
			keep := tt.keep
			path := filepath.Join(t.TempDir(), "dead.jsonl")
			f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1000, Keep: keep})
			const n = 50
			for i := 0; i < n; {
				var letters []*deadLetter
				for ; len(letters) < tt.atOnce && i < n; i++ {
					letters = append(letters, &deadLetter{ID: fmt.Sprint(i), Body: strings.Repeat("x", 100)})
				}
				if kept, err := f.write(letters...); kept != len(letters) || err != nil {
					t.Fatal(kept, err)
				}
			}
			files, _ := filepath.Glob(path + "*")
			if len(files) != max(keep, 0)+1 {
				t.Errorf("files %v, want one and %d more", files, max(keep, 0))
			}
			next := n - 1
			for i := range files {
				name := path
				if i > 0 {
					name = fmt.Sprintf("%s.%d", path, i)
				}
				if info, err := os.Stat(name); err != nil || info.Size() > 1000 {
					t.Errorf("%s: %v, %v, want at most 1000 bytes", name, info.Size(), err)
				}
				letters := readLetters(t, name)
				for j := len(letters) - 1; j >= 0; j, next = j-1, next-1 {
					if letters[j].ID != fmt.Sprint(next) {
						t.Fatalf("%s line %d: letter %s, want %d", name, j+1, letters[j].ID, next)
					}
				}
			}
		})
	}
}

// TestLongDeadLetter writes a letter that is longer than a file may be.
func TestLongDeadLetter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead.jsonl")
	f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1000, Keep: 5})
	long := strings.Repeat("x", 2000)
	if kept, err := f.write(&deadLetter{ID: "1"}, &deadLetter{ID: "2", Body: long}, &deadLetter{ID: "3"}); kept != 3 || err != nil {
		t.Error(kept, err)
	}
	for name, id := range map[string]string{path: "3", path + ".1": "2", path + ".2": "1"} {
		if letters := readLetters(t, name); len(letters) != 1 || letters[0].ID != id {
			t.Errorf("%s: %d letters, want that of %s", name, len(letters), id)
		}
	}
}

// TestDeadLetterFileIsTruncated empties the file in place, as logrotate's
// copytruncate does: what counts is how long it is now.
func TestDeadLetterFileIsTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead.jsonl")
	f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1000, Keep: 5})
	for range 5 {
		if _, err := f.write(&deadLetter{Body: strings.Repeat("x", 600)}); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := filepath.Glob(path + "*"); len(files) != 1 {
		t.Errorf("files %v, want one", files)
	}
}

// TestDeadLetterFileHangs has the file not take what is written, as that of a server
// that is gone: nobody waits for long, and only the first.
func TestDeadLetterFileHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead.jsonl")
	synctest.Test(t, func(t *testing.T) {
		f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1000})
		answers := make(chan struct{})
		begin := time.Now()
		hangs := func() error { <-answers; return nil }
		errs := make(chan error, 2)
		go func() { errs <- f.inTime(hangs) }()
		synctest.Wait()
		_, err := f.write(&deadLetter{})
		if !errors.Is(err, errNotTaken) || !errors.Is(<-errs, errNotTaken) || time.Since(begin) != letterTimeout {
			t.Errorf("error %v after %v", err, time.Since(begin))
		}
		begin = time.Now()
		for range 2 {
			if kept, err := f.write(&deadLetter{}); kept != 0 || !errors.Is(err, errNotTaken) {
				t.Error(kept, err)
			}
		}
		close(answers)
		synctest.Wait()
		if kept, err := f.write(&deadLetter{}); kept != 1 || err != nil { // it is back
			t.Error(kept, err)
		}
		answers = make(chan struct{})
		go func() { errs <- f.inTime(hangs) }()
		time.Sleep(letterTimeout)
		if err := f.close(); !errors.Is(err, errNotTaken) {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(begin); took != letterTimeout {
			t.Errorf("it took %v", took)
		}
		close(answers)
		synctest.Wait()
		if f.file != nil {
			t.Error("the file is still open")
		}
		if n := len(readLetters(t, path)); n != 1 {
			t.Errorf("%d letters, want 1", n)
		}
	})
}

// TestDeadLetterFileIsShared has several endpoints write to one file by several
// spellings of its name: no letter is lost, torn, or rotated away.
func TestDeadLetterFileIsShared(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "dead.jsonl")
	const users, each = 4, 200
	var wg sync.WaitGroup
	for u := range users {
		name := path
		if u%2 == 1 {
			name = filepath.Dir(path) + "/./dead.jsonl"
		}
		f := openTestLetters(t, DeadLetter{File: name, MaxBytes: 10000, Keep: 100})
		wg.Go(func() {
			for i := range each {
				if _, err := f.write(&deadLetter{Endpoint: fmt.Sprint(u), Attempts: i, Body: "x"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]int)
	files, _ := filepath.Glob(path + "*")
	for i := len(files) - 1; i >= 0; i-- { // the oldest first
		name := path
		if i > 0 {
			name = fmt.Sprintf("%s.%d", path, i)
		}
		for _, l := range readLetters(t, name) {
			if l.Attempts != seen[l.Endpoint] {
				t.Fatalf("%s: letter %d of %s, want %d", name, l.Attempts, l.Endpoint, seen[l.Endpoint])
			}
			seen[l.Endpoint]++
		}
	}
	for u := range users {
		if seen[fmt.Sprint(u)] != each {
			t.Errorf("user %d: %d letters, want %d", u, seen[fmt.Sprint(u)], each)
		}
	}
}

func TestDeadLetterFileAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dead.jsonl")
	write(t, path, "{\"id\":\"1\"}\n{\"id\":\"2")
	f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1 << 20})
	if _, err := f.write(&deadLetter{ID: "3"}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(contentOf(t, path), "\n")
	if len(lines) != 4 || lines[1] != `{"id":"2` || !strings.HasPrefix(lines[2], `{"id":"3"`) {
		t.Errorf("lines %q", lines)
	}
}

// TestDeadLetterFileIsMoved has people take the file away, by moving, removing
// or replacing it: the next letters are in a file of the name.
func TestDeadLetterFileIsMoved(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("open files stay where they are")
	}
	path := filepath.Join(t.TempDir(), "dead.jsonl")
	f := openTestLetters(t, DeadLetter{File: path, MaxBytes: 1 << 20})
	for n, take := range []func() error{
		func() error { return nil },
		func() error { return os.Rename(path, path+".taken") },
		func() error { return os.Remove(path) },
		func() error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
	} {
		if err := take(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.write(&deadLetter{ID: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
		letters := readLetters(t, path)
		if len(letters) == 0 || letters[len(letters)-1].ID != fmt.Sprint(n) {
			t.Errorf("letter %d is not in %v", n, letters)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || f.size != info.Size() {
			t.Errorf("after letter %d: %v, %v, size %d", n, info.Mode(), err, f.size)
		}
	}
	if letters := readLetters(t, path+".taken"); len(letters) != 1 {
		t.Errorf("the file that was moved has %v, want the first letter", letters)
	}
}

func TestDeadLetterFileErrors(t *testing.T) {
	folder := t.TempDir()
	if _, err := openLetterFile(DeadLetter{File: folder}); err == nil || !strings.Contains(err.Error(), folder) {
		t.Errorf("got %v, want an error that names %s", err, folder)
	}
	f := openTestLetters(t, DeadLetter{File: filepath.Join(folder, "new", "folder", "dead.jsonl"), MaxBytes: 1000})
	_ = f.close()
	if _, err := f.write(&deadLetter{}); err != nil || f.file != nil { // of an attempt in flight when a reload took the file away
		t.Errorf("writing after close: error %v, file %v, want it written and closed again", err, f.file)
	}
}

// fullBox takes no letters.
type fullBox struct{}

func (fullBox) write(...*deadLetter) (int, error) { return 0, errors.New("no space left") }
func (fullBox) close() error                      { return nil }

func TestLostLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return outcome{verdict: refused, status: 400} })
		e.pool.letters = fullBox{}
		for range 3 {
			e.queue.offer(publishOf("c", "x"), false)
		}
		synctest.Wait()
		if s := e.queue.stats(); s.Dead != 3 || s.LostLetters != 3 {
			t.Errorf("%+v", s)
		}
		e.stop(0)
	})
}

// TestLostLettersAtShutdown stops with events for which the file has no room, or room
// for some: the log says how many are in it, and how many are not.
func TestLostLettersAtShutdown(t *testing.T) {
	const written, lost = `msg="events written as dead letters" shutdown=`, `events are lost" count=`
	for _, room := range []int{0, 300, 600} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := defaultEndpoint()
				e := startFake(c, func(_ *request, _ time.Time, canceled <-chan struct{}) outcome { <-canceled; return canceledOutcome() })
				var log logLines
				e.log, e.pool.log, e.pool.letters = log.logger(), log.logger(), &smallBox{room}
				for i := range 600 {
					e.queue.offer(publishOf(fmt.Sprint(i), "x"), false)
				}
				e.stop(0)
				for line, n := range map[string]int{written: room, lost: 600 - room} {
					_, last, found := strings.Cut(log.String()[max(0, strings.LastIndex(log.String(), line)):], line)
					if count, _, _ := strings.Cut(last, "\n"); found != (n > 0) || found && count != fmt.Sprint(n) {
						t.Errorf("%s%q, want %d:\n%s", line, count, n, log.String())
					}
				}
			})
		})
	}
}

// A smallBox has room for so many letters.
type smallBox struct{ room int }

func (b *smallBox) write(letters ...*deadLetter) (kept int, err error) {
	if kept = min(len(letters), b.room); kept < len(letters) {
		err = errors.New("no space left")
	}
	b.room -= kept
	return kept, err
}

func (*smallBox) close() error { return nil }

// A goneStore is a store from which records have to be read, which fails.
type goneStore struct{ *memory }

func (goneStore) load(uint64, int) []byte                    { return nil }
func (goneStore) fetch(buf []byte, _ uint64) ([]byte, error) { return buf, errors.New("disk gone") }

// TestUnreadableLetters gives up events that cannot be read: there are no letters
// of them, and they are counted.
func TestUnreadableLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := defaultEndpoint()
		c.Retry.MaxAge = time.Minute
		e := startFake(c, func(*request, time.Time, <-chan struct{}) outcome { return outcome{status: 200} })
		e.pool.letters = fullBox{}
		e.queue.mu.Lock()
		e.queue.store = goneStore{e.queue.store.(*memory)}
		e.queue.mu.Unlock()
		for range 3 {
			e.queue.offer(publishOf("c", "x"), false)
		}
		time.Sleep(time.Hour)
		if s := e.queue.stats(); s.Dead != 3 || s.LostLetters != 3 {
			t.Errorf("%+v", s)
		}
		e.stop(0)
	})
}

// TestDeadLettersOf sees the ways in which events end in a dead letter file.
func TestDeadLettersOf(t *testing.T) {
	letters := func(t *testing.T, change func(*Endpoint), drain time.Duration, run func(h *Hook), transport roundTripFunc) []deadLetter {
		t.Helper()
		path := filepath.Join(t.TempDir(), "dead.jsonl")
		synctest.Test(t, func(t *testing.T) {
			h := startHook(t, Options{DrainTimeout: drain, Transport: transport},
				func(e *Endpoint) {
					e.DeadLetter.File, e.Name = path, "audit"
					change(e)
				})
			run(h)
			_ = h.Stop()
			s := statsOf(t, h)
			written := readLetters(t, path)
			if n := len(written); int(s.Dead) != n {
				t.Errorf("%d dead, %d letters: %+v", s.Dead, n, s)
			}
			for i, l := range written {
				if !json.Valid([]byte(l.Body)) {
					t.Fatalf("letter %d has the body %s", i, l.Body)
				}
			}
		})
		return readLetters(t, path)
	}
	check := func(t *testing.T, l deadLetter, attempts, status int, cause string) {
		t.Helper()
		if l.Attempts != attempts || l.Status != status || !strings.Contains(l.Error, cause) ||
			l.Endpoint != "audit" || l.Event != OnMessagePublish || l.Client != "c" || l.ContentType != "application/json" ||
			!strings.Contains(l.Body, `"action":"message_publish"`) {
			t.Errorf("got %+v, want %d attempts, status %d, error %q", l, attempts, status, cause)
		}
		if _, err := parseID(l.ID); err != nil {
			t.Error(err)
		}
	}
	t.Run("refused", func(t *testing.T) {
		got := letters(t, func(*Endpoint) {}, time.Minute,
			func(h *Hook) { h.emit(publishOf("c", "x")) },
			func(*http.Request) (*http.Response, error) { return answer(422) })
		if len(got) != 1 {
			t.Fatalf("%d letters", len(got))
		}
		check(t, got[0], 1, 422, "refused: status 422")
	})
	t.Run("too many attempts", func(t *testing.T) {
		got := letters(t, func(e *Endpoint) { e.Retry.MaxAttempts = 3 }, time.Minute,
			func(h *Hook) { h.emit(publishOf("c", "x")) },
			func(*http.Request) (*http.Response, error) { return answer(500) })
		if len(got) != 1 {
			t.Fatalf("%d letters", len(got))
		}
		check(t, got[0], 3, 500, "given up: status 500")
	})
	t.Run("more attempts than are counted", func(t *testing.T) {
		got := letters(t, func(e *Endpoint) {
			e.Retry = Retry{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxAttempts: 300}
			e.Breaker.Failures = -1
		}, time.Minute,
			func(h *Hook) { h.emit(publishOf("c", "x")) },
			func(*http.Request) (*http.Response, error) { return answer(500) })
		if len(got) != 1 {
			t.Fatalf("%d letters", len(got))
		}
		check(t, got[0], 256, 500, "given up: status 500")
	})
	t.Run("too old", func(t *testing.T) {
		got := letters(t, func(e *Endpoint) {
			e.Retry.MaxAge, e.Retry.MinBackoff, e.Retry.MaxBackoff = 10*time.Second, 4*time.Second, 4*time.Second
		}, time.Minute,
			func(h *Hook) { h.emit(publishOf("c", "x")); time.Sleep(20 * time.Second) },
			func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") })
		if len(got) != 1 {
			t.Fatalf("%d letters", len(got))
		}
		check(t, got[0], 3, 0, "older than 10s; the endpoint's last failure: transport: no route")
	})
	t.Run("too old, the last attempt with a status", func(t *testing.T) {
		got := letters(t, func(e *Endpoint) {
			e.Retry.MaxAge, e.Retry.MinBackoff, e.Retry.MaxBackoff = 10*time.Second, 4*time.Second, 4*time.Second
		}, time.Minute,
			func(h *Hook) {
				h.emit(publishOf("c", "x"))
				h.emit(publishOf("c", "behind"))
				time.Sleep(20 * time.Second)
			},
			func(*http.Request) (*http.Response, error) { return answer(500) })
		if len(got) != 2 {
			t.Fatalf("%d letters", len(got))
		}
		check(t, got[0], 3, 500, "older than 10s; the endpoint's last failure: status 500")
		check(t, got[1], 0, 0, "older than 10s; the endpoint's last failure: status 500")
	})
	t.Run("shutdown", func(t *testing.T) {
		got := letters(t, func(*Endpoint) {}, -1,
			func(h *Hook) {
				for range 1000 {
					h.emit(publishOf("c", "x"))
				}
				synctest.Wait()
			},
			func(*http.Request) (*http.Response, error) { return answer(500) })
		if len(got) != 1000 {
			t.Fatalf("%d letters, want 1000", len(got))
		}
		check(t, got[0], 1, 500, "not delivered at shutdown")
		check(t, got[999], 0, 0, "not delivered at shutdown")
	})
	t.Run("shutdown during an attempt", func(t *testing.T) {
		got := letters(t, func(e *Endpoint) { e.PoolSize = 1 }, -1,
			func(h *Hook) {
				h.emit(publishOf("c", "x"))
				h.emit(publishOf("c", "behind"))
				time.Sleep(time.Second)
			},
			unreachable)
		if len(got) != 2 {
			t.Fatalf("%d letters, want 2", len(got))
		}
		check(t, got[0], 1, 0, "not delivered at shutdown")
		check(t, got[1], 0, 0, "not delivered at shutdown")
	})
	t.Run("large bodies", func(t *testing.T) {
		got := letters(t, func(*Endpoint) {}, -1,
			func(h *Hook) {
				for range 20 {
					h.emit(publishOf("c", string(bytes.Repeat([]byte{'x'}, 300<<10))))
				}
			},
			func(*http.Request) (*http.Response, error) { return answer(500) })
		if len(got) != 20 {
			t.Fatalf("%d letters, want 20", len(got))
		}
	})
}
