package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/mochi-mqtt/server/v2/packets"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// A delivery is a request as a receiver has it.
type delivery struct {
	header http.Header
	body   []byte
}

// A sink is a receiver that keeps what it gets.
type sink struct {
	*httptest.Server
	mu      sync.Mutex
	got     []delivery
	changed chan struct{} // holds one: there may be more than somebody saw
}

func newSink(t *testing.T) *sink {
	s := &sink{changed: make(chan struct{}, 1)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.got = append(s.got, delivery{r.Header, body})
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// wait returns the first n deliveries.
func (s *sink) wait(t *testing.T, n int) []delivery {
	t.Helper()
	timeout := time.After(rawTimeout)
	for {
		s.mu.Lock()
		got := slices.Clone(s.got)
		s.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-s.changed:
		case <-timeout:
			t.Fatalf("%d deliveries, want %d: %s", len(got), n, got)
		}
	}
}

// withConfig gives the broker a hook with these endpoints.
func withConfig(t *testing.T, endpoints ...Endpoint) brokerOption {
	return func(b *testBroker) {
		b.hook = nil
		hook := new(Hook)
		if err := b.server.AddHook(hook, &Options{Config: &Config{Endpoints: endpoints}, DrainTimeout: -1}); err != nil {
			t.Fatal(err)
		}
	}
}

func rulesFor(names ...EventName) (events []Rule) {
	for _, name := range names {
		events = append(events, Rule{Event: name})
	}
	return events
}

// formatEvents is an event of each kind, with all that formats are made of.
func formatEvents() []event {
	const at, published = 1795422703175, 1795422703000
	var events []event
	for k := kindConnect; k < kindEnd; k++ {
		ev := event{
			id: eventID{0x01, 0xa2, 0x07, 0x88, 0x4e, 0x47, 0x70, 0x01, 0x80, 2, 3, 4, 5, 6, 7, byte(k)}, kind: k, time: at,
			client: "dash board", username: "bob", ip: "192.0.2.7", protoVer: 5, keepalive: 60, accepted: true,
		}
		x := extra{listener: "tcp", seq: 1000 + uint64(k), user: string(appendUser(nil, []packets.UserProperty{{Key: "k", Val: "1"}, {Key: "k", Val: "\"2\""}}))}
		switch k {
		case kindConnack:
			x.code = 1
		case kindDisconnected:
			ev.reason, x.code, x.connectedAt, x.user = reasonWithWill, 0x05, at-5000, ""
		case kindTerminated:
			ev.reason, x.user = reasonDiscarded, ""
		case kindSubscribe, kindUnsubscribe, kindUnsubscribed:
			ev.topic = "$share/g/plant/+/#"
		case kindSubscribed:
			ev.topic, x.code = "plant/é/#", 2
		}
		switch k {
		case kindSubscribe, kindSubscribed:
			ev.qos, x.subID = 1, 7
			x.marks = markNoLocal | 2*markHandling1 | markNew
		case kindPublish, kindDelivered, kindAcked:
			ev.from, ev.fromUser, ev.topic, ev.payload, ev.qos, ev.retain = "sensor-1", "alice", "plant/7/té mp%", []byte(`{"t":21.5}`), 1, true
			ev.published = published
			x.contentType, x.responseTopic, x.correlation, x.packetID = "application/json", "re", "\x00\xff", 12
			if k != kindAcked {
				x.marks = markPacket
			}
			x.trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
		}
		ev.extra = &x
		events = append(events, ev)
	}
	return events
}

func TestFormatGolden(t *testing.T) {
	for _, tt := range []struct {
		name string
		body Body
	}{
		{"emqx", Body{Format: FormatEMQX}},
		{"emqx_base62", Body{Format: FormatEMQX, Node: "north@10.0.0.1", Encoding: Base62}},
		{"emqx_fields", Body{Format: FormatEMQX, Fields: fieldNames}},
		{"cloudevents", Body{Format: FormatCloudEvents}},
		{"cloudevents_binary", Body{Format: FormatCloudEventsBinary, Source: "https://example.com/north?a=%20b"}},
		{"fields", Body{Fields: fieldNames}},
		{"fields_some", Body{Fields: []Field{FieldDup, FieldID}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := (&Config{Endpoints: []Endpoint{{URL: "http://h", Body: tt.body}}}).resolve()
			if err != nil {
				t.Fatal(err)
			}
			f := newFormat(&cfg.Endpoints[0])
			var got bytes.Buffer
			var req request
			for _, ev := range formatEvents() {
				req.body = req.body[:0]
				f.render(&req, &ev)
				if !json.Valid(req.body) {
					t.Errorf("not JSON: %s", req.body)
				}
				fmt.Fprintf(&got, "%s%s\n%s\n\n", strings.ReplaceAll(string(req.header), "\r\n", "\n"), req.contentType, req.body)
				var keys map[string]json.RawMessage
				if err := json.Unmarshal(req.body, &keys); err != nil || strings.Count(string(req.body), `"ipaddress"`) > 1 {
					t.Errorf("%v: %s", err, req.body)
				}
			}
			file := filepath.Join("testdata", "formats", tt.name+".txt")
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("got:\n%s\nwant:\n%s", got.Bytes(), want)
			}
		})
	}
}

