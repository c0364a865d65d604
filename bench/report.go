package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// figures are those of a row, and their ratios to the base: medians, the ratios
// of the figures of one round.
type figures struct {
	perSecond, cpu           float64
	perSecondRatio, cpuRatio float64
}

// figures returns the figures of row i. The base is the nearest one above.
func (t *table) figures(i int) figures {
	r := &t.rows[i]
	base := r
	for j := i; j >= 0; j-- {
		if t.rows[j].base {
			base = &t.rows[j]
			break
		}
	}
	own := slices.Clone(r.results) // without what is somebody else's
	for _, other := range t.rows {
		if other.name != r.minus {
			continue
		}
		for n, o := range other.results {
			own[n].CPU -= o.CPU * float64(own[n].Events) / float64(o.Events)
		}
	}
	ratio := func(figure func(outcome) float64) float64 {
		var ratios []float64
		for n, o := range own {
			ratios = append(ratios, figure(o)/figure(base.results[n]))
		}
		return median(ratios)
	}
	return figures{
		perSecond: medianOf(own, perSecond), cpu: medianOf(own, microseconds),
		perSecondRatio: ratio(perSecond), cpuRatio: ratio(microseconds),
	}
}

func perSecond(o outcome) float64    { return float64(o.Events) / o.Seconds }
func microseconds(o outcome) float64 { return o.CPU / float64(o.Events) * 1e6 }

// medianOf returns the middle of a figure of all rounds.
func medianOf(results []outcome, figure func(outcome) float64) float64 {
	var all []float64
	for _, o := range results {
		all = append(all, figure(o))
	}
	return median(all)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// print prints a table in Markdown.
func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "### %s\n\n| | %s/s | ratio | CPU µs each | ratio | |\n|---|---:|---:|---:|---:|---|\n", t.title, t.unit)
	for i := range t.rows {
		r, f := &t.rows[i], t.figures(i)
		var notes []string
		if r.minus != "" {
			notes = append(notes, "CPU over "+r.minus)
		}
		if p99 := medianOf(r.results, func(o outcome) float64 { return o.P99 }); p99 > 0 {
			p50 := medianOf(r.results, func(o outcome) float64 { return o.P50 })
			notes = append(notes, fmt.Sprintf("publish to receipt p50 %.1f ms, p99 %.1f ms", p50, p99))
		}
		if p99 := medianOf(r.results, func(o outcome) float64 { return o.AckP99 }); p99 > 0 {
			p50 := medianOf(r.results, func(o outcome) float64 { return o.AckP50 })
			notes = append(notes, fmt.Sprintf("publish to PUBACK p50 %.2f ms, p99 %.2f ms", p50, p99))
		}
		lost := 0
		for _, o := range r.results {
			lost += o.Lost
		}
		if lost > 0 {
			notes = append(notes, fmt.Sprintf("%d LOST", lost))
		}
		fmt.Fprintf(out, "| %s | %s | %.2f | %s | %.2f | %s |\n", r.name,
			grouped(f.perSecond), f.perSecondRatio, short(f.cpu), f.cpuRatio, strings.Join(notes, "; "))
	}
	fmt.Fprintln(out)
}

// grouped writes a number with a comma between thousands, to three digits.
func grouped(x float64) string {
	n := int64(x)
	for unit := int64(10); unit <= 1e9; unit *= 10 {
		if n >= unit*1000 {
			continue
		}
		if n >= 1000 {
			n = (n + unit/20) / (unit / 10) * (unit / 10)
		}
		break
	}
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// short writes a number with about three digits.
func short(x float64) string {
	switch {
	case x < 1:
		return fmt.Sprintf("%.3f", x)
	case x < 100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}
