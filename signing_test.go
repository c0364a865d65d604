package webhook

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	vectorSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	anotherSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// TestSignatureVector is the vector of the specification's reference libraries.
func TestSignatureVector(t *testing.T) {
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	for _, secret := range []Secret{vectorSecret, Secret(strings.TrimPrefix(vectorSecret, "whsec_"))} {
		s, err := newSigner(Signing{Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // a signer is used again
			got := s.append([]byte("x"), []byte("msg_p5jXN8AQM9LWM0D4loKWxJek"), 1614265330, []byte(`{"test": 2432232314}`))
			if string(got) != "x"+want {
				t.Errorf("appended to \"x\": %s, want x%s", got, want)
			}
		}
	}
}

func TestSigningDoesNotAllocate(t *testing.T) {
	s, err := newSigner(Signing{Secret: vectorSecret, PreviousSecret: anotherSecret})
	if err != nil {
		t.Fatal(err)
	}
	id, body := newEventID(0).append(nil), make([]byte, 1000)
	dst := s.append(nil, id, 1614265330, body)
	if n := testing.AllocsPerRun(100, func() { dst = s.append(dst[:0], id, 1614265330, body) }); n > 0 {
		t.Errorf("a signature takes %v allocations, want none", n)
	}
}

// TestSignedRequests holds each attempt's signature against the reference
// library, over both kinds of poster.
func TestSignedRequests(t *testing.T) {
	signing := Signing{Secret: vectorSecret, PreviousSecret: anotherSecret}
	for _, tt := range []struct {
		name      string
		signing   Signing
		transport http.RoundTripper
		accepted  []string
		refused   []string
	}{
		{"one secret", Signing{Secret: vectorSecret}, nil, []string{vectorSecret}, []string{anotherSecret}},
		{"rotation", signing, nil, []string{vectorSecret, anotherSecret}, nil},
		{"transport", signing, http.DefaultTransport, []string{vectorSecret, anotherSecret}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var errs []error
			var signatures []string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				errs = append(errs, err)
				signatures = append(signatures, r.Header.Get("webhook-signature"))
				for _, secret := range tt.accepted {
					wh, err := standardwebhooks.NewWebhook(secret)
					errs = append(errs, err, wh.Verify(body, r.Header), Verify(r.Header, body, secret))
				}
				for _, secret := range tt.refused {
					if err := Verify(r.Header, body, secret); !errors.Is(err, ErrSignature) {
						errs = append(errs, errors.New("with a wrong secret Verify returns "+err.Error()))
					}
				}
			}))
			defer server.Close()
			c, err := newClient(&Endpoint{URL: server.URL, Signing: tt.signing}, tt.transport)
			if err != nil {
				t.Fatal(err)
			}
			p := c.conn()
			defer p.cancel()
			for _, body := range []string{"{}", "", strings.Repeat("long", maxInlineBody)} {
				req := &request{id: newEventID(0).append(nil), body: []byte(body)}
				wantOutcome(t, p.post(req, time.Now(), soon()), delivered, 200, "")
			}
			p.closeIdle()
			if err := errors.Join(errs...); err != nil {
				t.Error(err)
			}
			if len(signatures) != 3 {
				t.Fatalf("%d requests, want 3", len(signatures))
			}
			for _, s := range signatures {
				if n := len(strings.Fields(s)); n != len(tt.accepted) {
					t.Errorf("webhook-signature has %d signatures, want %d", n, len(tt.accepted))
				}
			}
		})
	}
}

// TestSignedAnew checks that an attempt has a timestamp and a signature of its
// own.
func TestSignedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var headers []http.Header
		p := newTestRoundTripConn(t, Endpoint{URL: "http://webhook.test", Signing: Signing{Secret: vectorSecret}},
			roundTripFunc(func(r *http.Request) (*http.Response, error) {
				h := make(http.Header)
				for name, values := range r.Header {
					h.Set(name, values[0])
				}
				headers = append(headers, h)
				if err := Verify(h, []byte("{}"), vectorSecret); err != nil {
					t.Error(err)
				}
				return answer(503)
			}))
		req := &request{id: []byte("id"), body: []byte("{}")}
		for range 2 {
			p.post(req, time.Now(), time.Now().Add(time.Second))
			time.Sleep(10 * time.Minute)
		}
		if headers[0].Get("webhook-signature") == headers[1].Get("webhook-signature") {
			t.Error("two attempts have the same signature")
		}
		if err := Verify(headers[1], []byte("{}"), vectorSecret); !errors.Is(err, ErrTimestamp) {
			t.Errorf("10 minutes later: got %v, want ErrTimestamp", err)
		}
	})
}

