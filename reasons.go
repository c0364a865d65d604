package webhook

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The reasons of client_disconnected and session_terminated that are not the
// MQTT 5 name of a reason code.
const (
	reasonNormal    = "normal"
	reasonKeepalive = "keepalive_timeout"
	reasonTCPClosed = "tcp_closed"
	reasonTakenOver = "takeovered" // the session lives on in the new connection
	reasonDiscarded = "discarded"  // a clean start ended the session
	reasonKicked    = "kicked"     // the program closed the connection
	reasonShutdown  = "server_shutdown"
	reasonExpired   = "expired"
	reasonWithWill  = "disconnect_with_will"
)

// A farewell is the DISCONNECT packet of a client.
type farewell struct {
	read bool // it came
	code byte // its reason code, 0x00 before MQTT 5
}

// reasonOf says why a connection ended. cause is what the broker closed it
// for (Client.StopCause), err what the connection's reader ended with. The
// broker gives every DISCONNECT the cause 0x00, except 0x04; the client's own
// code is in bye.
func reasonOf(cause, err error, bye farewell) string {
	var code packets.Code
	var netErr net.Error
	var closed *websocket.CloseError
	switch {
	case cause == nil: // Client.Stop(nil)
		return reasonKicked
	case errors.As(cause, &code):
		return codeReason(code.Code, bye)
	case errors.As(cause, &netErr) && netErr.Timeout() && !errors.Is(cause, syscall.ETIMEDOUT): // which the system has given up
		return reasonKeepalive
	case errors.As(cause, &closed), netErr != nil, errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF), errors.Is(cause, net.ErrClosed):
		return reasonTCPClosed
	case errors.Is(err, cause): // the broker could not make sense of what it read
		return codeNames[packets.ErrProtocolViolation.Code]
	}
	return reasonKicked // Client.Stop with an error of the program
}

// codeReason is the reason of a connection that ended with a reason code.
func codeReason(code byte, bye farewell) string {
	switch code {
	case packets.CodeDisconnect.Code:
		switch {
		case !bye.read:
			return reasonKicked
		case bye.code == packets.CodeDisconnect.Code:
			return reasonNormal
		}
		return codeName(bye.code)
	case packets.CodeDisconnectWillMessage.Code:
		return reasonWithWill
	case packets.ErrServerShuttingDown.Code:
		return reasonShutdown
	case packets.ErrKeepAliveTimeout.Code:
		return reasonKeepalive
	case packets.ErrSessionTakenOver.Code:
		return reasonTakenOver
	case packets.ErrAdministrativeAction.Code:
		return reasonKicked
	}
	return codeName(code)
}

// endCode is the reason code of MQTT 5 with which a connection ended for a reason,
// if either side had one, whether it was sent or not.
func endCode(reason string, cause error, bye farewell) (code byte, ok bool) {
	var c packets.Code
	switch {
	case !errors.As(cause, &c):
		violation := packets.ErrProtocolViolation.Code
		return violation, reason == codeNames[violation]
	case c.Code == packets.CodeDisconnect.Code:
		return bye.code, bye.read
	}
	return c.Code, true
}

func codeName(code byte) string {
	if name := codeNames[code]; name != "" {
		return name
	}
	return fmt.Sprintf("reason_code_0x%02x", code)
}

// codeNames are the names of the reason codes in MQTT 5, section 2.4, in lower
// case with underscores.
var codeNames = [256]string{
	0x00: "normal_disconnection",
	0x01: "granted_qos_1",
	0x02: "granted_qos_2",
	0x04: "disconnect_with_will_message",
	0x10: "no_matching_subscribers",
	0x11: "no_subscription_existed",
	0x18: "continue_authentication",
	0x19: "re_authenticate",
	0x80: "unspecified_error",
	0x81: "malformed_packet",
	0x82: "protocol_error",
	0x83: "implementation_specific_error",
	0x84: "unsupported_protocol_version",
	0x85: "client_identifier_not_valid",
	0x86: "bad_user_name_or_password",
	0x87: "not_authorized",
	0x88: "server_unavailable",
	0x89: "server_busy",
	0x8a: "banned",
	0x8b: "server_shutting_down",
	0x8c: "bad_authentication_method",
	0x8d: "keep_alive_timeout",
	0x8e: "session_taken_over",
	0x8f: "topic_filter_invalid",
	0x90: "topic_name_invalid",
	0x91: "packet_identifier_in_use",
	0x92: "packet_identifier_not_found",
	0x93: "receive_maximum_exceeded",
	0x94: "topic_alias_invalid",
	0x95: "packet_too_large",
	0x96: "message_rate_too_high",
	0x97: "quota_exceeded",
	0x98: "administrative_action",
	0x99: "payload_format_invalid",
	0x9a: "retain_not_supported",
	0x9b: "qos_not_supported",
	0x9c: "use_another_server",
	0x9d: "server_moved",
	0x9e: "shared_subscriptions_not_supported",
	0x9f: "connection_rate_exceeded",
	0xa0: "maximum_connect_time",
	0xa1: "subscription_identifiers_not_supported",
	0xa2: "wildcard_subscriptions_not_supported",
}
