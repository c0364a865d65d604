package jetstream

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/mochi-hooks/webhook/internal/stream"
)

// takenJetStream is one whose stream has a consumer for each partition.
type takenJetStream struct{ jetstream.JetStream }

func (takenJetStream) CreateConsumer(context.Context, string, jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return nil, &jetstream.APIError{ErrorCode: codeNotUnique}
}

// TestLostRace tells another worker, which was faster and is seen at the next
// look, from a consumer that is no worker's and is never seen.
func TestLostRace(t *testing.T) {
	s := &source{
		connection: &connection{js: takenJetStream{}}, config: stream.Config{Name: "MQTT_WEBHOOKS", Endpoint: "orders", Partitions: 1},
		ctx: t.Context(), partitions: make(map[int]*partition), leaving: make(map[int]*partition),
		resting: make(map[int]time.Time), blocked: make(map[int]bool),
	}
	nobody, other := map[int]bool{}, map[int]bool{0: true}
	for i, look := range []struct {
		taken   map[int]bool
		foreign bool
	}{
		{nobody, false}, // another worker was faster
		{other, false},
		{nobody, false}, // it has gone, and another was faster again
		{nobody, true},
		{nobody, true},
		{other, false},
	} {
		if err := s.takeMore(1, look.taken); err != nil != look.foreign {
			t.Errorf("look %d: got %v, foreign consumer: %v", i, err, look.foreign)
		}
	}
}
