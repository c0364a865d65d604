package webhook

// An ageList links all entries of a queue from the oldest to the newest.
//
// The oldest waiting entry is wanted whenever the queue overflows. Entries in
// flight stay where they are in the list, because they may wait again; cursor
// keeps the place behind those in front, so that finding the oldest waiting
// one does not pass them each time. Passed entries are marked: one of them
// that waits again takes the cursor back.
type ageList struct {
	head, tail uint32
	cursor     uint32 // no entry before it waits; 0 is the end of the list
	seen       uint32 // see look
}

func (a *ageList) push(entries *slab[entry], at uint32) {
	e := entries.at(at)
	e.older, e.newer = a.tail, 0
	if a.tail == 0 {
		a.head = at
	} else {
		entries.at(a.tail).newer = at
	}
	a.tail = at
	if a.cursor == 0 {
		a.cursor = at
	}
}

func (a *ageList) remove(entries *slab[entry], at uint32) {
	e := entries.at(at)
	if a.cursor == at {
		a.cursor = e.newer
	}
	if e.older == 0 {
		a.head = e.newer
	} else {
		entries.at(e.older).newer = e.newer
	}
	if e.newer == 0 {
		a.tail = e.older
	} else {
		entries.at(e.newer).older = e.older
	}
}

// look reads a little of what removing the entries of jobs is about to change,
// for the reason that batch.look has.
func (a *ageList) look(entries *slab[entry], jobs []job) {
	for i := range jobs {
		a.seen += entries.at(jobs[i].entry).older
	}
	for i := range jobs {
		e := entries.at(jobs[i].entry)
		a.seen += entries.at(e.older).newer + entries.at(e.newer).older
	}
}

// oldestWaiting returns the oldest entry that is not in flight, or 0.
func (a *ageList) oldestWaiting(entries *slab[entry]) uint32 {
	for a.cursor != 0 {
		e := entries.at(a.cursor)
		if e.flags&entryInFlight == 0 {
			break
		}
		e.flags |= entryPassed
		a.cursor = e.newer
	}
	return a.cursor
}

// back tells the list that an entry waits again.
func (a *ageList) back(entries *slab[entry], at uint32) {
	if entries.at(at).flags&entryPassed == 0 {
		return
	}
	for i := at; i != a.cursor; {
		e := entries.at(i)
		e.flags &^= entryPassed
		i = e.newer
	}
	a.cursor = at
}

// A laneList is the queue of lanes that are ready.
type laneList struct{ head, tail uint32 }

func (r *laneList) push(lanes *slab[lane], at uint32) {
	l := lanes.at(at)
	l.prev, l.next = r.tail, 0
	if r.tail == 0 {
		r.head = at
	} else {
		lanes.at(r.tail).next = at
	}
	r.tail = at
}

func (r *laneList) pushFront(lanes *slab[lane], at uint32) {
	l := lanes.at(at)
	l.prev, l.next = 0, r.head
	if r.head == 0 {
		r.tail = at
	} else {
		lanes.at(r.head).prev = at
	}
	r.head = at
}

func (r *laneList) remove(lanes *slab[lane], at uint32) {
	l := lanes.at(at)
	if l.prev == 0 {
		r.head = l.next
	} else {
		lanes.at(l.prev).next = l.next
	}
	if l.next == 0 {
		r.tail = l.prev
	} else {
		lanes.at(l.next).prev = l.prev
	}
	l.prev, l.next = 0, 0
}

// backoffHeap orders the lanes in backoff by when they are ready: a
// container/heap, because retries are not the hot path.
type backoffHeap struct {
	lanes *slab[lane]
	at    []uint32
}

func (h *backoffHeap) Len() int { return len(h.at) }

func (h *backoffHeap) Less(i, j int) bool {
	return h.lanes.at(h.at[i]).readyAt < h.lanes.at(h.at[j]).readyAt
}

func (h *backoffHeap) Swap(i, j int) {
	h.at[i], h.at[j] = h.at[j], h.at[i]
	h.lanes.at(h.at[i]).heapAt = int32(i)
	h.lanes.at(h.at[j]).heapAt = int32(j)
}

func (h *backoffHeap) Push(x any) {
	at := x.(uint32)
	h.lanes.at(at).heapAt = int32(len(h.at))
	h.at = append(h.at, at)
}

func (h *backoffHeap) Pop() any {
	n := len(h.at) - 1
	at := h.at[n]
	h.at = h.at[:n]
	return at
}
