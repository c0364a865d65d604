package webhook

import (
	"bytes"
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
		if s.label != nil {
			s.body = value
			sections = append(sections, s)
		} else {
			if plain == nil {
				plain = s
				sections = append(sections, s)
			}
			if s = r.join(plain, s, file, path, value); s.second {
				sections = append(sections, s)
			}
		}
		text.passed(s, path, p == nil && value.braces)
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

// join puts a member webhook without a label, which s has been read of, into file,
// where all of them make plain. It returns the section that the member is of: plain,
// or s if it is a second one in braces, which is an error.
func (r *reader) join(plain, s *section, file *node, path []*member, value *node) *section {
	plain.partial = plain.partial || s.partial
	if value == nil {
		return plain
	}
	if m := file.find("webhook"); len(path) == 1 && m != nil && m.value.braces && value.braces {
		plain.partial, s.partial = true, true // the one may have what the other misses
		s.body, s.second = value, true
		r.problems = append(r.problems, problem{
			span: s.span, summary: "Duplicate section",
			detail: "There is one webhook section without a label; another endpoint needs one: webhook \"name\" { … }.",
			note:   "The first begins on line %d.", noteAt: m.start,
		})
		return s
	}
	r.add(file, path, value)
	return plain
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
