// Package stream is the seam between the webhook and an engine that carries
// events from brokers to the workers that deliver them. The webhook does not
// import an engine: a program does, for the side effect of [Register], as it
// does with the drivers of database/sql.
//
// A stream has partitions. What a partition holds is in order, and one worker
// at a time has it.
package stream

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Config says where a stream is and what it is like.
type Config struct {
	URL       string // of the servers, with commas between; may hold credentials
	CredsFile string // "" for none
	Name      string // of the stream; endpoints and brokers may share one. Dead letters are in Name + DeadSuffix
	Endpoint  string // whose events these are

	Partitions int
	Replicas   int
	MaxBytes   int64 // -1: no limit

	Log *slog.Logger

	// Waiting, if not nil, is told what Source waits for.
	Waiting func(error)
}

// DeadSuffix ends the name of a stream of dead letters.
const DeadSuffix = "_DEAD"

// A Driver is an engine.
type Driver interface {
	// Publisher connects a broker to a stream, which it makes unless it is
	// there. That the engine cannot be reached is no error: the publisher goes
	// on trying. That the stream is not what the configuration says is one.
	Publisher(Config) (Publisher, error)

	// Source connects a worker to a stream. It waits until the engine has been
	// reached or ctx is done. That the stream is not what the configuration
	// says is an error.
	Source(ctx context.Context, c Config) (Source, error)
}

// A Publisher puts events into a stream. It is safe for concurrent use.
type Publisher interface {
	// Publish returns when the stream has the event for good. An event that
	// is published twice, after an error, is there once if the two are not far
	// apart. The errors are a *Refused, a *Misconfigured, or any other, which
	// says that it may work later.
	Publish(ctx context.Context, partition int, id string, event []byte) error

	// Err returns what keeps events from being published now, or nil.
	Err() error

	Close()
}

// A Refused error says that the stream will never take the event.
type Refused struct{ Err error }

func (e *Refused) Error() string { return e.Err.Error() }
func (e *Refused) Unwrap() error { return e.Err }

// A Misconfigured error says that the engine or the stream is not what the
// configuration says.
type Misconfigured struct{ Err error }

func (e *Misconfigured) Error() string { return e.Err.Error() }
func (e *Misconfigured) Unwrap() error { return e.Err }

// A Source gives a worker the events of its partitions.
type Source interface {
	// Start gives sink this worker's share of the partitions, from then on.
	Start(sink Sink)

	// DeadLetter returns when the stream for dead letters has the letter.
	DeadLetter(ctx context.Context, id string, letter []byte) error

	// Reset makes the source give a partition back, which ends it, for whoever
	// takes it anew, from the first event that is not acknowledged: this source
	// only after a while if it is told to wait. It does not wait itself.
	Reset(partition int, wait bool)

	// Err returns what keeps events from coming, or nil.
	Err() error

	// Release gives all partitions back, each when its attempts have ended, and
	// takes no others. It returns when that is done, or ctx.
	Release(ctx context.Context)

	// Close ends the source, after Release: partitions that are left are given
	// back, whatever becomes of their attempts.
	Close()
}

// A Sink is a worker. Its methods may be called at the same time for different
// partitions; for one, End comes after all calls of Event.
type Sink interface {
	// Event takes an event of a partition that this worker has. The worker
	// acknowledges it when it is dealt with.
	Event(partition int, m Message)

	// End takes a partition away: what waits is forgotten and no attempt
	// begins. The channel is closed when the last attempt has ended. Events
	// that come after it are of another time that this worker has it.
	End(partition int) <-chan struct{}

	// Lease says that until then no other worker has the partitions that this
	// one has. After it no attempt may begin until there is another one.
	Lease(until time.Time)
}

// A Message is an event from a stream.
type Message interface {
	Data() []byte

	// Ack removes the event from the stream. It does not wait for it.
	Ack()
}

var drivers = struct {
	mu     sync.Mutex
	byName map[string]Driver
}{byName: make(map[string]Driver)}

// Register makes an engine known. It panics if there is one of that name.
func Register(name string, d Driver) {
	drivers.mu.Lock()
	defer drivers.mu.Unlock()
	if drivers.byName[name] != nil {
		panic("stream: " + name + " is registered twice")
	}
	drivers.byName[name] = d
}

// Find returns an engine. The error says that the program has none of that name.
func Find(name string) (Driver, error) {
	drivers.mu.Lock()
	defer drivers.mu.Unlock()
	if d := drivers.byName[name]; d != nil {
		return d, nil
	}
	return nil, errors.New("no such engine is part of the program")
}
