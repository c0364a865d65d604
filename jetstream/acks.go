package jetstream

import "sync"

// acks are acknowledgements on their way: who has dealt with an event does not
// wait for the connection.
type acks struct {
	mu      sync.Mutex
	waiting []*message
	flushed []chan struct{} // to be closed when all that wait now are sent
	closed  bool
	some    chan struct{} // says that there is something to do; holds one
}

func (a *acks) add(m *message) {
	a.mu.Lock()
	a.waiting = append(a.waiting, m)
	a.mu.Unlock()
	signal(a.some)
}

// run sends acknowledgements until close.
func (a *acks) run() {
	var batch []*message
	for {
		a.mu.Lock()
		batch, a.waiting = a.waiting, batch[:0]
		flushed, closed := a.flushed, a.closed
		a.flushed = nil
		a.mu.Unlock()
		for _, m := range batch {
			m.partition.acknowledge(m)
		}
		clear(batch)
		for _, done := range flushed {
			close(done)
		}
		if closed && len(batch) == 0 {
			return
		}
		if len(batch) == 0 {
			<-a.some
		}
	}
}

// flush returns when all acknowledgements are sent that wait. It is not for after
// close.
func (a *acks) flush() {
	done := make(chan struct{})
	a.mu.Lock()
	a.flushed = append(a.flushed, done)
	a.mu.Unlock()
	signal(a.some)
	<-done
}

func (a *acks) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	signal(a.some)
}
