package webhook

import "slices"

// A format is how events of an endpoint become requests. It is chosen once, and
// used by many goroutines at a time.
type format struct {
	// render makes the request of one event: all but its id and its head. It
	// appends the body to req.body.
	render func(req *request, ev *event)

	// head is the one of client.heads that the requests have, and contentType
	// what that says.
	head        uint32
	contentType string

	// batchType is the content-type of a batch, a JSON array of bodies;
	// "" is the head's.
	batchType string

	// hasID says that each body has its event's id as the member "id".
	hasID bool
}

// newFormat returns the format of an endpoint that has been checked.
func newFormat(c *Endpoint) format {
	b := &c.Body
	nanomq := withFields(func(dst []byte, ev *event) []byte { return appendBody(dst, ev, b.Encoding) }, b.Fields, nanomqHas)
	trace := !hasHeader(c.Headers, traceParent)
	hasID := slices.Contains(b.Fields, FieldID)
	switch b.Format {
	case FormatCloudEvents:
		ce := cloudEvents{source: b.Source, data: nanomq}
		return format{
			render:    renderObject(ce.appendStructured, cloudEventType, trace),
			batchType: cloudEventsBatchType,
			hasID:     true,
		}
	case FormatCloudEventsBinary:
		ce := cloudEvents{source: b.Source, data: nanomq, dataType: configuredType(c.Headers), trace: trace}
		return format{render: ce.renderBinary}
	case FormatEMQX:
		e := emqx{node: b.Node, encoding: b.Encoding}
		object := withFields(e.appendBody, b.Fields, emqxHas)
		return format{render: renderObject(object, "", trace), hasID: hasID}
	}
	return format{render: renderObject(nanomq, "", trace), hasID: hasID}
}

// newFormats returns the formats of an endpoint's events by their rule; see
// variants.
func newFormats(c *Endpoint) map[uint32]*format {
	formats := make(map[uint32]*format)
	for rule, v := range c.variants() {
		own := *c
		own.Headers, own.Body.Encoding = v.headers, v.encoding
		f := newFormat(&own)
		f.head, f.contentType = v.head, defaultContentType
		for _, h := range v.headers {
			if equalFold(h.Name, "content-type") {
				f.contentType = string(h.Value)
			}
		}
		formats[rule] = &f
	}
	return formats
}

// renderObject makes requests whose body is one object. trace says whether a
// message's trace context goes on.
func renderObject(object func(dst []byte, ev *event) []byte, contentType string, trace bool) func(req *request, ev *event) {
	return func(req *request, ev *event) {
		req.contentType = contentType
		req.header = req.header[:0]
		if trace && ev.extra != nil {
			req.header = append(req.header, ev.extra.trace...)
		}
		req.body = object(req.body, ev)
	}
}

// nanomqHas reports whether NanoMQ's body of a kind has what a field adds.
func nanomqHas(k kind, f Field) bool {
	return f == FieldIPAddress && (k == kindConnect || k == kindConnected) || f == FieldTS && k.isMessage()
}
