package webhook

import (
	"context"
	"errors"
	"fmt"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// streamLetters are the dead letters of an endpoint, in a stream.
type streamLetters struct {
	endpoint string
	source   stream.Source
	ctx      context.Context
}

// bodyOmitted is the encoding of a body that a letter does not have.
const bodyOmitted = "omitted"

// write returns an error unless the stream has all letters: then the events are
// given back.
func (s *streamLetters) write(letters ...*deadLetter) (kept int, err error) {
	for _, l := range letters {
		err := s.send(l)
		var refused *stream.Refused
		if errors.As(err, &refused) {
			// As JSON the letter is longer than the event was. It will never fit,
			// and what is behind it must not wait forever.
			short := *l
			short.Error = fmt.Sprintf("%s; a body of %d bytes is too long for the stream", l.Error, len(l.Body))
			short.Body, short.BodyEncoding = "", bodyOmitted
			err = s.send(&short)
		}
		if err != nil {
			return kept, err
		}
		kept++
	}
	return kept, nil
}

func (s *streamLetters) send(l *deadLetter) error {
	line, err := marshalLetters(l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, letterTimeout)
	defer cancel()
	return s.source.DeadLetter(ctx, l.ID, line)
}

func (s *streamLetters) close() error { return nil }
