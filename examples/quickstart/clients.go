package main

import (
	"context"
	"fmt"
	"net"

	"github.com/eclipse/paho.golang/paho"
)

// expected is how many events play makes that the configuration asks for.
const expected = 12

// play lets two MQTT clients do what clients do, and waits after each step for
// its webhooks, so that they print in this order.
func play(broker string, receiver *receiver) error {
	ctx := context.Background()

	dashboard, err := connect(ctx, broker, "dashboard", "alice")
	if err != nil {
		return err
	}
	receiver.waitFor(3) // connect, connack, connected

	subscription := paho.SubscribeOptions{Topic: "home/+/temperature", QoS: 1}
	if _, err := dashboard.Subscribe(ctx, &paho.Subscribe{
		Subscriptions: []paho.SubscribeOptions{subscription},
	}); err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	receiver.waitFor(4)

	sensor, err := connect(ctx, broker, "sensor-1", "")
	if err != nil {
		return err
	}
	receiver.waitFor(7)

	// A message that no rule asks for, and one that makes three events:
	// published by the sensor, delivered to the dashboard, acknowledged by it.
	for _, message := range []paho.Publish{
		{Topic: "lab/noise", QoS: 1, Payload: []byte("not for the receiver")},
		{Topic: "home/kitchen/temperature", QoS: 1, Payload: []byte(`{"celsius": 21.5}`)},
	} {
		if _, err := sensor.Publish(ctx, &message); err != nil {
			return fmt.Errorf("publishing: %w", err)
		}
	}
	receiver.waitFor(10)

	for i, client := range []*paho.Client{sensor, dashboard} {
		if err := client.Disconnect(&paho.Disconnect{}); err != nil {
			return fmt.Errorf("disconnecting: %w", err)
		}
		receiver.waitFor(11 + uint64(i))
	}
	return nil
}

// connect connects an MQTT 5 client; without a name it has no user name.
func connect(ctx context.Context, broker, id, name string) (*paho.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", broker)
	if err != nil {
		return nil, err
	}
	client := paho.NewClient(paho.ClientConfig{Conn: conn})
	if _, err := client.Connect(ctx, &paho.Connect{
		ClientID:     id,
		Username:     name,
		UsernameFlag: name != "",
		KeepAlive:    60,
		CleanStart:   true,
	}); err != nil {
		return nil, fmt.Errorf("connecting %s: %w", id, err)
	}
	return client, nil
}
