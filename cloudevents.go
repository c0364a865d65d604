package webhook

import (
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The content types of CloudEvents 1.0 over HTTP.
const (
	cloudEventType       = "application/cloudevents+json; charset=UTF-8"
	cloudEventsBatchType = "application/cloudevents-batch+json; charset=UTF-8"
)

// isCloudEvents reports whether bodies are CloudEvents.
func (f Format) isCloudEvents() bool {
	return f == FormatCloudEvents || f == FormatCloudEventsBinary
}

// cloudEvents makes events of an endpoint CloudEvents 1.0.
type cloudEvents struct {
	source string
	data   func(dst []byte, ev *event) []byte // NanoMQ's body

	// Of the binary mode:
	dataType string // content-type of messages without one, "" for a guess
	trace    bool   // a message's trace context goes on
}

// eventTypes are the types of the kinds: the action's parts with dots,
// such as mqtt.message.publish.
var eventTypes = func() (types [kindEnd]string) {
	for k := kindConnect; k < kindEnd; k++ {
		types[k] = "mqtt." + strings.Replace(kinds[k].action, "_", ".", 1)
	}
	return types
}()

// attributes are the attributes of an event that not every event has; "" is
// none, because an attribute cannot be empty.
type attributes struct {
	subject  string
	clientID string
	username string
	qos      bool
	retain   bool
}

func attributesOf(ev *event) attributes {
	a := attributes{subject: ev.client, clientID: ev.client, username: ev.username}
	if ev.kind == kindPublish {
		a.clientID, a.username = ev.from, ev.fromUser
	}
	if kinds[ev.kind].topic {
		a.subject = ev.topic
	}
	a.retain = ev.kind.isMessage()
	a.qos = a.retain || ev.kind == kindSubscribe || ev.kind == kindSubscribed
	for _, s := range []*string{&a.subject, &a.clientID, &a.username} {
		if !isAttribute(*s) {
			*s = ""
		}
	}
	return a
}

// isAttribute reports whether s can be the value of an attribute. CloudEvents 1.0,
// "Type System", excludes control characters, noncharacters, and what is not UTF-8, and
// its Go SDK takes a value of blanks alone for an empty one. A topic or name that
// cannot be an attribute is still in NanoMQ's body.
func isAttribute(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) != "" && strings.IndexFunc(s, func(r rune) bool {
		return r < ' ' || r >= 0x7f && r <= 0x9f || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
	}) < 0
}

// appendTime appends an event's time (RFC 3339).
func appendTime(dst []byte, unixMilli int64) []byte {
	return time.UnixMilli(unixMilli).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}

// appendStructured appends an event in structured mode: a JSON object of the
// attributes with NanoMQ's body as data.
func (c *cloudEvents) appendStructured(dst []byte, ev *event) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = ev.id.append(dst)
	dst = appendText(dst, `","source":"`, c.source)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, eventTypes[ev.kind]...)
	dst = append(dst, '"')
	a := attributesOf(ev)
	dst = appendIfAny(dst, `,"subject":"`, a.subject)
	dst = append(dst, `,"time":"`...)
	dst = appendTime(dst, ev.time)
	dst = append(dst, `","datacontenttype":"application/json"`...)
	dst = appendIfAny(dst, `,"clientid":"`, a.clientID)
	dst = appendIfAny(dst, `,"username":"`, a.username)
	if a.qos {
		dst = strconv.AppendUint(append(dst, `,"qos":`...), uint64(ev.qos), 10)
	}
	if a.retain {
		dst = strconv.AppendBool(append(dst, `,"retain":`...), ev.retain)
	}
	dst = append(dst, `,"data":`...)
	dst = c.data(dst, ev)
	return append(dst, '}')
}

// renderBinary makes the request of an event in binary mode: the attributes
// are headers, and the payload of a message is the body as it is.
func (c *cloudEvents) renderBinary(req *request, ev *event) {
	h := append(req.header[:0], "ce-specversion: 1.0\r\nce-id: "...)
	h = ev.id.append(h)
	h = appendAttribute(append(h, "\r\n"...), "ce-source", c.source)
	h = appendAttribute(h, "ce-type", eventTypes[ev.kind])
	a := attributesOf(ev)
	h = appendAttribute(h, "ce-subject", a.subject)
	h = append(appendTime(append(h, "ce-time: "...), ev.time), "\r\n"...)
	h = appendAttribute(h, "ce-clientid", a.clientID)
	h = appendAttribute(h, "ce-username", a.username)
	if a.qos {
		h = append(strconv.AppendUint(append(h, "ce-qos: "...), uint64(ev.qos), 10), "\r\n"...)
	}
	if a.retain {
		h = append(strconv.AppendBool(append(h, "ce-retain: "...), ev.retain), "\r\n"...)
	}
	if c.trace && ev.extra != nil {
		h = append(h, ev.extra.trace...)
	}
	req.header = h
	if ev.kind.isMessage() {
		req.contentType = c.messageType(ev)
		req.body = append(req.body, ev.payload...)
	} else {
		req.contentType = defaultContentType
		req.body = c.data(req.body, ev)
	}
}

// messageType is the content type of a message's payload: the one that the
// publisher named, else the one that the endpoint's headers name, else what
// the payload format indicator says.
func (c *cloudEvents) messageType(ev *event) string {
	var m marks
	if x := ev.extra; x != nil {
		if isMediaType(x.contentType) {
			return strings.Clone(x.contentType) // a view of the record, which the request outlives
		}
		m = x.marks
	}
	switch {
	case c.dataType != "":
		return c.dataType
	case m&markText != 0:
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// isMediaType reports whether s can be the content-type of a message in binary
// mode. A type of CloudEvents' own would make receivers take the payload for
// the whole event, which is not for publishers to decide.
func isMediaType(s string) bool {
	const own = "application/cloudevents"
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	media, _, err := mime.ParseMediaType(s)
	return err == nil && strings.Contains(media, "/") && !strings.HasPrefix(media, own)
}

// configuredType returns the content-type among an endpoint's headers, if any.
func configuredType(headers []Header) string {
	for _, h := range headers {
		if equalFold(h.Name, "content-type") && isMediaType(string(h.Value)) {
			return string(h.Value)
		}
	}
	return ""
}

// appendAttribute appends a header line with an attribute, if there is one:
// CloudEvents' HTTP binding, 3.1.3.2, escapes blanks, quotes, percent signs
// and everything that is not printable ASCII, by UTF-8 bytes.
func appendAttribute(dst []byte, name, value string) []byte {
	const hex = "0123456789ABCDEF"
	if value == "" {
		return dst
	}
	dst = append(append(dst, name...), ": "...)
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c == '"' || c == '%' || c > '~' {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return append(dst, "\r\n"...)
}
