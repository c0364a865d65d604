// Command quickstart shows the webhook at work in one process: a mochi-mqtt
// broker with the hook, a receiver, and two MQTT clients. It prints the
// configuration, each request that the receiver gets, and a summary:
//
//	N events, N requests, N delivered, N dropped
//
// It exits 0 when every event has been delivered.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/mochi-hooks/webhook"
)

// config is the configuration file, with a place for the receiver's URL.
const config = `webhook = {
  url = "%s"
  headers.content-type = "application/json"
  body.encoding = "plain"
  events = [
    { event = "on_client_connect" }
    { event = "on_client_connack" }
    { event = "on_client_connected" }
    { event = "on_client_disconnected" }
    { event = "on_client_subscribe" }
    {
      event = "on_message_publish"
      topic = "home/#"                # of all messages only these
    }
    {
      event = "on_message_delivered"
      topic = "home/#"
    }
    {
      event = "on_message_acked"
      topic = "home/#"
    }
  ]
}
`

func main() {
	// Everything is on loopback and done in a second. A webhook that does not
	// come shows here.
	time.AfterFunc(9*time.Second, func() { fail(errors.New("not done after 9 seconds")) })
	if err := run(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	_ = webhook.WriteDiagnostics(os.Stderr, err) // any other error, too
	os.Exit(1)
}

func run() error {
	receiver, err := startReceiver()
	if err != nil {
		return err
	}
	defer receiver.close()

	text := fmt.Sprintf(config, receiver.url())
	fmt.Println("The configuration:")
	fmt.Println()
	fmt.Println(text)
	cfg, err := webhook.Parse([]byte(text), "quickstart.hcl")
	if err != nil {
		return err
	}

	server := mqtt.New(&mqtt.Options{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err := server.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	hook := new(webhook.Hook)
	if err := server.AddHook(hook, &webhook.Options{Config: cfg}); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := server.AddListener(listeners.NewNet("tcp", l)); err != nil {
		return err
	}
	if err := server.Serve(); err != nil {
		return err
	}

	fmt.Println("What the receiver gets:")
	fmt.Println()
	if err := play(l.Addr().String(), receiver); err != nil {
		return err
	}
	server.Listeners.ClientsWg.Wait() // Close can lock up while clients are leaving
	if err := server.Close(); err != nil {
		return err
	}

	stats := hook.Stats().Endpoints["default"]
	dropped := uint64(0)
	for _, n := range stats.Dropped {
		dropped += n
	}
	requests := receiver.total()
	fmt.Printf("\n%d events, %d requests, %d delivered, %d dropped\n",
		stats.Offered, requests, stats.Delivered, dropped)
	if stats.Offered != expected || requests != expected || stats.Delivered != expected || dropped != 0 {
		return fmt.Errorf("%d of each were expected, and none dropped", expected)
	}
	return nil
}
