package webhook

import (
	"bytes"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// minCompressed is the shortest body that is compressed: a shorter one hardly
// shrinks, and fits into one packet anyway.
const minCompressed = 256

// A compressor has a gzip writer, which is some hundred kilobytes: there are as
// many as compress at the same time, not one for each worker.
type compressor struct {
	gzip *gzip.Writer
	out  bytes.Buffer
}

var compressors = sync.Pool{New: func() any {
	// The fastest level: what it leaves on the table is a few percent.
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // not with a level that the library has
	}
	return &compressor{gzip: w}
}}

// compress replaces the body by its gzip form and says so in the header.
func (r *request) compress() {
	if len(r.body) < minCompressed {
		return
	}
	c := compressors.Get().(*compressor)
	defer compressors.Put(c)
	c.out.Reset()
	c.gzip.Reset(&c.out)
	_, _ = c.gzip.Write(r.body) // to memory, which does not fail
	_ = c.gzip.Close()
	r.body = append(r.body[:0], c.out.Bytes()...)
	r.header = append(r.header, "Content-Encoding: gzip\r\n"...)
}