func TestEMQXBase62(t *testing.T) {
	for payload, want := range map[string]string{
		"": "", "messagei+/": "bWVzc2FnZWkrLD", "hello": "aGVsbGP", "\x00\x01": "AAB", "\xff\xff\xff": "9C9C9C9C",
	} {
		if got := string(appendEMQXBase62(nil, []byte(payload))); got != want {
			t.Errorf("base62 of %q: got %s, want %s", payload, got, want)
		}
	}
}

func TestEMQXConnack(t *testing.T) {
	for _, tt := range []struct {
		version, code byte
		want          string
	}{
		{3, 1, "unsupported_protocol_version"}, {4, 2, "client_identifier_not_valid"}, {4, 3, "server_unavailable"},
		{4, 4, "bad_username_or_password"}, {4, 5, "bad_username_or_password"}, {4, 0x87, "not_authorized"}, {4, 0x82, "protocol_error"},
		{5, 0x86, "bad_username_or_password"}, {5, 0x81, "malformed_Packet"}, {5, 0x8a, "banned"},
	} {
		ev := event{protoVer: tt.version, extra: &extra{code: uint16(tt.code) + 1}}
		if got := emqxConnack(&ev); got != tt.want {
			t.Errorf("version %d, code 0x%02x: got %s, want %s", tt.version, tt.code, got, tt.want)
		}
	}
}

// TestEMQXReason has all reasons that EMQX calls by another name, and one that it
// does not.
func TestEMQXReason(t *testing.T) {
	for reason, want := range map[string]string{
		"disconnect_with_will": "disconnect_with_will_message", "server_shutdown": "server_shutting_down",
		"bad_user_name_or_password": "bad_username_or_password", "malformed_packet": "malformed_Packet",
		"packet_identifier_in_use": "packet_identifier_inuse", "normal": "normal",
	} {
		if got := emqxReason(reason); got != want {
			t.Errorf("%s: got %s, want %s", reason, got, want)
		}
	}
}

// TestBinaryMessageType checks what a publisher can make of the content-type.
func TestBinaryMessageType(t *testing.T) {
	for _, tt := range []struct {
		name     string
		property string
		marks    marks
		headers  []Header
		want     string
	}{
		{"property", "text/csv; charset=utf-8", 0, nil, "text/csv; charset=utf-8"},
		{"none", "", 0, nil, "application/octet-stream"},
		{"text", "", markText, nil, "text/plain; charset=utf-8"},
		{"of the endpoint", "", markText, []Header{{"content-type", "application/x"}}, "application/x"},
		{"no type", "json", 0, nil, "application/octet-stream"},
		{"line break", "text/plain\r\nx: y", 0, nil, "application/octet-stream"},
		{"line break before a parameter", "text/plain;\r\nx=y", 0, nil, "application/octet-stream"},
		{"tab", "text/plain;\tx=y", 0, nil, "application/octet-stream"},
		{"not ASCII", "text/plain; x=\"é\"", 0, nil, "application/octet-stream"},
		{"posing as an event", "Application/CloudEvents+json", 0, nil, "application/octet-stream"},
		{"posing as a batch", " application/cloudevents-batch+json", 0, nil, "application/octet-stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cloudEvents{dataType: configuredType(tt.headers)}
			if got := c.messageType(&event{extra: &extra{contentType: tt.property, marks: tt.marks}}); got != tt.want {
				t.Errorf("content type %q: got %q, want %q", tt.property, got, tt.want)
			}
		})
	}
}

