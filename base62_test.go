package webhook

import (
	"bytes"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/eknkc/basex"
)

func TestBase62Vectors(t *testing.T) {
	for _, tt := range []struct{ payload, text string }{
		{"", ""},
		{"messagei+/", "2a7oZkl5ty6sG7"},
		{"hello", "7tQLFHz"},
		{"\x00", "0"},
		{"\x00\x01", "01"},
		{"\x00\x00\x00", "000"},
		{"\x0a", "A"},
		{"\x23", "Z"},
		{"\x24", "a"},
		{"\x3d", "z"},
		{"\x3e", "10"},
		{"\xff\xff\xff", "18OWF"},
	} {
		if got := string(appendBase62([]byte("> "), []byte(tt.payload))); got != "> "+tt.text {
			t.Errorf("base62 of %q is %q, want %q", tt.payload, got, "> "+tt.text)
		}
		if got, err := decodeBase62(tt.text); err != nil || string(got) != tt.payload {
			t.Errorf("base62 text %q is %q, %v; want %q", tt.text, got, err, tt.payload)
		}
	}
}

// bigBase62 is base62 by way of math/big, which has the small letters first.
func bigBase62(payload []byte) string {
	number := bytes.TrimLeft(payload, "\x00")
	zeros := strings.Repeat("0", len(payload)-len(number))
	if len(number) == 0 {
		return zeros
	}
	return zeros + strings.Map(func(c rune) rune {
		if c >= 'A' {
			return c ^ 0x20
		}
		return c
	}, new(big.Int).SetBytes(number).Text(62))
}

func checkBase62(t *testing.T, payload []byte, want string) {
	t.Helper()
	got := string(appendBase62(nil, payload))
	if got != want {
		t.Errorf("base62 of %x is\n%s, want\n%s", payload, got, want)
	}
	back, err := decodeBase62(got)
	if err != nil || !bytes.Equal(back, payload) {
		t.Errorf("base62 text %s is\n%x, %v; want\n%x", got, back, err, payload)
	}
}

// TestBase62Lengths goes through the lengths around those where the way of
// converting changes.
func TestBase62Lengths(t *testing.T) {
	random := randomBytes(2*shortBytes + 20)
	for n := range len(random) + 1 {
		checkBase62(t, random[:n], bigBase62(random[:n]))
	}
	for _, fill := range []byte{0, 1, 0xff} {
		for n := range shortBytes + 20 {
			payload := bytes.Repeat([]byte{fill}, n)
			checkBase62(t, payload, bigBase62(payload))
		}
	}
	for exp := range shortDigits + 20 { // 62^exp and its neighbours
		power := new(big.Int).Exp(big.NewInt(62), big.NewInt(int64(exp)), nil)
		checkBase62(t, power.Bytes(), "1"+strings.Repeat("0", exp))
		if below := power.Sub(power, big.NewInt(1)); exp > 0 {
			checkBase62(t, below.Bytes(), strings.Repeat("z", exp))
		}
	}
}

func TestBase62Long(t *testing.T) {
	for _, n := range []int{1 << 16, 1<<16 + 1, 100_000} {
		payload := randomBytes(n)
		copy(payload, "\x00\x00\x00")
		checkBase62(t, payload, bigBase62(payload))
	}
}

// FuzzBase62 compares short payloads with basex, which is quadratic, and longer
// ones with math/big.
func FuzzBase62(f *testing.F) {
	f.Add([]byte("messagei+/"), uint16(0))
	f.Add([]byte("\x00\x00\x01"), uint16(1))
	f.Add([]byte{0xff, 0}, uint16(500))
	reference, err := basex.NewEncoding(base62Digits)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte, times uint16) {
		if len(payload) <= 512 {
			checkBase62(t, payload, reference.Encode(payload))
		}
		payload = bytes.Repeat(payload, 1+min(int(times), 10_000/(1+len(payload))))
		checkBase62(t, payload, bigBase62(payload))
	})
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func BenchmarkBase62(b *testing.B) {
	for _, n := range []int{64, 1 << 10, 64 << 10, 1 << 20} {
		payload := randomBytes(n)
		text := string(appendBase62(nil, payload))
		b.Run(fmt.Sprintf("encode/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst = appendBase62(dst[:0], payload)
			}
		})
		b.Run(fmt.Sprintf("decode/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeBase62(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
