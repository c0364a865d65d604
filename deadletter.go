package webhook

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A deadLetter is an event that was refused or given up: one line of JSON in
// a dead letter file, complete enough to be sent again.
type deadLetter struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"` // of the event
	Endpoint    string    `json:"endpoint"`
	Event       EventName `json:"event"`
	Client      string    `json:"client"`   // whose event it is
	Attempts    int       `json:"attempts"` // 256 stands for more, too
	Status      int       `json:"status"`   // of the last attempt, 0 if it got none
	Error       string    `json:"error"`
	ContentType string    `json:"content_type"`
	Body        string    `json:"body"`

	// Headers are those that the event brought along, by name.
	Headers map[string]string `json:"headers,omitempty"`

	// Rule is the key of the rule that selected the event, in hexadecimal, if
	// it has settings of its own: those of its headers are not written down.
	Rule string `json:"rule,omitempty"`

	// BodyEncoding is "base64" when the body is not UTF-8, which a JSON
	// string cannot carry.
	BodyEncoding string `json:"body_encoding,omitempty"`
}

// setBody keeps the body as it was sent.
func (l *deadLetter) setBody(body []byte) {
	if utf8.Valid(body) {
		l.Body = string(body)
		return
	}
	l.Body, l.BodyEncoding = base64.StdEncoding.EncodeToString(body), "base64"
}

// setHeaders keeps the header lines of a request.
func (l *deadLetter) setHeaders(lines []byte) {
	for line := range strings.Lines(string(lines)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r\n"), ": "); ok {
			if l.Headers == nil {
				l.Headers = make(map[string]string)
			}
			l.Headers[name] = value
		}
	}
}

// setRule keeps which rule selected the event.
func (l *deadLetter) setRule(key uint32) {
	if key != 0 {
		l.Rule = fmt.Sprintf("%08x", key)
	}
}

// rule returns which rule selected the event.
func (l *deadLetter) rule() (key uint32, err error) {
	if l.Rule == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(l.Rule, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("rule %.20q is not a number of 8 hexadecimal digits", l.Rule)
	}
	return uint32(n), nil
}

// header returns the header lines of the request. A file can be edited, so
// they are checked.
func (l *deadLetter) header() (string, error) {
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		value := l.Headers[name]
		if err := errors.Join(checkHeaderName(name), checkHeaderValue(name, value)); err != nil {
			return "", fmt.Errorf("headers: %w", err)
		}
		lines.WriteString(name + ": " + value + "\r\n")
	}
	return lines.String(), nil
}

// body returns the body as it was sent.
func (l *deadLetter) body() ([]byte, error) {
	switch l.BodyEncoding {
	case "":
		return []byte(l.Body), nil
	case "base64":
		return base64.StdEncoding.DecodeString(l.Body)
	case bodyOmitted:
		return nil, errors.New("the letter has no body: it was too long for the stream")
	}
	return nil, fmt.Errorf("body_encoding %q is not known", l.BodyEncoding)
}

// A letterBox keeps dead letters. It is safe for concurrent use.
type letterBox interface {
	// write returns how many of the letters, the first ones, it has kept for
	// sure: all, or there is an error.
	write(...*deadLetter) (kept int, err error)
	close() error
}

// marshalLetters returns letters as lines of JSON. When a hook ends there may be many
// letters and little time, a third to a half of which encoding/json would take.
func marshalLetters(letters ...*deadLetter) ([]byte, error) {
	var lines []byte
	for _, l := range letters {
		lines = appendText(lines, `{"id":"`, l.ID)
		lines = append(lines, `,"time":"`...)
		lines = append(l.Time.AppendFormat(lines, time.RFC3339Nano), '"')
		lines = appendText(lines, `,"endpoint":"`, l.Endpoint)
		lines = appendText(lines, `,"event":"`, string(l.Event))
		lines = appendText(lines, `,"client":"`, l.Client)
		lines = strconv.AppendInt(append(lines, `,"attempts":`...), int64(l.Attempts), 10)
		lines = strconv.AppendInt(append(lines, `,"status":`...), int64(l.Status), 10)
		lines = appendText(lines, `,"error":"`, l.Error)
		lines = appendText(lines, `,"content_type":"`, l.ContentType)
		lines = appendText(lines, `,"body":"`, l.Body)
		if len(l.Headers) > 0 {
			headers, err := json.Marshal(l.Headers)
			if err != nil {
				return nil, err
			}
			lines = append(append(lines, `,"headers":`...), headers...)
		}
		lines = appendIfAny(lines, `,"rule":"`, l.Rule)
		lines = appendIfAny(lines, `,"body_encoding":"`, l.BodyEncoding)
		lines = append(lines, "}\n"...)
	}
	return lines, nil
}
