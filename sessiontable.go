package webhook

import (
	"hash/maphash"
	"strings"
	"sync"
)

// sessionTable holds the sessions by client id, in parts that are locked
// separately.
type sessionTable [64]struct {
	mu       sync.RWMutex // never held while a session's lock is awaited
	sessions map[string]*session
}

var tableSeed = maphash.MakeSeed()

func (t *sessionTable) part(id string) int {
	return int(maphash.String(tableSeed, id) % uint64(len(t)))
}

// find returns the session of id, or nil.
func (t *sessionTable) find(id string) *session {
	p := &t[t.part(id)]
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.sessions[id]
}

// lock returns the session of id, locked; an empty one if there is none.
func (t *sessionTable) lock(id string) *session {
	for {
		s := t.find(id)
		if s == nil {
			s = t.add(id)
		}
		s.mu.Lock()
		if !s.gone {
			return s
		}
		s.mu.Unlock() // look again
	}
}

func (t *sessionTable) add(id string) *session {
	p := &t[t.part(id)]
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[id]
	if s == nil {
		id = strings.Clone(id) // it is a view of the CONNECT packet
		s = &session{id: id}
		if p.sessions == nil {
			p.sessions = make(map[string]*session)
		}
		p.sessions[id] = s
	}
	return s
}

// unlock releases a session, and removes it if there is nothing in it.
func (t *sessionTable) unlock(s *session) {
	if s.cl.Load() == nil {
		p := &t[t.part(s.id)]
		p.mu.Lock()
		delete(p.sessions, s.id)
		p.mu.Unlock()
		s.gone = true
	}
	s.mu.Unlock()
}
