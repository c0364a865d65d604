package webhook

import (
	"bytes"
	"cmp"
	"slices"
	"unicode"
	"unicode/utf8"
)

// redact returns a configuration file that is fit to print, with the same
// lines. Only what is known to be harmless stays: names, punctuation, numbers,
// and the text of settings that are not secret. It hides the other values,
// comments, what follows a syntax error, and everything outside of sections.
func redact(src []byte) []byte {
	r := newReader(src)
	sections := r.sections()

	d := &decoder{src: src}
	shown := make(map[span]bool)
	var hidden []span
	outside := 0
	if bytes.HasPrefix(src, []byte("\ufeff")) {
		outside = len("\ufeff")
	}
	for _, at := range r.extents {
		hidden = append(hidden, span{outside, at.start})
		outside = at.end
	}
	hidden = append(hidden, span{outside, len(src)})
	for _, s := range sections {
		if s.body != nil && s.body.kind == objectNode {
			show(d.settingsOf(s.body), s.body, "", shown)
		}
	}
	for _, v := range append(r.values, r.doubtful...) {
		if !shown[v] {
			hidden = append(hidden, v)
		}
	}
	for _, c := range r.comments {
		// One that goes over the beginning of another one has lost its end: what
		// follows it is the value of a setting inside of it.
		if rest, block := bytes.CutPrefix(src[c.start:c.end], []byte("/*")); block && bytes.Contains(rest, []byte("/*")) {
			hidden = append(hidden, span{c.end, r.lineEnd(c.end)})
			for _, v := range r.values {
				if v.start >= c.end {
					hidden = append(hidden, v)
					break
				}
			}
		}
	}
	hidden = append(hidden, r.comments...)
	hidden = append(hidden, r.tainted...)
	slices.SortFunc(hidden, func(a, b span) int { return cmp.Compare(a.start, b.start) })

	var out []byte
	off := 0
	for _, h := range hidden {
		if h.start > off {
			out = append(out, src[off:h.start]...)
			off = h.start
		}
		if h.end > off {
			out = appendHidden(out, src[off:h.end])
			off = h.end
		}
	}
	return shorten(printable(append(out, src[off:]...)))
}

// printable replaces what would do something to a terminal, or is not UTF-8.
func printable(text []byte) []byte {
	text = bytes.TrimPrefix(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\ufeff"))
	return bytes.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			return utf8.RuneError
		}
		return r // which that is already for a byte that is not UTF-8
	}, text)
}

// appendHidden appends what stands for a hidden text: an ellipsis on each line
// that has more than blanks.
func appendHidden(out, text []byte) []byte {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if i > 0 {
			out = append(out, '\n')
		}
		trimmed := bytes.TrimSpace(line)
		if len(trimmed) == 0 {
			out = append(out, line...)
			continue
		}
		from := bytes.Index(line, trimmed)
		out = append(out, line[:from]...)
		if trimmed[0] == '"' {
			out = append(out, `"…"`...)
		} else {
			out = append(out, "…"...)
		}
		out = append(out, line[from+len(trimmed):]...)
	}
	return out
}

// shorten cuts lines that are too long to read.
func shorten(text []byte) []byte {
	const longest = 240
	var out []byte
	for line := range bytes.Lines(text) {
		if len(line) > longest {
			end := longest
			for !utf8.RuneStart(line[end]) {
				end--
			}
			newline := line[len(bytes.TrimRight(line, "\n")):]
			line = append(append(line[:end:end], "…"...), newline...)
		}
		out = append(out, line...)
	}
	return out
}

// showValue is show for a value that is not secret.
func showValue(v *node, shown map[span]bool) {
	switch v.kind {
	case exprNode, wordNode:
		shown[v.span] = true
	case listNode:
		for _, item := range v.items {
			showValue(item, shown)
		}
	}
}

// show collects the names and values of an object that may be printed.
func show[T any](settings []setting[T], o *node, block string, shown map[span]bool) {
	for _, m := range o.members {
		key := settingKey(block, m.name)
		s := findSetting(settings, key)
		shown[m.span] = s != nil || isBlock(settings, key)
		switch {
		case s == nil && m.value.kind == objectNode:
			show(settings, m.value, key+".", shown)
		case s == nil || s.secret:
		case key == "events":
			for _, rule := range m.value.items {
				show(ruleSettings, rule, "", shown)
			}
			for _, rule := range m.value.members { // events.1 { … }
				show(ruleSettings, rule.value, "", shown)
			}
		default:
			showValue(m.value, shown)
		}
	}
}
