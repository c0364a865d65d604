package webhook

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/youmark/pkcs8"
)

// TestTLSVerification is about what the server shows: who may not be trusted
// is not sent anything, and the error says why.
func TestTLSVerification(t *testing.T) {
	ca, other := newTestCA(t, "right"), newTestCA(t, "other")
	good := ca.serverConfig("webhook.test")
	expired := &tls.Config{Certificates: []tls.Certificate{ca.issue(time.Now().Add(-time.Minute), "127.0.0.1")}}
	elsewhere := &tls.Config{Certificates: []tls.Certificate{ca.issue(time.Now().Add(time.Hour), "elsewhere.test")}}
	tls12 := good.Clone()
	tls12.MaxVersion = tls.VersionTLS12
	tls11 := good.Clone()
	tls11.MinVersion, tls11.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	otherProtocol := good.Clone()
	otherProtocol.NextProtos = []string{"other"}
	both := writeFile(t, contentOf(t, other.file)+contentOf(t, ca.file))

	for _, tt := range []struct {
		name   string
		server *tls.Config
		client TLS
		err    string // "" for none
	}{
		{"private CA", good, TLS{CACertFile: ca.file}, ""},
		{"two CAs in the file", good, TLS{CACertFile: both}, ""},
		{"server name", good, TLS{CACertFile: ca.file, ServerName: "webhook.test"}, ""},
		{"server name of another address", elsewhere, TLS{CACertFile: ca.file, ServerName: "elsewhere.test"}, ""},
		{"anything goes", expired, TLS{InsecureSkipVerify: true}, ""},
		{"TLS 1.2", tls12, TLS{CACertFile: ca.file}, ""},
		{"TLS 1.1 allowed", tls11, TLS{CACertFile: ca.file, MinVersion: tls.VersionTLS11}, ""},

		{"system's CAs", good, TLS{}, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"settings off", good, TLS{Disabled: true, CACertFile: "missing", InsecureSkipVerify: true}, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"wrong CA", good, TLS{CACertFile: other.file}, "tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"expired", expired, TLS{CACertFile: ca.file}, "tls: failed to verify certificate: x509: certificate has expired or is not yet valid"},
		{"another address", elsewhere, TLS{CACertFile: ca.file}, "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1"},
		{"another name", good, TLS{CACertFile: ca.file, ServerName: "other.test"}, "tls: failed to verify certificate: x509: certificate is valid for webhook.test, not other.test"},
		{"too old a version", tls12, TLS{CACertFile: ca.file, MinVersion: tls.VersionTLS13}, "remote error: tls: protocol version not supported"},
		{"too old a version by default", tls11, TLS{CACertFile: ca.file}, "remote error: tls: protocol version not supported"},
		{"another protocol", otherProtocol, TLS{CACertFile: ca.file}, "remote error: tls: no application protocol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkLeaks(t)
			var requests atomic.Int32
			server := newTLSServer(t, tt.server, func(c *rawConn, n int) {
				for {
					if _, err := c.read(); err != nil {
						return
					}
					requests.Add(1)
					_ = c.say(replyOK)
				}
			})
			p := newTestConn(t, Endpoint{URL: "https://" + server.addr + "/", TLS: tt.client})
			for range 2 {
				o := p.post(testRequest("{}"), time.Now(), soon())
				if tt.err == "" {
					wantOutcome(t, o, delivered, 200, "")
				} else if want := "tls handshake: " + tt.err; o.verdict != misconfigured || !strings.HasPrefix(o.err.Error(), want) {
					t.Errorf("got verdict %d, %v; want misconfigured, %q", o.verdict, o.err, want)
				}
			}
			want := int32(2)
			if tt.err != "" {
				want = 0
			}
			if n := requests.Load(); n != want {
				t.Errorf("%d requests, want %d", n, want)
			}
		})
	}
}

// TestTLSClientCertificate is about what the server thinks of us.
func TestTLSClientCertificate(t *testing.T) {
	ca, other := newTestCA(t, "right"), newTestCA(t, "other")
	certFile, keyFile := ca.clientFiles()
	otherCert, otherKey := other.clientFiles()
	for version, max := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		cfg := ca.serverConfig()
		cfg.ClientAuth, cfg.ClientCAs, cfg.MaxVersion = tls.RequireAndVerifyClientCert, ca.pool, max
		for _, tt := range []struct {
			name   string
			client TLS
			err    string
		}{
			{"right", TLS{CertFile: certFile, KeyFile: keyFile}, ""},
			{"none", TLS{}, "remote error: tls: "}, // which alert depends on the version
			{"of another CA", TLS{CertFile: otherCert, KeyFile: otherKey}, "remote error: tls: unknown certificate authority"},
		} {
			t.Run(version+"/"+tt.name, func(t *testing.T) {
				checkLeaks(t)
				server := newTLSServer(t, cfg, serveOK)
				tt.client.CACertFile = ca.file
				p := newTestConn(t, Endpoint{URL: "https://" + server.addr + "/", TLS: tt.client})
				for range 2 {
					o := p.post(testRequest("{}"), time.Now(), soon())
					if tt.err == "" {
						wantOutcome(t, o, delivered, 200, "")
					} else if o.verdict != misconfigured || !strings.Contains(o.err.Error(), tt.err) {
						t.Errorf("got verdict %d, %v; want misconfigured, %q", o.verdict, o.err, tt.err)
					}
				}
			})
		}
	}
}