// TestHostileAttributes checks that what clients choose stays inside of
// attributes.
func TestHostileAttributes(t *testing.T) {
	cfg, err := (&Config{Endpoints: []Endpoint{{URL: "http://h", Body: Body{Format: FormatCloudEventsBinary}}}}).resolve()
	if err != nil {
		t.Fatal(err)
	}
	f := newFormat(&cfg.Endpoints[0])
	line := regexp.MustCompile(`^[a-z-]+: [!-~]+$`)
	for _, text := range []string{"a\r\nx: y", "a\nb", "\x00", "\x7f", "\u0085", "\xff", "\ufffe", "a b\"%é😀", "~!", ""} {
		ev := formatEvents()[kindPublish-kindConnect]
		ev.from, ev.fromUser, ev.topic = text, text, text
		var req request
		f.render(&req, &ev)
		for l := range strings.SplitSeq(strings.TrimSuffix(string(req.header), "\r\n"), "\r\n") {
			if !line.MatchString(l) {
				t.Errorf("%q makes the line %q", text, l)
			}
		}
	}
}

// TestCloudEvents receives events of a real broker with the CloudEvents SDK.
func TestCloudEvents(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	payload := "\x00\xff raw"
	for _, format := range []Format{FormatCloudEvents, FormatCloudEventsBinary} {
		t.Run(string(format), func(t *testing.T) {
			s := newSink(t)
			b := startBroker(t, 0, withConfig(t, Endpoint{
				URL: s.URL, Body: Body{Format: format}, Signing: Signing{Secret: vectorSecret},
				Events: rulesFor(OnClientConnected, OnSessionSubscribed, OnMessagePublish),
			}))
			c := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "sensor 1%é", User: "alice", Clean: true})
			c.subscribe(2, "a/+")
			c.send(packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, PacketID: 3,
				TopicName: "té/ \"b\"", Payload: []byte(payload),
				Properties: packets.Properties{ContentType: "image/x", User: []packets.UserProperty{
					{Key: "traceparent", Val: parent}, {Key: "tracestate", Val: "a=1"}, {Key: "x", Val: "y\r\nz"}}},
			})
			c.expect(packets.Puback)
			c.disconnect(0)

			want := []struct{ typ, subject, action string }{
				{"mqtt.client.connected", "sensor 1%é", "client_connected"},
				{"mqtt.session.subscribed", "a/+", "session_subscribed"},
				{"mqtt.message.publish", "té/ \"b\"", "message_publish"},
			}
			for i, d := range s.wait(t, len(want)) {
				if err := Verify(d.header, d.body, vectorSecret); err != nil {
					t.Error(err)
				}
				r := &http.Request{Header: d.header, Body: io.NopCloser(bytes.NewReader(d.body))}
				ev, err := cehttp.NewEventFromHTTPRequest(r)
				if err != nil {
					t.Fatal(err)
				}
				if err := ev.Validate(); err != nil {
					t.Error(err)
				}
				text := func(s any) string { return fmt.Sprint(s) }
				if format == FormatCloudEventsBinary { // the SDK leaves that to its user
					text = func(s any) string {
						plain, err := url.PathUnescape(fmt.Sprint(s))
						if err != nil {
							t.Error(err)
						}
						return plain
					}
				}
				if ev.Type() != want[i].typ || text(ev.Subject()) != want[i].subject || ev.Source() != "/mochi-mqtt" ||
					ev.ID() != d.header.Get("webhook-id") || time.Since(ev.Time()).Abs() > time.Minute {
					t.Errorf("got %v, want %v", ev, want[i])
				}
				x := ev.Extensions()
				if text(x["clientid"]) != "sensor 1%é" || x["username"] != "alice" {
					t.Errorf("%s: extensions %v", ev.Type(), x)
				}
				message := want[i].action == "message_publish"
				if message && (fmt.Sprint(x["qos"]) != "1" || fmt.Sprint(x["retain"]) != "true") {
					t.Errorf("%s: extensions %v", ev.Type(), x)
				}
				if got := d.header.Get("traceparent"); (got == parent) != message {
					t.Errorf("%s: traceparent %q", ev.Type(), got)
				}
				if got := d.header.Get("tracestate"); (got == "a=1") != message {
					t.Errorf("%s: tracestate %q", ev.Type(), got)
				}
				if message && format == FormatCloudEventsBinary {
					if string(ev.Data()) != payload || ev.DataContentType() != "image/x" {
						t.Errorf("data %q of type %s", ev.Data(), ev.DataContentType())
					}
					continue
				}
				var body struct{ Action string }
				if err := ev.DataAs(&body); err != nil || body.Action != want[i].action {
					t.Errorf("data %s: %v", ev.Data(), err)
				}
			}
		})
	}
}

