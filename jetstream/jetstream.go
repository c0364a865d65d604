// Package jetstream lets the queue of a webhook be a stream of NATS JetStream,
// so that a backlog outlives a broker's machine, and deliveries are made by as
// many worker processes as are needed. It is imported for its effect:
//
//	import _ "github.com/mochi-hooks/webhook/jetstream"
//
// Brokers put events into the stream; workers, each a [webhook.Deliverer], take
// them out. nats-server has to be 2.10 or newer, for the metadata of streams; it
// is tested with 2.15.
//
// # The stream
//
// An event is a message of the subject STREAM.ENDPOINT.PARTITION, its id the
// Nats-Msg-Id. All events of one client are in one partition. The stream keeps
// an event until a worker acknowledges it (WorkQueue retention) and refuses
// events when it is full (discard new): no limit of it drops any. Dead letters
// are in a stream of their own, STREAM_DEAD, for people to look at.
//
// # Who has a partition
//
// A worker has a partition while it has a consumer for it. Two consumers on one
// subject of a WorkQueue stream are not possible, so the server sees to it that
// a partition has one worker at most. The consumer of a worker that is gone goes
// by itself, because nobody pulls from it; until then its events wait.
//
// A new consumer begins with the first event that is not acknowledged, and
// there is nothing to remember of the one before: this is what keeps order when
// a partition moves. A consumer that outlives its worker, as a pinned one does,
// would hand out new events at once, and those that the dead worker had only
// when their time for acknowledgement is over, so later ones first.
//
// How many partitions a worker takes is its share: it counts those who answer a
// roll call. That number decides about balance alone, never about who has what.
//
// [webhook.Deliverer]: https://pkg.go.dev/github.com/mochi-hooks/webhook#Deliverer
package jetstream

import (
	"context"
	"fmt"
	"time"

	"github.com/mochi-hooks/webhook/internal/stream"
)

func init() { stream.Register("jetstream", driver{}) }

type driver struct{}

const (
	// firstConnect is how long a broker's start waits for NATS.
	firstConnect = 2 * time.Second

	// requestTimeout bounds a request to NATS about streams and consumers.
	requestTimeout = 5 * time.Second
)

// subject is that of an endpoint's partition.
func subject(c *stream.Config, partition int) string {
	return fmt.Sprintf("%s.%s.%d", c.Name, c.Endpoint, partition)
}

func deadStream(c *stream.Config) string  { return c.Name + stream.DeadSuffix }
func deadSubject(c *stream.Config) string { return deadStream(c) + "." + c.Endpoint }

// timeout is a context for one request.
func timeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, requestTimeout)
}

// signal puts something into a channel that holds one, unless it is there already:
// more would say nothing new.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
