package webhook

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"strings"
)

// A split is an endpoint that a rule with a URL has become.
type split struct {
	Endpoint
	rule   int                         // which of the rules it was
	named  bool                        // by the rule
	report func(key string, err error) // what is wrong with the rule; set by who checks
}

// add appends an endpoint, whose defaults are filled in, and those that its rules
// with a URL become, which it returns.
func (c *Config) add(e Endpoint) []split {
	splits := e.split()
	c.Endpoints = append(c.Endpoints, e)
	for i := range splits {
		c.Endpoints = append(c.Endpoints, splits[i].Endpoint)
	}
	return splits
}

// split makes endpoints of the rules that have a URL, and takes them out of e,
// whose defaults are filled in.
func (e *Endpoint) split() (splits []split) {
	seen := make(map[string]int)
	for i := range e.Events {
		r := &e.Events[i]
		if r.URL == "" {
			continue
		}
		s := split{Endpoint: e.derive(i), rule: i, named: r.Name != ""}
		if !s.named && e.Queue.Type == MemoryQueue && !e.Stream.enabled() { // what has files or a stream has them by its name
			of := fmt.Sprintf("%s\x00%s\x00", strings.ToLower(e.Name), r.URL)
			selects := of + fmt.Sprintf("%#v", s.Events)
			s.known = identity{
				rule:  maphash.String(knownSeed, fmt.Sprint(selects, seen[selects])),
				place: maphash.String(knownSeed, fmt.Sprint(of, seen[of])),
			}
			seen[selects]++
			seen[of]++
		}
		splits = append(splits, s)
	}
	e.Events = slices.DeleteFunc(e.Events, func(r Rule) bool { return r.URL != "" })
	return splits
}

// An identity is what a reload knows an endpoint by that a rule with a URL and
// without a name has become. Its number changes with the rules before, and what
// waits must not go to another receiver, nor with the headers of another rule.
type identity struct {
	rule  uint64 // a hash of its section, its URL and what it selects; 0 for other endpoints
	place uint64 // a hash of its section, its URL, and which of those that have both it is
}

// key is what a reload knows an endpoint by: its name, if somebody chose it.
func (e *Endpoint) key() string {
	if e.known.rule != 0 {
		return fmt.Sprint("rule ", e.known.rule) // a space is in no name
	}
	return strings.ToLower(e.Name)
}

// knownSeed is for hashes of URLs, which may have a password.
var knownSeed = maphash.MakeSeed()

// checkSplits checks the names of endpoints that were rules. taken are the names
// that sections have, in lower case. A name that somebody chose is not at fault if
// it is also one that nobody did.
func checkSplits(splits []split, taken map[string]bool) {
	for _, named := range []bool{true, false} {
		for _, s := range splits {
			if s.named != named {
				continue
			}
			name := strings.ToLower(s.Name)
			switch {
			case named && taken[name]:
				s.report("name", &invalid{"Duplicate name", "is the name of another endpoint, without regard to case"})
			case taken[name]:
				s.report("url", &invalid{"Duplicate name", "makes an endpoint that is called by its section's label and the rule's number, as another one is: give the rule a name"})
			case !named && len(name) > longestName:
				s.report("url", &invalid{"Invalid label", "makes an endpoint whose name would be too long, its section's label and the rule's number: give the rule a name"})
			}
			taken[name] = true
		}
	}
}

// derive returns the endpoint that a rule becomes.
func (e *Endpoint) derive(i int) Endpoint {
	rule := e.Events[i]
	d := *e
	d.Name = cmp.Or(rule.Name, fmt.Sprintf("%s-%d", e.Name, i+1))
	d.URL = rule.URL
	d.inherit(e, rule.Headers)
	d.Body.Encoding, d.Body.MaxPayload = cmp.Or(rule.Encoding, e.Body.Encoding), rule.maxPayload(&e.Body)
	rule.URL, rule.Name, rule.Headers, rule.Encoding = "", "", nil, ""
	d.Events = []Rule{rule}
	return d
}

// inherit gives d, a copy of e with another URL, its headers and as much of e's
// credentials as it may have: all for the same origin, none for another one,
// which may be somebody else's. What d says itself comes first, its headers
// before its user info.
func (d *Endpoint) inherit(e *Endpoint, own []Header) {
	from, to := origin(e.URL), origin(d.URL)
	same := from != nil && to != nil && from.Scheme == to.Scheme && from.Host == to.Host
	d.Headers = slices.DeleteFunc(slices.Clone(e.Headers), func(h Header) bool {
		return !same && mayBeCredential(h.Name) || same && to.User != nil && equalFold(h.Name, "Authorization")
	})
	d.Headers = mergeHeaders(d.Headers, own)
	switch {
	case !same:
		d.Signing = Signing{}
		d.TLS.CertFile, d.TLS.KeyFile, d.TLS.KeyPassword, d.TLS.ServerName = "", "", "", ""
	case to.User == nil && from.User != nil && !hasHeader(d.Headers, "Authorization"):
		d.Headers = append(d.Headers, Header{"Authorization", Secret(basicAuth(from.User))})
	}
}

// origin returns a URL whose scheme and host are in the form in which origins
// are compared, nil for one that is no URL.
func origin(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		return nil
	}
	u.Host = strings.ToLower(u.Hostname()) + " " + cmp.Or(u.Port(), defaultPorts[u.Scheme])
	return u
}

// mayBeCredential reports whether a header is one that another origin must not
// see, as far as its name tells, or the name of this one.
func mayBeCredential(name string) bool {
	name = strings.ToLower(name)
	return name == "host" || slices.ContainsFunc(credentialWords, func(w string) bool { return strings.Contains(name, w) })
}

var credentialWords = []string{"auth", "cookie", "credential", "key", "password", "secret", "session", "signature", "token"}
