package spool

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

const benchRecord = 200

var policies = []struct {
	name string
	sync time.Duration
}{{"never", Never}, {"100ms", 0}, {"always", Always}}

func openBench(b *testing.B, opts Options) *Spool {
	b.Helper()
	s, _, err := Open(b.TempDir(), opts, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// mustAppend appends, waiting where the disk cannot keep up.
func mustAppend(b *testing.B, s *Spool, rec []byte) Ref {
	for {
		ref, err := s.Append(rec)
		if err == nil {
			return ref
		}
		if !errors.Is(err, ErrBehind) {
			b.Error(err)
			return 0
		}
		if err := s.Wait(b.Context(), s.oldestUnsafe()); err != nil {
			b.Error(err)
		}
	}
}

// oldestUnsafe is a record that the next flush covers.
func (s *Spool) oldestUnsafe() Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil {
		return s.flightTo
	}
	return s.last
}

// BenchmarkAppend appends records of 200 bytes as fast as the disk takes them.
// Under always it does not wait for each; BenchmarkWait does.
func BenchmarkAppend(b *testing.B) {
	for _, p := range policies {
		for _, parallel := range []int{1, 8} {
			b.Run(fmt.Sprintf("sync=%s/goroutines=%d", p.name, parallel), func(b *testing.B) {
				s := openBench(b, Options{Sync: p.sync, MaxBytes: -1})
				b.SetBytes(benchRecord)
				b.ReportAllocs()
				b.SetParallelism(max(1, parallel/runtime.GOMAXPROCS(0)))
				b.ResetTimer()
				if parallel == 1 {
					rec := make([]byte, benchRecord)
					for range b.N {
						mustAppend(b, s, rec)
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					rec := make([]byte, benchRecord)
					for pb.Next() {
						mustAppend(b, s, rec)
					}
				})
			})
		}
	}
}

// A nullFS writes nothing.
type nullFS struct{ osFS }

type nullFile struct{ file }

func (f nullFS) open(name string, flag int) (file, error) {
	inner, err := f.osFS.open(name, flag)
	return nullFile{inner}, err
}

func (nullFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (nullFile) Sync() error                            { return nil }

// BenchmarkAppendCost is what Append costs the caller: the disk is as fast as
// can be.
func BenchmarkAppendCost(b *testing.B) {
	for _, p := range policies {
		b.Run("sync="+p.name, func(b *testing.B) {
			s := openBench(b, Options{Sync: p.sync, MaxBytes: -1, fs: nullFS{}})
			rec := make([]byte, benchRecord)
			b.SetBytes(benchRecord)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				mustAppend(b, s, rec)
			}
		})
	}
}

// BenchmarkAppendDone appends a record and finishes one, 10,000 records
// behind, so that segments come and go.
func BenchmarkAppendDone(b *testing.B) {
	s := openBench(b, Options{})
	rec := make([]byte, benchRecord)
	var waiting [10000]Ref
	b.SetBytes(benchRecord)
	b.ReportAllocs()
	for i := range b.N {
		slot := &waiting[i%len(waiting)]
		if *slot != 0 {
			s.Done(*slot)
		}
		*slot = mustAppend(b, s, rec)
	}
}

// BenchmarkWait appends under always and waits for the sync: goroutines share
// it.
func BenchmarkWait(b *testing.B) {
	for _, n := range []int{1, 50} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			s := openBench(b, Options{Sync: Always, MaxBytes: -1})
			b.SetParallelism(max(1, n/runtime.GOMAXPROCS(0)))
			b.ReportAllocs()
			wait := func() {
				if err := s.Wait(b.Context(), mustAppend(b, s, make([]byte, benchRecord))); err != nil {
					b.Error(err)
				}
			}
			b.ResetTimer()
			if n == 1 {
				for range b.N {
					wait()
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					wait()
				}
			})
		})
	}
}

// BenchmarkRead reads records in the order of appending, from files.
func BenchmarkRead(b *testing.B) {
	const records = 100000
	dir := b.TempDir()
	refs := fill(b, dir, records)
	s, _, err := Open(dir, Options{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.SetBytes(benchRecord)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var buf []byte
		var err error
		for i := 0; pb.Next(); i++ {
			if buf, err = s.Read(refs[i%records], buf); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkRecover opens a spool of 100,000 records.
func BenchmarkRecover(b *testing.B) {
	const records = 100000
	dir := b.TempDir()
	fill(b, dir, records)
	b.SetBytes(records * benchRecord)
	b.ReportAllocs()
	for b.Loop() {
		s, r, err := Open(dir, Options{}, func(Ref, []byte) {})
		if err != nil || r.Records != records {
			b.Fatalf("%+v, %v", r, err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// fill writes a spool.
func fill(tb testing.TB, dir string, records int) (refs []Ref) {
	tb.Helper()
	s, _, err := Open(dir, Options{Sync: Never, bufferSize: 1 << 30}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for range records {
		ref, err := s.Append(make([]byte, benchRecord))
		if err != nil {
			tb.Fatal(err)
		}
		refs = append(refs, ref)
	}
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	return refs
}

// BenchmarkDisk is the limit: a loop that writes and syncs the same bytes in
// pieces of 1,024 records, or of one.
func BenchmarkDisk(b *testing.B) {
	for _, n := range []int{1, 1024} {
		b.Run(fmt.Sprintf("records-per-fsync=%d", n), func(b *testing.B) {
			f, err := os.Create(b.TempDir() + "/f")
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			buf := make([]byte, n*int(recordSize(benchRecord)))
			b.SetBytes(benchRecord)
			b.ResetTimer()
			for i := 0; i < b.N; i += n {
				if _, err := f.Write(buf); err != nil {
					b.Fatal(err)
				}
				if err := f.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