// TestCloudEventsBatch receives a batch with the CloudEvents SDK.
func TestCloudEventsBatch(t *testing.T) {
	cfg, err := (&Config{Endpoints: []Endpoint{{URL: "http://h", Body: Body{Format: FormatCloudEvents}}}}).resolve()
	if err != nil {
		t.Fatal(err)
	}
	f := newFormat(&cfg.Endpoints[0])
	req := request{body: []byte{'['}}
	all := formatEvents()
	for i, blank := range []string{" ", "\t", "\u3000"} { // which the SDK takes for no text
		ev := all[kindPublish-kindConnect]
		ev.from, ev.fromUser, ev.topic = blank, blank, blank
		all = append(all, ev, event{kind: kindConnected, client: blank, username: blank, time: int64(i + 1)})
	}
	for i, ev := range all {
		if i > 0 {
			req.body = append(req.body, ',')
		}
		f.render(&req, &ev)
	}
	body := append(req.body, ']')
	events, err := cehttp.NewEventsFromHTTPRequest(&http.Request{
		Header: http.Header{"Content-Type": {f.batchType}}, Body: io.NopCloser(bytes.NewReader(body))})
	if err != nil || len(events) != len(all) {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for _, ev := range events {
		if err := ev.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// TestEventContents checks, with a real broker, what only some endpoints want
// to know: one does, its neighbour gets NanoMQ's bodies.
func TestEventContents(t *testing.T) {
	plain, fields, emqxSink := newSink(t), newSink(t), newSink(t)
	rules := rulesFor(OnClientConnack, OnClientDisconnected, OnSessionSubscribed, OnMessagePublish, OnMessageDelivered, OnMessageAcked)
	b := startBroker(t, 0, withConfig(t,
		Endpoint{Name: "plain", URL: plain.URL, Events: rules},
		Endpoint{Name: "fields", URL: fields.URL, Events: rules, Body: Body{Fields: fieldNames[2:]}}, // without id and ts
		Endpoint{Name: "emqx", URL: emqxSink.URL, Events: rules, Body: Body{Format: FormatEMQX}},
	))
	c := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Clean: true})
	for range 2 {
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 9,
			Properties: packets.Properties{SubscriptionIdentifier: []int{5}},
			Filters:    packets.Subscriptions{{Filter: "a", Qos: 1, RetainAsPublished: true, RetainHandling: 2}}})
		c.expect(packets.Suback)
	}
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, PacketID: 3, TopicName: "a", Payload: []byte("p"),
		Mods: packets.Mods{AllowResponseInfo: true}, // for the encoder
		Properties: packets.Properties{ContentType: "text/x", ResponseTopic: "r", CorrelationData: []byte{0, 255},
			User: []packets.UserProperty{{Key: "k", Val: "1"}, {Key: "k", Val: "2"}}}})
	// PUBACK and PUBLISH come in any order.
	for range 2 {
		pk, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if pk.FixedHeader.Type == packets.Publish {
			c.ack(packets.Puback, pk.PacketID)
		}
	}
	c.ping()
	c.disconnect(0)

	number := regexp.MustCompile(`("(?:ts|seq|connected_at|disconnected_at)"):[0-9]+`)
	check := func(s *sink, want ...string) {
		t.Helper()
		var got []string
		for _, d := range s.wait(t, len(want)) {
			got = append(got, number.ReplaceAllString(string(d.body), "$1:0"))
		}
		// No order holds between what a client does and what it gets.
		slices.Sort(got)
		slices.Sort(want)
		wantLines(t, got, want...)
	}
	const message = `"topic":"a","retain":false,"qos":1,"action":`
	const from = `,"from_username":"undefined","from_client_id":"c"`
	const to = `,"username":"undefined","clientid":"c"`
	check(plain,
		`{"proto_ver":5,"keepalive":0,"conn_ack":"success"`+to+`,"action":"client_connack"}`,
		`{"topic":"a","opts":{"qos":1}`+to+`,"action":"session_subscribed"}`,
		`{"topic":"a","opts":{"qos":1}`+to+`,"action":"session_subscribed"}`,
		`{"ts":0,`+message+`"message_publish"`+from+`,"payload":"p"}`,
		`{"ts":0,`+message+`"message_delivered"`+from+to+`,"payload":"p"}`,
		`{"ts":0,`+message+`"message_acked"`+from+to+`,"payload":"p"}`,
		`{"reason":"normal"`+to+`,"action":"client_disconnected"}`,
	)
	const where = `,"seq":0,"ipaddress":"127.0.0.1","listener":"tcp"`
	const props = `,"user_properties":[{"key":"k","value":"1"},{"key":"k","value":"2"}],"content_type":"text/x","response_topic":"r","correlation_data":"AP8="`
	check(fields,
		`{"proto_ver":5,"keepalive":0,"conn_ack":"success"`+to+`,"action":"client_connack"`+where+`,"reason_code":0}`,
		`{"topic":"a","opts":{"qos":1}`+to+`,"action":"session_subscribed"`+where+`,"reason_code":1}`,
		`{"topic":"a","opts":{"qos":1}`+to+`,"action":"session_subscribed"`+where+`,"reason_code":1}`,
		`{"ts":0,`+message+`"message_publish"`+from+`,"payload":"p"`+where+props+`,"packet_id":3,"dup":false}`,
		`{"ts":0,`+message+`"message_delivered"`+from+to+`,"payload":"p"`+where+props+`,"packet_id":1,"dup":false}`,
		`{"ts":0,`+message+`"message_acked"`+from+to+`,"payload":"p"`+where+`,"reason_code":0`+props+`,"packet_id":1}`,
		`{"reason":"normal"`+to+`,"action":"client_disconnected"`+where+`,"reason_code":0}`,
	)
	const node = `,"node":"emqx@127.0.0.1"`
	const opts = `{"username":null,"topic":"a","opts":{"subid":5,"sub_props":{"Subscription-Identifier":5},"rh":2,"rap":1,"qos":1,"nl":0,"is_new":%v}` + node + `,"clientid":"c","action":"session_subscribed"}`
	const emqxMessage = `"ts":0,"topic":"a","retain":false,"qos":1,"payload":"p"` + node + `,"from_username":null,"from_client_id":"c"`
	check(emqxSink,
		`{"username":null,"proto_ver":5`+node+`,"keepalive":0,"ipaddress":"127.0.0.1","conn_ack":"success","clientid":"c","action":"client_connack"}`,
		fmt.Sprintf(opts, true), fmt.Sprintf(opts, false),
		`{`+emqxMessage+`,"action":"message_publish"}`,
		`{"username":null,`+emqxMessage+`,"clientid":"c","action":"message_delivered"}`,
		`{"username":null,`+emqxMessage+`,"clientid":"c","action":"message_acked"}`,
		`{"username":null,"reason":"normal"`+node+`,"disconnected_at":0,"connected_at":0,"clientid":"c","action":"client_disconnected"}`,
	)
	last := 0.0
	for i, d := range fields.wait(t, 7) {
		var body struct {
			Seq    float64
			Action string
		}
		if err := json.Unmarshal(d.body, &body); err != nil || body.Seq <= last {
			t.Errorf("event %d: seq %v of %s after %v, %v", i, body.Seq, body.Action, last, err)
		}
		last = body.Seq
	}
}

