package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
)

// userAgent is sent unless an endpoint's headers have another.
const userAgent = "mochi-webhook/1"

// A client is what all connections to one endpoint share. It is immutable but for
// http2 and silent, and so safe for concurrent use.
type client struct {
	host string // with port, for dialing

	// heads are the fixed parts of requests by request.head: 0 is that of
	// most, others are of rules with headers of their own.
	heads map[uint32]*head

	signing Signing

	tls   *tls.Config // of https
	proxy *proxy      // nil for a direct connection

	transport http.RoundTripper // replaces all connections of our own
	url       *url.URL          // of transport's requests: no user info, no fragment
	http2     atomic.Bool       // transport's last reply came over HTTP/2
	silent    atomic.Bool       // a connection that several requests share had no reply in time
}

// A head is the fixed part of requests.
type head struct {
	text           []byte // over connections of our own
	ctStart, ctEnd int    // text[ctStart:ctEnd] is the content-type line
	ctName         string // its name as written

	header   http.Header // of a transport's requests
	hostname string      // Host header of a transport's requests
}

// newClient prepares the client of an endpoint that has been checked: it reads
// the TLS files and the proxy variables of the environment. Its errors are
// mistakes in the configuration and name the setting. With rt it makes no
// connections of its own, and reads neither.
func newClient(ep *Endpoint, rt http.RoundTripper) (*client, error) {
	u, target := parseURL(ep.URL)
	port := u.Port()
	if port == "" {
		port = defaultPorts[u.Scheme]
	}
	c := &client{
		host:      net.JoinHostPort(u.Hostname(), port),
		signing:   ep.Signing,
		transport: rt,
	}
	if _, err := newSigner(ep.Signing); err != nil {
		return nil, err
	}
	if rt != nil {
		c.prepareTransport(u, target)
		c.prepareHeads(ep, func(headers []Header) *head { return newTransportHead(requestHeaders(headers, u)) })
		return c, nil
	}
	var err error
	if c.proxy, err = proxyFromEnvironment(u, ep.TLS); err != nil {
		return nil, err
	}
	if u.Scheme == "https" {
		var problems []*settingError
		if c.tls, problems = ep.TLS.clientConfig(u.Hostname()); len(problems) > 0 {
			return nil, problems[0] // they were found by the checks, unless a file has changed since
		}
	}
	var proxied []Header
	if u.Scheme == "http" && c.proxy != nil && !c.proxy.socks {
		// A proxy gets the request itself, so it needs the whole URL.
		target = "http://" + headerHost(u) + target
		proxied = c.proxy.headers()
	}
	c.prepareHeads(ep, func(headers []Header) *head { return newHead(target, append(requestHeaders(headers, u), proxied...)) })
	return c, nil
}

// prepareHeads makes the head for each set of configured headers.
func (c *client) prepareHeads(ep *Endpoint, of func(headers []Header) *head) {
	c.heads = make(map[uint32]*head)
	for _, v := range ep.variants() {
		if c.heads[v.head] == nil {
			c.heads[v.head] = of(v.headers)
		}
	}
}

// conn makes a poster for one worker.
func (c *client) conn() poster {
	ctx, stop := context.WithCancel(context.Background())
	sign, _ := newSigner(c.signing) // newClient has looked at the error
	if c.transport != nil {
		return &roundTripConn{client: c, sign: sign, ctx: ctx, stop: stop}
	}
	return &http1Conn{client: c, sign: sign, ctx: ctx, stop: stop}
}

// same reports whether the connections of both clients can serve for each
// other. Certificates are compared as they were read.
func (c *client) same(o *client) bool {
	if c.transport != nil {
		return c.url.String() == o.url.String() && maps.EqualFunc(c.heads, o.heads, (*head).same)
	}
	return c.host == o.host && maps.EqualFunc(c.heads, o.heads, (*head).same) &&
		sameTLS(c.tls, o.tls) && c.proxy.same(o.proxy)
}

// same reports whether requests with both heads are alike.
func (h *head) same(o *head) bool {
	return bytes.Equal(h.text, o.text) && h.hostname == o.hostname && maps.EqualFunc(h.header, o.header, slices.Equal[[]string])
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// parseURL reads an endpoint's URL, which has been checked, and separately the
// request target, because a url.URL does not keep how path and query were written.
func parseURL(raw string) (u *url.URL, target string) {
	u, _ = url.Parse(raw) // checkURL has looked at the error
	_, target, _ = strings.Cut(raw, "://")
	target, _, _ = strings.Cut(target, "#")
	if i := strings.IndexAny(target, "/?"); i >= 0 {
		target = target[i:]
	} else {
		target = ""
	}
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	return u, escapeTarget(target)
}

// escapeTarget escapes what would break the request line: blanks and what is
// not ASCII. Everything else stays as written.
func escapeTarget(target string) string { return escapeBytes(target, "") }

// escapeBytes escapes, besides those, the bytes in others.
func escapeBytes(target, others string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(others, c) >= 0 {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// defaultContentType is sent where the configuration names none.
const defaultContentType = "application/json"

// headerHost is the URL's host as the Host header has it: without the default
// port and an IPv6 zone, which means nothing to the other side.
func headerHost(u *url.URL) string {
	host, _, _ := strings.Cut(u.Hostname(), "%")
	if port := u.Port(); port != "" && port != defaultPorts[u.Scheme] {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// requestHeaders is every header that all requests have: Host, then the
// configured ones in their order, then the defaults of those that are missing.
func requestHeaders(configured []Header, u *url.URL) []Header {
	host := Header{"Host", Secret(headerHost(u))}
	var headers []Header
	for _, h := range configured {
		if equalFold(h.Name, "Host") {
			host = h
		} else {
			headers = append(headers, h)
		}
	}
	add := func(name, value string) {
		if !hasHeader(headers, name) {
			headers = append(headers, Header{name, Secret(value)})
		}
	}
	add("Content-Type", defaultContentType)
	add("User-Agent", userAgent)
	if u.User != nil {
		add("Authorization", basicAuth(u.User))
	}
	return append([]Header{host}, headers...)
}

// basicAuth is the credentials of a URL's user info (RFC 7617).
func basicAuth(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}

// newHead builds the fixed part of requests.
func newHead(target string, headers []Header) *head {
	h := &head{text: []byte("POST " + target + " HTTP/1.1\r\n")}
	for _, header := range headers {
		start := len(h.text)
		h.text = append(h.text, header.Name+": "+string(header.Value)+"\r\n"...)
		if h.ctName == "" && equalFold(header.Name, "Content-Type") {
			h.ctName, h.ctStart, h.ctEnd = header.Name, start, len(h.text)
		}
	}
	return h
}

// append appends the fixed part of a request, with contentType in place of the
// content-type that it has if it is not "".
func (h *head) append(dst []byte, contentType string) []byte {
	if contentType == "" {
		return append(dst, h.text...)
	}
	dst = append(dst, h.text[:h.ctStart]...)
	dst = append(dst, h.ctName+": "+contentType+"\r\n"...)
	return append(dst, h.text[h.ctEnd:]...)
}
