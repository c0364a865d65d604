package jetstream_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/mochi-hooks/webhook"
)

// TestNotPermitted has a worker that may not do what it has to: it gets no events,
// or no more when it has as many as it may hold, and its health says why.
func TestNotPermitted(t *testing.T) {
	t.Parallel()
	for _, denied := range []string{"$JS.ACK.>", "$JS.API.CONSUMER.MSG.NEXT.>", "$JS.API.CONSUMER.CREATE.>", "MQTT_WEBHOOKS_WORKERS.>"} {
		t.Run(denied, func(t *testing.T) {
			t.Parallel()
			s := startNATS(t, func(o *server.Options) {
				o.Users = []*server.User{
					{Username: "broker", Password: "x"},
					{Username: "worker", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{denied}}}},
				}
			})
			r := startReceiver(t)
			b := startBroker(t, config(r.URL, strings.Replace(s.ClientURL(), "//", "//broker:x@", 1), nil), 1)
			log, lines := logger(t, "worker")
			w := startWorkerWith(t, &webhook.Deliverer{Config: config(r.URL, strings.Replace(s.ClientURL(), "//", "//worker:x@", 1), nil), Log: log})
			const n = 1000
			b.publishAll(n)
			awaitForwarded(t, b, n)
			eventually(t, 20*time.Second, func() string {
				if err := w.Healthy(); err == nil || !strings.Contains(err.Error(), "permissions violation") {
					return fmt.Sprintf("healthy: %v", err)
				}
				return ""
			})
			time.Sleep(2 * time.Second) // for more of them
			if n := strings.Count(lines.String(), "NATS reported an error"); n < 1 || n > 8 {
				t.Errorf("%d lines in the log", n)
			}
		})
	}
}

// TestBrokerNotPermitted has a broker that may not publish: its events wait, and its
// health says why.
func TestBrokerNotPermitted(t *testing.T) {
	t.Parallel()
	s := startNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "broker", Password: "x", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"MQTT_WEBHOOKS.>"}},
		}}}
	})
	b := startBroker(t, config("http://127.0.0.1:1/", strings.Replace(s.ClientURL(), "//", "//broker:x@", 1), nil), 1)
	b.publish(0)
	eventually(t, 20*time.Second, func() string {
		if err := b.Healthy(); err == nil || !strings.Contains(err.Error(), "permissions violation") {
			return fmt.Sprintf("healthy: %v", err)
		}
		return ""
	})
	if s := b.Stats().Endpoints["orders"]; s.Waiting+s.InFlight != 1 {
		t.Errorf("%+v", s)
	}
}
