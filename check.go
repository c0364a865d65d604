package webhook

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// checkName checks an endpoint's name, the label of a section. It becomes a
// metric label, a folder and a NATS subject.
func checkName(name string) error {
	other := func(r rune) bool { return r >= 0x80 || !isWord(byte(r)) }
	if name == "" || len(name) > longestName || strings.ContainsFunc(name, other) {
		return &invalid{"Invalid label", "must be 1 to 64 letters A-Z and a-z, digits, _ and -"}
	}
	return nil
}

// checkURL checks where webhooks go. No error has a part of the URL: it may
// hold credentials, in the query too.
func checkURL(text string) error {
	bad := func(what string) error { return &invalid{"Invalid url", what} }
	if text == "" {
		return &invalid{"Missing url", `is required: where to send webhooks to, such as "http://127.0.0.1:80/hook"`}
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return bad("must not contain blanks or control characters")
	}
	scheme, _, _ := strings.Cut(text, "://")
	if !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return bad("must begin with http:// or https://")
	}
	u, err := url.Parse(text)
	if err != nil {
		return bad("is not a URL: check the host, the port, the brackets around an IPv6 address and the percent escapes (a literal % is %25)")
	}
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	switch bracketed := strings.HasPrefix(u.Host, "["); {
	case host == "":
		return bad("must have a host after " + strings.ToLower(scheme) + "://")
	case bracketed && (err != nil || !addr.Is6()), !bracketed && strings.Contains(host, ":"):
		return bad("must have an IPv6 address in brackets if the host is one, as in http://[::1]:8080/")
	case bracketed && strings.ContainsFunc(addr.Zone(), func(r rune) bool { return r >= 0x80 }):
		return bad("must have an IPv6 zone without letters beyond ASCII")
	case !bracketed && strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 || !isWord(byte(r)) && r != '.' }):
		return bad("must have a host of letters A-Z and a-z, digits, dots, - and _; an international name is written in its xn-- form")
	}
	if u.Port() == "" && !strings.HasSuffix(u.Host, ":") {
		return nil
	}
	if port, err := strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
		return bad("must have a port of 1 to 65535, or no colon after the host")
	}
	return nil
}

// checkHeaderName checks the name of a header that the configuration sets.
func checkHeaderName(name string) error {
	other := func(r rune) bool {
		return r >= 0x80 || !isWord(byte(r)) && !strings.ContainsRune("!#$%&'*+.^`|~", r)
	}
	if name == "" || strings.ContainsFunc(name, other) { // RFC 9110, section 5.6.2
		return &invalid{"Invalid header name", "must be letters, digits and some of !#$%&'*+-.^_`|~"}
	}
	switch strings.ToLower(name) {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
		"te", "trailer", "trailers", "transfer-encoding", "upgrade": // RFC 9110, section 7.6.1
		return &invalid{"Reserved header", "must not be set: it is about the connection to the next hop, which the webhook manages itself"}
	case "content-length":
		return &invalid{"Reserved header", "must not be set: it is counted from each body"}
	case "webhook-id", "webhook-timestamp", "webhook-signature":
		return &invalid{"Reserved header", "must not be set: the webhook sends its own with every request"}
	}
	return nil
}

// checkHeaderValue refuses what could end a header line, and a Host that is none.
// A tab is fine (RFC 9110, section 5.5).
func checkHeaderValue(name, value string) error {
	if equalFold(name, "host") && (strings.ContainsAny(value, "/?#@") || checkURL("http://"+value) != nil) {
		return &invalid{"Invalid header value", "must be a host for this header, with its port if it has one: example.com:8080"}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return &invalid{"Invalid header value", "must not contain line breaks or other control characters"}
		}
	}
	return nil
}

// checkEvent returns the name of an event as it is usually spelled.
func checkEvent(name EventName) (EventName, error) {
	k := kindOf(name)
	if k == 0 {
		return "", &invalid{"Unknown event", "must be " + oneOf(eventNames) + suggest(string(name), eventNames)}
	}
	return kinds[k].name, nil
}

// checkFields returns the names of fields as they are usually spelled.
func checkFields(given []Field) ([]Field, error) {
	want := choice(fieldNames)
	var checked []Field
	for _, f := range given {
		f, err := want.check(f)
		if err != nil {
			return given, err
		}
		if slices.Contains(checked, f) {
			return given, &invalid{"Duplicate field", fmt.Sprintf("must not have %q twice", string(f))}
		}
		checked = append(checked, f)
	}
	return checked, nil
}

// checkTopic checks a topic filter of a rule, if its event has topics.
func checkTopic(event EventName, filter string) error {
	if !kinds[kindOf(event)].topic {
		return nil
	}
	return checkFilter(filter)
}

// checkExcept checks a topic filter of what a rule leaves out.
func checkExcept(event EventName, filter string) error {
	if filter == "" {
		return &invalid{"Invalid topic filter", "must have no empty filter"}
	}
	return checkTopic(event, filter)
}
