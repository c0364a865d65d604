package webhook_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/youmark/pkcs8"

	"github.com/mochi-hooks/webhook"
	whprometheus "github.com/mochi-hooks/webhook/prometheus"
)

// secretSettings are the settings of an endpoint that hold secrets, each with
// hunter2 in it, or in what it is the base64 of. A new one is a line.
const secretSettings = `
	headers = { X-Api-Key = "hunter2-header", X-List = "a hunter2-list" }
	signing.secret = "whsec_aHVudGVyMi1zaWduaW5nLXNlY3JldC1vZi0zMi1ieXQ="
	signing.previous_secret = "whsec_aHVudGVyMi1wcmV2aW91cy1zZWNyZXQtMzItYnl0ZXM="
`

// hidden is what must not be anywhere: every secret has hunter2 in it, and some
// are sent encoded.
var hidden = []string{
	"hunter2",
	"aHVudGVyMi", // base64 of what begins with it
	base64.StdEncoding.EncodeToString([]byte("alice:hunter2-url")),
	base64.StdEncoding.EncodeToString([]byte("bob:hunter2-proxy")),
}

// A leakTest is an endpoint that fails, with secrets in all that leads to it.
type leakTest struct {
	name string
	// where starts what fails and returns the URL's scheme, and host.
	where func(t *testing.T) (scheme, host string)
	more  string // settings
	proxy func(t *testing.T) string
	rt    http.RoundTripper
	ends  bool // the event ends with its first attempt: nothing is logged
	want  string
}

var leakTests = []leakTest{
	{name: "refused connection", where: refused("http"), want: "connection refused"},
	{name: "refused connection, TLS", where: refused("https"), want: "connection refused"},
	{name: "no answer", where: raw("http", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), want: "timeout"},
	{name: "closed", where: raw("http", func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }), want: "error"},
	{name: "garbage that repeats the request", where: raw("http", echo), want: "error"},
	{name: "status line that repeats the request", where: raw("http", echoAfter("HTTP/1.1 ")), want: "error"},
	{name: "header that repeats the request", where: raw("http", echoAfter("HTTP/1.1 200 OK\r\nX ")), want: "error"},
	{name: "not TLS", where: raw("https", func(c net.Conn) { fmt.Fprint(c, "HTTP/1.0 400 hunter2\r\n\r\n") }), want: "error"},
	{name: "unknown CA", where: served(httptest.NewTLSServer, http.StatusOK), want: "certificate"},
	{name: "400", where: served(httptest.NewServer, http.StatusBadRequest), ends: true},
	{name: "401", where: served(httptest.NewServer, http.StatusUnauthorized), want: "status=401"},
	{name: "302", where: served(httptest.NewServer, http.StatusFound), want: "status=302"},
	{name: "500", where: served(httptest.NewServer, http.StatusInternalServerError), want: "status=500"},
	{name: "authorization header", where: served(httptest.NewServer, http.StatusForbidden), want: "status=403",
		more: `headers.Authorization = "Bearer hunter2-bearer"`},
	{name: "Host header", where: raw("http", echo), want: "error", more: `headers.Host = "hunter2.example"`},

	{name: "proxy refuses the connection", where: beyond("http"), proxy: proxyAt("http", refused("http")), want: "connection refused"},
	{name: "proxy refuses the connection, TLS", where: beyond("https"), proxy: proxyAt("http", refused("http")), want: "connection refused"},
	{name: "proxy wants other credentials", where: beyond("http"), proxy: proxyAt("http", served(httptest.NewServer, http.StatusProxyAuthRequired)), want: "status=407"},
	{name: "proxy wants other credentials, CONNECT", where: beyond("https"), proxy: proxyAt("http", served(httptest.NewServer, http.StatusProxyAuthRequired)), want: "407"},
	{name: "proxy repeats CONNECT", where: beyond("https"), proxy: proxyAt("http", raw("http", echo)), want: "proxy connect"},
	{name: "proxy of unknown CA", where: beyond("https"), proxy: proxyAt("https", served(httptest.NewTLSServer, http.StatusOK)), want: "certificate"},
	{name: "SOCKS proxy repeats the credentials", where: beyond("http"), proxy: proxyAt("socks5", raw("http", echo)), want: "error"},

	{name: "transport that tells the URL", where: refused("http"), want: "no luck", rt: tattling{}},
	{name: "transport of net/http", where: refused("http"), want: "connection refused", rt: http.DefaultTransport},
}

