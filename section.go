package webhook

import (
	"bytes"
	"slices"
	"strings"
)

// A section is one webhook section: an endpoint as it is written.
type section struct {
	label *member // nil for the section without one
	span          // the word webhook, with the label
	body  *node
	// partial: a syntax error ended the section, so what is missing in body
	// may be written after it.
	partial bool
	second  bool // there is one without a label before
}

// sections finds and reads every webhook section, in file order. All members
// without a label (webhook { … }, webhook.url = …) speak of one section.
//
// All other text of the file is foreign, and in any language: NanoMQ's
// settings, SQL, JSON, HCL that is meant for others. Little is assumed of it:
//
//   - #, // and /* */ are comments, except the // of a URL, a /* inside a
//     word (conf.d/*.conf) and a /* without its */.
//   - A quoted string ends with its quote, but at the end of its line at the
//     latest; a backslash escapes the next byte. A pair of single quotes on
//     one line quotes too, unless the first is an apostrophe (it's). There
//     are no strings of several lines, no heredocs and no templates.
//   - Braces outside of comments and strings nest. One too many at the end of
//     a block is ignored, unless settings are lost by it, and so are the braces
//     around a whole JSON file.
//   - A section begins with the word webhook, quoted or not, in any letter
//     case, outside of all braces, where a member can begin: first on its
//     line, or after a comma or a closing brace. It is followed by what a
//     section has next: a separator, a dot, a brace, a bracket, or a label, one
//     without quotes only before a brace; on the next line by a brace, before
//     which a separator may stand.
//
// So x.webhook, webhook_x, a = webhook, and a webhook inside another block are
// foreign.
func (r *reader) sections() []*section {
	var (
		sections []*section
		plain    *section
		file     = &node{kind: objectNode} // of the member webhook, without label
		text     = foreign{reader: r}
	)
	if bytes.HasPrefix(r.src, []byte("\ufeff")) {
		r.off = len("\ufeff")
	}
	for text.skip() {
		s := &section{span: span{r.off, r.off}}
		path, value, p := r.section(s)
		if p != nil {
			s.partial = true
			r.fail(s, p)
		}
		r.extents = append(r.extents, span{s.start, r.off})
		text.before, text.closed, text.lost, text.headless = nil, r.off-1, span{}, span{}
		if p == nil && value.braces && len(path) == 1 {
			text.before = s
		}
		if s.label != nil {
			s.body = value
			sections = append(sections, s)
			continue
		}
		if plain == nil {
			plain = s
			sections = append(sections, s)
		}
		plain.partial = plain.partial || s.partial
		switch m := file.find("webhook"); {
		case value == nil:
		case len(path) == 1 && m != nil && m.value.braces && value.braces:
			plain.partial, s.partial = true, true // the one may have what the other misses
			s.body, s.second = value, true
			sections = append(sections, s)
			r.problems = append(r.problems, problem{
				span: s.span, summary: "Duplicate section",
				detail: "There is one webhook section without a label; another endpoint needs one: webhook \"name\" { … }.",
				note:   "The first begins on line %d.", noteAt: m.start,
			})
		default:
			r.add(file, path, value)
			if text.before != nil {
				text.before = plain
			}
		}
	}
	if plain != nil && len(file.members) > 0 {
		plain.body = file.members[0].value
	}
	switch {
	case text.depth > 0 && text.nested >= 0:
		r.problems = append(r.problems, problem{
			span: span{text.open, text.open + 1}, summary: "Missing closing brace",
			detail: "The brace that opens here is not closed with }, so a webhook section behind it is not found.",
			note:   "That begins on line %d.", noteAt: text.nested,
		})
	case len(sections) == 0 && len(r.problems) == 0:
		r.problems = append(r.problems, text.nothing())
	}
	return sections
}

// section reads one member webhook of the file; the reader is at the word.
func (r *reader) section(s *section) ([]*member, *node, *problem) {
	s.end = r.word(r.off)
	path, p := r.path()
	if p != nil {
		return nil, nil, p
	}
	s.end = r.off
	badLabel := func() *problem {
		return syntaxError(span{r.off, r.off + 1}, "Invalid label", "A label is 1 to 64 letters A-Z and a-z, digits, _ and -, or that in double quotes.")
	}
	if r.blank(false); len(path) == 1 && r.at(r.off) == '\'' {
		return nil, nil, badLabel()
	}
	if len(path) == 1 && r.labelAhead() {
		if s.label, p = r.name(); p != nil {
			return nil, nil, p
		}
		s.end = r.off
		if c := r.at(r.off); c > ' ' && !strings.ContainsRune("=:{[", rune(c)) && r.comment(r.off) == r.off {
			return nil, nil, badLabel()
		}
		if r.blank(false); r.labelAhead() {
			return nil, nil, syntaxError(span{r.off, r.off + 1}, "Unexpected text", "A webhook section has one label.")
		}
	}
	r.off = s.end
	value, p := r.assigned(path)
	if p != nil {
		return path, value, p
	}
	return path, value, r.separated(value)
}

