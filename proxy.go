package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"
	socks "golang.org/x/net/proxy"
)

// A proxy is how the connections of an endpoint get out: the one that
// HTTP_PROXY, HTTPS_PROXY and NO_PROXY name.
type proxy struct {
	addr  string      // host and port
	tls   *tls.Config // of a proxy that speaks TLS
	socks bool        // SOCKS 5 instead of HTTP
	user  *url.Userinfo
}

// proxyFromEnvironment returns the proxy for requests to u, or nil for none.
func proxyFromEnvironment(u *url.URL, t TLS) (*proxy, error) {
	bad := func(what string) error { return fmt.Errorf("%s_PROXY: %s", strings.ToUpper(u.Scheme), what) }
	env := httpproxy.FromEnvironment()
	value := &env.HTTPProxy
	if u.Scheme == "https" {
		value = &env.HTTPSProxy
	}
	valid := isProxyURL(*value)
	if !valid { // httpproxy ignores it, and a valid one shows whether NO_PROXY does too
		*value = "http://proxy"
	}
	pu, err := env.ProxyFunc()(u)
	if err != nil || pu == nil {
		return nil, err
	}
	if !valid || strings.HasPrefix(pu.Path, "//") { // what is no URL was taken for one without a scheme
		return nil, bad("is not a URL; check the port, and the percent escapes of user and password")
	}
	p := &proxy{user: pu.User}
	port := pu.Port()
	switch pu.Scheme {
	case "http":
		port = cmp.Or(port, "80")
	case "https":
		port = cmp.Or(port, "443")
		if p.tls, err = t.proxyConfig(pu.Hostname()); err != nil {
			return nil, err
		}
	case "socks5", "socks5h":
		port = cmp.Or(port, "1080")
		p.socks = true
	default:
		return nil, bad("the scheme of a proxy is http, https or socks5")
	}
	if pu.Hostname() == "" {
		return nil, bad("has no host")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, bad("the port of a proxy is 1 to 65535")
	}
	p.addr = net.JoinHostPort(pu.Hostname(), port)
	return p, nil
}

// same reports whether both are one proxy; nil is none.
func (p *proxy) same(o *proxy) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.addr == o.addr && p.socks == o.socks && p.user.String() == o.user.String() && sameTLS(p.tls, o.tls)
}

// isProxyURL reports whether httpproxy takes text for a URL, which may lack its
// scheme.
func isProxyURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		_, err = url.Parse("http://" + text)
	}
	return err == nil
}

// headers are the headers of a request to the proxy itself.
func (p *proxy) headers() []Header {
	if p.user == nil {
		return nil
	}
	return []Header{{"Proxy-Authorization", Secret(basicAuth(p.user))}}
}

// connect asks the proxy at the other end of conn, a new connection, to connect it to
// target, the host and port of an endpoint. The caller sets conn's deadline, before and
// again after it.
func (p *proxy) connect(ctx context.Context, conn net.Conn, target string) error {
	if p.socks {
		return p.connectSOCKS(ctx, conn, target)
	}
	req := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\nUser-Agent: " + userAgent + "\r\n"
	for _, h := range p.headers() {
		req += h.Name + ": " + string(h.Value) + "\r\n"
	}
	if _, err := conn.Write([]byte(req + "\r\n")); err != nil {
		return err
	}
	var r replyReader
	status, err := r.readConnect(conn)
	if err == nil && status/100 != 2 {
		err = proxyStatusError(status)
	}
	return err
}

// connectSOCKS asks a SOCKS 5 proxy (RFC 1928), which resolves the name.
func (p *proxy) connectSOCKS(ctx context.Context, conn net.Conn, target string) error {
	var auth *socks.Auth
	if p.user != nil {
		password, _ := p.user.Password()
		auth = &socks.Auth{User: p.user.Username(), Password: password}
	}
	dialer, err := socks.SOCKS5("tcp", p.addr, auth, connDialer{conn})
	if err != nil {
		return err
	}
	// The connection that it returns only adds the proxy's address to conn.
	_, err = dialer.(socks.ContextDialer).DialContext(ctx, "tcp", target)
	return err
}

// A connDialer hands out a connection that is there already.
type connDialer struct{ conn net.Conn }

func (d connDialer) Dial(string, string) (net.Conn, error) { return d.conn, nil }

func (d connDialer) DialContext(context.Context, string, string) (net.Conn, error) {
	return d.conn, nil
}

// A proxyStatusError is a proxy's refusal of a CONNECT. It has its own type
// because the status is the proxy's, not the endpoint's.
type proxyStatusError int

func (e proxyStatusError) Error() string {
	return fmt.Sprintf("the proxy answered CONNECT with status %d", int(e))
}

// isProxyAuth reports whether a proxy wants other credentials.
func isProxyAuth(err error) bool {
	var status proxyStatusError
	return errors.As(err, &status) && status == http.StatusProxyAuthRequired
}
