package webhook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"

	mqtt "github.com/mochi-mqtt/server/v2"

	"github.com/mochi-hooks/webhook"
)

// A broker with a webhook that is configured in Go, and a receiver.
func Example() {
	received := make(chan string)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var event struct{ Action, Topic, Payload string }
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			received <- err.Error()
			return
		}
		received <- fmt.Sprint(event.Action, ": ", event.Topic, " ", event.Payload)
	}))
	defer receiver.Close()

	server := mqtt.New(&mqtt.Options{
		InlineClient: true, // so that the program itself can publish
		Logger:       slog.New(slog.DiscardHandler),
	})
	err := server.AddHook(new(webhook.Hook), &webhook.Options{Config: &webhook.Config{
		Endpoints: []webhook.Endpoint{{
			URL:    receiver.URL,
			Events: []webhook.Rule{{Event: webhook.OnMessagePublish, Topic: "sensors/#"}},
		}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	if err := server.Serve(); err != nil {
		fmt.Println(err)
		return
	}

	if err := server.Publish("sensors/kitchen", []byte("21.5"), false, 0); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-received)
	// Output: message_publish: sensors/kitchen 21.5
}

// A receiver of an endpoint with a signing.secret.
func ExampleVerify() {
	const secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" // better in a file of its own
	const longest = 1 << 20                                             // bytes of a body
	receiver := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge) // it will not come again
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestTimeout) // it will come again
			return
		}
		if err := webhook.Verify(r.Header, body, secret); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Println("from the broker:", string(body))
	})

	forged := httptest.NewRequest(http.MethodPost, "/hook", nil)
	answer := httptest.NewRecorder()
	receiver.ServeHTTP(answer, forged)
	fmt.Println(answer.Code, answer.Body)
	// Output: 401 webhook: not signed: no webhook-id
}

// A receiver of an endpoint with body.encoding = "base62".
func ExampleDecodePayload() {
	body := `{"ts":1795422703175,"topic":"plant/7","retain":false,"qos":1,"action":"message_publish",` +
		`"from_username":"undefined","from_client_id":"sensor-1","payload":"7tQLFHz"}`

	var message struct {
		Topic   string `json:"topic"`
		Payload string `json:"payload"`
	}
	if err := json.Unmarshal([]byte(body), &message); err != nil {
		fmt.Println(err)
		return
	}
	payload, err := webhook.DecodePayload(webhook.Base62, message.Payload)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %s\n", message.Topic, payload)
	// Output: plant/7: hello
}

// A receiver of an endpoint with body.encoding = "plain", where payloads that
// are not text come marked as base64.
func ExampleDecodePayload_marked() {
	bodies := []string{
		`{"topic":"a","action":"message_publish","payload":"21.5 °C"}`,
		`{"topic":"b","action":"message_publish","payload":"AP/+","payload_encoding":"base64"}`,
	}
	for _, body := range bodies {
		message := struct {
			Topic           string           `json:"topic"`
			Payload         string           `json:"payload"`
			PayloadEncoding webhook.Encoding `json:"payload_encoding"`
		}{PayloadEncoding: webhook.Plain}
		if err := json.Unmarshal([]byte(body), &message); err != nil {
			fmt.Println(err)
			return
		}
		payload, err := webhook.DecodePayload(message.PayloadEncoding, message.Payload)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %q\n", message.Topic, payload)
	}
	// Output:
	// a: "21.5 °C"
	// b: "\x00\xff\xfe"
}
