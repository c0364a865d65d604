package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

const (
	// duplicateWindow is how long the stream knows the ids of what it has. It
	// is longer than a publish that got no answer waits for its repetition, and
	// costs the server memory for each event.
	duplicateWindow = time.Minute

	// partitionsKey is where the stream says how many partitions it has:
	// everyone who uses it has to agree.
	partitionsKey = "mochi-webhook-partitions"
)

// eventStream is the stream that an endpoint's events are in.
func eventStream(c *stream.Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:         c.Name,
		Description:  "webhook events on their way",
		Subjects:     []string{c.Name + ".*.*"},
		Retention:    jetstream.WorkQueuePolicy,
		Discard:      jetstream.DiscardNew,
		Storage:      jetstream.FileStorage,
		Replicas:     c.Replicas,
		MaxBytes:     c.MaxBytes,
		MaxConsumers: -1, // one for each partition of each endpoint
		Duplicates:   duplicateWindow,
		Metadata:     map[string]string{partitionsKey: strconv.Itoa(c.Partitions)},
	}
}

// letterStream is the stream that its dead letters are in.
func letterStream(c *stream.Config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        deadStream(c),
		Description: "webhook events that were refused or given up",
		Subjects:    []string{deadStream(c) + ".*"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    c.Replicas,
		MaxBytes:    c.MaxBytes,
		Duplicates:  duplicateWindow,
	}
}

// awaitStreams returns the stream of events when it and that of dead letters are
// there, or why they are not as they have to be. Anything else may pass: it tries
// again until ctx is done.
func (c *connection) awaitStreams(ctx context.Context, config *stream.Config) (jetstream.Stream, error) {
	for {
		s, err := c.ensureStreams(ctx, config)
		if err == nil || isMisconfigured(err) {
			return s, err
		}
		if config.Waiting != nil {
			config.Waiting(err)
		}
		if ctx.Err() == nil && c.quiet.due(err) {
			config.Log.Warn("waiting for the stream", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(recheck):
		}
	}
}

// ensureStreams makes both streams, unless they are there.
func (c *connection) ensureStreams(ctx context.Context, config *stream.Config) (jetstream.Stream, error) {
	if err := c.state(); err != nil {
		return nil, err
	}
	s, err := ensure(ctx, c.js, eventStream(config))
	if err != nil {
		return nil, err
	}
	_, err = ensure(ctx, c.js, letterStream(config))
	return s, err
}

// ensure makes a stream, or returns how the one that is there differs from it,
// which is a *stream.Misconfigured.
func ensure(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	ctx, cancel := timeout(ctx)
	defer cancel()
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // somebody else was faster
			s, err = js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		err = fmt.Errorf("stream %s: %w", want.Name, err)
		switch codeOf(err) {
		case codeInvalidConfig, codeSubjectsOverlap, codeNoCluster: // and not what may pass, as resources that are missing
			err = &stream.Misconfigured{Err: err}
		}
		return nil, err
	}
	if err := agrees(s.CachedInfo(), &want); err != nil {
		return nil, err
	}
	return s, nil
}

// agrees returns how a stream differs from what it has to be, which is a
// *stream.Misconfigured, or nil.
func agrees(have *jetstream.StreamInfo, want *jetstream.StreamConfig) error {
	if found := differences(want, &have.Config); len(found) > 0 {
		return &stream.Misconfigured{Err: fmt.Errorf("stream %s has other settings: %s", want.Name, strings.Join(found, "; "))}
	}
	return nil
}

// differences says what in a stream is not as it has to be.
func differences(want, have *jetstream.StreamConfig) (found []string) {
	differ := func(name string, want, have any) {
		if want != have {
			found = append(found, fmt.Sprintf("%s is %v, not %v", name, have, want))
		}
	}
	for _, s := range want.Subjects {
		if !slices.Contains(have.Subjects, s) {
			found = append(found, fmt.Sprintf("subjects are %q, without %q", have.Subjects, s))
		}
	}
	differ("retention", want.Retention, have.Retention)
	differ("discard", want.Discard, have.Discard)
	differ("storage", want.Storage, have.Storage)
	differ("replicas", max(want.Replicas, 1), have.Replicas)
	differ("max_bytes", want.MaxBytes, have.MaxBytes)
	differ("max_age", want.MaxAge, have.MaxAge)
	differ("max_msgs", int64(-1), have.MaxMsgs)
	differ("max_msgs_per_subject", int64(-1), have.MaxMsgsPerSubject)
	differ("max_msg_size", int32(-1), have.MaxMsgSize)
	differ("no_ack", false, have.NoAck)
	differ("sealed", false, have.Sealed)
	if have.SubjectTransform != nil {
		found = append(found, "it has a subject_transform")
	}
	if have.Mirror != nil || len(have.Sources) > 0 {
		found = append(found, "it is made of other streams")
	}
	if have.Duplicates < want.Duplicates {
		found = append(found, fmt.Sprintf("duplicate_window is %v, less than %v", have.Duplicates, want.Duplicates))
	}
	if want.MaxConsumers != 0 {
		differ("max_consumers", want.MaxConsumers, have.MaxConsumers)
	}
	if n := want.Metadata[partitionsKey]; n != "" {
		have := have.Metadata[partitionsKey]
		if have == "" {
			have = "not set"
		}
		differ("partitions (metadata "+partitionsKey+")", n, have)
	}
	return found
}
