package webhook

import (
	"sync/atomic"
	"time"
)

// A wallClock tells the time of day by one look at the monotonic clock, half of
// what time.Now costs. It sets itself by the real one as soon as that was long
// ago, so it follows a clock that is set, too.
type wallClock struct{ base atomic.Pointer[time.Time] }

// setAfter is how long the wall clock is not looked at.
const setAfter = 50 * time.Millisecond

// unixMilli returns the time in Unix milliseconds.
func (c *wallClock) unixMilli() int64 {
	if base := c.base.Load(); base != nil {
		if since := time.Since(*base); since < setAfter {
			return base.Add(since).UnixMilli()
		}
	}
	now := time.Now()
	c.base.Store(&now)
	return now.UnixMilli()
}
