package webhook

import (
	"sync/atomic"
	"time"
)

// A wallClock tells the time of day by one look at the monotonic clock, half of
// what time.Now costs. It sets itself by the real one as soon as that was long
// ago, so it follows a clock that is set, too.
type wallClock struct{ last atomic.Pointer[moment] }

// A moment is a time by the monotonic clock and by the real one.
type moment struct {
	at       time.Time
	unixNano int64
}

// setAfter is how long the wall clock is not looked at.
const setAfter = 50 * time.Millisecond

// unixNano returns the time in Unix nanoseconds.
func (c *wallClock) unixNano() int64 {
	if s := c.last.Load(); s != nil {
		if since := time.Since(s.at); since < setAfter {
			return s.unixNano + int64(since)
		}
	}
	now := time.Now()
	c.last.Store(&moment{now, now.UnixNano()})
	return now.UnixNano()
}
