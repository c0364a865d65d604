package webhook

import (
	"math/rand/v2"
	"time"
)

// next draws the delay before attempt n+1 after n failed attempts: uniform in
// [MinBackoff, min(MaxBackoff, MinBackoff·3ⁿ)]. The lower bound keeps an
// endpoint that just failed from being asked again at once; the spread keeps
// lanes that failed together from coming back together.
func (r *Retry) next(n int) time.Duration {
	top := r.MinBackoff
	for ; n > 0 && top < r.MaxBackoff; n-- {
		if top > r.MaxBackoff/3 { // the product would pass the maximum, or overflow
			top = r.MaxBackoff
			break
		}
		top *= 3
	}
	if top <= r.MinBackoff {
		return r.MinBackoff
	}
	return r.MinBackoff + rand.N(top-r.MinBackoff+1)
}
