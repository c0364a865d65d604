package webhook

import (
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A publisher's trace context (W3C Trace Context) travels in two user
// properties of its message and goes on in two headers of the message's
// requests. What does not match the grammar is left out, so nothing that a
// client chooses can break a header.

const (
	traceParent = "traceparent"
	traceState  = "tracestate"

	// traceParentLen is the length of a traceparent of version 00.
	traceParentLen = len("00-") + 32 + len("-") + 16 + len("-01")

	// maxTraceStates is the most members of a tracestate (3.3.1.1).
	maxTraceStates = 32
)

// traceHeader returns the header lines that carry on the trace context of a
// message, each ending in CRLF; "" if it has none.
func traceHeader(user []packets.UserProperty) string {
	var parent string
	var states []string
	for i := range user {
		switch user[i].Key {
		case traceParent:
			if parent != "" {
				return "" // nobody knows which
			}
			if parent = user[i].Val; parent == "" {
				return ""
			}
		case traceState:
			states = append(states, user[i].Val)
		}
	}
	parent, ok := parseTraceParent(parent)
	if !ok {
		return ""
	}
	header := traceParent + ": " + parent + "\r\n"
	// Several lists are one list (3.3.1).
	if state, ok := parseTraceState(strings.Join(states, ",")); ok {
		header += traceState + ": " + state + "\r\n"
	}
	return header
}

// parseTraceParent returns a valid traceparent as version 00 has it. Of a
// later version, that is what version 00 knows of it (4.3).
func parseTraceParent(s string) (string, bool) {
	if len(s) < traceParentLen {
		return "", false
	}
	version, trace, parent, flags := s[:2], s[3:35], s[36:52], s[53:traceParentLen]
	switch {
	case s[2] != '-' || s[35] != '-' || s[52] != '-',
		!isLowerHex(version) || !isLowerHex(trace) || !isLowerHex(parent) || !isLowerHex(flags),
		version == "ff",
		strings.Trim(trace, "0") == "" || strings.Trim(parent, "0") == "":
		return "", false
	case version == "00":
		return s, len(s) == traceParentLen
	case len(s) > traceParentLen && s[traceParentLen] != '-':
		return "", false
	}
	sampled := "00"
	if strings.IndexByte("13579bdf", flags[1]) >= 0 {
		sampled = "01"
	}
	return "00" + s[2:53] + sampled, true
}

func isLowerHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// parseTraceState returns a valid tracestate without its empty members, if
// there is anything in it.
func parseTraceState(s string) (string, bool) {
	var members []string
	keys := make(map[string]bool)
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		key, value, ok := strings.Cut(member, "=")
		if !ok || !isTraceKey(key) || !isTraceValue(value) || keys[key] || len(members) == maxTraceStates {
			return "", false
		}
		keys[key] = true
		members = append(members, member)
	}
	return strings.Join(members, ","), len(members) > 0
}

// isTraceKey follows 3.3.1.3.1: a name, or a tenant and its system.
func isTraceKey(key string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	const digits = "0123456789"
	name := func(s, first string, most int) bool {
		return s != "" && len(s) <= most && strings.IndexByte(first, s[0]) >= 0 &&
			strings.Trim(s, letters+digits+"_-*/") == ""
	}
	if tenant, system, ok := strings.Cut(key, "@"); ok {
		return name(tenant, letters+digits, 241) && name(system, letters, 14)
	}
	return name(key, letters, 256)
}

// isTraceValue follows 3.3.1.3.2, for a value without blanks at its end.
func isTraceValue(value string) bool {
	if value == "" || len(value) > 256 {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}
