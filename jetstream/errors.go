package jetstream

import (
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// Codes of JetStream's errors for which the client has no name.
const (
	codeInvalidConfig   = 10052 // invalid stream configuration
	codeTooLarge        = 10054 // message size exceeds maximum allowed
	codeOtherStream     = 10060 // the subject is another stream's
	codeSubjectsOverlap = 10065 // subjects overlap with an existing stream
	codeNoCluster       = 10074 // replicas > 1 not supported in non-clustered mode
	codeNotUnique       = 10100 // filtered consumer not unique on workqueue stream
)

// codeOf returns the code of an error of JetStream's, and 0 for any other.
func codeOf(err error) jetstream.ErrorCode {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode
	}
	return 0
}

func isMisconfigured(err error) bool {
	_, ok := errors.AsType[*stream.Misconfigured](err)
	return ok
}
