package webhook

import (
	"strings"
	"testing"
)

// TestRequestHead fixes every byte of the fixed part of a request.
func TestRequestHead(t *testing.T) {
	withProxies(t, nil)
	const defaults = "Content-Type: application/json\nUser-Agent: mochi-webhook/1\n"
	for _, tt := range []struct {
		name        string
		url         string
		headers     []Header
		contentType string
		want        string
	}{
		{name: "no path", url: "http://example.com",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "path and query as written", url: "http://example.com/a//b/../c/%2f%7e%C3%a4/;x=1?q=a+b&&c=%20%zz|{}\"#frag?no",
			want: "POST /a//b/../c/%2f%7e%C3%a4/;x=1?q=a+b&&c=%20%zz|{}\" HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "query without path", url: "http://example.com?q=http://x/y",
			want: "POST /?q=http://x/y HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "empty query", url: "http://example.com/a?",
			want: "POST /a? HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "fragment without path", url: "http://example.com#x/y",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "blank and umlaut are escaped", url: "http://example.com/a b/ä",
			want: "POST /a%20b/%C3%A4 HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "default port", url: "http://example.com:80/",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "empty port", url: "http://example.com:/",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "other port", url: "http://example.com:443/",
			want: "POST / HTTP/1.1\nHost: example.com:443\n" + defaults},
		{name: "https port", url: "https://example.com:443/",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults},
		{name: "IPv6", url: "http://[::1]/",
			want: "POST / HTTP/1.1\nHost: [::1]\n" + defaults},
		{name: "IPv6 with zone and port", url: "http://[fe80::1%25eth0]:8080/",
			want: "POST / HTTP/1.1\nHost: [fe80::1]:8080\n" + defaults},
		{name: "user info", url: "http://us%40er:pa%3Ass@example.com/",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults + "Authorization: Basic dXNAZXI6cGE6c3M=\n"},
		{name: "user without password", url: "http://user@example.com/",
			want: "POST / HTTP/1.1\nHost: example.com\n" + defaults + "Authorization: Basic dXNlcjo=\n"},
		{name: "configured headers", url: "http://user@example.com/",
			headers: []Header{{"x-B", "2"}, {"authorization", "Bearer t"}, {"x-a", "1"}, {"host", "Other:8080"},
				{"content-type", "text/plain"}, {"USER-AGENT", "me"}},
			want: "POST / HTTP/1.1\nhost: Other:8080\nx-B: 2\nauthorization: Bearer t\nx-a: 1\ncontent-type: text/plain\nUSER-AGENT: me\n"},
		{name: "content type of the request", url: "http://example.com/", contentType: "application/cloudevents+json",
			headers: []Header{{"a", "1"}, {"content-type", "text/plain"}, {"b", "2"}},
			want:    "POST / HTTP/1.1\nHost: example.com\na: 1\ncontent-type: application/cloudevents+json\nb: 2\nUser-Agent: mochi-webhook/1\n"},
		{name: "content type of the request, none configured", url: "http://example.com/", contentType: "text/plain",
			want: "POST / HTTP/1.1\nHost: example.com\nContent-Type: text/plain\nUser-Agent: mochi-webhook/1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := newClient(&Endpoint{URL: tt.url, Headers: tt.headers}, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(tt.want, "\n", "\r\n")
			if got := string(c.heads[0].append(nil, tt.contentType)); got != want {
				t.Errorf("head of %s\n got %q\nwant %q", tt.url, got, want)
			}
		})
	}
}
