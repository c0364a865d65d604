package webhook

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// suggest returns what to append to an error if given may be a mistake for one
// of names, or "".
func suggest[S ~string](given string, names []S) string {
	name := nearest(given, names)
	if name == "" {
		return ""
	}
	return " (did you mean " + name + "?)"
}

// meantKeys returns the keys that name may be a mistake for: one, or several with
// the same last name. In a block that is one of the block, or one that belongs
// outside of it.
func meantKeys(name, block string, keys []string) []string {
	if block == "" {
		var same []string
		for _, key := range keys {
			if strings.HasSuffix(key, "."+strings.ToLower(name)) {
				same = append(same, key)
			}
		}
		if len(same) > 1 {
			return same
		}
		if meant := nearest(name, keys); meant != "" {
			return []string{meant}
		}
		return nil
	}
	var near []string
	for _, key := range keys {
		if rest, ok := strings.CutPrefix(key, block); ok {
			near = append(near, rest)
		}
	}
	if meant := nearest(name, near); meant != "" {
		return []string{block + meant}
	}
	for _, key := range keys {
		if equalFold(key, name) && key != "enable" { // which would be a switch for the block
			return []string{key}
		}
	}
	return nil
}

// nearest returns the one of names that given may be a mistake for, or "".
func nearest[S ~string](given string, names []S) string {
	const longest = 64
	if given = strings.ToLower(given); len(given) > longest {
		return ""
	}
	best, least := "", max(2, len(given)/3)+1
	if len(given) <= 4 {
		least = 2 // more would be half of it
	}
	for _, name := range names {
		if d := mistakes(given, string(name)); d < least {
			best, least = string(name), d
		}
	}
	return best
}

// mistakes counts the letters that are wrong if given means name. A part of a
// name, the name without its block, and the right letters in the wrong order
// are one mistake.
func mistakes(given, name string) int {
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case given == last, len(given) > 2 && strings.HasPrefix(last, given), strings.HasSuffix(last, "_"+given), letters(given) == letters(name):
		return 1
	}
	return levenshtein.Distance(given, name, nil)
}

func letters(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}
