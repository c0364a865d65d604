package webhook

import "strconv"

// emqx makes bodies that have the names and values of EMQX 4's web hook. The
// members stand in its order, which is the reverse alphabetical one.
type emqx struct {
	node     string
	encoding Encoding
}

// appendBody appends the body of ev.
func (e *emqx) appendBody(dst []byte, ev *event) []byte {
	if ev.kind.isMessage() {
		return e.appendMessage(dst, ev)
	}
	dst = appendOrNull(dst, `{"username":`, ev.username)
	switch ev.kind {
	case kindConnect, kindConnack, kindConnected:
		dst = strconv.AppendUint(append(dst, `,"proto_ver":`...), uint64(ev.protoVer), 10)
		dst = appendText(dst, `,"node":"`, e.node)
		dst = strconv.AppendUint(append(dst, `,"keepalive":`...), uint64(ev.keepalive), 10)
		dst = appendText(dst, `,"ipaddress":"`, ev.ip)
		switch ev.kind {
		case kindConnack:
			dst = appendText(dst, `,"conn_ack":"`, emqxConnack(ev))
		case kindConnected:
			dst = strconv.AppendInt(append(dst, `,"connected_at":`...), ev.time, 10)
		}
	case kindDisconnected, kindTerminated:
		dst = appendText(dst, `,"reason":"`, emqxReason(ev.reason))
		dst = appendText(dst, `,"node":"`, e.node)
		if ev.kind == kindDisconnected {
			dst = strconv.AppendInt(append(dst, `,"disconnected_at":`...), ev.time, 10)
			if ev.extra != nil {
				dst = appendIfNot0(dst, `,"connected_at":`, uint64(ev.extra.connectedAt))
			}
		}
	default:
		dst = appendText(dst, `,"topic":"`, unshared(ev.topic))
		if ev.kind != kindUnsubscribed {
			dst = appendEMQXOptions(append(dst, `,"opts":`...), ev)
		}
		dst = appendText(dst, `,"node":"`, e.node)
	}
	dst = appendText(dst, `,"clientid":"`, ev.client)
	return append(appendAction(dst, ev), '}')
}

func (e *emqx) appendMessage(dst []byte, ev *event) []byte {
	dst = append(dst, '{')
	ts := ev.time
	if ev.kind != kindPublish {
		dst = append(appendOrNull(dst, `"username":`, ev.username), ',')
		ts = ev.published
	}
	dst = strconv.AppendInt(append(dst, `"ts":`...), ts, 10)
	dst = appendText(dst, `,"topic":"`, ev.topic)
	dst = strconv.AppendBool(append(dst, `,"retain":`...), ev.retain)
	dst = strconv.AppendUint(append(dst, `,"qos":`...), uint64(ev.qos), 10)
	dst = e.appendPayload(append(dst, `,"payload":"`...), ev.payload)
	dst = appendText(dst, `,"node":"`, e.node)
	dst = appendOrNull(dst, `,"from_username":`, ev.fromUser)
	dst = appendText(dst, `,"from_client_id":"`, ev.from)
	if ev.kind != kindPublish {
		dst = appendText(dst, `,"clientid":"`, ev.client)
	}
	return append(appendAction(dst, ev), '}')
}

// appendPayload is appendPayload with the base62 of EMQX.
func (e *emqx) appendPayload(dst, payload []byte) []byte {
	if e.encoding == Base62 {
		return append(appendEMQXBase62(dst, payload), '"')
	}
	return appendPayload(dst, payload, e.encoding)
}

// appendOrNull appends key and text, which is null if there is none.
func appendOrNull(dst []byte, key, text string) []byte {
	dst = append(dst, key...)
	if text == "" {
		return append(dst, "null"...)
	}
	return appendText(dst, `"`, text)
}

// appendEMQXOptions appends the options of a subscription.
func appendEMQXOptions(dst []byte, ev *event) []byte {
	var x extra
	if ev.extra != nil {
		x = *ev.extra
	}
	bit := func(m marks) byte {
		if x.marks&m != 0 {
			return '1'
		}
		return '0'
	}
	group := ""
	if unshared(ev.topic) != ev.topic {
		group, _, _ = cutShare(ev.topic)
	}
	dst = append(dst, '{')
	start := len(dst)
	if ev.kind != kindUnsubscribe {
		dst = appendIfNot0(dst, `,"subid":`, uint64(x.subID))
	}
	if ev.kind == kindSubscribed {
		dst = append(dst, `,"sub_props":{`...)
		if x.subID != 0 {
			dst = strconv.AppendUint(append(dst, `"Subscription-Identifier":`...), uint64(x.subID), 10)
		}
		dst = append(dst, '}')
	}
	dst = appendIfAny(dst, `,"share":"`, group)
	if ev.kind != kindUnsubscribe {
		dst = strconv.AppendUint(append(dst, `,"rh":`...), x.marks.retainHandling(), 10)
		dst = append(append(dst, `,"rap":`...), bit(markAsPublished))
		dst = strconv.AppendUint(append(dst, `,"qos":`...), uint64(ev.qos), 10)
		dst = append(append(dst, `,"nl":`...), bit(markNoLocal))
	}
	if ev.kind == kindSubscribed {
		dst = strconv.AppendBool(append(dst, `,"is_new":`...), x.marks&markNew != 0)
	}
	if len(dst) > start { // without the first comma
		dst = append(dst[:start], dst[start+1:]...)
	}
	return append(dst, '}')
}

// emqxConnack is the result of a connection: "success", or the MQTT 5 name of
// its reason code under every version of the protocol.
func emqxConnack(ev *event) string {
	if ev.accepted {
		return "success"
	}
	if ev.extra == nil || ev.extra.code == 0 {
		return "unspecified_error"
	}
	code := byte(ev.extra.code - 1)
	if ev.protoVer < 5 {
		switch code { // MQTT 3.1.1, 3.2.2.3
		case 1:
			code = 0x84
		case 2:
			code = 0x85
		case 3:
			code = 0x88
		case 4, 5: // 5 is what mochi makes of a wrong password, and of nothing else
			code = 0x86
		}
	}
	return emqxReason(codeName(code))
}

// emqxReason is EMQX's word for a reason.
func emqxReason(reason string) string {
	switch reason {
	case reasonWithWill:
		return "disconnect_with_will_message"
	case reasonShutdown:
		return "server_shutting_down"
	case "bad_user_name_or_password":
		return "bad_username_or_password"
	case "malformed_packet":
		return "malformed_Packet"
	case "packet_identifier_in_use":
		return "packet_identifier_inuse"
	}
	return reason
}

// appendEMQXBase62 appends the base62 of EMQX, which is not NanoMQ's: six bits
// a letter, of which the last three values take two, and what is left over at
// the end one of its own.
func appendEMQXBase62(dst, payload []byte) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz012345678"
	add := func(value byte) {
		if int(value) < len(letters) {
			dst = append(dst, letters[value])
		} else {
			dst = append(dst, '9', 'A'+value-byte(len(letters)))
		}
	}
	var bits, count uint
	for _, c := range payload {
		bits, count = bits<<8|uint(c), count+8
		for count >= 6 {
			count -= 6
			add(byte(bits >> count & 63))
		}
	}
	if count > 0 {
		add(byte(bits & (1<<count - 1)))
	}
	return dst
}

// emqxHas reports whether EMQX's body of a kind has what a field adds.
func emqxHas(k kind, f Field) bool {
	return f == FieldIPAddress && hasIP(k) || f == FieldTS && k.isMessage()
}
