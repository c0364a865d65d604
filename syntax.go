package webhook

import (
	"bytes"
	"strconv"
	"strings"
)

// A span is a range of bytes of the source.
type span struct{ start, end int }

// nodeKind says what a node is.
type nodeKind uint8

const (
	exprNode   nodeKind = iota // a string, a number, a function call: an HCL expression
	wordNode                   // a bare word, which only some keys take
	objectNode                 // { … }, or what dotted names make
	listNode                   // [ … ]
)

// A node is one value of a section as it is written; what it means is the
// decoder's business.
type node struct {
	kind nodeKind
	span
	braces  bool // of an object: it has its own braces, not only dotted names
	escaped bool // of a string: quotes inside its ${…} and %{…} have a backslash, as in JSON
	members []*member
	index   map[string]*member // members by name in lower case
	items   []*node
}

// A member is a named value of an object. Its span is that of the name.
type member struct {
	name string
	span
	value *node
	// doubtful: only a blank stands between the value before and this name,
	// which may be a piece of that value with a quote in the middle.
	doubtful bool
	// again are the values that it is given once more, which is an error.
	again []*node
}

// quoted is the name for a diagnostic.
func (m *member) quoted() string {
	const longest = 40
	name := m.name
	if m.doubtful {
		return "This"
	}
	if runes := []rune(name); len(runes) > longest {
		name = string(runes[:longest]) + "…"
	}
	return strconv.Quote(name)
}

func (n *node) find(name string) *member { return n.index[strings.ToLower(name)] }

func (n *node) append(m *member) {
	if n.index == nil {
		n.index = make(map[string]*member)
	}
	n.index[strings.ToLower(m.name)] = m
	n.members = append(n.members, m)
}

// at returns the value of a setting or a block, or nil.
func (n *node) at(key string) *node {
	for name := range strings.SplitSeq(key, ".") {
		m := n.find(name)
		if m == nil && name == "tls" {
			m = n.find("ssl")
		}
		if m == nil {
			return nil
		}
		n = m.value
	}
	return n
}

// place returns where the value of a setting, or its nearest block, is written in
// an object, or otherwise if it is not.
func (n *node) place(key string, otherwise span) span {
	for {
		if value := n.at(key); value != nil {
			return value.span
		}
		dot := strings.LastIndexByte(key, '.')
		if dot < 0 {
			return otherwise
		}
		key = key[:dot]
	}
}

// Bounds that no configuration meets, so that no input exhausts the stack.
const (
	maxDepth = 32 // of braces, brackets and interpolations
	maxPath  = 16 // names between dots
)

// A reader reads webhook sections, and finds them (section.go). Inside a
// section the syntax is what HCL 2, JSON and NanoMQ's dialect have in common
// or add to each other: members are NAME = VALUE, NAME : VALUE or NAME {…};
// a NAME is words or quoted strings with dots between; members and list items
// are separated by newlines, one comma, or only a blank. A value ends where
// its text ends, so a newline is never needed.
//
// The first syntax error ends the reading of its section: what follows an
// unclosed string, say, cannot be told from its content.
type reader struct {
	src   []byte
	off   int
	depth int // of braces and brackets
	lists int // brackets among them

	problems []problem
	// tainted is text that may be part of a broken value, a secret perhaps,
	// although it looks like something else.
	tainted []span
	// values are all values but objects and lists, comments all comments,
	// doubtful the doubtful names, extents where the sections are: redaction
	// needs them.
	values, comments, doubtful, extents []span

	lineValue  int  // start of the first value on the current line, or -1
	noComments bool // no */ follows, so /* opens nothing
	escaped    bool // the last string has a quote with a backslash inside ${…} or %{…}
}

func newReader(src []byte) *reader { return &reader{src: src, lineValue: -1} }

func syntaxError(at span, summary, detail string) *problem {
	return &problem{span: at, summary: summary, detail: detail}
}

// object reads { … }; the reader is at the brace. With a problem it returns
// what came before the problem, as list, assigned and value do, or nil.
func (r *reader) object() (*node, *problem) {
	o := &node{kind: objectNode, span: span{r.off, r.off + 1}, braces: true}
	before := -1 // where the value before ends
	p := r.sequence(o, '}', func() *problem {
		begin := r.off
		path, p := r.path()
		if p != nil {
			return p
		}
		if before >= 0 && len(bytes.Trim(r.src[before:begin], " \t")) == 0 {
			path[0].doubtful = true
			r.doubtful = append(r.doubtful, path[0].span)
		}
		v, p := r.assigned(path)
		before = r.off
		if v != nil {
			r.add(o, path, v)
		}
		return p
	})
	return o, p
}

