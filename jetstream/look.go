package jetstream

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// run looks each beat at what there is and what is this worker's share.
func (s *source) run() {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		err := s.look()
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		if err != nil && s.state() == nil && s.ctx.Err() == nil && s.quiet.due(err) {
			s.config.Log.Warn("stream cannot be worked on", "error", err)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		case <-s.again:
		}
	}
}

// cut ends the lease when the connection is lost: a server that has to start
// again knows nothing of consumers, and lets others have the partitions before
// the lease is over. The next look begins another one.
func (s *source) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cuts++
	s.sink.Lease(time.Now())
}

// takesPart reports whether this worker takes its share, as far as it knows.
func (s *source) takesPart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !isMisconfigured(s.failed)
}

// check returns what is wrong with the stream, which somebody may have made anew.
// To make it once more if it is gone is for brokers: they have events for it.
func (s *source) check() error {
	ctx, cancel := timeout(s.ctx)
	defer cancel()
	info, err := s.stream.Info(ctx)
	if err != nil {
		return err
	}
	want := eventStream(&s.config)
	if err := agrees(info, &want); err != nil {
		return err
	}
	return heard(info.Cluster)
}

// heard returns an error when a stream's leader, which has answered, has not heard
// of late from as many of the servers that have a copy as it takes to be the leader.
// One that is cut off from the others notices it only after up to twenty seconds,
// and tells until then of consumers that they may have given away.
func heard(cluster *jetstream.ClusterInfo) error {
	if cluster == nil {
		return nil
	}
	if cluster.Leader == "" {
		return errors.New("the stream has no leader")
	}
	of := 1 // the leader
	for _, peer := range cluster.Replicas {
		if !peer.Offline && peer.Active < quorum {
			of++
		}
	}
	if all := len(cluster.Replicas) + 1; of <= all/2 {
		return fmt.Errorf("the stream's leader %s hears from %d of %d servers", cluster.Leader, of, all)
	}
	return nil
}

// look finds out which partitions this worker has, renews its lease of them, and
// takes more or gives some back, as its share is.
func (s *source) look() error {
	s.mu.Lock()
	cuts := s.cuts
	s.mu.Unlock()
	begin := time.Now()
	if err := s.check(); err != nil {
		if isMisconfigured(err) {
			s.mu.Lock()
			s.giveAway(len(s.partitions))
			s.mu.Unlock()
		}
		return err
	}
	taken, own, err := s.consumers()
	if err != nil {
		return err
	}
	s.endLost(own)
	s.mu.Lock()
	if s.cuts == cuts {
		s.sink.Lease(begin.Add(lease))
	}
	s.mu.Unlock()

	share := s.share()
	s.mu.Lock()
	more := share - len(s.partitions)
	if more >= 0 {
		s.over = 0
	} else if s.over++; s.over >= 2 && s.ctx.Err() == nil { // an answer may have come late: twice is a fact
		s.giveAway(-more)
	}
	s.mu.Unlock()
	return s.takeMore(more, taken)
}

// endLost ends the partitions whose consumers are gone. The log has a few of them by
// number: a server that starts again may take a thousand at once.
func (s *source) endLost(own map[string]bool) {
	s.mu.Lock()
	var lost []*partition
	for n, p := range s.partitions {
		switch {
		case !own[p.name]:
			delete(s.partitions, n)
			lost = append(lost, p)
		case p.stopped():
			s.leave(p) // the client takes nothing more from a consumer that is there
		}
	}
	s.mu.Unlock()
	var numbers []int
	for _, p := range lost {
		p.end()
		s.sink.End(p.n)
		numbers = append(numbers, p.n)
	}
	if len(numbers) > 0 {
		slices.Sort(numbers)
		s.config.Log.Warn("partitions lost", "count", len(numbers), "first", numbers[:min(len(numbers), 8)])
	}
}