func (r *reader) labelAhead() bool {
	c := r.at(r.off)
	return c == '"' || isWord(c)
}

// separated checks what follows a section: the end of the line, or something
// that cannot be meant for it.
func (r *reader) separated(value *node) *problem {
	if value.kind == objectNode || value.kind == listNode {
		return nil
	}
	after := r.off
	defer func() { r.off = after }()
	r.blank(false)
	if c := r.at(r.off); r.end() || c == '\n' || c == ',' || c == '}' {
		return nil
	}
	stray := r.unexpected()
	if _, p := r.path(); p == nil {
		r.blank(false)
		if c := r.at(r.off); c == '=' || c == ':' || c == '[' {
			return nil
		}
		r.blank(true)
		if r.at(r.off) == '{' {
			return nil
		}
	}
	return stray
}

// fail records the syntax error that ended a section and goes on behind the
// section: where its braces end, or where a line begins with another webhook,
// because a brace may be what is missing. All in between may be part of a
// broken value.
func (r *reader) fail(s *section, p *problem) {
	r.problems = append(r.problems, *p)
	from := p.start
	if r.lineValue >= 0 {
		from = min(from, r.lineValue)
	}
	r.off = s.start
	for depth := 0; !r.end(); {
		c := r.src[r.off]
		if c == '"' {
			r.off, _ = r.quoted(r.off)
			continue
		}
		if end := r.comment(r.off); end > r.off {
			r.off = end
			continue
		}
		switch c {
		case '{':
			depth++
		case '}':
			depth--
		}
		r.off++
		if r.off > p.start && (c == '}' && depth <= 0 || c == '\n' && (depth == 0 || r.sectionAhead())) {
			break
		}
	}
	r.tainted = append(r.tainted, span{from, r.lineEnd(max(r.off-1, p.start))})
}

// sectionAhead reports whether a line begins here that begins another section.
func (r *reader) sectionAhead() bool {
	return r.off > 0 && r.src[r.off-1] == '\n' && equalFold(string(r.src[r.off:r.word(r.off)]), "webhook")
}

// foreign is the text between sections.
type foreign struct {
	*reader
	begins bool // a member can begin here
	seen   bool // there was something before
	depth  int  // of braces
	open   int  // where the outermost open brace is
	nested int  // where the first webhook inside of it is, or -1
	around bool // there is an open brace around the whole file

	headless span     // a webhook alone on its line, behind which a section may begin without its brace
	before   *section // nil for none that is whole in its own braces
	closed   int      // where its closing brace is
	lost     span     // the first of its settings that is behind that
}

// skip moves the reader to the next section, if there is one.
func (f *foreign) skip() bool {
	for f.begins = true; !f.end(); {
		c := f.src[f.off]
		begins, seen := f.begins, f.seen
		switch {
		case c == '\n':
			f.begins = true
			f.lineValue = -1
			f.off++
			continue
		case c == ' ' || c == '\t' || c == '\r':
			f.off++
			continue
		case f.inComment():
			continue
		}
		f.begins, f.seen = c == ',' || c == '}', true
		end := f.off + 1
		switch {
		case c == '{' && !seen: // around a JSON file
			f.begins, f.around = true, true
		case c == '{':
			if f.depth == 0 {
				f.open, f.nested = f.off, -1
			}
			f.depth++
		case c == '}' && f.depth > 0:
			f.depth--
		case c == '}' && f.around:
			f.around = false
		case c == '}':
			f.surplus()
		case c == '"':
			end = f.lineString(f.off)
			if begins && f.introduces(bytes.Trim(f.src[f.off:end], `"`), end) {
				return true
			}
		case c == '\'' && (f.off == 0 || !isWord(f.src[f.off-1])):
			if i := bytes.IndexAny(f.src[end:], "'\n"); i >= 0 && f.src[end+i] == '\'' {
				end += i + 1
			}
		case isWord(c):
			end = f.word(f.off)
			if begins && f.introduces(f.src[f.off:end], end) {
				return true
			}
		}
		f.off = end
	}
	return false
}

// inComment skips a comment, if the reader is at one.
func (f *foreign) inComment() bool {
	if f.at(f.off+1) == '*' && f.off > 0 && isWord(f.src[f.off-1]) {
		return false
	}
	begin := f.off
	f.off = f.comment(begin)
	return f.off > begin
}

// lineString returns where the string at off ends: behind its quote, or at
// the end of the line.
func (f *foreign) lineString(off int) int {
	for off++; off < len(f.src) && f.src[off] != '\n'; off++ {
		if f.src[off] == '"' {
			return off + 1
		}
		if f.src[off] == '\\' && f.at(off+1) != '\n' {
			off++
		}
	}
	return min(off, len(f.src))
}

