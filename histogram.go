package webhook

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets whose width is a sixteenth of their
// power of two, in microseconds: exact enough for percentiles, of fixed size.
// Beside them it has the few round bounds that people compare and add up.
type histogram struct {
	counts [26 * 16]uint64 // up to 2^29 µs, nine minutes
	round  [len(roundBounds) + 1]uint64
	total  uint64
	sum    time.Duration
	max    time.Duration
}

// roundBounds are the buckets of Durations: from a receiver on the same machine
// to one that needs the longest timeouts.
var roundBounds = [...]time.Duration{
	500 * time.Microsecond,
	1 * time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	1 * time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

func (h *histogram) add(d time.Duration) {
	h.counts[min(bucketOf(uint64(d.Microseconds())), len(h.counts)-1)]++
	at := 0
	for at < len(roundBounds) && d > roundBounds[at] {
		at++
	}
	h.round[at]++
	h.total++
	h.sum += d
	h.max = max(h.max, d)
}

// durations returns the buckets with round bounds.
func (h *histogram) durations() Durations {
	d := Durations{Buckets: make([]DurationBucket, len(roundBounds)), Count: h.total, Sum: h.sum}
	var upTo uint64
	for i, bound := range roundBounds {
		upTo += h.round[i]
		d.Buckets[i] = DurationBucket{bound, upTo}
	}
	return d
}

// bucketOf returns the bucket of a value: 0 to 15 have their own, then
// sixteen for each power of two.
func bucketOf(us uint64) int {
	if us < 16 {
		return int(us)
	}
	shift := bits.Len64(us) - 5
	return shift*16 + int(us>>shift)
}

// bucketEnd returns the first value above bucket i.
func bucketEnd(i int) uint64 {
	if i < 16 {
		return uint64(i) + 1
	}
	shift := i/16 - 1
	return uint64(i%16+16+1) << shift
}

// quantile returns the upper end of the bucket in which the q-th part of the
// values ends, or the maximum if that is less.
func (h *histogram) quantile(q float64) time.Duration {
	want := uint64(q * float64(h.total))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen > want {
			return min(time.Duration(bucketEnd(i))*time.Microsecond, h.max)
		}
	}
	return h.max
}

func (h *histogram) summary() Latency {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Latency{P50: ms(h.quantile(0.5)), P90: ms(h.quantile(0.9)), P99: ms(h.quantile(0.99)), Max: ms(h.max)}
}