func TestVerify(t *testing.T) {
	now := time.Now()
	s, err := newSigner(Signing{Secret: vectorSecret})
	if err != nil {
		t.Fatal(err)
	}
	signed := func(age time.Duration) http.Header {
		unix := now.Add(-age).Unix()
		return http.Header{
			"Webhook-Id":        {"id"},
			"Webhook-Timestamp": {strconv.FormatInt(unix, 10)},
			"Webhook-Signature": {string(s.append(nil, []byte("id"), unix, []byte("body")))},
		}
	}
	with := func(name, value string) http.Header {
		h := signed(0)
		h.Set(name, value)
		return h
	}
	good := signed(0).Get("webhook-signature")
	for _, tt := range []struct {
		name    string
		header  http.Header
		secrets []string
		want    error
	}{
		{"genuine", signed(0), []string{vectorSecret}, nil},
		{"secret without prefix", signed(0), []string{vectorSecret[len("whsec_"):]}, nil},
		{"second of two secrets", signed(0), []string{anotherSecret, vectorSecret}, nil},
		{"second of two signatures", with("webhook-signature", "v1,AAAA "+good), []string{vectorSecret}, nil},
		{"asymmetric beside it", with("webhook-signature", "v1a,AAAA "+good), []string{vectorSecret}, nil},
		{"4 minutes old", signed(4 * time.Minute), []string{vectorSecret}, nil},
		{"4 minutes ahead", signed(-4 * time.Minute), []string{vectorSecret}, nil},
		{"6 minutes old", signed(6 * time.Minute), []string{vectorSecret}, ErrTimestamp},
		{"6 minutes ahead", signed(-6 * time.Minute), []string{vectorSecret}, ErrTimestamp},
		{"another secret", signed(0), []string{anotherSecret}, ErrSignature},
		{"another id", with("webhook-id", "other"), []string{vectorSecret}, ErrSignature},
		{"another timestamp", with("webhook-timestamp", "1"), []string{vectorSecret}, ErrSignature},
		{"timestamp that overflows", with("webhook-timestamp", "99999999999999999999"), []string{vectorSecret}, ErrUnsigned},
		{"dot in the id", with("webhook-id", "id.1"), []string{vectorSecret}, ErrUnsigned},
		{"no number", with("webhook-timestamp", "now"), []string{vectorSecret}, ErrUnsigned},
		{"no id", with("webhook-id", ""), []string{vectorSecret}, ErrUnsigned},
		{"no timestamp", with("webhook-timestamp", ""), []string{vectorSecret}, ErrUnsigned},
		{"no signature", with("webhook-signature", " "), []string{vectorSecret}, ErrUnsigned},
		{"version alone", with("webhook-signature", "v1,"), []string{vectorSecret}, ErrSignature},
		{"another version", with("webhook-signature", "v2"+good[2:]), []string{vectorSecret}, ErrSignature},
		{"no header", nil, []string{vectorSecret}, ErrUnsigned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := Verify(tt.header, []byte("body"), tt.secrets...); !errors.Is(err, tt.want) {
				t.Errorf("Verify(%v) = %v, want %v", tt.header, err, tt.want)
			}
		})
	}
	t.Run("another body", func(t *testing.T) {
		if err := Verify(signed(0), []byte("Body"), vectorSecret); !errors.Is(err, ErrSignature) {
			t.Errorf("got %v, want ErrSignature", err)
		}
	})
	t.Run("cut in another place", func(t *testing.T) {
		old, soon := strconv.FormatInt(now.Add(-time.Hour).Unix(), 10), strconv.FormatInt(now.Unix(), 10)
		h := http.Header{
			"Webhook-Id":        {"id." + old + ".x"},
			"Webhook-Timestamp": {soon},
			"Webhook-Signature": {string(s.append(nil, []byte("id"), now.Add(-time.Hour).Unix(), []byte("x."+soon+".body")))},
		}
		if err := Verify(h, []byte("body"), vectorSecret); !errors.Is(err, ErrUnsigned) {
			t.Errorf("got %v, want ErrUnsigned", err)
		}
	})
	t.Run("no secret", func(t *testing.T) {
		if err := Verify(signed(0), []byte("body")); err == nil {
			t.Error("got no error")
		}
	})
}

