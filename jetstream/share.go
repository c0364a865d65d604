package jetstream

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (s *source) presence() string { return s.config.Name + "_WORKERS." + s.config.Endpoint }

// consumers returns the partitions that have a consumer, and the names of this
// worker's consumers.
func (s *source) consumers() (taken map[int]bool, own map[string]bool, err error) {
	ctx, cancel := timeout(s.ctx)
	defer cancel()
	taken, own = make(map[int]bool), make(map[string]bool)
	names := s.stream.ConsumerNames(ctx)
	for name := range names.Name() {
		endpoint, n, worker, ok := parseConsumer(name)
		if ok && endpoint == s.config.Endpoint {
			taken[n] = true
			if strings.HasPrefix(worker, s.id) {
				own[name] = true
			}
		}
	}
	return taken, own, names.Err()
}

// consumerName returns a name for a consumer of a partition, which no other one
// has ever had.
func (s *source) consumerName(n int) string {
	return fmt.Sprintf("%s-%d-%s_%d", s.config.Endpoint, n, s.id, s.named.Add(1))
}

// parseConsumer reads what consumerName writes; an endpoint may have a hyphen.
func parseConsumer(name string) (endpoint string, n int, worker string, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", 0, "", false
	}
	name, worker = name[:i], name[i+1:]
	if i = strings.LastIndexByte(name, '-'); i < 0 {
		return "", 0, "", false
	}
	n, err := strconv.Atoi(name[i+1:])
	return name[:i], n, worker, err == nil
}

// share returns how many partitions are this worker's. What is left over when they
// are divided goes to those whose ids come first.
func (s *source) share() int {
	ids := s.callRoll()
	share := s.config.Partitions / len(ids)
	if slices.Index(ids, s.id) < s.config.Partitions%len(ids) {
		share++
	}
	return share
}

// callRoll returns the ids of the workers that answer, this one included, in order.
func (s *source) callRoll() []string {
	ids := []string{s.id}
	inbox := s.conn.NewInbox()
	answers, err := s.conn.SubscribeSync(inbox)
	if err != nil {
		return ids
	}
	defer func() { _ = answers.Unsubscribe() }()
	if err := s.conn.PublishRequest(s.presence(), inbox, nil); err != nil {
		return ids
	}
	ctx, cancel := context.WithTimeout(s.ctx, rollCall)
	defer cancel()
	for {
		m, err := answers.NextMsgWithContext(ctx)
		if err != nil {
			slices.Sort(ids)
			return slices.Compact(ids)
		}
		ids = append(ids, string(m.Data))
	}
}

// takeMore takes up to most partitions that nobody has, as many as a beat has time
// for: what it has needs its lease renewed.
func (s *source) takeMore(most int, taken map[int]bool) error {
	var free []int
	s.mu.Lock()
	for n := range s.config.Partitions {
		if rest := s.resting[n]; !taken[n] && s.partitions[n] == nil && s.leaving[n] == nil && time.Now().After(rest) {
			free = append(free, n)
		}
	}
	s.mu.Unlock()
	// Others look at the same time: everyone begins elsewhere.
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	var foreign error
	for n := range taken {
		delete(s.blocked, n)
	}
	late := time.Now().Add(beat)
	for _, n := range free[:min(len(free), max(most, 0))] {
		if time.Now().After(late) {
			break
		}
		err := s.take(n)
		switch {
		case err == nil:
			delete(s.blocked, n)
		case codeOf(err) != codeNotUnique:
			return err
		case s.blocked[n]: // a worker that was faster would be seen by now
			foreign = fmt.Errorf("stream %s has a consumer that is no worker's and keeps workers from its partitions: %w", s.config.Name, err)
		default:
			s.blocked[n] = true
		}
	}
	return foreign
}

// giveAway gives n partitions back. s.mu is held.
func (s *source) giveAway(n int) {
	for _, p := range slices.Collect(maps.Values(s.partitions))[:n] {
		s.resting[p.n] = time.Now().Add(resetDelay)
		s.leave(p)
	}
}
