package webhook

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// write writes a file that only its owner may read.
func write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace puts a new file in the place of an old one, as editors do.
func replace(t *testing.T, file, text string) {
	t.Helper()
	write(t, file+"~", text)
	rename(t, file+"~", file)
}

func contentOf(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.Symlink(target, link+"~"); err != nil {
		t.Fatal(err)
	}
	rename(t, link+"~", link)
}

// TestWatch changes a configuration in every way that there is, and sees the
// header of the requests change with it.
func TestWatch(t *testing.T) {
	configuration := func(url, header string) string {
		return fmt.Sprintf(`webhook { url = %q, headers = { x-version = %s }, events = [ { event = "on_message_publish" } ] }`, url, header)
	}
	plain := func(t *testing.T, dir, url string) string {
		write(t, dir+"/webhook.hcl", configuration(url, `"1"`))
		return dir + "/webhook.hcl"
	}
	for _, test := range []struct {
		name   string
		start  func(t *testing.T, dir, url string) (file string)
		change func(t *testing.T, dir, url string)
	}{
		{"written", plain, func(t *testing.T, dir, url string) {
			write(t, dir+"/webhook.hcl", configuration(url, `"2"`))
		}},
		{"replaced", plain, func(t *testing.T, dir, url string) {
			replace(t, dir+"/webhook.hcl", configuration(url, `"2"`))
		}},
		{"removed and made anew", plain, func(t *testing.T, dir, url string) {
			rename(t, dir+"/webhook.hcl", dir+"/old")
			write(t, dir+"/webhook.hcl", configuration(url, `"2"`))
		}},
		{"a ConfigMap", func(t *testing.T, dir, url string) string {
			_ = os.Mkdir(dir+"/..2026_1", 0o700)
			write(t, dir+"/..2026_1/webhook.hcl", configuration(url, `"1"`))
			symlink(t, "..2026_1", dir+"/..data")
			symlink(t, "..data/webhook.hcl", dir+"/webhook.hcl")
			return dir + "/webhook.hcl"
		}, func(t *testing.T, dir, url string) {
			_ = os.Mkdir(dir+"/..2026_2", 0o700)
			write(t, dir+"/..2026_2/webhook.hcl", configuration(url, `"2"`))
			symlink(t, "..2026_2", dir+"/..data")
			_ = os.RemoveAll(dir + "/..2026_1")
		}},
		{"a link to a ConfigMap", func(t *testing.T, dir, url string) string {
			_ = os.MkdirAll(dir+"/map/..2026_1", 0o700)
			_ = os.Mkdir(dir+"/etc", 0o700)
			write(t, dir+"/map/..2026_1/webhook.hcl", configuration(url, `"1"`))
			symlink(t, "..2026_1", dir+"/map/..data")
			symlink(t, "..data/webhook.hcl", dir+"/map/webhook.hcl")
			symlink(t, "../map/webhook.hcl", dir+"/etc/webhook.hcl")
			return dir + "/etc/webhook.hcl"
		}, func(t *testing.T, dir, url string) {
			_ = os.Mkdir(dir+"/map/..2026_2", 0o700)
			write(t, dir+"/map/..2026_2/webhook.hcl", configuration(url, `"2"`))
			symlink(t, "..2026_2", dir+"/map/..data")
			_ = os.RemoveAll(dir + "/map/..2026_1")
		}},
		{"a token in a file", func(t *testing.T, dir, url string) string {
			_ = os.Mkdir(dir+"/secrets", 0o700)
			write(t, dir+"/secrets/token", "1\n")
			write(t, dir+"/webhook.hcl", configuration(url, `file("secrets/token")`))
			return dir + "/webhook.hcl"
		}, func(t *testing.T, dir, url string) {
			replace(t, dir+"/secrets/token", "2\n")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var mu sync.Mutex
			var versions []string
			got := newInbox()
			url := got.serve(t, func(r *http.Request) int {
				mu.Lock()
				defer mu.Unlock()
				versions = append(versions, r.Header.Get("x-version"))
				return 200
			})
			dir, log := t.TempDir(), new(logLines)
			h := new(Hook)
			h.Log = log.logger()
			if err := h.Init(&Options{File: test.start(t, dir, url), Watch: true}); err != nil {
				t.Fatal(err)
			}
			defer h.Stop()
			h.emit(publishOf("c", "1"))
			got.await(t, "the first event", func() bool { return len(got.payloads) == 1 })
			test.change(t, dir, url)
			log.await(t, "configuration reloaded", 1)
			h.emit(publishOf("c", "2"))
			got.await(t, "the second event", func() bool { return len(got.payloads) == 2 })
			mu.Lock()
			defer mu.Unlock()
			if want := []string{"1", "2"}; !slices.Equal(versions, want) {
				t.Errorf("versions %q, want %q", versions, want)
			}
		})
	}
}

func TestWatchRefusesABadFile(t *testing.T) {
	dir, log := t.TempDir(), new(logLines)
	file := filepath.Join(dir, "webhook.hcl")
	write(t, file, `webhook { url = "http://127.0.0.1:1/", events = [ { event = "on_message_publish" } ] }`)
	h := new(Hook)
	h.Log = log.logger()
	if err := h.Init(&Options{File: file, Watch: true}); err != nil {
		t.Fatal(err)
	}
	defer h.Stop()
	before := h.active.Load()
	write(t, file, `webhook { url = "http://u:hunter2@127.0.0.1:1/", pool_size = 0, evnts = [ ] }`)
	log.await(t, "configuration refused", 2)
	if h.active.Load() != before {
		t.Error("the configuration has changed")
	}
	write(t, file, `webhook { url = "http://127.0.0.1:2/", headers.x = file("token"), events = [ { event = "on_message_publish" } ] }`)
	log.await(t, "cannot be read", 1)
	write(t, dir+"/token", "x")
	log.await(t, "configuration reloaded", 1)
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "webhook.hcl:1,") {
		t.Errorf("log %s", text)
	}
}

func TestWatchPicksUpCertificates(t *testing.T) {
	ca, other := newTestCA(t, "ca"), newTestCA(t, "other")
	got := newInbox()
	dir, log := t.TempDir(), new(logLines)
	server := newTLSServer(t, ca.serverConfig(), func(c *rawConn, _ int) {
		for {
			if _, err := c.read(); err != nil {
				return
			}
			_ = c.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			got.mu.Lock()
			got.payloads = append(got.payloads, "x")
			got.changed.Broadcast()
			got.mu.Unlock()
		}
	})
	write(t, dir+"/ca.pem", contentOf(t, other.file))
	write(t, dir+"/webhook.hcl", fmt.Sprintf(`webhook {
		url = "https://%s/"
		tls { cacertfile = "ca.pem" }
		retry { min_backoff = "10ms", max_backoff = "20ms" }
		events = [ { event = "on_message_publish" } ]
	}`, server.addr))
	h := new(Hook)
	h.Log = log.logger()
	if err := h.Init(&Options{File: dir + "/webhook.hcl", Watch: true, DrainTimeout: -1}); err != nil {
		t.Fatal(err)
	}
	defer h.Stop()
	h.emit(publishOf("c", "1"))
	log.await(t, "at fault", 1)
	replace(t, dir+"/ca.pem", contentOf(t, ca.file))
	got.await(t, "the event", func() bool { return len(got.payloads) == 1 })
}

func TestWatchNeedsAFile(t *testing.T) {
	err := new(Hook).Init(&Options{Config: allPublishes("http://127.0.0.1/", nil), Watch: true})
	if err == nil || !strings.Contains(err.Error(), "no File to watch") {
		t.Errorf("got %v", err)
	}
}
