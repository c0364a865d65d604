package webhook

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

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
	before   *section // nil for none that is whole in its own braces, or a block of one (webhook.tls { … })
	names    []string // of the settings that those braces may have in them
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

// passed begins the text behind a section, or behind a block of it, where path
// leads. Whole: it has braces of its own, and no syntax error has ended it.
func (f *foreign) passed(s *section, path []*member, whole bool) {
	f.before, f.closed, f.lost, f.headless = nil, f.off-1, span{}, span{}
	if whole {
		f.before, f.names = s, namesIn(path[1:])
	}
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

// sectionKeys are what a section may have.
var sectionKeys = keysOf(endpointSettings)

// namesIn returns those of what a block of a section may have; an empty path is the
// section.
func namesIn(path []*member) []string {
	block := ""
	for _, m := range path {
		block = settingKey(block, m.name) + "."
	}
	var names []string
	for _, key := range sectionKeys {
		if name, ok := strings.CutPrefix(key, block); ok {
			names = append(names, name)
		}
	}
	return names
}

// introduces reports whether the word, which ends at off, begins a section.
func (f *foreign) introduces(word []byte, off int) bool {
	name := strings.ToLower(string(word))
	isSection := name == "webhook"
	names := f.names
	if f.headless.end > 0 {
		names = sectionKeys
	}
	isLost := (f.before != nil || f.headless.end > 0) && f.depth == 0 && f.lost.end == 0 && slices.Contains(names, name)
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

// otherKey is a key of a web hook as EMQX 4 has it, and NanoMQ had it, at the
// beginning of a line.
var otherKey = regexp.MustCompile(`(?mi)^(?:\x{feff})?[ \t]*(web\.hook\.[\w.-]+)`)

// nothing is the error for a file without a section.
func (f *foreign) nothing() problem {
	p := problem{
		summary: "No webhook section",
		detail:  "Nothing outside of other sections begins with the word webhook. Write webhook { url = \"http://…\", events = [ { event = \"on_message_publish\" } ] }. An include is not followed.",
	}
	if key := otherKey.FindSubmatchIndex(f.src); key != nil {
		p.span = span{key[2], key[3]}
		p.detail = `The keys that begin with web.hook. are those of EMQX 4 and of old NanoMQ, and are not read. Write web.hook.url as url in webhook { … }, web.hook.headers.NAME as headers.NAME, and web.hook.rule.message.publish.1 = {"action": "on_message_publish", "topic": "a/#"} as { event = "on_message_publish", topic = "a/#" } in events = [ … ]. The README has the others under "Moving over".`
		return p
	}
	if bytes.HasPrefix(f.src, []byte("\xff\xfe")) || bytes.HasPrefix(f.src, []byte("\xfe\xff")) || bytes.IndexByte(f.src, 0) >= 0 {
		p.summary, p.detail = "Invalid character", "The file has to be UTF-8; this one looks like UTF-16, UTF-32 or no text at all."
	}
	if bytes.HasPrefix(f.src, []byte("\ufeff")) {
		p.span = span{len("\ufeff"), len("\ufeff")}
	}
	return p
}
