package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendBody appends the body of ev as NanoMQ writes it: one JSON object
// without spaces, keys in a fixed order. The three events that NanoMQ has are
// byte for byte its own; the others have the fields of EMQX 4.
func appendBody(dst []byte, ev *event, enc Encoding) []byte {
	if ev.kind.isMessage() {
		return append(appendMessage(dst, ev, enc), '}')
	}
	dst = append(dst, '{')
	switch ev.kind {
	case kindConnect, kindConnack, kindConnected:
		dst = append(dst, `"proto_ver":`...)
		dst = strconv.AppendUint(dst, uint64(ev.protoVer), 10)
		dst = append(dst, `,"keepalive":`...)
		dst = strconv.AppendUint(dst, uint64(ev.keepalive), 10)
		switch ev.kind {
		case kindConnect:
			dst = appendText(dst, `,"ipaddress":"`, ev.ip)
		case kindConnack:
			result := "fail"
			if ev.accepted {
				result = "success"
			}
			dst = appendText(dst, `,"conn_ack":"`, result)
		case kindConnected:
			dst = appendText(dst, `,"ipaddress":"`, ev.ip)
			dst = append(dst, `,"connected_at":`...)
			dst = strconv.AppendInt(dst, ev.time, 10)
		}
	case kindSubscribe, kindSubscribed:
		dst = appendText(dst, `"topic":"`, ev.topic)
		dst = append(dst, `,"opts":{"qos":`...)
		dst = strconv.AppendUint(dst, uint64(ev.qos), 10)
		dst = append(dst, '}')
	case kindUnsubscribe, kindUnsubscribed:
		dst = appendText(dst, `"topic":"`, ev.topic)
	case kindDisconnected, kindTerminated:
		dst = appendText(dst, `"reason":"`, ev.reason)
	}
	dst = appendClient(dst, ev)
	return append(appendAction(dst, ev), '}')
}

// appendMessage appends the body of a message event, but for the closing brace.
func appendMessage(dst []byte, ev *event, enc Encoding) []byte {
	ts := ev.published
	if ev.kind == kindPublish {
		ts = ev.time
	}
	dst = append(dst, `{"ts":`...)
	dst = strconv.AppendInt(dst, ts, 10)
	dst = appendText(dst, `,"topic":"`, ev.topic)
	dst = appendName(dst, middles[ev.kind][ev.qos&3][b2u(ev.retain)], ev.fromUser)
	dst = appendText(dst, `,"from_client_id":"`, ev.from)
	if ev.kind != kindPublish {
		dst = appendClient(dst, ev)
	}
	dst = append(dst, `,"payload":"`...)
	return appendPayload(dst, ev.payload, enc)
}

// middles has what stands between topic and user name in the message events, by
// kind, QoS (two bits) and the retain flag: it takes one copy instead of seven.
var middles = func() (middles [kindEnd][4][2]string) {
	for k := kindPublish; k < kindEnd; k++ {
		for qos := range middles[k] {
			for i, retain := range []bool{false, true} {
				middles[k][qos][i] = fmt.Sprintf(`,"retain":%t,"qos":%d,"action":"%s","from_username":"`, retain, qos, kinds[k].action)
			}
		}
	}
	return middles
}()

// appendPayload appends a payload in its encoding and the closing quote. What
// JSON cannot carry as text goes as base64 and is marked: nothing is lost.
func appendPayload(dst, payload []byte, enc Encoding) []byte {
	switch {
	case enc == Base62:
		dst = appendBase62(dst, payload)
	case enc == Base64:
		dst = base64.StdEncoding.AppendEncode(dst, payload)
	case isPlain(view(payload)):
		dst = append(dst, payload...)
	case utf8.Valid(payload):
		dst = appendEscaped(dst, view(payload))
	default:
		dst = base64.StdEncoding.AppendEncode(dst, payload)
		return append(dst, `","payload_encoding":"base64"`...)
	}
	return append(dst, '"')
}

// appendClient appends whose event it is.
func appendClient(dst []byte, ev *event) []byte {
	dst = appendName(dst, `,"username":"`, ev.username)
	return appendText(dst, `,"clientid":"`, ev.client)
}

func appendAction(dst []byte, ev *event) []byte {
	dst = append(dst, `,"action":"`...)
	dst = append(dst, kinds[ev.kind].action...)
	return append(dst, '"')
}

// appendName appends a user name; NanoMQ's word for none is "undefined".
func appendName(dst []byte, key, username string) []byte {
	if username == "" {
		dst = append(dst, key...)
		return append(dst, `undefined"`...)
	}
	return appendText(dst, key, username)
}

// DecodePayload returns the payload that text stands for, for receivers
// written in Go. The text is the member "payload" of a message's body, as JSON
// decoding gives it. The encoding is the member "payload_encoding" if the body
// has one, which is how an endpoint under [Plain] marks a payload that is not
// UTF-8, and otherwise the one that the endpoint is configured with; its letter
// case does not matter.
//
// It does not read EMQX's own base62, which an endpoint with [FormatEMQX] and
// [Base62] sends: that gives other bytes without an error.
//
// An unknown encoding is an error, and so is text that the encoding never
// produces; no error repeats the text. The cost is linear, but under [Base62]
// about n^1.6: 64 KiB take some ten milliseconds, 1 MiB about a second. A
// receiver should bound what it reads.
func DecodePayload(encoding Encoding, text string) ([]byte, error) {
	switch {
	case equalFold(string(encoding), string(Plain)):
		if !utf8.ValidString(text) { // such a payload is marked base64
			return nil, errors.New("webhook: plain payload is not UTF-8")
		}
		return []byte(text), nil
	case equalFold(string(encoding), string(Base64)):
		// The decoder of the standard library skips line breaks.
		if i := strings.IndexAny(text, "\r\n"); i >= 0 {
			return nil, fmt.Errorf("webhook: %w", base64.CorruptInputError(i))
		}
		payload, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
		return payload, nil
	case equalFold(string(encoding), string(Base62)):
		payload, err := decodeBase62(text)
		if err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
		return payload, nil
	}
	return nil, fmt.Errorf("webhook: unknown payload encoding %.20q, want plain, base64 or base62", string(encoding))
}