func TestNoSecretLeaks(t *testing.T) {
	for _, test := range leakTests {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"} {
				t.Setenv(name, "")
			}
			if test.proxy != nil {
				proxy := test.proxy(t)
				t.Setenv("HTTP_PROXY", proxy)
				t.Setenv("HTTPS_PROXY", proxy)
			}
			scheme, host := test.where(t)
			dir := t.TempDir()
			file := filepath.Join(dir, "webhook.hcl")
			text := fmt.Sprintf(`webhook {
				url = "%s://alice:hunter2-url@%s/hunter2-path?token=hunter2-query"
				cancel_timeout = 60000
				breaker = { failures = 1, cooldown = "1ms" }
				retry = { min_backoff = 1, max_backoff = 1 }
				dead_letter.file = "dead.jsonl"
				events = [
					{ event = "on_message_publish", headers = { X-Rule = "hunter2-rule" } }
					{ event = "on_client_connected", url = "http://alice:hunter2-url@127.0.0.1/hunter2-path" }
				]
				%s
				%s
			}`, scheme, host, secretSettings, test.more)
			if test.want == "timeout" {
				text = strings.Replace(text, "60000", "100", 1)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			checkLeaks(t, test, file)
			if letters, err := os.ReadFile(filepath.Join(dir, "dead.jsonl")); err != nil || len(letters) == 0 {
				t.Errorf("dead letters: got %q, %v; want one", letters, err)
			} else {
				webhook.NoSecret(t, nil, string(letters), hidden...)
			}
		})
	}
}