// list reads [ … ]; the reader is at the bracket.
func (r *reader) list() (*node, *problem) {
	l := &node{kind: listNode, span: span{r.off, r.off + 1}}
	r.lists++
	defer func() { r.lists-- }()
	p := r.sequence(l, ']', func() *problem {
		v, p := r.value()
		if v != nil {
			l.items = append(l.items, v)
		}
		return p
	})
	return l, p
}

// sequence reads what stands between the opening byte, where the reader is,
// and the closing one.
func (r *reader) sequence(n *node, closing byte, element func() *problem) *problem {
	r.depth++
	defer func() { r.depth-- }()
	if r.depth > maxDepth {
		return syntaxError(n.span, "Nested too deep", "Nothing in a webhook section is nested this deep.")
	}
	r.off++
	for comma := true; ; {
		r.blank(true)
		switch c := r.at(r.off); {
		case c == closing:
			r.off++
			n.end = r.off
			return nil
		case c == ',' && comma:
			return syntaxError(span{r.off, r.off + 1}, "Extra comma", "One comma separates two members; remove this one.")
		case c == ',':
			r.off++
			comma = true
		case r.end(), c == '}', c == ']', r.sectionAhead():
			if closing == ']' {
				return syntaxError(n.span, "Missing closing bracket", "The list that begins here is not closed with ].")
			}
			if c == ']' && r.lists == 0 {
				return syntaxError(span{r.off, r.off + 1}, "Unexpected bracket", "No list is open that this bracket could close.")
			}
			return syntaxError(n.span, "Missing closing brace", "What begins here is not closed with }.")
		default:
			comma = false
			if p := element(); p != nil {
				return p
			}
		}
	}
}

// path reads a name, or several with dots between.
func (r *reader) path() ([]*member, *problem) {
	var path []*member
	for {
		m, p := r.name()
		if p != nil {
			return nil, p
		}
		if path = append(path, m); len(path) > maxPath {
			return nil, syntaxError(m.span, "Nested too deep", "Nothing in a webhook section is nested this deep.")
		}
		if r.at(r.off) != '.' {
			return path, nil
		}
		r.off++
	}
}

func (r *reader) name() (*member, *problem) {
	m := &member{span: span{r.off, r.off}}
	if r.at(r.off) == '"' {
		end, closed := r.quoted(r.off)
		m.end = end
		if !closed {
			return nil, r.unclosedString(m.span)
		}
		name, ok := literal(r.src[m.start+1 : m.end-1])
		if !ok {
			return nil, syntaxError(m.span, "Invalid name", "A quoted name is a plain string, without ${ and %{.")
		}
		m.name = name
	} else {
		m.end = r.word(r.off)
		m.name = string(r.src[m.start:m.end])
		if m.start == m.end {
			return nil, r.unexpected()
		}
	}
	r.off = m.end
	return m, nil
}

// assigned reads what follows the name of a member: a separator and a value,
// or the braces of a block, or the bracket of a list.
func (r *reader) assigned(path []*member) (*node, *problem) {
	name := span{path[0].start, r.off}
	missing := syntaxError(name, "Missing value", "A setting is written NAME = VALUE, with text in quotes, or NAME { … }.")
	r.blank(true)
	switch c := r.at(r.off); {
	case c == '=' && r.at(r.off+1) != '=', c == ':':
		r.off++
		r.blank(false)
		if r.at(r.off) == '\n' {
			if r.blank(true); !r.valueAhead() {
				return nil, missing
			}
		}
		if c := r.at(r.off); r.end() || c == ',' || c == '}' || c == ']' {
			return nil, missing
		}
	case c == '{' || c == '[':
	case c == '+' && r.at(r.off+1) == '=':
		return nil, syntaxError(span{r.off, r.off + 2}, "Unexpected text", "Nothing is appended with +=; write all members in one list.")
	case c == '"' && equalFold(path[0].name, "include"):
		return nil, syntaxError(name, "Include not supported", "include is not followed; write the settings here.")
	default:
		return nil, missing
	}
	return r.value()
}

// valueAhead reports whether what begins a line is a value, and not the next
// member behind one whose value is missing.
func (r *reader) valueAhead() bool {
	c := r.at(r.off)
	if c == '{' || c == '[' || c == '"' {
		return true
	}
	end := r.bare(r.off)
	text := r.src[r.off:end]
	return (isNumber(text) || bareWords[strings.ToLower(string(text))]) &&
		!strings.ContainsRune("=:{[", rune(r.at(r.next(end, false)))) // or else it is the name of a member
}

// next returns where something follows off, behind blanks and comments, and
// newlines if asked to.
func (r *reader) next(off int, newlines bool) int {
	begin := *r
	defer func() { *r = begin }()
	r.off = off
	r.blank(newlines)
	return r.off
}

