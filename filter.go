package webhook

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxFilter is the longest topic filter in bytes (MQTT 5, 4.7.3).
const maxFilter = 65535

// checkFilter holds a rule's topic filter against MQTT 5, 4.7. Its errors do
// not repeat the filter, which may come from the environment or a file.
func checkFilter(filter string) error {
	bad := func(text string) error { return &invalid{"Invalid topic filter", text} }
	switch _, _, shared := cutShare(filter); {
	case filter == "":
		return bad("must not be empty; leave it out to take every topic")
	case len(filter) > maxFilter:
		return bad(fmt.Sprintf("must not be longer than MQTT's %d bytes", maxFilter))
	case !utf8.ValidString(filter):
		return bad("must be valid UTF-8")
	case strings.IndexByte(filter, 0) >= 0:
		return bad("must not contain a NUL character")
	case shared:
		return bad("must not begin with $share/<group>/: the filters of shared subscriptions are matched without that")
	}
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		switch i := strings.IndexAny(level, "+#"); {
		case i < 0:
		case len(level) > 1:
			return bad("must have " + level[i:i+1] + " as a level of its own only, as in a/+/b and a/#")
		case level == "#" && more:
			return bad("must have # as the last level only")
		}
	}
	return nil
}

// unshared returns a subscription's filter without $share/group/. A malformed
// share comes back as it is.
func unshared(filter string) string {
	group, rest, ok := cutShare(filter)
	if !ok || group == "" || rest == "" || strings.ContainsAny(group, "+#") {
		return filter
	}
	return rest
}

// cutShare cuts $share/group/rest apart, $share in any letter case as in the
// broker.
func cutShare(filter string) (group, rest string, ok bool) {
	const prefix = "$share/"
	if len(filter) < len(prefix) || !equalFold(filter[:len(prefix)], prefix) {
		return "", "", false
	}
	group, rest, _ = strings.Cut(filter[len(prefix):], "/")
	return group, rest, true
}
