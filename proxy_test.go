package webhook

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// withProxies sets the proxy variables of the environment; those that are not
// given are empty.
func withProxies(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"} {
		t.Setenv(name, variables[name])
	}
}

// connectProxy is the script of a proxy that answers CONNECT with reply and,
// if that is a success, connects to target, whatever the client wants.
func connectProxy(got chan<- *rawRequest, target, reply string) func(c *rawConn, n int) {
	return func(c *rawConn, _ int) {
		req, err := c.readHead()
		if err != nil {
			return
		}
		got <- req
		_ = c.say(reply)
		if strings.HasPrefix(reply, "HTTP/1.1 200") {
			tunnel(c, target)
		}
	}
}

// tunnel copies in both directions until one ends.
func tunnel(c *rawConn, target string) {
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(c.Conn, out)
		c.Close()
		close(done)
	}()
	_, _ = io.Copy(out, c.r)
	out.Close()
	<-done
}

// TestProxyHTTP checks that a plain request goes to the proxy as a whole.
func TestProxyHTTP(t *testing.T) {
	checkLeaks(t)
	got := make(chan *rawRequest, 2)
	server := newRawServer(t, func(c *rawConn, _ int) {
		for {
			req, err := c.read()
			if err != nil {
				return
			}
			got <- req
			_ = c.say(replyOK)
		}
	})
	withProxies(t, map[string]string{"HTTP_PROXY": "http://us%40er:secret@" + server.addr})
	p := newTestConn(t, Endpoint{URL: "http://me:too@webhook.test:80/a%2Fb?c", Headers: []Header{{"X-A", "b"}}})
	for range 2 {
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		req := <-got
		head := strings.Join(req.header[:6], "\n")
		want := "Host: webhook.test\nX-A: b\nContent-Type: application/json\nUser-Agent: mochi-webhook/1\n" +
			"Authorization: Basic bWU6dG9v\nProxy-Authorization: Basic dXNAZXI6c2VjcmV0"
		if req.line != "POST http://webhook.test/a%2Fb?c HTTP/1.1" || head != want {
			t.Errorf("request %q\n%s\nwant\n%s", req.line, head, want)
		}
	}
	if n := server.accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestProxyStatus checks that a proxy's own statuses count like the endpoint's
// where it speaks for it.
func TestProxyStatus(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, func(c *rawConn, _ int) {
		_, _ = c.read()
		_ = c.say(replyText(407, ""))
	})
	withProxies(t, map[string]string{"HTTP_PROXY": server.addr})
	p := newTestConn(t, Endpoint{URL: "http://webhook.test/"})
	wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), misconfigured, 407, "")
}

