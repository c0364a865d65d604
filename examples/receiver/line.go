package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mochi-hooks/webhook"
)

// line returns one event as it is printed: its JSON and, if it has one, the
// payload behind it. Whoever can publish decides what is in there, so nothing
// that a terminal might obey is printed as it is.
func (rc *receiver) line(body []byte, isPayload bool) string {
	var compact bytes.Buffer
	if !utf8.Valid(body) || json.Compact(&compact, body) != nil {
		return strconv.Quote(string(body))
	}
	text := escape(compact.String())
	if isPayload {
		return text
	}
	m := messageOf(body)
	if m.Payload == nil {
		return text
	}
	payload, err := webhook.DecodePayload(cmp.Or(m.Encoding, rc.encoding), *m.Payload)
	if err != nil {
		return fmt.Sprintf("%s payload_error=%q", text, err)
	}
	return fmt.Sprintf("%s payload=%q", text, payload)
}

// A message is what an event has of one, if it is about one.
type message struct {
	Payload  *string          `json:"payload"`
	Encoding webhook.Encoding `json:"payload_encoding"`
}

// messageOf finds the message of an event, which is inside of data if that is a
// CloudEvent.
func messageOf(body []byte) message {
	var event message
	if json.Unmarshal(body, &event) == nil && event.Payload != nil {
		return event
	}
	var cloudEvent struct {
		Data message `json:"data"`
	}
	if json.Unmarshal(body, &cloudEvent) != nil {
		return message{}
	}
	return cloudEvent.Data
}

// escape writes the characters of a JSON text that are not printable as JSON
// escapes. They can only be inside strings.
func escape(text string) string {
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// printable returns s, quoted if there is something in it that should not be
// printed as it is.
func printable(s string) string {
	if !utf8.ValidString(s) || strings.IndexFunc(s, unprintable) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }
