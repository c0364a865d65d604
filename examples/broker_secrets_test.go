package examples_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the broker prints or serves about an endpoint that fails, none of it
// has a secret.
func TestBrokerSecrets(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_ = r.Header.Write(w)
	}))
	t.Cleanup(receiver.Close)
	config := write(t, `webhook {
		url = "http://alice:hunter2@`+strings.TrimPrefix(receiver.URL, "http://")+`/?token=hunter2"
		headers = { X-Api-Key = "hunter2" }
		breaker.failures = 1
		retry.max_attempts = 1
		dead_letter.file = "dead.jsonl"
		events = [{ event = "on_message_publish" }]
	}`)
	var seen []string
	look := func(where, text string) {
		t.Helper()
		seen = append(seen, where)
		for _, secret := range []string{"hunter2", base64.StdEncoding.EncodeToString([]byte("alice:hunter2"))} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q:\n%s", where, secret, text)
			}
		}
	}

	broker, address := listen(t, "broker", "-metrics", "127.0.0.1:0", "-stats", "127.0.0.1:0", "-drain", "0", "-config", config)
	publish(t, address, "a", "1")
	broker.stderr.waitLine(t, "breaker open")
	base := strings.TrimSuffix(urlOf(t, broker, "stats"), "/stats")
	for _, path := range []string{"/stats", "/metrics", "/health", "/other"} {
		_, text := get(t, base+path)
		look(path, text)
	}
	broker.end()
	look("log", broker.stdout.String()+broker.stderr.String())
	letters, err := os.ReadFile(filepath.Join(filepath.Dir(config), "dead.jsonl"))
	if err != nil || len(letters) == 0 {
		t.Fatalf("dead letters: got %q, %v; want one", letters, err)
	}
	look("dead letters", string(letters))
	for name, args := range map[string][]string{
		"-redeliver": {"-redeliver", filepath.Join(filepath.Dir(config), "dead.jsonl"), "-config", config},
		"-check":     {"-check", "-config", config},
		"bad file":   {"-check", "-config", write(t, `webhook { url = "ftp://alice:hunter2@127.0.0.1/", headers = { a = ["hunter2"] }, pool_size = 0 }`)},
	} {
		p := start(t, "broker", args...)
		p.wait()
		look(name, p.stdout.String()+p.stderr.String())
	}
	t.Logf("looked at %q", seen)
}