// checkLeaks publishes a message to a broker with the configuration, and looks
// for secrets in all that can be seen from outside meanwhile and afterwards.
func checkLeaks(t *testing.T, test leakTest, file string) {
	log := newCapture()
	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(log)})
	hook := new(webhook.Hook)
	look := func() {
		t.Helper()
		stats := hook.Stats()
		text, err := json.Marshal(stats)
		if err != nil {
			t.Fatal(err)
		}
		metrics, err := testutil.CollectAndFormat(whprometheus.NewCollector(hook), expfmt.TypeTextPlain)
		if err != nil {
			t.Fatal(err)
		}
		webhook.NoSecret(t, hook.Healthy(), fmt.Sprintf("%s\n%+v\n%#v\n%s\n%s", text, stats, stats, metrics, log), hidden...)
	}
	drain := time.Duration(-1)
	if test.ends {
		drain = 30 * time.Second
	}
	if err := server.AddHook(hook, &webhook.Options{File: file, Transport: test.rt, DrainTimeout: drain}); err != nil {
		t.Fatal(err)
	}
	if err := server.Publish("a", []byte("payload"), false, 1); err != nil {
		t.Fatal(err)
	}
	if !test.ends {
		log.wait(t, "breaker open")
		if text := log.String(); !strings.Contains(text, test.want) {
			t.Errorf("log: got %s, want %q in it", text, test.want)
		}
		look()
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	look()

	cfg, err := webhook.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := json.Marshal(&webhook.Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{cfg, *cfg, cfg.Endpoints, cfg.Endpoints[0], &cfg.Endpoints[0], &webhook.Options{Config: cfg}} {
		printed = fmt.Appendf(printed, "%v %+v %#v %q %x %d\n", v, v, v, v, v, v)
	}
	slog.New(slog.NewJSONHandler(printedTo{&printed}, nil)).Info("", "config", cfg)
	slog.New(slog.NewTextHandler(printedTo{&printed}, nil)).Info("", "config", cfg)
	webhook.NoSecret(t, nil, string(printed), hidden...)
	if _, host, _ := strings.Cut(cfg.Endpoints[0].URL, "@"); !strings.Contains(string(printed), host[:strings.Index(host, "/")]) {
		t.Errorf("printed without the host: %s", printed)
	}
	if test.rt == nil {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		stats, err := webhook.Redeliver(ctx, cfg, filepath.Join(filepath.Dir(file), "dead.jsonl"))
		if err == nil {
			t.Error("Redeliver: got no error")
		}
		webhook.NoSecret(t, err, fmt.Sprintf("%+v", stats), hidden...)
	}
}

// printedTo appends what is written.
type printedTo struct{ text *[]byte }

func (p printedTo) Write(b []byte) (int, error) {
	*p.text = append(*p.text, b...)
	return len(b), nil
}

// What is wrong in a file is told without its values.
func TestNoSecretLeaksFromFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := pkcs8.ConvertPrivateKeyToPKCS8(key, []byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
	receiver := httptest.NewTLSServer(nil)
	defer receiver.Close()
	write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw}))
	write("token", []byte("hunter2\x00token"))
	t.Setenv("HUNTER", "hunter2\nenv")

	const fine = `url = "https://alice:hunter2@127.0.0.1/"`
	for name, text := range map[string]string{
		"scheme":                `url = "ftp://alice:hunter2@127.0.0.1/"`,
		"port":                  `url = "http://alice:hunter2@127.0.0.1:hunter2/"`,
		"escape":                `url = "http://alice:hunter2%zz@127.0.0.1/"`,
		"blank":                 `url = "http://alice:hunter2 x@127.0.0.1/"`,
		"no host":               `url = "http://alice:hunter2@/"`,
		"url twice":             fine + "\n" + fine,
		"url is a list":         `url = ["http://alice:hunter2@127.0.0.1/"]`,
		"url is not closed":     `url = "http://alice:hunter2@127.0.0.1/`,
		"unknown key":           fine + "\npassword = \"hunter2\"",
		"header value":          fine + "\nheaders = { Authorization = env(\"HUNTER\") }",
		"header from file":      fine + "\nheaders = { Authorization = file(\"token\") }",
		"header is a list":      fine + "\nheaders = { Authorization = [\"hunter2\"] }",
		"reserved header":       fine + "\nheaders = { Connection = \"hunter2\" }",
		"headers is a string":   fine + "\nheaders = \"Authorization: hunter2\"",
		"unknown function":      fine + "\nheaders = { Authorization = hunt(\"hunter2\") }",
		"template":              fine + "\nheaders = { Authorization = \"hunter2 ${x}\" }",
		"index":                 fine + "\nheaders = { Authorization = \"hunter2\"[0] }",
		"key password":          fine + "\ntls = { certfile = \"cert.pem\", keyfile = \"key.pem\", key_password = \"hunter2\" }",
		"key password is wrong": fine + "\ntls = { key_password = [\"hunter2\"] }",
		"url of a rule":         fine + "\nevents.1 { event = on_client_connack, url = \"http://alice:hunter2@h:0/\" }",
		"header of a rule":      fine + "\nevents.1 { event = on_client_connack, headers.Authorization = [\"hunter2\"] }",
		"two problems":          "url = \"x://hunter2\"\nheaders = { a = \"hunter2\", a = \"hunter2\" }\npool_size = 0",
	} {
		t.Run(name, func(t *testing.T) {
			file := write("webhook.hcl", []byte("webhook {\n"+text+"\nevents = [{ event = \"on_message_publish\" }]\n}\n"))
			_, err := webhook.ParseFile(file)
			if err == nil {
				t.Fatalf("got no error for\n%s", text)
			}
			webhook.NoSecret(t, err, "", hidden...)
			err = new(webhook.Hook).Init(&webhook.Options{File: file})
			webhook.NoSecret(t, err, "", hidden...)
		})
	}
	t.Run("Config", func(t *testing.T) {
		err := new(webhook.Hook).Init(&webhook.Options{Config: &webhook.Config{Endpoints: []webhook.Endpoint{{
			URL:     "http://alice:hunter2@[::1/",
			Headers: []webhook.Header{{Name: "Authorization", Value: "hunter2\r\n"}, {Name: "authorization", Value: "hunter2"}},
			TLS:     webhook.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), KeyPassword: "hunter2"},
		}}}})
		if err == nil {
			t.Fatal("got no error")
		}
		webhook.NoSecret(t, err, "", hidden...)
	})
}

