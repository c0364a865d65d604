//go:build race

package webhook

// raceEnabled: sync.Pool forgets on purpose, so allocations cannot be counted.
const raceEnabled = true