func TestSigningSecret(t *testing.T) {
	key := func(n int) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n))) }
	for _, tt := range []struct {
		name   string
		secret string
		ok     bool
	}{
		{"24 bytes", key(24), true},
		{"64 bytes", key(64), true},
		{"prefix", "whsec_" + key(32), true},
		{"23 bytes", key(23), false},
		{"65 bytes", key(65), false},
		{"private key", "whsk_" + key(32), false},
		{"no base64", "correct horse battery staple and more", false},
		{"no padding", strings.TrimRight(key(32), "="), false},
		{"URL alphabet", strings.Repeat("-_-_", 10), false},
		{"line break", key(30) + "\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := &Config{Endpoints: []Endpoint{{URL: "http://h", Signing: Signing{Secret: Secret(tt.secret)}}}}
			_, err := cfg.resolve()
			if (err == nil) != tt.ok {
				t.Errorf("Secret %q: %v, want ok %v", tt.secret, err, tt.ok)
			}
			if err != nil && strings.Contains(err.Error(), tt.secret) {
				t.Errorf("the error has the secret: %v", err)
			}
			if verr := Verify(http.Header{"Webhook-Id": {"i"}, "Webhook-Timestamp": {"1"}, "Webhook-Signature": {"v1,"}}, nil, tt.secret); verr != nil &&
				strings.Contains(verr.Error(), tt.secret) {
				t.Errorf("the error of Verify has the secret: %v", verr)
			}
		})
	}
	t.Run("previous alone", func(t *testing.T) {
		cfg := &Config{Endpoints: []Endpoint{{URL: "http://h", Signing: Signing{PreviousSecret: vectorSecret}}}}
		if _, err := cfg.resolve(); err == nil || !strings.Contains(err.Error(), "Signing.PreviousSecret") {
			t.Errorf("got %v, want an error about Signing.PreviousSecret", err)
		}
	})
}

// TestSignedAsSent checks that what is signed is what goes over the wire: a
// batch, compressed, by the id that its members make.
func TestSignedAsSent(t *testing.T) {
	const events = 20
	type arrival struct {
		header http.Header
		body   []byte
	}
	arrived := make(chan arrival, events)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- arrival{r.Header, body}
	}))
	defer server.Close()
	for name, rt := range map[string]http.RoundTripper{"own connections": nil, "transport": http.DefaultTransport} {
		t.Run(name, func(t *testing.T) {
			h := runHook(t, &Options{Transport: rt, Config: allPublishes(server.URL, func(e *Endpoint) {
				e.Signing = Signing{Secret: vectorSecret, PreviousSecret: anotherSecret}
				e.Compression, e.Body.Format = Gzip, FormatCloudEvents
				e.Batch = Batch{MaxEvents: events, Linger: time.Minute}
			})})
			for i := range events {
				h.emit(publishOf("c", strconv.Itoa(i)))
			}
			got := <-arrived
			for _, secret := range []string{vectorSecret, anotherSecret} {
				wh, err := standardwebhooks.NewWebhook(secret)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(wh.Verify(got.body, got.header), Verify(got.header, got.body, secret)); err != nil {
					t.Error(err)
				}
			}
			if c := got.header.Get("Content-Type"); c != "application/cloudevents-batch+json; charset=UTF-8" {
				t.Errorf("Content-Type %q", c)
			}
			if c := got.header.Get("Content-Encoding"); c != "gzip" {
				t.Fatalf("Content-Encoding %q", c)
			}
			plain, err := gzip.NewReader(bytes.NewReader(got.body))
			if err != nil {
				t.Fatal(err)
			}
			var members []struct{ ID string }
			if err := json.NewDecoder(plain).Decode(&members); err != nil || len(members) != events {
				t.Fatalf("%d members, %v", len(members), err)
			}
			ids := sha256.New()
			for _, m := range members {
				ids.Write([]byte(m.ID))
			}
			if id, want := got.header.Get("webhook-id"), "batch_"+hex.EncodeToString(ids.Sum(nil))[:32]; id != want {
				t.Errorf("webhook-id %q, want %q", id, want)
			}
		})
	}
}
