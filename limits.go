package webhook

// limits is the part of an endpoint's configuration that the queue needs.
type limits struct {
	ordered    bool
	maxPayload int64
	ruleMax    map[uint32]int64 // of rules with a lower maxPayload, by key
	rate       RateLimit
	queue      Queue
	retry      Retry
	breaker    Breaker
	batch      Batch  // MaxEvents is 1 for none
	forwards   bool   // deliveries are into a stream
	lenient    bool   // the age of an event that was never sent counts from the last answer to others
	events     uint32 // bit set of the kinds that a rule names
	workers    int    // that may be busy at a time
}

// limitsOf returns those of an endpoint that has been checked.
func limitsOf(config *Endpoint) limits {
	config = config.sending()
	l := limits{
		ordered:    config.Ordering != OrderNone,
		maxPayload: config.Body.MaxPayload,
		rate:       config.RateLimit,
		queue:      config.Queue,
		retry:      config.Retry,
		breaker:    config.Breaker,
		batch:      config.Batch,
		workers:    config.PoolSize,
		forwards:   config.Stream.enabled(),
	}
	if !config.Batch.enabled() {
		l.batch.MaxEvents = 1
	}
	if config.Disabled {
		l.workers = 0
	}
	for i := range config.Events {
		rule := &config.Events[i]
		l.events |= 1 << kindOf(rule.Event)
		if most := rule.maxPayload(&config.Body); most < l.maxPayload {
			if l.ruleMax == nil {
				l.ruleMax = make(map[uint32]int64)
			}
			l.ruleMax[rule.key()] = most
		}
	}
	if l.queue.Type == DiskQueue {
		l.queue.Capacity = -1
		if l.queue.Overflow == DropOldest && l.queue.MaxBytes >= 0 {
			// The folder also holds what is done, in segments that have not
			// gone yet. With room for that, dropping the oldest events makes
			// segments go before the folder is full.
			l.queue.MaxBytes -= l.queue.MaxBytes / 4
		}
	}
	return l
}

// mostPayload is the longest payload of a rule's events.
func (l *limits) mostPayload(rule uint32) int64 {
	if rule != 0 {
		if most, lower := l.ruleMax[rule]; lower {
			return most
		}
	}
	return l.maxPayload
}
