package main

import (
	"bytes"
	"fmt"
	"html"
)

// The measures of the drawing, in pixels.
const (
	width    = 860
	labels   = 250 // where bars begin
	half     = 190 // the longest bar
	lineStep = 24
	barSize  = 14
)

// draw makes an SVG of the tables: a group of bars for each, throughput on the
// left and CPU on the right.
func draw(tables []*table) []byte {
	var b bytes.Buffer
	height := 16
	for _, t := range tables {
		height += 56 + lineStep*len(t.rows)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	y := 0
	text := func(x, y int, attrs, s string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" %s>%s</text>`+"\n", x, y, attrs, html.EscapeString(s))
	}
	for _, t := range tables {
		y += 32
		text(16, y, `font-weight="600" fill="#1f2328"`, t.title)
		text(labels, y, `fill="#57606a"`, t.unit+" a second")
		text(labels+half+100, y, `fill="#57606a"`, "CPU µs for each")
		var fastest, dearest float64
		for i := range t.rows {
			f := t.figures(i)
			fastest, dearest = max(fastest, f.perSecond), max(dearest, f.cpu)
		}
		y += 8
		for i := range t.rows {
			f := t.figures(i)
			y += lineStep
			bar := func(x int, value, most float64, color, label string) {
				length := 1
				if most > 0 && value > 0 {
					length = max(int(value/most*half), 1)
				}
				fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="2" fill="%s"/>`+"\n", x, y-barSize+2, length, barSize, color)
				text(x+length+6, y, `fill="#1f2328"`, label)
			}
			text(labels-10, y, `text-anchor="end" fill="#1f2328"`, t.rows[i].name)
			bar(labels, f.perSecond, fastest, "#0969da", grouped(f.perSecond))
			bar(labels+half+100, f.cpu, dearest, "#bc4c00", short(f.cpu))
		}
		y += 16
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