// value reads one value.
func (r *reader) value() (*node, *problem) {
	if r.lineValue < 0 {
		r.lineValue = r.off
	}
	n := &node{kind: exprNode, span: span{r.off, r.off}}
	switch r.src[r.off] {
	case '{':
		return r.object()
	case '[':
		return r.list()
	case '"':
		end, closed := r.quoted(r.off)
		n.end, n.escaped = end, r.escaped
		if !closed {
			return nil, r.unclosedString(n.span)
		}
	default:
		n.end = r.bare(r.off)
		text := r.src[n.start:n.end]
		switch {
		case bytes.HasPrefix(text, []byte("<<")):
			return nil, syntaxError(n.span, "Heredoc not supported", "Write a string in quotes, or read it with file(\"…\").")
		case r.at(n.end) == '(':
			end, ok := r.balanced(n.end+1, ')', 0)
			if !ok {
				return nil, syntaxError(span{n.start, n.end + 1}, "Missing closing parenthesis", "What is opened here is not closed with ).")
			}
			n.end = end
		case n.start == n.end:
			return nil, r.unexpected()
		case !isNumber(text):
			if at := r.next(n.end, true); r.at(at) == '(' { // env ("X") is a call in HCL, and no word
				r.off = at
				return nil, r.unexpected()
			}
			n.kind = wordNode
			if !bareWords[strings.ToLower(string(text))] {
				r.taint(n.start)
			}
		}
	}
	r.values = append(r.values, n.span)
	r.off = n.end
	if !r.end() && !strings.ContainsRune(" \t\r\n,}]", rune(r.src[r.off])) && r.comment(r.off) == r.off {
		return nil, r.unexpected()
	}
	return n, nil
}

// taint marks the rest of the line of off.
func (r *reader) taint(off int) {
	if k := len(r.tainted); k == 0 || r.tainted[k-1].end < off {
		r.tainted = append(r.tainted, span{off, r.lineEnd(off)})
	}
}

// add puts a value where the path leads. Dotted names and one pair of braces
// may speak of the same object.
func (r *reader) add(o *node, path []*member, v *node) {
	for _, name := range path[:len(path)-1] {
		m := o.find(name.name)
		if m == nil {
			m = name
			m.value = &node{kind: objectNode, span: name.span}
			o.append(m)
		} else if m.value.kind != objectNode {
			r.duplicate(name, m, v)
			return
		}
		o = m.value
	}
	last := path[len(path)-1]
	m := o.find(last.name)
	switch {
	case m == nil:
		last.value = v
		o.append(last)
	case m.value.kind == objectNode && v.kind == objectNode && !(m.value.braces && v.braces):
		m.value.braces = m.value.braces || v.braces
		for _, sub := range v.members {
			r.add(m.value, []*member{sub}, sub.value)
		}
	default:
		r.duplicate(last, m, v)
	}
}

func (r *reader) duplicate(second, first *member, value *node) {
	first.again = append(first.again, value)
	r.problems = append(r.problems, problem{
		span: second.span, summary: "Duplicate key", names: true,
		detail: second.quoted() + " is set twice; write it once.",
		note:   "It is first set on line %d.", noteAt: first.start,
	})
}

// unexpected is the error for text that nothing can begin with.
func (r *reader) unexpected() *problem {
	at := span{r.off, min(r.off+1, len(r.src))}
	switch {
	case bytes.HasPrefix(r.src[r.off:], []byte("/*")):
		return syntaxError(at, "Unclosed comment", "The comment that begins here is not closed with */.")
	case r.at(r.off) == '\'' || r.at(r.off) == '`':
		return syntaxError(at, "Unexpected text", "Strings are written in double quotes.")
	case r.off > 0 && r.src[r.off-1] == ' ' && strings.IndexByte("+*/%<>&|?", r.at(r.off)) >= 0:
		return syntaxError(at, "Unexpected text", `What has operators in it is written in parentheses, as in (4 * 8); texts are put together in one, as in "${env("HOST")}/hook".`)
	}
	return syntaxError(at, "Unexpected text", "A newline, a comma or a blank separates one setting from the next, and text is written in double quotes, with \\\" for a quote inside.")
}

func (r *reader) unclosedString(at span) *problem {
	if r.escaped {
		return syntaxError(at, "Unclosed string", "Inside ${ } quotes are written without a backslash, or all of them with one, as in JSON.")
	}
	return syntaxError(at, "Unclosed string", "A string ends with a quote on its own line. Inside it \\\" is a quote, \\\\ a backslash, $${ a literal ${ and %%{ a literal %{.")
}
