package spool

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// A disk is what a spool has left behind, for tests that damage it.
type disk struct {
	fs   *crashFS
	refs []Ref
	recs []string
	done map[Ref]bool
}

// newDisk writes a spool of several segments, some of whose records are done.
func newDisk(t *testing.T, rng *rand.Rand) *disk {
	t.Helper()
	d := &disk{fs: newCrashFS(rng), done: map[Ref]bool{}}
	s, _, _ := mustOpen(t, "d", Options{fs: d.fs, segmentSize: 4 << 10})
	for range 60 {
		n := rng.IntN(300)
		if rng.IntN(30) == 0 {
			n = 5000
		}
		rec := make([]byte, n)
		for i := range rec {
			rec[i] = byte(rng.Uint32())
		}
		ref := add(t, s, string(rec))
		d.refs = append(d.refs, ref)
		d.recs = append(d.recs, string(rec))
		if rng.IntN(3) == 0 {
			s.Done(ref)
			d.done[ref] = true
		}
	}
	mustClose(t, s)
	return d
}

// content is what the files hold, by segment number.
func (d *disk) content(suffix string) map[uint64][]byte {
	m := map[uint64][]byte{}
	for name, n := range d.fs.names {
		if i, sfx, ok := parseName(strings.TrimPrefix(name, "d/")); ok && sfx == suffix {
			m[i.seq] = slices.Clone(n.now)
		}
	}
	return m
}

