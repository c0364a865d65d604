//go:build race

package spool

// underRace says that the race detector runs, which makes tests with many
// files in virtual time some ten times slower.
const underRace = true
