package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"
)

// A request that carries a trace goes on with it, and has one traceparent.
func TestContinued(t *testing.T) {
	const publisher = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	var got http.Header
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer receiver.Close()
	transport := continued{otelhttp.NewTransport(http.DefaultTransport,
		otelhttp.WithTracerProvider(trace.NewTracerProvider()), otelhttp.WithPropagators(propagation.TraceContext{}))}

	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, receiver.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("traceparent", publisher)
	r.Header.Set("tracestate", "vendor=1")
	reply, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	parents := got.Values("Traceparent")
	if len(parents) != 1 || !strings.HasPrefix(parents[0], publisher[:36]) || parents[0] == publisher {
		t.Errorf("traceparent: got %q, want one in the trace of %s with another parent", parents, publisher)
	}
	if state := got.Values("Tracestate"); len(state) != 1 || state[0] != "vendor=1" {
		t.Errorf("tracestate: got %q, want vendor=1", state)
	}
	if r.Header.Get("traceparent") != publisher {
		t.Errorf("the caller's request changed: %v", r.Header)
	}
}
