// Command otel traces webhooks with OpenTelemetry, in one process: a broker
// with the webhook hook, whose Options.Transport is otelhttp's, a receiver, and
// a message between them.
//
//	go run ./examples/otel
//
// It prints a line for each span and exits.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/mochi-hooks/webhook"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "otel:", err)
		os.Exit(1)
	}
}

func run(stdout io.Writer) error {
	// A real program exports with go.opentelemetry.io/otel/exporters/otlp.
	spans := trace.NewTracerProvider(trace.WithSyncer(printer{stdout}))
	defer spans.Shutdown(context.Background())
	options := []otelhttp.Option{
		otelhttp.WithTracerProvider(spans),
		otelhttp.WithPropagators(propagation.TraceContext{}),
	}

	received := make(chan struct{})
	first := sync.OnceFunc(func() { close(received) }) // a webhook can come twice
	answer := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		first()
	}
	receiver := httptest.NewServer(otelhttp.NewHandler(http.HandlerFunc(answer), "receiver", options...))
	defer receiver.Close()

	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	defer server.Close() // delivers what waits; the spans end before Shutdown
	err := server.AddHook(new(webhook.Hook), &webhook.Options{
		Transport: continued{otelhttp.NewTransport(newTransport(), options...)},
		Config: &webhook.Config{Endpoints: []webhook.Endpoint{{
			URL:    receiver.URL + "/hook",
			Events: []webhook.Rule{{Event: webhook.OnMessagePublish}},
		}}},
	})
	if err != nil {
		return err
	}
	if err := server.Serve(); err != nil {
		return err
	}
	if err := server.Publish("sensors/1", []byte("21.5"), false, 0); err != nil {
		return err
	}
	select {
	case <-received:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("no webhook came")
	}
}

// newTransport is net/http's default with as many idle connections as the
// endpoint may use at a time (pool_size): the default of 2 would close and dial
// again and again.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	return t
}

// A continued transport makes the span of a request go on with the trace that
// the request carries already: that of the client which published the message.
// Without it otelhttp would begin another trace in its place.
type continued struct{ next http.RoundTripper }

func (c continued) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	return c.next.RoundTrip(r.WithContext(ctx))
}

// A printer exports spans as lines.
type printer struct{ to io.Writer }

func (p printer) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	for _, s := range spans {
		parent := "-"
		if s.Parent().IsValid() {
			parent = s.Parent().SpanID().String()
		}
		_, err := fmt.Fprintf(p.to, "%s %q trace=%s span=%s parent=%s\n", s.SpanKind(), s.Name(),
			s.SpanContext().TraceID(), s.SpanContext().SpanID(), parent)
		if err != nil {
			return err
		}
	}
	return nil
}

func (printer) Shutdown(context.Context) error { return nil }