// refused is a place where nobody listens.
func refused(scheme string) func(*testing.T) (string, string) {
	return func(t *testing.T) (string, string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		return scheme, l.Addr().String()
	}
}

// raw is a place where each connection is handed to a function, and closed.
func raw(scheme string, serve func(net.Conn)) func(*testing.T) (string, string) {
	return func(t *testing.T) (string, string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var conns sync.WaitGroup
		conns.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				conns.Go(func() {
					serve(c)
					c.Close()
				})
			}
		})
		t.Cleanup(func() {
			l.Close()
			conns.Wait()
		})
		return scheme, l.Addr().String()
	}
}

func echo(c net.Conn) { echoAfter("")(c) }

// echoAfter sends what comes first back, after a prefix.
func echoAfter(prefix string) func(net.Conn) {
	return func(c net.Conn) {
		request := make([]byte, 4096)
		n, _ := c.Read(request)
		head := bytes.ReplaceAll(request[:n], []byte("\r\n"), []byte(" "))
		_, _ = fmt.Fprintf(c, "%s%s\r\n\r\n", prefix, head)
	}
}

// served is a place that answers each request with a status, and repeats what
// it got.
func served(start func(http.Handler) *httptest.Server, status int) func(*testing.T) (string, string) {
	return func(t *testing.T) (string, string) {
		s := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1/?token=hunter2-location")
			w.Header().Set("WWW-Authenticate", "Basic realm=hunter2")
			w.WriteHeader(status)
			_ = r.Header.Write(w)
		}))
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		t.Cleanup(s.Close)
		scheme, host, _ := strings.Cut(s.URL, "://")
		return scheme, host
	}
}

// beyond is a place that only a proxy leads to.
func beyond(scheme string) func(*testing.T) (string, string) {
	return func(*testing.T) (string, string) { return scheme, "receiver.test" }
}

// proxyAt is the URL of a proxy at a place, with credentials.
func proxyAt(scheme string, where func(*testing.T) (string, string)) func(*testing.T) string {
	return func(t *testing.T) string {
		_, host := where(t)
		return scheme + "://bob:hunter2-proxy@" + host
	}
}

// A tattling transport fails as http.Client does: with the URL. That is the
// error's, which has a password that is not ours to know.
type tattling struct{}

func (tattling) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("wrapped: %w", &url.Error{Op: "Post", URL: r.URL.String(), Err: errors.New("no luck")})
}

// A capture is a slog.Handler that keeps everything, in each way in which a
// value may be printed.
type capture struct {
	mu    *sync.Mutex
	text  *bytes.Buffer
	more  chan struct{} // holds one: that there is more
	attrs []slog.Attr
}

func newCapture() *capture {
	return &capture{mu: new(sync.Mutex), text: new(bytes.Buffer), more: make(chan struct{}, 1)}
}

func (c *capture) Enabled(context.Context, slog.Level) bool { return true }
func (c *capture) WithGroup(string) slog.Handler            { return c }

func (c *capture) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *c
	with.attrs = append(with.attrs[:len(with.attrs):len(with.attrs)], attrs...)
	return &with
}

func (c *capture) Handle(ctx context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.AddAttrs(c.attrs...)
	for _, h := range []slog.Handler{slog.NewTextHandler(c.text, nil), slog.NewJSONHandler(c.text, nil)} {
		if err := h.Handle(ctx, r); err != nil {
			return err
		}
	}
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(c.text, "%s=%v %+v %#v\n", a.Key, a.Value.Any(), a.Value.Any(), a.Value.Any())
		return true
	})
	select {
	case c.more <- struct{}{}:
	default:
	}
	return nil
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// wait waits for a text.
func (c *capture) wait(t *testing.T, text string) {
	t.Helper()
	for late := time.After(30 * time.Second); !strings.Contains(c.String(), text); {
		select {
		case <-c.more:
		case <-late:
			t.Fatalf("not logged: %q, but\n%s", text, c)
		}
	}
}