// TestTLSClientChain has a file with the client's certificate and its CA's: both are
// shown to the server, which may know only who is above that CA.
func TestTLSClientChain(t *testing.T) {
	ca := newTestCA(t, "CA")
	certFile, keyFile := ca.clientFiles()
	chain := writeFile(t, contentOf(t, certFile)+contentOf(t, ca.file))
	cert, problems := TLS{CertFile: chain, KeyFile: keyFile}.certificate()
	if len(problems) > 0 || len(cert.Certificate) != 2 {
		t.Fatalf("got %+v, %v, want two certificates", cert, problems)
	}
}

// TestTLSResumes checks that a reconnect costs no second full handshake.
func TestTLSResumes(t *testing.T) {
	checkLeaks(t)
	ca := newTestCA(t, "CA")
	resumed := make(chan bool, 2)
	server := newTLSServer(t, ca.serverConfig(), func(c *rawConn, n int) {
		_, _ = c.read()
		resumed <- c.Conn.(*tls.Conn).ConnectionState().DidResume
		_ = c.say(replyOK)
	})
	c, err := newClient(&Endpoint{URL: "https://" + server.addr + "/", TLS: TLS{CACertFile: ca.file}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // also by another worker
		p := c.conn()
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		p.cancel()
		if got := <-resumed; got != (i == 1) {
			t.Errorf("connection %d resumed: %v", i+1, got)
		}
	}
}

// TestTLSConnections repeats over TLS what is special about connections.
func TestTLSConnections(t *testing.T) {
	ca := newTestCA(t, "CA")
	start := func(t *testing.T, script func(c *rawConn, n int)) (*rawServer, *http1Conn) {
		checkLeaks(t)
		server := newTLSServer(t, ca.serverConfig(), script)
		return server, newTestConn(t, Endpoint{URL: "https://" + server.addr + "/", TLS: TLS{CACertFile: ca.file}})
	}
	long := strings.Repeat("x", 8<<20)

	t.Run("kept", func(t *testing.T) {
		server, p := start(t, serveOK)
		for _, body := range []string{"{}", long, "{}"} {
			p.last = time.Time{} // looked at
			wantOutcome(t, p.post(testRequest(body), time.Now(), soon()), delivered, 200, "")
		}
		if n := server.accepted(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
	t.Run("closed after each reply", func(t *testing.T) {
		var requests atomic.Int32
		server, p := start(t, func(c *rawConn, n int) {
			if _, err := c.read(); err == nil {
				requests.Add(1)
				_ = c.say(replyOK)
			}
		})
		for i := range 40 {
			if i%2 == 0 {
				p.last = time.Time{}
			}
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		}
		if r, n := requests.Load(), server.accepted(); r != 40 || n != 40 {
			t.Errorf("%d requests on %d connections, want 40 on 40", r, n)
		}
	})
	t.Run("closed under a request", func(t *testing.T) {
		var requests atomic.Int32
		server, p := start(t, func(c *rawConn, n int) {
			for range 2 {
				if _, err := c.read(); err != nil || requests.Add(1) == 2 {
					return
				}
				_ = c.say(replyOK)
			}
		})
		for range 2 {
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
		}
		if r, n := requests.Load(), server.accepted(); r != 3 || n != 2 {
			t.Errorf("%d requests on %d connections, want 3 on 2", r, n)
		}
	})
	t.Run("early reply, nothing read", func(t *testing.T) {
		_, p := start(t, func(c *rawConn, _ int) {
			_, _ = c.readHead()
			_ = c.say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			c.wait()
		})
		begin := time.Now()
		wantOutcome(t, p.post(testRequest(long), time.Now(), soon()), refused, 413, "")
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("took %v: waits for the server to take a goodbye", took)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		checkLeaks(t)
		server := newRawServer(t, func(c *rawConn, _ int) { _ = c.say("HTTP/1.0 400 Bad Request\r\n\r\n") })
		p := newTestConn(t, Endpoint{URL: "https://" + server.addr})
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), failed, 0, "tls handshake: tls: first record does not look like a TLS handshake")
	})
	t.Run("hangs in the handshake", func(t *testing.T) {
		checkLeaks(t)
		accepted := make(chan struct{}, 2)
		server := newRawServer(t, func(c *rawConn, _ int) {
			accepted <- struct{}{}
			c.wait()
		})
		p := newTestConn(t, Endpoint{URL: "https://" + server.addr})
		start := time.Now()
		wantOutcome(t, p.post(testRequest("{}"), start, start.Add(500*time.Millisecond)), failed, 0, "tls handshake: timeout after 500ms")
		<-accepted
		go func() {
			<-accepted
			p.cancel()
		}()
		wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), canceled, 0, "context canceled")
	})
}