var damages = []struct {
	name string
	do   func(rng *rand.Rand, b []byte) []byte
}{
	{"a bit", func(rng *rand.Rand, b []byte) []byte {
		b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		return b
	}},
	{"many bits", func(rng *rand.Rand, b []byte) []byte {
		for range 10 {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		return b
	}},
	{"a hole", func(rng *rand.Rand, b []byte) []byte {
		from := rng.IntN(len(b))
		clear(b[from:min(len(b), from+1+rng.IntN(1000))])
		return b
	}},
	{"a block of something else", func(rng *rand.Rand, b []byte) []byte {
		from := rng.IntN(len(b)) &^ 511
		for i := range b[from:min(len(b), from+512)] {
			b[from+i] = byte(rng.Uint32())
		}
		return b
	}},
	{"a block of this file", func(rng *rand.Rand, b []byte) []byte {
		from, to := rng.IntN(len(b))&^511, rng.IntN(len(b))&^511
		copy(b[to:], slices.Clone(b[from:min(len(b), from+512)]))
		return b
	}},
	{"cut short", func(rng *rand.Rand, b []byte) []byte { return b[:rng.IntN(len(b)+1)] }},
	{"zeros at the end", func(rng *rand.Rand, b []byte) []byte {
		return append(b, make([]byte, rng.IntN(10000))...)
	}},
	{"a tail of zeros", func(rng *rand.Rand, b []byte) []byte {
		clear(b[rng.IntN(len(b)):])
		return b
	}},
	{"all ones", func(_ *rand.Rand, b []byte) []byte {
		for i := range b {
			b[i] = 0xff
		}
		return b
	}},
}

// TestDamage damages segments, or marks: every record whose bytes are as they
// were is still handed back, and nothing else is.
func TestDamage(t *testing.T) {
	for _, tt := range damages {
		for _, suffix := range []string{logSuffix, doneSuffix} {
			t.Run(tt.name+" in a "+suffix, func(t *testing.T) {
				for seed := range uint64(40) {
					rng := rand.New(rand.NewPCG(seed, 4))
					d := newDisk(t, rng)
					before := d.content(logSuffix)
					for range 1 + rng.IntN(3) {
						d.fs.damage(suffix, func(b []byte) []byte {
							if len(b) == 0 {
								return b
							}
							return tt.do(rng, b)
						})
					}
					after := d.content(logSuffix)

					s, got, r := mustOpen(t, "d", Options{fs: d.fs})
					lost := 0
					for i, ref := range d.refs {
						n := int64(headerSize + len(d.recs[i]))
						whole := same(before[ref.seq()], after[ref.seq()], ref.pos(), n)
						if before[ref.seq()] != nil && !whole {
							lost++
						}
						switch {
						case len(got) > 0 && got[0].ref == ref:
							if got[0].rec != d.recs[i] {
								t.Fatalf("seed %d: record %x has other bytes", seed, ref)
							}
							if d.done[ref] && suffix == logSuffix {
								t.Fatalf("seed %d: record %x came back though it is done", seed, ref)
							}
							wantRead(t, s, ref, d.recs[i])
							got = got[1:]
						case whole && !d.done[ref]:
							t.Fatalf("seed %d: record %x is whole and did not come back: %+v", seed, ref, r)
						}
					}
					if len(got) > 0 {
						t.Fatalf("seed %d: record %x came from nowhere", seed, got[0].ref)
					}
					if lost > 0 && r.Lost == 0 && r.TornBytes == 0 && tt.name != "cut short" {
						t.Errorf("seed %d: %d records damaged, not told: %+v", seed, lost, r)
					}
					mustClose(t, s)
					_, _, again := mustOpen(t, "d", Options{fs: d.fs})
					if again.TornBytes > 0 {
						t.Errorf("seed %d: the torn tail is still there: %+v", seed, again)
					}
				}
			})
		}
	}
}

// same reports whether n bytes at off are the same in a and b.
func same(a, b []byte, off, n int64) bool {
	return off+n <= int64(len(a)) && off+n <= int64(len(b)) && bytes.Equal(a[off:off+n], b[off:off+n])
}

// TestDamageWhileOpen damages a segment under an open spool.
func TestDamageWhileOpen(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	d := newDisk(t, rng)
	s, got, _ := mustOpen(t, "d", Options{fs: d.fs})
	for range 50 {
		d.fs.damage(logSuffix, func(b []byte) []byte {
			b[rng.IntN(len(b))] ^= 1
			return b[:len(b)-rng.IntN(20)]
		})
	}
	for _, b := range got {
		rec, err := s.Read(b.ref, nil)
		if err == nil && string(rec) != b.rec {
			t.Fatalf("record %x has other bytes", b.ref)
		}
	}
}

// TestHalfMark cuts a file of marks within a mark whose missing byte is 0, as a
// crash may, and writes another mark behind it.
func TestHalfMark(t *testing.T) {
	c := newCrashFS(rand.New(rand.NewPCG(6, 6)))
	opts := Options{fs: c, segmentSize: 1 << 20}
	s, _, _ := mustOpen(t, "d", opts)
	var refs []Ref
	for range 10_000 { // one in 256 ends in 0
		refs = append(refs, add(t, s, "x"))
	}
	for _, ref := range refs[1:] {
		s.Done(ref)
	}
	mustClose(t, s)
	half := 0
	c.damage(doneSuffix, func(b []byte) []byte {
		for b[len(b)-1] != 0 {
			b = b[:len(b)-markSize]
		}
		half = len(b) / markSize // the first is not done
		return b[:len(b)-1]
	})
	if half == 0 {
		t.Fatal("no mark ends in 0")
	}
	s, _, _ = mustOpen(t, "d", opts)
	s.Done(refs[0])
	mustClose(t, s)
	_, got, _ := mustOpen(t, "d", opts)
	if len(got) == 0 || got[0].ref != refs[half] {
		t.Errorf("%d records came back, want those from %x on", len(got), refs[half])
	}
}

// TestForgedRecords has records whose content are records of the same spool,
// and damages the header that says so.
func TestForgedRecords(t *testing.T) {
	const victims = 20
	c := newCrashFS(rand.New(rand.NewPCG(6, 6)))
	s, _, _ := mustOpen(t, "d", Options{fs: c})
	var forged []byte
	for i := range victims {
		ref := add(t, s, fmt.Sprintf("victim %d", i))
		s.mu.Lock()
		forged = append(forged, s.chunkOf(ref).buf[ref.pos():]...)
		s.mu.Unlock()
	}
	// And what somebody makes who knows all but the seed.
	for pos := int64(0); pos < 1<<16; pos += alignment {
		k := newKey(0, 1)
		forged = k.appendRecord(forged, pos, []byte("forged"), crc32.Checksum([]byte("forged"), castagnoli))
	}
	at := add(t, s, string(forged))
	add(t, s, "behind")
	mustClose(t, s)
	c.damage(logSuffix, func(b []byte) []byte {
		b[at.pos()+8] ^= 1 // the length
		return b
	})
	_, got, r := mustOpen(t, "d", Options{fs: c})
	if len(got) != victims+1 || got[victims].rec != "behind" || r.Lost != 1 {
		t.Errorf("%d records came back, want %d: %+v", len(got), victims+1, r)
	}
}

// TestForgedRecordsInCompactedSegment has a record whose content holds the one
// before it, in a file where positions are not offsets.
func TestForgedRecordsInCompactedSegment(t *testing.T) {
	for name, tt := range map[string]struct {
		pos int64 // of the record before it
		pad int   // bytes of the content in front of the copy
	}{
		"anywhere":        {10000, 0},
		"at its position": {64, 24},
	} {
		t.Run(name, func(t *testing.T) {
			var data []byte
			put := func(pos int64, rec []byte) {
				data = fuzzKey.appendRecord(data, pos, rec, crc32.Update(fuzzKey.body, castagnoli, rec))
			}
			put(tt.pos, []byte("victim"))
			at := len(data)
			put(tt.pos+24, append(make([]byte, tt.pad), data...))
			put(20000, []byte("behind"))
			data[at+8] ^= 1 // the length
			sc := scan{r: bytes.NewReader(data), size: int64(len(data)), key: fuzzKey, moved: true}
			var got []string
			if err := sc.each(func(_, _ int64, raw []byte) error { got = append(got, string(raw[headerSize:])); return nil }); err != nil {
				t.Fatal(err)
			}
			if want := []string{"victim", "behind"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestLeftovers has files in the folder that a crash, or somebody, left there.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := mustOpen(t, dir, Options{})
	add(t, s, "x")
	s.Done(add(t, s, "y"))
	mustClose(t, s)
	log := logs(t, dir)[0]
	stem := strings.TrimSuffix(log, logSuffix)
	keep := []string{
		log, stem + doneSuffix, dir + "/" + lockName, dir + "/README", dir + "/x.log",
		dir + "/0000000001-00-ffffffffffffffff.log", // the same number
		dir + "/00000000A1-00-0000000000000abc.tmp", // not a name of ours
	}
	drop := []string{
		dir + "/0000000001-01-0000000000000abc.tmp",
		dir + "/0000000002-00-0000000000000abc.done",
		dir + "/0000000003-00-0000000000000abc.log", // compacted, and all done:
		dir + "/0000000003-01-0000000000000abc.log",
		dir + "/0000000003-00-0000000000000abc.done",
		dir + "/0000000003-01-0000000000000abc.done",
	}
	for _, name := range append(keep[3:], drop...) {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, got, r := mustOpen(t, dir, Options{})
	if len(got) != 1 || len(r.Unreadable) != 1 {
		t.Errorf("got %v, %+v", got, r)
	}
	if ref := add(t, s, "z"); ref.seq() != 4 {
		t.Errorf("next segment is %d, want 4", ref.seq())
	}
	mustClose(t, s)
	for _, name := range keep {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range drop {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// fuzzKey is the key of the seed corpus.
var fuzzKey = newKey(0x0123456789abcdef, 1)

func FuzzScan(f *testing.F) {
	var file []byte
	for _, rec := range []string{"", "x", strings.Repeat("y", 100), "z"} {
		file = fuzzKey.appendRecord(file, int64(len(file)), []byte(rec), crc32.Update(fuzzKey.body, castagnoli, []byte(rec)))
	}
	f.Add(file, false)
	f.Add(file[24:], true)
	f.Add(append(slices.Clone(file[:24]), file[48:]...), true)
	f.Add(make([]byte, 100), false)
	f.Add(bytes.Repeat([]byte{0xff}, 100), true)
	f.Fuzz(func(t *testing.T, data []byte, moved bool) {
		sc := scan{r: bytes.NewReader(data), size: int64(len(data)), key: fuzzKey, moved: moved}
		lastPos, lastEnd := int64(-1), int64(0)
		err := sc.each(func(pos, off int64, raw []byte) error {
			if off < lastEnd || off%alignment != 0 || pos <= lastPos || pos < off || !moved && pos != off {
				t.Errorf("record at %d of position %d after one at %d that ends at %d", off, pos, lastPos, lastEnd)
			}
			if !bytes.Equal(raw, data[off:off+int64(len(raw))]) {
				t.Errorf("record at %d: got % x", off, raw)
			}
			rec := raw[headerSize:]
			if again := fuzzKey.appendRecord(nil, pos, rec, crc32.Update(fuzzKey.body, castagnoli, rec)); !bytes.HasPrefix(again, raw) {
				t.Errorf("record at %d is % x, would be written as % x", off, raw, again)
			}
			lastPos, lastEnd = pos, off+int64(len(raw))
			return nil
		})
		if err != nil {
			t.Errorf("%v", err)
		}
		if sc.end < lastEnd || sc.end > int64(len(data)) {
			t.Errorf("end %d, after a record that ends at %d of %d", sc.end, lastEnd, len(data))
		}
		if cap(sc.buf) > max(len(data), scanBuffer) {
			t.Errorf("buffer of %d bytes for %d", cap(sc.buf), len(data))
		}
	})
}

// FuzzScanDamage changes a byte and cuts a good segment: what is not touched
// is found.
func FuzzScanDamage(f *testing.F) {
	f.Add([]byte{3, 0, 200, 17}, uint16(20), byte(1), uint16(0))
	f.Add([]byte{255, 255, 0}, uint16(8), byte(0xff), uint16(3))
	f.Fuzz(func(t *testing.T, lengths []byte, at uint16, flip byte, cut uint16) {
		var data []byte
		var offs []int64
		for i, n := range lengths {
			rec := bytes.Repeat([]byte{byte(i)}, int(n))
			offs = append(offs, int64(len(data)))
			data = fuzzKey.appendRecord(data, int64(len(data)), rec, crc32.Update(fuzzKey.body, castagnoli, rec))
		}
		damaged := slices.Clone(data[:max(0, len(data)-int(cut))])
		if int(at) < len(damaged) {
			damaged[at] ^= flip
		}
		var want, got []int64
		for i, off := range offs {
			if same(data, damaged, off, headerSize+int64(lengths[i])) {
				want = append(want, off)
			}
		}
		sc := scan{r: bytes.NewReader(damaged), size: int64(len(damaged)), key: fuzzKey}
		if err := sc.each(func(_, off int64, _ []byte) error { got = append(got, off); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("lengths %v, byte %d ^ %#x, cut %d: found %v, want %v", lengths, at, flip, cut, got, want)
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("0000000001-00-0123456789abcdef.log")
	f.Add("0000000001-00-0123456789abcdef.done")
	f.Add("ffffffffff-ff-ffffffffffffffff.tmp")
	f.Add("1-0-0.log")
	f.Fuzz(func(t *testing.T, name string) {
		i, suffix, ok := parseName(name)
		if ok && i.name(suffix) != name {
			t.Errorf("%q parses as %+v, which is %q", name, i, i.name(suffix))
		}
	})
}
