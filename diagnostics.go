package webhook

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/hashicorp/hcl/v2"
)

// A problem is a diagnostic under construction, with byte offsets.
type problem struct {
	span
	summary string // a fixed phrase
	detail  string // full sentences; never a value, evaluated or as written
	names   bool   // detail has a name from the file
	note    string // a sentence with %d for the line of noteAt, or ""
	noteAt  int
}

// diagnostics turns problems into what callers get: sorted, with ranges of
// lines and columns. A problem that names what is perhaps not a name, but a
// piece of a broken string, is left out: the broken string has its own. If it has
// none, because its beginning is a name and needs no quotes, nothing is named.
func diagnostics(src []byte, filename string, problems []problem, tainted []span) hcl.Diagnostics {
	slices.SortStableFunc(problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end))
	})
	slices.SortFunc(tainted, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	at := newPositions(src)
	var diags hcl.Diagnostics
	add := func(p *problem) {
		start := at.pos(p.start)
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  p.summary,
			Detail:   p.detail,
			Subject:  &hcl.Range{Filename: filename, Start: start, End: at.pos(p.end)},
		})
		at.last = start
	}
	taintEnd := 0
	for _, p := range problems {
		for len(tainted) > 0 && tainted[0].start <= p.start {
			taintEnd = max(taintEnd, tainted[0].end)
			tainted = tainted[1:]
		}
		if p.names && p.start < taintEnd {
			continue
		}
		if p.note != "" {
			p.detail += " " + fmt.Sprintf(p.note, at.line(p.noteAt)+1)
		}
		add(&p)
	}
	if len(diags) == 0 && len(problems) > 0 {
		p := problems[0]
		p.detail = "What stands here is wrong, or belongs to the value before it: a text with blanks in it is written in double quotes."
		add(&p)
	}
	return diags
}

// positions turns offsets into lines and columns as HCL counts them: a column
// is a grapheme cluster. It is fast for offsets in order.
type positions struct {
	src   []byte
	lines []int // where each line begins
	last  hcl.Pos
}

func newPositions(src []byte) *positions {
	p := &positions{src: src, lines: []int{0}}
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		p.lines[0] = len("\ufeff")
	}
	for off, c := range src {
		if c == '\n' {
			p.lines = append(p.lines, off+1)
		}
	}
	return p
}

// line returns the index of the line that off is on.
func (p *positions) line(off int) int {
	return max(0, sort.SearchInts(p.lines, off+1)-1)
}

func (p *positions) pos(off int) hcl.Pos {
	line := p.line(off)
	pos := hcl.Pos{Line: line + 1, Column: 1, Byte: p.lines[line]}
	if p.last.Line == pos.Line && p.last.Byte <= off {
		pos = p.last
	}
	whole := func(rest []byte, _ bool) (int, []byte, error) { return len(rest), rest, nil }
	if s := hcl.NewRangeScannerFragment(p.src[:off], "", pos, whole); s.Scan() {
		pos.Column = s.Range().End.Column
	}
	pos.Byte = off
	p.last = pos
	return pos
}

// WriteDiagnostics prints for people what [Parse] and [ParseFile] return, or
// mqtt.Server.AddHook around it: each problem with its line of the configuration
// file, if the file can be read again. Values that may be secret, which are all
// strings but those of settings known to be harmless, print as "…". Any other error
// prints as it is, and nil prints nothing. The error it returns is that of w.
func WriteDiagnostics(w io.Writer, err error) error {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		if err != nil {
			_, err = fmt.Fprintf(w, "Error: %v\n", err)
		}
		return err
	}
	out := bufio.NewWriter(w)
	files := make(map[string][][]byte) // lines by name, redacted
	for _, d := range diags {
		fmt.Fprintf(out, "Error: %s\n\n", d.Summary)
		if at := d.Subject; at != nil {
			lines, ok := files[at.Filename]
			if !ok {
				if src, err := readRegular(at.Filename, maxConfigFile); err == nil {
					lines = bytes.Split(redact(src), []byte("\n"))
				}
				files[at.Filename] = lines
			}
			fmt.Fprintf(out, "  on %s line %d, column %d:\n", at.Filename, at.Start.Line, at.Start.Column)
			if at.Start.Line <= len(lines) {
				fmt.Fprintf(out, "%4d: %s\n", at.Start.Line, lines[at.Start.Line-1])
			}
			fmt.Fprintln(out)
		}
		if d.Detail != "" {
			fmt.Fprintf(out, "%s\n\n", d.Detail)
		}
	}
	return out.Flush()
}