// TestProxyConnect checks the ways to an https endpoint.
func TestProxyConnect(t *testing.T) {
	ca := newTestCA(t, "CA")
	const established = "HTTP/1.1 200 Connection established\r\n"
	for _, tt := range []struct {
		name  string
		tls   *tls.Config // of the proxy
		user  string
		reply string
		auth  string
	}{
		{"http", nil, "", established + "\r\n", ""},
		{"http with a user", nil, "user:secret@", established + "\r\n", "Basic dXNlcjpzZWNyZXQ="},
		{"https", ca.serverConfig(), "", established + "\r\n", ""},
		{"reply with a length", nil, "", established + "Content-Length: 5\r\n\r\n", ""},
		{"reply with headers", nil, "", established + "Via: x\r\nDate: y\r\n\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			server := newTLSServer(t, ca.serverConfig("webhook.test"), serveOK)
			got := make(chan *rawRequest, 1)
			proxy := newTLSServer(t, tt.tls, connectProxy(got, server.addr, tt.reply))
			scheme := "http://"
			if tt.tls != nil {
				scheme = "https://"
			}
			withProxies(t, map[string]string{"HTTPS_PROXY": scheme + tt.user + proxy.addr})
			p := newTestConn(t, Endpoint{URL: "https://me:too@webhook.test/", TLS: TLS{CACertFile: ca.file}})
			for _, body := range []string{"{}", strings.Repeat("x", 1<<20)} {
				p.last = time.Time{} // looked at
				wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), delivered, 200, "")
			}
			req := <-got
			if req.line != "CONNECT webhook.test:443 HTTP/1.1" || req.value("Host") != "webhook.test:443" ||
				req.value("Proxy-Authorization") != tt.auth || req.value("Authorization") != "" {
				t.Errorf("request %q %q", req.line, req.header)
			}
			if n := proxy.accepted(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

func TestProxyConnectFailures(t *testing.T) {
	ca := newTestCA(t, "CA")
	for _, tt := range []struct {
		name    string
		script  func(c *rawConn, n int)
		verdict verdict
		err     string
	}{
		{"407", connectProxy(make(chan *rawRequest, 1), "", replyText(407, "no")), misconfigured, "proxy connect: the proxy answered CONNECT with status 407"},
		{"403", connectProxy(make(chan *rawRequest, 1), "", replyText(403, "no")), failed, "proxy connect: the proxy answered CONNECT with status 403"},
		{"502", connectProxy(make(chan *rawRequest, 1), "", replyText(502, "no")), failed, "proxy connect: the proxy answered CONNECT with status 502"},
		{"garbage", connectProxy(make(chan *rawRequest, 1), "", "garbage"), failed, "proxy connect: malformed reply: not HTTP/1"},
		{"closes", func(c *rawConn, _ int) { _, _ = c.readHead() }, failed, "proxy connect: the connection was closed without a reply"},
		{"talks too early", connectProxy(make(chan *rawRequest, 1), "", "HTTP/1.1 201 OK\r\n\r\nhello"), failed, "proxy connect: malformed reply: something follows the head"},
		{"hangs", func(c *rawConn, _ int) { c.wait() }, failed, "proxy connect: timeout after 200ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			proxy := newRawServer(t, tt.script)
			withProxies(t, map[string]string{"HTTPS_PROXY": "http://user:secret@" + proxy.addr})
			p := newTestConn(t, Endpoint{URL: "https://webhook.test/", TLS: TLS{CACertFile: ca.file}})
			start, deadline := time.Now(), soon()
			if tt.name == "hangs" {
				deadline = start.Add(200 * time.Millisecond)
			}
			wantOutcome(t, p.post(testRequest("{}"), start, deadline), tt.verdict, 0, tt.err)
		})
	}
	t.Run("refused", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		withProxies(t, map[string]string{"HTTP_PROXY": "http://user:secret@" + ln.Addr().String()})
		p := newTestConn(t, Endpoint{URL: "http://webhook.test/"})
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), failed, 0, "proxy dial "+ln.Addr().String()+": connection refused")
	})
	t.Run("not trusted", func(t *testing.T) {
		checkLeaks(t)
		proxy := newTLSServer(t, newTestCA(t, "other").serverConfig(), func(c *rawConn, _ int) { _, _ = c.readHead() })
		withProxies(t, map[string]string{"HTTPS_PROXY": "https://user:secret@" + proxy.addr})
		p := newTestConn(t, Endpoint{URL: "https://webhook.test/", TLS: TLS{CACertFile: ca.file, InsecureSkipVerify: true}})
		o := p.post(testRequest("{}"), time.Now(), soon())
		if o.verdict != misconfigured || !strings.HasPrefix(o.err.Error(), "proxy tls handshake: tls: failed to verify certificate") {
			t.Errorf("got verdict %d, %v", o.verdict, o.err)
		}
	})
	t.Run("canceled", func(t *testing.T) {
		checkLeaks(t)
		hangs := make(chan struct{})
		proxy := newRawServer(t, func(c *rawConn, _ int) {
			_, _ = c.readHead()
			close(hangs)
			c.wait()
		})
		withProxies(t, map[string]string{"HTTPS_PROXY": proxy.addr})
		p := newTestConn(t, Endpoint{URL: "https://webhook.test/"})
		go func() {
			<-hangs
			p.cancel()
		}()
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), canceled, 0, "context canceled")
	})
}