// TestFieldsWithoutPacket has messages that no PUBLISH packet has brought: a will
// and one of the program itself.
func TestFieldsWithoutPacket(t *testing.T) {
	s := newSink(t)
	b := startBroker(t, 0, withConfig(t, Endpoint{
		URL: s.URL, Body: Body{Fields: []Field{FieldListener, FieldPacketID, FieldDup}}, Events: rulesFor(OnMessagePublish),
	}))
	c := mustConnect(t, b.addr, rawConnect{ID: "c", Clean: true, Will: &rawWill{Topic: "will", Payload: "w", QoS: 1}})
	c.fin()
	s.wait(t, 1)
	if err := b.server.Publish("inline", []byte("i"), false, 1); err != nil {
		t.Fatal(err)
	}
	var got []string
	ts := regexp.MustCompile(`^\{"ts":[0-9]+,`)
	for _, d := range s.wait(t, 2) {
		got = append(got, ts.ReplaceAllString(string(d.body), "{"))
	}
	wantLines(t, got,
		`{"topic":"will","retain":false,"qos":1,"action":"message_publish","from_username":"undefined","from_client_id":"c","payload":"w","listener":"tcp"}`,
		`{"topic":"inline","retain":false,"qos":1,"action":"message_publish","from_username":"undefined","from_client_id":"inline","payload":"i"}`,
	)
}