// surplus is for a brace that closes nothing. With settings in front of it, it was
// meant to close the section before those, which another one has closed too early.
func (f *foreign) surplus() {
	if f.lost.end == 0 {
		return
	}
	if f.headless.end > 0 {
		f.problems = append(f.problems, *syntaxError(f.headless, "Missing opening brace", "A webhook section is written webhook { … }; what follows here has no brace in front of it."))
		f.before, f.headless, f.lost = nil, span{}, span{}
		return
	}
	if f.before == nil {
		return
	}
	f.before.partial = true
	f.problems = append(f.problems, problem{
		span: f.lost, summary: "Setting outside of a section",
		detail: "This belongs to the webhook section before, which has a closing brace too many in it.",
		note:   "That section ends on line %d.", noteAt: f.closed,
	})
	f.before, f.lost = nil, span{} // one error is enough
}

// sectionNames are those of what a section may have.
var sectionNames = keysOf(endpointSettings)

// introduces reports whether the word, which ends at off, begins a section.
func (f *foreign) introduces(word []byte, off int) bool {
	name := strings.ToLower(string(word))
	isSection := name == "webhook"
	isLost := (f.before != nil || f.headless.end > 0) && f.depth == 0 && f.lost.end == 0 && slices.Contains(sectionNames, name)
	if !isSection && !isLost {
		return false
	}
	begin := f.off
	isMember := f.memberFollows(off)
	f.off = begin
	switch {
	case !isMember:
		if isSection && f.depth == 0 && f.lost.end == 0 && f.endsLine(off) { // what is lost stays so
			f.headless = span{begin, off}
		}
		return false
	case isLost:
		f.lost = span{begin, off}
	case f.depth > 0 && f.nested < 0:
		f.nested = begin
	}
	return isSection && f.depth == 0
}

// endsLine reports whether only blanks and a comment follow off on its line.
func (f *foreign) endsLine(off int) bool {
	at := f.next(off, false)
	return at == len(f.src) || f.src[at] == '\n'
}

// memberFollows reports whether the word webhook, or a setting, behind which off is,
// has behind it what a member has. It moves the reader.
func (f *foreign) memberFollows(off int) bool {
	f.off = off
	if f.at(off) == '.' {
		off++
		return isWord(f.at(off)) || f.at(off) == '"'
	}
	f.blank(false)
	switch c := f.at(f.off); {
	case c == '=':
		return f.at(f.off+1) != '='
	case c == '+':
		return f.at(f.off+1) == '='
	case c == ':' || c == '{' || c == '[' || c == '"':
		return true
	case isWord(c) || c == '\'':
		f.off = f.label(f.off)
		f.blank(false)
		switch c := f.at(f.off); c {
		case '"':
			return f.opensBrace() // a second label
		case ':':
			f.off++
			f.blank(false)
		case '=':
			f.off++
			f.blank(true)
		default:
			f.blank(true)
		}
		return f.at(f.off) == '{'
	}
	f.blank(true)
	if c := f.at(f.off); c == '=' || c == ':' { // on a line of its own only before a brace: no underlined heading
		f.off++
		f.blank(true)
	}
	return f.at(f.off) == '{'
}

// label returns where what stands for a label ends, whether it is one or not.
func (f *foreign) label(off int) int {
	for off < len(f.src) && f.src[off] > ' ' && !bytes.ContainsRune([]byte("{=:\"#"), rune(f.src[off])) {
		off++
	}
	return off
}

// opensBrace reports whether an opening brace is the last of the line, but for a
// comment.
func (f *foreign) opensBrace() bool {
	var last byte
	for off := f.off; off < f.lineEnd(f.off); {
		switch c := f.src[off]; {
		case c == '"':
			last, off = c, f.lineString(off)
			continue
		case f.comment(off) > off:
			return last == '{'
		case c != ' ' && c != '\t' && c != '\r':
			last = c
		}
		off++
	}
	return last == '{'
}

// nothing is the error for a file without a section.
func (f *foreign) nothing() problem {
	p := problem{
		summary: "No webhook section",
		detail:  "Nothing outside of other sections begins with the word webhook. Write webhook { url = \"http://…\", events = [ { event = \"on_message_publish\" } ] }. An include is not followed.",
	}
	if bytes.HasPrefix(f.src, []byte("\xff\xfe")) || bytes.HasPrefix(f.src, []byte("\xfe\xff")) || bytes.IndexByte(f.src, 0) >= 0 {
		p.summary, p.detail = "Invalid character", "The file has to be UTF-8; this one looks like UTF-16, UTF-32 or no text at all."
	}
	if bytes.HasPrefix(f.src, []byte("\ufeff")) {
		p.span = span{len("\ufeff"), len("\ufeff")}
	}
	return p
}