// TestProxySOCKS goes through a SOCKS 5 proxy that asks for a password.
func TestProxySOCKS(t *testing.T) {
	server := newRawServer(t, serveOK)
	const greeting, login = "\x05\x02\x00\x02", "\x01\x04user\x06secret"
	for _, tt := range []struct {
		name  string
		login byte // status of the login
		err   string
	}{
		{"right password", 0, ""},
		{"wrong password", 1, "proxy connect: socks connect tcp PROXY->webhook.test:8080: username/password authentication failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			host := make(chan string, 1)
			proxy := newRawServer(t, func(c *rawConn, _ int) {
				if !expect(c.r, greeting) {
					return
				}
				_ = c.say("\x05\x02")
				if !expect(c.r, login) {
					return
				}
				_ = c.say("\x01" + string(tt.login))
				request := make([]byte, 5)
				if _, err := io.ReadFull(c.r, request); err != nil || tt.login != 0 {
					return
				}
				rest := make([]byte, int(request[4])+2)
				_, _ = io.ReadFull(c.r, rest)
				name, port := string(rest[:request[4]]), binary.BigEndian.Uint16(rest[request[4]:])
				if port == 8080 {
					host <- name
				}
				_ = c.say("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
				tunnel(c, server.addr)
			})
			withProxies(t, map[string]string{"HTTP_PROXY": "socks5://user:secret@" + proxy.addr})
			p := newTestConn(t, Endpoint{URL: "http://webhook.test:8080/"})
			o := p.post(testRequest("{}"), time.Now(), soon())
			if tt.err != "" {
				wantOutcome(t, o, failed, 0, strings.Replace(tt.err, "PROXY", proxy.addr, 1))
				return
			}
			wantOutcome(t, o, delivered, 200, "")
			if name := <-host; name != "webhook.test" {
				t.Errorf("connected to %q", name)
			}
			p.last = time.Time{}
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
			if n := proxy.accepted(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// TestProxySOCKSHangs: nothing comes from behind a SOCKS proxy.
func TestProxySOCKSHangs(t *testing.T) {
	checkLeaks(t)
	proxy := newRawServer(t, func(c *rawConn, _ int) {
		if !expect(c.r, "\x05\x01\x00") {
			return
		}
		_ = c.say("\x05\x00")
		if !expect(c.r, "\x05\x01\x00\x03\x0cwebhook.test\x01\xbb") {
			return
		}
		_ = c.say("\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
		c.wait()
	})
	withProxies(t, map[string]string{"HTTPS_PROXY": "socks5://" + proxy.addr})
	p := newTestConn(t, Endpoint{URL: "https://webhook.test/"})
	start := time.Now()
	wantOutcome(t, p.post(testRequest("{}"), start, start.Add(500*time.Millisecond)), failed, 0, "tls handshake: timeout after 500ms")
}

func expect(r *bufio.Reader, want string) bool {
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	return err == nil && string(got) == want
}

// TestProxyChoice is about which proxy the environment names, if any.
func TestProxyChoice(t *testing.T) {
	const noURL = "HTTP_PROXY: is not a URL; check the port, and the percent escapes of user and password"
	const cgi = "refusing to use HTTP_PROXY value in CGI environment; see golang.org/s/cgihttpproxy"
	for _, tt := range []struct {
		name      string
		url       string
		variables map[string]string
		addr      string // "" for none
		err       string
	}{
		{"none", "http://webhook.test/", nil, "", ""},
		{"http", "http://webhook.test/", map[string]string{"HTTP_PROXY": "http://proxy.test:3128"}, "proxy.test:3128", ""},
		{"not for https", "https://webhook.test/", map[string]string{"HTTP_PROXY": "http://proxy.test:3128"}, "", ""},
		{"https", "https://webhook.test/", map[string]string{"HTTPS_PROXY": "http://proxy.test"}, "proxy.test:80", ""},
		{"port of https", "https://webhook.test/", map[string]string{"HTTPS_PROXY": "https://[::1]"}, "[::1]:443", ""},
		{"port of SOCKS", "https://webhook.test/", map[string]string{"HTTPS_PROXY": "socks5h://proxy.test"}, "proxy.test:1080", ""},
		{"without scheme", "http://webhook.test/", map[string]string{"HTTP_PROXY": "proxy.test:3128"}, "proxy.test:3128", ""},
		{"not for loopback", "http://127.0.0.1/", map[string]string{"HTTP_PROXY": "http://proxy.test"}, "", ""},
		{"not for this host", "http://a.webhook.test/", map[string]string{"HTTP_PROXY": "http://proxy.test", "NO_PROXY": "b.test, webhook.test"}, "", ""},
		{"not for this network", "http://10.1.2.3/", map[string]string{"HTTP_PROXY": "http://proxy.test", "NO_PROXY": "10.0.0.0/8"}, "", ""},
		{"unknown scheme", "http://webhook.test/", map[string]string{"HTTP_PROXY": "ftp://user:secret@proxy.test"}, "", "HTTP_PROXY: the scheme of a proxy is http, https or socks5"},
		{"unescaped password", "http://webhook.test/", map[string]string{"HTTP_PROXY": "http://user:sec ret@proxy.test"}, "", noURL},
		{"bad port", "https://webhook.test/", map[string]string{"HTTPS_PROXY": "http://user:secret@proxy.test:http"}, "", "HTTPS_PROXY: is not a URL; check the port, and the percent escapes of user and password"},
		{"bad escape", "http://webhook.test/", map[string]string{"HTTP_PROXY": "http://user:50%off@proxy.test"}, "", noURL},
		{"bad escape without scheme", "http://webhook.test/", map[string]string{"HTTP_PROXY": "user:50%off@proxy.test"}, "", noURL},
		{"bad escape in lower case", "http://webhook.test/", map[string]string{"HTTP_PROXY": "http://proxy.test", "http_proxy": "http://user:50%off@proxy.test"}, "", noURL},
		{"bad escape for https", "http://webhook.test/", map[string]string{"HTTPS_PROXY": "http://user:50%off@proxy.test"}, "", ""},
		{"bad escape for loopback", "http://127.0.0.1/", map[string]string{"HTTP_PROXY": "http://user:50%off@proxy.test"}, "", ""},
		{"bad escape for another host", "http://webhook.test/", map[string]string{"HTTP_PROXY": "http://user:50%off@proxy.test", "NO_PROXY": "webhook.test"}, "", ""},
		{"bad escape under CGI", "http://webhook.test/", map[string]string{"HTTP_PROXY": "http://user:50%off@proxy.test", "REQUEST_METHOD": "GET"}, "", cgi},
		{"port 0", "http://webhook.test/", map[string]string{"HTTP_PROXY": "user:secret@proxy.test:0"}, "", "HTTP_PROXY: the port of a proxy is 1 to 65535"},
		{"last port", "http://webhook.test/", map[string]string{"HTTP_PROXY": "proxy.test:65535"}, "proxy.test:65535", ""},
		{"port too high", "https://webhook.test/", map[string]string{"HTTPS_PROXY": "https://user:secret@proxy.test:65536"}, "", "HTTPS_PROXY: the port of a proxy is 1 to 65535"},
		{"no host", "https://webhook.test/", map[string]string{"HTTPS_PROXY": "http://user:secret@:80"}, "", "HTTPS_PROXY: has no host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withProxies(t, tt.variables)
			c, err := newClient(&Endpoint{URL: tt.url}, nil)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			addr := ""
			if c.proxy != nil {
				addr = c.proxy.addr
			}
			if addr != tt.addr {
				t.Errorf("proxy %q, want %q", addr, tt.addr)
			}
		})
	}
}
