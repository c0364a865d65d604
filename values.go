package webhook

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// text reads a string. One that is a name needs no quotes.
func (d *decoder) text(n *node) (string, bool) {
	s, ok := d.scalar(n, "a string in quotes")
	switch {
	case !ok:
	case s.kind == stringScalar || s.kind == wordScalar && isName(s.text):
		return s.text, true
	case s.kind == wordScalar:
		d.problem(n.span, "Missing quotes", d.key+" must be a string in quotes.")
	default:
		d.wrongType(n, "a string in quotes")
	}
	return "", false
}

// isName reports whether text is a name in ASCII.
func isName(text string) bool {
	first := lower(text[0])
	return ('a' <= first && first <= 'z' || first == '_') &&
		!strings.ContainsFunc(text, func(c rune) bool { return c >= utf8.RuneSelf || !isWord(byte(c)) })
}

// texts reads a list of strings, at least one.
func (d *decoder) texts(n *node) []string {
	if n.kind != listNode {
		d.wrongType(n, `a list: `+d.key+` = ["…"]`)
		return nil
	}
	if len(n.items) == 0 && !d.partial {
		d.problem(n.span, "Empty list", d.key+" needs a string; leave it out if there is none.")
	}
	var texts []string
	for _, item := range n.items {
		if text, ok := d.text(item); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// bool reads a boolean.
func (d *decoder) bool(n *node) (yes, ok bool) {
	const want = "true or false, without quotes"
	s, ok := d.scalar(n, want)
	switch {
	case !ok:
		return false, false
	case s.kind == boolScalar:
		return s.yes, true
	case s.kind == stringScalar && s.computed && (equalFold(s.text, "true") || equalFold(s.text, "false")):
		return equalFold(s.text, "true"), true
	}
	d.wrongType(n, want)
	return false, false
}

// whole reads a whole number; want says what else the value may be, if a
// string, which it returns then and which is not empty.
func (d *decoder) whole(n *node, want string) (number int64, text string, ok bool) {
	s, ok := d.scalar(n, want)
	if !ok {
		return 0, "", false
	}
	switch s.kind {
	case numberScalar:
		if s.num.IsInt() {
			number, _ := s.num.Int64() // the nearest one, which is out of every range that has an end
			return number, "", true
		}
	case stringScalar:
		if s.text == "" {
			break
		}
		if s.computed {
			if number, err := strconv.ParseInt(s.text, 10, 64); err == nil {
				return number, "", true
			}
		}
		return 0, s.text, true
	}
	d.wrongType(n, want)
	return 0, "", false
}

func (d *decoder) int(n *node) (int, bool) {
	const want = "a whole number, without quotes"
	number, text, ok := d.whole(n, want)
	if ok && text != "" {
		d.wrongType(n, want)
		return 0, false
	}
	return int(min(max(number, math.MinInt), math.MaxInt)), ok // where an int has 32 bits, for the check to see
}

// float reads a number.
func (d *decoder) float(n *node) (float64, bool) {
	const want = "a number, without quotes"
	s, ok := d.scalar(n, want)
	switch {
	case !ok:
		return 0, false
	case s.kind == numberScalar:
		x, _ := s.num.Float64()
		return x, true
	case s.kind == stringScalar && s.computed:
		if x, err := strconv.ParseFloat(s.text, 64); err == nil {
			return x, true
		}
	}
	d.wrongType(n, want)
	return 0, false
}

// size reads a number of bytes.
func (d *decoder) size(n *node) (int64, bool) {
	const want = `a number of bytes, or a string such as "256KiB" or "8MiB" (B, KiB, MiB, GiB)`
	number, text, ok := d.whole(n, want)
	if !ok || text == "" {
		return number, ok
	}
	digits := strings.TrimRight(text, "BKMGibkmg")
	number, err := strconv.ParseInt(digits, 10, 64)
	shift, unit := sizeUnits[text[len(digits):]]
	if err != nil || !unit || number < 0 || number > math.MaxInt64>>shift {
		d.wrongType(n, want)
		return 0, false
	}
	return number << shift, true
}

var sizeUnits = map[string]uint{"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}

// duration reads a duration; -1 stays -1, which some settings know.
func (d *decoder) duration(n *node) (time.Duration, bool) {
	const want = `a number of milliseconds, or a string such as "500ms", "5s" or "1m30s"`
	number, text, ok := d.whole(n, want)
	switch {
	case !ok:
		return 0, false
	case text != "":
		v, err := time.ParseDuration(text)
		if err != nil {
			d.wrongType(n, want)
		}
		if v == -1 { // ns, which is out of range; the number -1 means no limit
			v--
		}
		return v, err == nil
	case number == -1:
		return -1, true
	}
	const most = int64(math.MaxInt64 / time.Millisecond)
	return time.Duration(min(max(number, -most), most)) * time.Millisecond, true
}

// word reads one of a few words, which may stand without quotes.
func (d *decoder) word(n *node, want string) (string, bool) {
	s, ok := d.scalar(n, want)
	switch {
	case !ok:
	case s.kind == stringScalar || s.kind == wordScalar:
		return s.text, true
	default:
		d.wrongType(n, want)
	}
	return "", false
}

func readURL(d *decoder, n *node, to *string) {
	text, ok := d.text(n)
	if !ok {
		return
	}
	if err := checkURL(text); err != nil {
		d.refuse(n.span, err)
		return
	}
	*to = text
}

func readHeaders(d *decoder, n *node, to *[]Header) {
	if n.kind != objectNode {
		d.wrongType(n, "an object: headers = { NAME = \"VALUE\" }")
		return
	}
	for _, m := range n.members {
		d.key = "The header's name"
		if err := checkHeaderName(m.name); err != nil {
			d.refuse(m.span, err)
		}
		if m.value.kind == objectNode {
			d.problem(m.span, "Wrong type", `A header has one value. A name with a dot in it is written in quotes: headers = { "a.b" = "…" }.`)
			continue
		}
		d.key = "The header's value"
		text, ok := d.text(m.value)
		if !ok {
			continue
		}
		if err := checkHeaderValue(m.name, text); err != nil {
			d.refuse(m.value.span, err)
		}
		*to = append(*to, Header{Name: m.name, Value: Secret(text)})
	}
}

func readFields(d *decoder, n *node, e *Endpoint) {
	if n.kind != listNode {
		d.wrongType(n, "a list: fields = [\"id\", \"ts\"]")
		return
	}
	fields := make([]Field, 0, len(n.items))
	for _, item := range n.items {
		name, ok := d.word(item, "the name of a field in quotes")
		if !ok {
			continue
		}
		checked, err := checkFields(append(fields, Field(name)))
		if err != nil {
			d.refuse(item.span, err)
			continue
		}
		fields = checked
	}
	e.Body.Fields = fields
}
