package spool

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A back is a record that Open handed back.
type back struct {
	ref Ref
	rec string
}

func mustOpen(t *testing.T, dir string, opts Options) (*Spool, []back, Recovery) {
	t.Helper()
	var got []back
	s, r, err := Open(dir, opts, func(ref Ref, rec []byte) { got = append(got, back{ref, string(rec)}) })
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { s.Close() })
	return s, got, r
}

// sizeOf is what counts toward Options.MaxBytes.
func sizeOf(s *Spool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

func mustClose(t *testing.T, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func add(t *testing.T, s *Spool, rec string) Ref {
	t.Helper()
	ref, err := s.Append([]byte(rec))
	if err != nil {
		t.Fatalf("append %.20q: %v", rec, err)
	}
	return ref
}

func wantRead(t *testing.T, s *Spool, ref Ref, want string) {
	t.Helper()
	got, err := s.Read(ref, nil)
	if err != nil || string(got) != want {
		t.Fatalf("read %x: got %.40q, %v; want %.40q", ref, got, err, want)
	}
}

// logs are the names of the segment files in a folder.
func logs(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+logSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "base", "orders")
	s, got, r := mustOpen(t, dir, Options{})
	if len(got) > 0 || r.Records+r.Lost+int(r.TornBytes) > 0 {
		t.Fatalf("a new spool has %v, %+v", got, r)
	}
	var want []back
	for _, n := range []int{0, 1, 7, 8, 9, 200, readSize - headerSize, readSize, chunkSize + 1, 20 << 20, 3} {
		rec := strings.Repeat(string(rune('a'+n%26)), n)
		want = append(want, back{add(t, s, rec), rec})
		if n > defaultBufferSize {
			if err := s.Wait(t.Context(), want[len(want)-1].ref); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.IsSortedFunc(want, func(a, b back) int { return int(int64(a.ref) - int64(b.ref)) }) {
		t.Errorf("refs do not go up: %v", want)
	}
	for _, w := range want {
		wantRead(t, s, w.ref, w.rec) // from memory
	}
	if err := s.Wait(t.Context(), want[len(want)-1].ref); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		wantRead(t, s, w.ref, w.rec) // from files, all but the last
	}
	for _, i := range []int{7, 2, 5} {
		s.Done(want[i].ref)
		want = slices.Delete(want, i, i+1)
	}
	mustClose(t, s)

	for range 2 {
		s, got, r = mustOpen(t, dir, Options{})
		if !slices.Equal(got, want) || r.Records != len(want) || r.Lost != 0 || r.TornBytes != 0 {
			t.Fatalf("came back: %d records, %+v, want %d", len(got), r, len(want))
		}
		for _, w := range want {
			wantRead(t, s, w.ref, w.rec)
		}
		mustClose(t, s)
	}

	s, _, _ = mustOpen(t, dir, Options{})
	for _, w := range want {
		s.Done(w.ref)
	}
	mustClose(t, s)
	if names := logs(t, dir); len(names) > 0 {
		t.Errorf("all is done, but there are %v", names)
	}
}

func TestReadIntoBuffer(t *testing.T) {
	s, _, _ := mustOpen(t, t.TempDir(), Options{})
	long, short := add(t, s, strings.Repeat("x", 10000)), add(t, s, "short")
	read := func() {
		buf, err := s.Read(long, nil)
		if err != nil {
			t.Fatal(err)
		}
		if allocs := testing.AllocsPerRun(100, func() {
			buf, _ = s.Read(short, buf)
			buf, _ = s.Read(long, buf)
		}); allocs > 0 {
			t.Errorf("%v allocations with a buffer that is large enough", allocs)
		}
		if len(buf) != 10000 {
			t.Errorf("got %d bytes, want 10000", len(buf))
		}
	}
	t.Run("from memory", func(*testing.T) { read() })
	dir := s.dir
	mustClose(t, s)
	s, _, _ = mustOpen(t, dir, Options{})
	t.Run("from a file", func(*testing.T) { read() })
}

func TestAppendDoesNotAllocate(t *testing.T) {
	s, _, _ := mustOpen(t, t.TempDir(), Options{Sync: Never})
	rec := make([]byte, 200)
	if allocs := testing.AllocsPerRun(10000, func() {
		if _, err := s.Append(rec); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations per record", allocs)
	}
}

func TestNoSuchRecord(t *testing.T) {
	s, _, _ := mustOpen(t, t.TempDir(), Options{})
	ref := add(t, s, strings.Repeat("x", 100))
	for _, bad := range []Ref{0, ref + 1, ref + 1<<20, ref + 1<<refBits, ^Ref(0)} {
		if got, err := s.Read(bad, nil); err == nil {
			t.Errorf("read %x: got %q, want an error", bad, got)
		}
		s.Done(bad + 1<<40)
	}
	if err := s.Wait(t.Context(), ref+1); !errors.Is(err, ErrNotFound) {
		t.Errorf("wait: %v, want %v", err, ErrNotFound)
	}
	wantRead(t, s, ref, strings.Repeat("x", 100))
}

func TestClosed(t *testing.T) {
	s, _, _ := mustOpen(t, t.TempDir(), Options{})
	ref := add(t, s, "x")
	mustClose(t, s)
	mustClose(t, s)
	if _, err := s.Append([]byte("y")); !errors.Is(err, ErrClosed) {
		t.Errorf("append: %v", err)
	}
	if _, err := s.Read(ref, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := s.Wait(t.Context(), ref); err != nil {
		t.Errorf("wait for what is synced: %v", err)
	}
	s.Done(ref)
	if _, got, _ := mustOpen(t, s.dir, Options{}); len(got) != 1 {
		t.Errorf("got %v, want the record", got)
	}
}

func TestFilesAreLockedAndPrivate(t *testing.T) {
	if dir := os.Getenv("SPOOL_TEST_LOCKED"); dir != "" {
		if _, _, err := Open(dir, Options{}, nil); !errors.Is(err, ErrLocked) {
			t.Fatalf("got %v, want %v", err, ErrLocked)
		}
		return
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, _, _ := mustOpen(t, dir, Options{})
	s.Done(add(t, s, "x"))
	if err := s.Wait(t.Context(), add(t, s, "y")); err != nil {
		t.Fatal(err)
	}

	t.Run("same process", func(t *testing.T) {
		if _, _, err := Open(dir, Options{}, nil); !errors.Is(err, ErrLocked) {
			t.Errorf("got %v, want %v", err, ErrLocked)
		}
	})
	t.Run("other process", func(t *testing.T) {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFilesAreLockedAndPrivate$")
		cmd.Env = append(os.Environ(), "SPOOL_TEST_LOCKED="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	mustClose(t, s)
	t.Run("modes", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("no modes")
		}
		for pattern, want := range map[string]os.FileMode{"": 0o700, "../../a": 0o700, "*.log": 0o600, "*.done": 0o600, "spool.lock": 0o600} {
			names, _ := filepath.Glob(filepath.Join(dir, pattern))
			if len(names) != 1 {
				t.Fatalf("%q: %v", pattern, names)
			}
			info, err := os.Stat(names[0])
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v, want %v", names[0], info.Mode(), err, want)
			}
		}
	})
	t.Run("free after Close", func(t *testing.T) { mustOpen(t, dir, Options{}) })
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "file/below"} {
		if s, _, err := Open(filepath.Join(dir, name), Options{}, nil); err == nil {
			t.Errorf("%s: no error", name)
			s.Close()
		}
	}
}

// TestOpenAgainAfterAnError: an Open that fails does not keep the folder.
func TestOpenAgainAfterAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		c.with(func() { c.crashed = true })
		if _, _, err := Open("d", Options{fs: c}, nil); !errors.Is(err, errCrashed) {
			t.Fatalf("got %v, want %v", err, errCrashed)
		}
		c.with(func() { c.crashed = false })
		mustOpen(t, "d", Options{fs: c})
	})
}

func TestSpools(t *testing.T) {
	base := t.TempDir()
	for _, name := range []string{"b", "a", "empty"} {
		s, _, _ := mustOpen(t, filepath.Join(base, name), Options{})
		if name != "empty" {
			if _, err := s.Append([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, s)
	}
	if err := os.Mkdir(filepath.Join(base, "other"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := Spools(base); err != nil || !slices.Equal(got, []string{"a", "b", "empty"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for name, want := range map[string]bool{"a": false, "empty": true, "other": false, "none": false} {
		if got := IsEmpty(filepath.Join(base, name)); got != want {
			t.Errorf("IsEmpty(%s) = %v", name, got)
		}
	}
	if got, err := Spools(filepath.Join(base, "none")); err != nil || len(got) > 0 {
		t.Errorf("no folder: got %q, %v", got, err)
	}
}

func TestFull(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		const maxBytes = 1 << 20
		s, _, _ := mustOpen(t, "d", Options{fs: c, MaxBytes: maxBytes})
		rec := strings.Repeat("x", 1000)
		var refs []Ref
		fill := func() {
			for {
				ref, err := s.Append([]byte(rec))
				if errors.Is(err, ErrFull) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				refs = append(refs, ref)
			}
			if size := sizeOf(s); size > maxBytes || size < maxBytes-minSegment {
				t.Fatalf("full at %d bytes, of %d", size, maxBytes)
			}
		}
		fill()
		n := len(refs)
		if n < 850 {
			t.Errorf("only %d records of 1,000 bytes in 1 MiB", n)
		}
		if _, err := s.Append(make([]byte, maxBytes)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a record of MaxBytes: %v, want %v", err, ErrTooLarge)
		}

		// Dropping the oldest records frees a segment, at once.
		for i := 0; ; i++ {
			if ref, err := s.Append([]byte(rec)); err == nil {
				refs = append(refs, ref)
				break
			}
			if i > minSegment/1000+1 {
				t.Fatalf("%d records dropped, and it is still full", i)
			}
			s.Done(refs[0])
			refs = refs[1:]
		}

		for _, ref := range refs {
			s.Done(ref)
		}
		refs = nil
		time.Sleep(time.Second)
		synctest.Wait()
		fill()
		if len(refs) < n-70 {
			t.Errorf("all was done, then %d records fit, at first %d", len(refs), n)
		}
	})
}

// TestStuckRecords is about records that stay while everything around them
// comes and goes, such as those of a client whose deliveries fail.
func TestStuckRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, c *crashFS) {
		const maxBytes = 4 << 20
		opts := Options{fs: c, MaxBytes: maxBytes}
		s, _, _ := mustOpen(t, "d", opts)
		var stuck []back
		var last Ref
		for i := range 40000 {
			rec := fmt.Sprintf("%d %s", i, strings.Repeat("x", 1000))
			ref := add(t, s, rec) // fails when the spool is full
			if i%400 == 0 {
				stuck = append(stuck, back{ref, rec})
			} else {
				s.Done(ref)
			}
			if i%100 == 0 {
				time.Sleep(100 * time.Millisecond)
				synctest.Wait()
			}
			if i%1000 == 0 {
				for _, b := range stuck {
					wantRead(t, s, b.ref, b.rec)
				}
			}
			last = ref
		}
		if err := s.Wait(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		if size := c.size(); size > maxBytes {
			t.Errorf("folder has %d bytes, want at most %d", size, maxBytes)
		}
		mustClose(t, s)

		s, got, r := mustOpen(t, "d", opts)
		if !slices.Equal(got, stuck) {
			t.Fatalf("%d records came back, want %d: %+v", len(got), len(stuck), r)
		}
		for i, b := range got {
			wantRead(t, s, b.ref, b.rec)
			if i%2 == 0 {
				s.Done(b.ref)
			}
		}
		mustClose(t, s)
		s, got, _ = mustOpen(t, "d", opts)
		if len(got) != len(stuck)/2 || got[0] != stuck[1] {
			t.Errorf("%d records came back, want %d", len(got), len(stuck)/2)
		}
		for _, b := range got {
			s.Done(b.ref)
		}
		mustClose(t, s)
		if size := c.size(); size > 0 {
			t.Errorf("all is done, but there are %d bytes", size)
		}
	})
}

// TestConcurrent is for the race detector: every method at the same time, on
// real files, with segments that come and go and are compacted.
func TestConcurrent(t *testing.T) {
	for _, policy := range []time.Duration{time.Millisecond, Always, Never} {
		t.Run(policy.String(), func(t *testing.T) {
			s, _, _ := mustOpen(t, t.TempDir(), Options{Sync: policy, MaxBytes: 2 << 20, bufferSize: 256 << 10})
			var wg sync.WaitGroup
			var mu sync.Mutex
			left := map[Ref]string{}
			for n := range 8 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(n), 3))
					var waiting []back
					var buf []byte
					for i := range 2000 {
						rec := strings.Repeat(fmt.Sprintf("%d/%d ", n, i), 1+rng.IntN(100))
						ref, err := s.Append([]byte(rec))
						switch {
						case err == nil:
							waiting = append(waiting, back{ref, rec})
						case !errors.Is(err, ErrFull) && !errors.Is(err, ErrBehind):
							t.Errorf("append: %v", err)
						}
						if err == nil && rng.IntN(20) == 0 {
							if err := s.Wait(t.Context(), ref); err != nil {
								t.Errorf("wait: %v", err)
							}
						}
						if len(waiting) == 0 {
							continue
						}
						k := rng.IntN(len(waiting))
						b := waiting[k]
						if buf, err = s.Read(b.ref, buf); err != nil || !bytes.Equal(buf, []byte(b.rec)) {
							t.Errorf("read %x: %.20q, %v, want %.20q", b.ref, buf, err, b.rec)
						}
						if rng.IntN(100) < 97 {
							s.Done(b.ref)
							waiting = slices.Delete(waiting, k, k+1)
						}
						_ = s.Err()
					}
					mu.Lock()
					defer mu.Unlock()
					for _, b := range waiting {
						left[b.ref] = b.rec
					}
				})
			}
			wg.Wait()
			mustClose(t, s)
			_, got, r := mustOpen(t, s.dir, Options{})
			if len(got) != len(left) {
				t.Errorf("%d records came back, want %d: %+v", len(got), len(left), r)
			}
			for _, b := range got {
				if left[b.ref] != b.rec {
					t.Errorf("%x: %.20q, want %.20q", b.ref, b.rec, left[b.ref])
				}
			}
		})
	}
}

