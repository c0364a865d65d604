package webhook

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func TestCompress(t *testing.T) {
	for _, n := range []int{0, minCompressed - 1, minCompressed, 5000, 200000} {
		body := strings.Repeat("0123456789", n/10+1)[:n]
		req := &request{body: []byte(body)}
		req.compress()
		if n < minCompressed {
			if len(req.header) > 0 || string(req.body) != body {
				t.Errorf("a body of %d bytes was compressed", n)
			}
			continue
		}
		if got := string(req.header); got != "Content-Encoding: gzip\r\n" {
			t.Errorf("header %q", got)
		}
		r, err := gzip.NewReader(bytes.NewReader(req.body))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != body {
			t.Errorf("%d bytes became %d: %v", n, len(got), err)
		}
		if len(req.body) > n {
			t.Errorf("%d bytes became %d", n, len(req.body))
		}
	}
}

func TestCompressAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("not with the race detector")
	}
	body := []byte(strings.Repeat("0123456789", 100))
	var req request
	got := testing.AllocsPerRun(100, func() {
		req.body, req.header = append(req.body[:0], body...), req.header[:0]
		req.compress()
	})
	if got >= 1 {
		t.Errorf("%v allocations", got)
	}
}