// Keys that OpenSSL 3 wrote, to see that this is not only what we write
// ourselves. Both are the same key; the password is "geheim".
const (
	opensslPKCS8 = `-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgdLQowI/lwoAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEENQet/phLQHWvD7RIMHv7xMEgZDK
WKNuiJrCjJkmbn1pkqKSlqb/+sko8/IXXvOlzhtUmq+AOVZaiosnP0A/X8+w7nV6
JehxJTG5XR+N8Z0/sPfQXYSLBqPZ5x6fB8SvRJ/MtvuEiBO3g8PGxceOQgegBGbI
Rye7R8x5bAGYkIJyyYP2brGjOW+9U6h8mPd5koQlWhj8qNentrwMzjN+ehdAPnY=
-----END ENCRYPTED PRIVATE KEY-----
`
	opensslLegacy = `-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-256-CBC,7C512D0FD6FDB1EBCA3F1EDEA013A108

T6jsy+NCZ4X0l3K2jJHZj6gCWTdmVKDZjsGGqhVHl41fqV+IvPAulyJ2GsEHPMfI
43b7CNrFhggYiHNqN8Ll+JTbwLF2+nyRbJHOpp1gUj24mqKRrGV7Eke0x5jgVXag
iYnGKGdk6fh5w448vvfoxcxTqY9KGLmizkBRYP06keI=
-----END EC PRIVATE KEY-----
`
)