// TestOpenFilesAreBounded reads from more segments than may be open at once.
func TestOpenFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	opts := Options{segmentSize: 1 << 10}
	s, _, _ := mustOpen(t, dir, opts)
	for i := range 2 * maxFiles {
		add(t, s, fmt.Sprintf("%01000d", i)) // a segment for each
	}
	mustClose(t, s)
	s, got, _ := mustOpen(t, dir, opts)
	if len(got) != 2*maxFiles || len(logs(t, dir)) != 2*maxFiles {
		t.Fatalf("%d records in %d segments, want %d in as many", len(got), len(logs(t, dir)), 2*maxFiles)
	}
	for range 2 {
		for _, b := range got {
			wantRead(t, s, b.ref, b.rec)
		}
	}
	s.files.mu.Lock()
	defer s.files.mu.Unlock()
	if n := len(s.files.open); n != maxFiles {
		t.Errorf("%d files open, want %d", n, maxFiles)
	}
}

// TestOtherFilesStay opens a folder with files of names that are not the spool's, as
// another format would have.
func TestOtherFilesStay(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := mustOpen(t, dir, Options{})
	add(t, s, "x")
	mustClose(t, s)
	name := strings.TrimSuffix(logs(t, dir)[0], logSuffix)
	others := []string{name + ".log2", name + "0.log", filepath.Join(dir, "notes.txt")}
	for _, other := range others {
		if err := os.WriteFile(other, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, got, r := mustOpen(t, dir, Options{})
	if len(got) != 1 || r.Lost != 0 || r.TornBytes != 0 {
		t.Errorf("got %v, %+v", got, r)
	}
	s.Done(got[0].ref)
	mustClose(t, s)
	for _, other := range others {
		if b, err := os.ReadFile(other); err != nil || string(b) != "x" {
			t.Errorf("%s: got %q, %v", other, b, err)
		}
	}
}