// TestSignedBatches receives batches of a real broker with the SDK of
// CloudEvents and the library of Standard Webhooks.
func TestSignedBatches(t *testing.T) {
	s := newSink(t)
	b := startBroker(t, 0, withConfig(t, Endpoint{
		URL: s.URL, Body: Body{Format: FormatCloudEvents, Fields: []Field{FieldID}}, Signing: Signing{Secret: vectorSecret},
		Events: rulesFor(OnMessagePublish), Batch: Batch{MaxEvents: 4, Linger: 20 * time.Millisecond},
	}))
	c := mustConnect(t, b.addr, rawConnect{Version: 5, ID: "c", Clean: true})
	const messages = 10
	for range messages {
		c.publish("a", "p", 1, false)
	}
	c.disconnect(0)
	wh, err := standardwebhooks.NewWebhook(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]bool)
	for n := 1; len(ids) < messages; n++ {
		d := s.wait(t, n)[n-1]
		if err := wh.Verify(d.body, d.header); err != nil {
			t.Error(err)
		}
		if !strings.HasPrefix(d.header.Get("webhook-id"), "batch_") {
			t.Errorf("webhook-id %q", d.header.Get("webhook-id"))
		}
		events, err := cehttp.NewEventsFromHTTPRequest(&http.Request{Header: d.header, Body: io.NopCloser(bytes.NewReader(d.body))})
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range events {
			if err := ev.Validate(); err != nil || ids[ev.ID()] {
				t.Errorf("event %s: %v", ev.ID(), err)
			}
			ids[ev.ID()] = true
			if got := strings.Count(string(d.body), `"id":"`+ev.ID()+`"`); got != 2 {
				t.Errorf("id %s is %d times in %s, want twice: of the event and of its data", ev.ID(), got, d.body)
			}
		}
	}
}

// TestContentTypes sends messages of several content types over one connection:
// each has its own, and so do dead letters and what is made of them.
func TestContentTypes(t *testing.T) {
	types := []string{"text/aaa", "text/bbb", "text/ccc", "image/gif", "image/png"}
	for _, kind := range []QueueType{MemoryQueue, DiskQueue} {
		t.Run(string(kind), func(t *testing.T) {
			s := newSink(t)
			path := filepath.Join(t.TempDir(), "dead.jsonl")
			cfg := &Config{Endpoints: []Endpoint{{
				URL: s.URL, Events: rulesFor(OnMessagePublish), PoolSize: 1, Body: Body{Format: FormatCloudEventsBinary},
				DeadLetter: DeadLetter{File: path},
			}}}
			if kind == DiskQueue {
				cfg.Endpoints[0].Queue = Queue{Type: DiskQueue, Dir: t.TempDir()}
			}
			run := func(check func(h *Hook)) {
				h := new(Hook)
				if err := h.Init(&Options{Config: cfg, DrainTimeout: -1}); err != nil {
					t.Fatal(err)
				}
				for _, ct := range types {
					ev := publishOf(ct, "x")
					ev.extra = &extra{contentType: ct}
					h.emit(ev)
				}
				check(h)
				if err := h.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			run(func(h *Hook) {
				awaitTrue(t, "all is delivered", func() bool { return h.Stats().Endpoints["default"].Delivered == uint64(len(types)) })
				for i, d := range s.wait(t, len(types)) {
					if got := d.header.Get("Content-Type"); got != types[i] {
						t.Errorf("message %d is %s, want %s", i, got, types[i])
					}
				}
			})
			cfg.Endpoints[0].URL = "http://127.0.0.1:1/"
			cfg.Endpoints[0].Retry = Retry{MinBackoff: 10 * time.Second, MaxAge: 100 * time.Millisecond}
			run(func(h *Hook) {
				awaitTrue(t, "all are given up", func() bool { return h.Stats().Endpoints["default"].Dead == uint64(len(types)) })
			})
			for _, l := range readLetters(t, path) {
				if l.ContentType != l.Client {
					t.Errorf("the letter of %s is %s", l.Client, l.ContentType)
				}
			}
			cfg.Endpoints[0].URL = s.URL
			if _, err := Redeliver(t.Context(), cfg, path); err != nil {
				t.Fatal(err)
			}
			var again []string
			for _, d := range s.wait(t, 2*len(types))[len(types):] {
				again = append(again, d.header.Get("Content-Type"))
			}
			slices.Sort(again)
			want := slices.Sorted(slices.Values(types))
			if !slices.Equal(again, want) {
				t.Errorf("sent again as %q, want %q", again, want)
			}
		})
	}
}
