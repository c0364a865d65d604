package webhook

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
)

func TestReasonOf(t *testing.T) {
	closed := &net.OpError{Op: "read", Err: net.ErrClosed}
	plain := errors.New("plain")
	tests := []struct {
		name       string
		cause, err error
		bye        farewell
		want       string
	}{
		{"DISCONNECT", packets.CodeDisconnect, nil, farewell{read: true}, "normal"},
		{"DISCONNECT 0x04", packets.CodeDisconnectWillMessage, packets.CodeDisconnectWillMessage, farewell{true, 4}, "disconnect_with_will"},
		{"DISCONNECT 0x80", packets.CodeDisconnect, nil, farewell{true, 0x80}, "unspecified_error"},
		{"DISCONNECT 0x98", packets.CodeDisconnect, nil, farewell{true, 0x98}, "administrative_action"},
		{"DISCONNECT 0x8e", packets.CodeDisconnect, nil, farewell{true, 0x8e}, "session_taken_over"},
		{"DISCONNECT 0xfe", packets.CodeDisconnect, nil, farewell{true, 0xfe}, "reason_code_0xfe"},
		{"FIN", io.EOF, io.EOF, farewell{}, "tcp_closed"},
		{"FIN within a packet", io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, farewell{}, "tcp_closed"},
		{"RST", &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, nil, farewell{}, "tcp_closed"},
		{"closed", closed, closed, farewell{}, "tcp_closed"},
		{"keepalive", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, nil, farewell{}, "keepalive_timeout"},
		{"peer is silent", &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}, nil, farewell{}, "tcp_closed"},
		{"close frame", fmt.Errorf("x: %w", &websocket.CloseError{Code: websocket.CloseGoingAway}), nil, farewell{}, "tcp_closed"},
		{"takeover", packets.ErrSessionTakenOver, closed, farewell{}, "takeovered"},
		{"server stop", packets.ErrServerShuttingDown, closed, farewell{}, "server_shutdown"},
		{"program, keep alive timeout", packets.ErrKeepAliveTimeout, closed, farewell{}, "keepalive_timeout"},
		{"program, administrative action", packets.ErrAdministrativeAction, closed, farewell{}, "kicked"},
		{"program, not authorized", packets.ErrNotAuthorized, closed, farewell{}, "not_authorized"},
		{"program, 0x00", packets.CodeSuccess, closed, farewell{}, "kicked"},
		{"program, own error", plain, closed, farewell{}, "kicked"},
		{"program, own error, in a handler", plain, nil, farewell{}, "kicked"},
		{"program, nil", nil, closed, farewell{}, "kicked"},
		{"malformed, wrapped", fmt.Errorf("x: %w", packets.ErrMalformedPacketID), nil, farewell{}, "malformed_packet"},
		{"protocol error", packets.ErrProtocolViolationSecondConnect, nil, farewell{}, "protocol_error"},
		{"broker's own text", plain, plain, farewell{}, "protocol_error"},
		{"no code of MQTT", packets.ErrInlineSubscriptionHandlerInvalid, nil, farewell{}, "reason_code_0xa3"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := reasonOf(test.cause, test.err, test.bye); got != test.want {
				t.Errorf("reasonOf(%v, %v, %v) = %q, want %q", test.cause, test.err, test.bye, got, test.want)
			}
		})
	}
}

func TestEndCode(t *testing.T) {
	for _, test := range []struct {
		cause, err error
		bye        farewell
		code       byte
		ok         bool
	}{
		{packets.CodeDisconnect, nil, farewell{true, 0x98}, 0x98, true},
		{packets.CodeDisconnect, nil, farewell{}, 0, false},
		{packets.ErrServerShuttingDown, net.ErrClosed, farewell{}, 0x8b, true},
		{packets.ErrProtocolViolationSecondConnect, nil, farewell{}, 0x82, true},
		{errPlain, errPlain, farewell{}, 0x82, true}, // the broker's own text
		{errPlain, net.ErrClosed, farewell{}, 0, false},
		{io.EOF, io.EOF, farewell{}, 0, false},
	} {
		reason := reasonOf(test.cause, test.err, test.bye)
		if code, ok := endCode(reason, test.cause, test.bye); code != test.code && ok || ok != test.ok {
			t.Errorf("%v, %s: got %#x, %t; want %#x, %t", test.cause, reason, code, ok, test.code, test.ok)
		}
	}
}

var errPlain = errors.New("plain")