func TestReadKey(t *testing.T) {
	const password = "geheim"
	must := func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	block := func(blockType string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey := newTestKey(t)
	sec1 := must(x509.MarshalECPrivateKey(ecKey))
	scrypt := &pkcs8.Opts{Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.ScryptOpts{SaltSize: 8, CostParameter: 16, BlockSize: 8, ParallelizationParameter: 1}}
	encrypted := must(pkcs8.MarshalPrivateKey(ecKey, []byte(password), scrypt))
	// What a cut file looks like; the cipher would panic.
	cut := bytes.Clone(encrypted)
	cut = append(cut[:len(cut)-20], make([]byte, 19)...)

	for _, tt := range []struct {
		name     string
		content  string
		password Secret
		want     crypto.Signer // or err
		err      string
	}{
		{name: "PKCS #1", content: block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), want: rsaKey},
		{name: "SEC 1", content: block("EC PRIVATE KEY", sec1), want: ecKey},
		{name: "SEC 1 after parameters and a certificate", content: block("CERTIFICATE", nil) + block("EC PARAMETERS", []byte{6, 1, 1}) + block("EC PRIVATE KEY", sec1), want: ecKey},
		{name: "PKCS #8 RSA", content: block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(rsaKey))), want: rsaKey},
		{name: "PKCS #8 Ed25519", content: block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(edKey))), want: edKey},
		{name: "password that is not needed", content: block("EC PRIVATE KEY", sec1), password: password, want: ecKey},
		{name: "encrypted PKCS #8, scrypt", content: block("ENCRYPTED PRIVATE KEY", encrypted), password: password, want: ecKey},
		{name: "encrypted PKCS #8, OpenSSL", content: opensslPKCS8, password: password},
		{name: "encrypted in the old format, OpenSSL", content: opensslLegacy, password: password},

		{name: "no key", content: block("CERTIFICATE", nil), err: "it has no PEM private key"},
		{name: "empty", err: "it has no PEM private key"},
		{name: "no password", content: opensslPKCS8, err: "its key is encrypted: tls.key_password is missing"},
		{name: "no password, old format", content: opensslLegacy, err: "its key is encrypted: tls.key_password is missing"},
		{name: "wrong password", content: opensslPKCS8, password: "falsch", err: "its key cannot be decrypted: pkcs8: incorrect password"},
		{name: "wrong password, old format", content: opensslLegacy, password: "falsch", err: "its key cannot be decrypted: tls.key_password is wrong"},
		{name: "malformed", content: block("PRIVATE KEY", []byte("x")), err: "its key is malformed: "},
		{name: "malformed and encrypted", content: block("ENCRYPTED PRIVATE KEY", cut), password: password, err: "its key cannot be decrypted: "},
		{name: "other kind", content: block("OPENSSH PRIVATE KEY", []byte("x")), err: `its key is of the unknown type "OPENSSH PRIVATE KEY"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := writeFile(t, tt.content)
			key, err := readKey(file, tt.password)
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == nil {
				// The public key tells that both decrypt to the same.
				tt.want = mustReadKey(t, opensslPKCS8, password)
			}
			if !tt.want.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
				t.Errorf("another key: %T", key)
			}
		})
	}
}

func mustReadKey(t *testing.T, content string, password Secret) crypto.Signer {
	t.Helper()
	key, err := readKey(writeFile(t, content), password)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

// TestDecryptPKCS8NeverPanics changes every byte of an encrypted key.
func TestDecryptPKCS8NeverPanics(t *testing.T) {
	block, _ := pem.Decode([]byte(opensslPKCS8))
	count := bytes.Index(block.Bytes, []byte{2, 2, 8, 0}) // as an INTEGER
	for i := range block.Bytes {
		if count <= i && i < count+4 {
			continue // millions of iterations
		}
		der := bytes.Clone(block.Bytes)
		der[i] ^= 0x01
		_, _ = decryptPKCS8(der, "geheim")
	}
}

func TestTLSConfigErrors(t *testing.T) {
	withProxies(t, nil)
	ca := newTestCA(t, "CA")
	certFile, keyFile := ca.clientFiles()
	_, otherKey := ca.clientFiles()
	malformed := writePEM(t, "CERTIFICATE", []byte("x"))
	for _, tt := range []struct {
		name string
		tls  TLS
		err  string
	}{
		{"CA file missing", TLS{CACertFile: "/missing.pem"}, "tls.cacertfile: no such file or directory"},
		{"CA file without a certificate", TLS{CACertFile: keyFile}, "tls.cacertfile: it has no PEM certificate"},
		{"CA file malformed", TLS{CACertFile: malformed}, "tls.cacertfile: its certificate 1 is malformed: x509: malformed certificate"},
		{"certificate missing", TLS{CertFile: "/missing.pem", KeyFile: keyFile}, "tls.certfile: no such file or directory"},
		{"certificate file without one", TLS{CertFile: keyFile, KeyFile: keyFile}, "tls.certfile: it has no PEM certificate"},
		{"key missing", TLS{CertFile: certFile, KeyFile: "/missing.pem"}, "tls.keyfile: no such file or directory"},
		{"key of another", TLS{CertFile: certFile, KeyFile: otherKey}, "tls.keyfile: its key does not match the first certificate of tls.certfile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newClient(&Endpoint{URL: "https://example.com/", TLS: tt.tls}, nil)
			if err == nil || err.Error() != tt.err {
				t.Errorf("got  %v\nwant %s", err, tt.err)
			}
		})
	}
}

// TestTLSSurplus has a server that sends a reply too many in a record of its own,
// which TLS has read when the connection is used again, and the socket has not.
func TestTLSSurplus(t *testing.T) {
	ca := newTestCA(t, "ca")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			checkLeaks(t)
			cfg := ca.serverConfig()
			cfg.MaxVersion = version
			ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for n := 0; ; n++ {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						replies := []string{"500 No"}
						if n == 0 {
							replies = []string{"200 OK", "200 OK"}
						}
						for b := make([]byte, 8192); ; replies = []string{"500 No"} {
							if _, err := c.Read(b); err != nil {
								return
							}
							for _, reply := range replies {
								_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", reply)
							}
						}
					}()
				}
			}()
			p := newTestConn(t, Endpoint{URL: "https://" + ln.Addr().String(), TLS: TLS{CACertFile: ca.file}})
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
			time.Sleep(2 * idleCheck)
			wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), failed, 500, "")
		})
	}
}

// An answeringConn writes whenever it reads, as TLS does when the server has asked
// for other keys.
type answeringConn struct {
	net.Conn
	err error
}

func (c *answeringConn) Read(b []byte) (int, error) {
	_, err := c.Conn.Write(nil)
	c.err = cmp.Or(c.err, err)
	return c.Conn.Read(b)
}

// TestTLSAnswersBetweenRequests uses a connection again after the deadline of its last
// request: an answer that TLS could not write would break it, without a word.
func TestTLSAnswersBetweenRequests(t *testing.T) {
	checkLeaks(t)
	server := newRawServer(t, serveOK)
	p := newTestConn(t, Endpoint{URL: server.url()})
	const timeout = 100 * time.Millisecond
	for begin := time.Now(); p.conn == nil; begin = time.Now() { // it may take longer on a busy machine
		p.post(testRequest("{}"), begin, begin.Add(timeout))
	}
	conn := &answeringConn{Conn: p.conn}
	p.conn = conn
	time.Sleep(2 * timeout)
	wantOutcome(t, p.post(testRequest("{}"), time.Now(), soon()), delivered, 200, "")
	if conn.err != nil || p.conn != conn {
		t.Errorf("it answers with %v, and is kept: %v", conn.err, p.conn == conn)
	}
}
