package webhook

import (
	"encoding/base64"
	"strconv"
)

// A fieldFunc appends a member, with the comma before it, if the event has it.
type fieldFunc func(dst []byte, ev *event) []byte

// fieldForms say how each field is made.
var fieldForms = map[Field]struct {
	needs  wants // what the event has to carry for it; 0 for what each carries
	append fieldFunc
}{
	FieldID: {0, func(dst []byte, ev *event) []byte {
		dst = append(dst, `,"id":"`...)
		return append(ev.id.append(dst), '"')
	}},
	FieldTS: {0, func(dst []byte, ev *event) []byte {
		return strconv.AppendInt(append(dst, `,"ts":`...), ev.time, 10)
	}},
	FieldIPAddress: {wantIP, func(dst []byte, ev *event) []byte {
		return appendIfAny(dst, `,"ipaddress":"`, ev.ip)
	}},
	FieldSeq: {wantSeq, ofExtra(func(dst []byte, x *extra) []byte {
		return appendIfNot0(dst, `,"seq":`, x.seq)
	})},
	FieldListener: {wantListener, ofExtra(func(dst []byte, x *extra) []byte {
		return appendIfAny(dst, `,"listener":"`, x.listener)
	})},
	FieldReasonCode: {wantCode, ofExtra(func(dst []byte, x *extra) []byte {
		if x.code == 0 {
			return dst
		}
		return strconv.AppendUint(append(dst, `,"reason_code":`...), uint64(x.code)-1, 10)
	})},
	FieldUserProperties: {wantUser, ofExtra(appendUserProperties)},
	FieldContentType: {wantContentType, ofExtra(func(dst []byte, x *extra) []byte {
		return appendIfAny(dst, `,"content_type":"`, x.contentType)
	})},
	FieldResponseTopic: {wantResponseTopic, ofExtra(func(dst []byte, x *extra) []byte {
		return appendIfAny(dst, `,"response_topic":"`, x.responseTopic)
	})},
	FieldCorrelationData: {wantCorrelation, ofExtra(func(dst []byte, x *extra) []byte {
		if x.correlation == "" {
			return dst
		}
		dst = append(dst, `,"correlation_data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, []byte(x.correlation))
		return append(dst, '"')
	})},
	FieldPacketID: {wantPacketID, ofExtra(func(dst []byte, x *extra) []byte {
		return appendIfNot0(dst, `,"packet_id":`, uint64(x.packetID))
	})},
	FieldDup: {wantDup, ofExtra(func(dst []byte, x *extra) []byte {
		if x.marks&markPacket == 0 {
			return dst
		}
		return strconv.AppendBool(append(dst, `,"dup":`...), x.marks&markDup != 0)
	})},
}

// ofExtra is a field that only events with an extra can have.
func ofExtra(f func(dst []byte, x *extra) []byte) fieldFunc {
	return func(dst []byte, ev *event) []byte {
		if ev.extra == nil {
			return dst
		}
		return f(dst, ev.extra)
	}
}

// appendUserProperties appends them as pairs in their order: a key may come
// more than once (MQTT 5, 3.3.2.3.7).
func appendUserProperties(dst []byte, x *extra) []byte {
	if x.user == "" {
		return dst
	}
	dst = append(dst, `,"user_properties":[`...)
	for rest, ok, next := x.user, true, ""; rest != ""; next = "," {
		var key, value string
		if key, rest, ok = cutSized(rest); !ok {
			break
		}
		if value, rest, ok = cutSized(rest); !ok {
			break
		}
		dst = append(dst, next...)
		dst = appendText(dst, `{"key":"`, key)
		dst = appendText(dst, `,"value":"`, value)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// withFields returns a function that makes what object makes, a JSON object,
// with fields at its end. has reports whether the object has one of them
// anyway.
func withFields(object func(dst []byte, ev *event) []byte, fields []Field, has func(kind, Field) bool) func(dst []byte, ev *event) []byte {
	if len(fields) == 0 {
		return object
	}
	var more [kindEnd][]fieldFunc
	for k := range more {
		for _, f := range fields {
			if !has(kind(k), f) {
				more[k] = append(more[k], fieldForms[f].append)
			}
		}
	}
	return func(dst []byte, ev *event) []byte {
		dst = object(dst, ev)
		dst = dst[:len(dst)-len("}")]
		for _, f := range more[ev.kind] {
			dst = f(dst, ev)
		}
		return append(dst, '}')
	}
}
