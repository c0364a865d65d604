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
