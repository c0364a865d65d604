package webhook

// A store keeps the records of a queue's events. The queue's lock guards it,
// but for fetch.
type store interface {
	// put keeps a record, or says why not. A record longer than maxSlot
	// is the store's to keep as it is, a shorter one it has to copy.
	put(rec []byte) (ref uint64, reason dropReason)

	// load returns a record, or nil where reading it takes I/O.
	load(ref uint64, size int) []byte

	// fetch returns a record that load does not. It may be called by many
	// goroutines at a time, without the lock, as long as the record is
	// there.
	fetch(buf []byte, ref uint64) ([]byte, error)

	// remove forgets a record.
	remove(ref uint64)

	// cost is what a record of the given size takes of the queue's bytes.
	cost(size int) int64

	// overhead is what the store takes beside that.
	overhead() int64
}
