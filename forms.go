package webhook

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A form is what several settings have in common: how a value is written,
// what is allowed and what is usual.
type form[V comparable] struct {
	read     func(*decoder, *node) (V, bool)
	check    func(V) (V, error) // returns the value as it is usually spelled
	standard V
}

// invalid says what is wrong with a value, in the same words for a file and
// for Go: text goes on after the name of the setting.
type invalid struct{ summary, text string }

func (e *invalid) Error() string { return e.text }

func outOfRange(format string, args ...any) error {
	return &invalid{"Value out of range", fmt.Sprintf(format, args...)}
}

func number(most, standard int) form[int] {
	return form[int]{(*decoder).int, func(n int) (int, error) {
		if n < 1 || n > most {
			return n, outOfRange("must be 1 to %d", most)
		}
		return n, nil
	}, standard}
}

// rational is a number that need not be whole, without a default.
func rational(least, most float64) form[float64] {
	return form[float64]{(*decoder).float, func(x float64) (float64, error) {
		if !(least <= x && x <= most) { // nor is NaN
			return x, outOfRange("must be %v to %.f", least, most)
		}
		return x, nil
	}, 0}
}

func numberOrUnlimited(standard int) form[int] {
	return orMinusOne(atLeast((*decoder).int, 1, "1", standard), "no limit")
}

func size(standard int64) form[int64] {
	return atLeast((*decoder).size, 1, "1 byte", standard)
}

func sizeOrUnlimited(standard int64) form[int64] { return orMinusOne(size(standard), "no limit") }

func duration(most, standard time.Duration) form[time.Duration] {
	return form[time.Duration]{(*decoder).duration, func(v time.Duration) (time.Duration, error) {
		if v < time.Millisecond || v > most {
			return v, outOfRange("must be 1 ms to %d h", most/time.Hour)
		}
		return v, nil
	}, standard}
}

func durationOrUnlimited(standard time.Duration) form[time.Duration] {
	return orMinusOne(atLeast((*decoder).duration, time.Millisecond, "1 ms", standard), "no limit")
}

// atLeast is a value without an upper bound; text is the lower one for people.
func atLeast[V cmp.Ordered](read func(*decoder, *node) (V, bool), least V, text string, standard V) form[V] {
	return form[V]{read, func(v V) (V, error) {
		if v < least {
			return v, outOfRange("must be at least %s", text)
		}
		return v, nil
	}, standard}
}

// orMinusOne takes -1 too, which stands for what meaning says.
func orMinusOne[V int | int64 | time.Duration](f form[V], meaning string) form[V] {
	inRange := f.check
	f.check = func(v V) (V, error) {
		if v == -1 {
			return v, nil
		}
		if _, err := inRange(v); err != nil {
			return v, outOfRange("%v, or -1 for %s", err, meaning)
		}
		return v, nil
	}
	return f
}

// choice is one of words, in any letter case; the first is usual.
func choice[W ~string](words []W) form[W] {
	want := oneOf(words)
	return form[W]{
		read: func(d *decoder, n *node) (W, bool) {
			s, ok := d.word(n, want)
			return W(s), ok
		},
		check: func(given W) (W, error) {
			for _, w := range words {
				if equalFold(string(w), string(given)) {
					return w, nil
				}
			}
			return given, &invalid{"Unknown value", "must be " + want + suggest(string(given), words)}
		},
		standard: words[0],
	}
}

// withoutDefault leaves a value zero that is not there.
func withoutDefault[V comparable](f form[V]) form[V] {
	f.standard = *new(V)
	return f
}

// streamQueue is the type of a queue in a file that is a stream. In Go, that is
// Endpoint.Stream.
const streamQueue QueueType = "jetstream"

// queueType is the type of a queue which may be a stream.
func queueType() form[QueueType] {
	f, all := choice(queueTypes), choice(append(queueTypes[:len(queueTypes):len(queueTypes)], streamQueue))
	f.read = all.read
	f.check = func(t QueueType) (QueueType, error) {
		t, err := all.check(t)
		if t == streamQueue {
			err = &invalid{"Unknown value", `must be "memory" or "disk"; a stream is set in Stream`}
		}
		return t, err
	}
	return f
}

const defaultStream = "MQTT_WEBHOOKS"

// streamName is the name of a stream, which begins its subjects.
func streamName() form[string] {
	return form[string]{(*decoder).text, func(s string) (string, error) {
		if checkName(s) != nil {
			return s, &invalid{"Invalid name", "must be 1 to 64 letters A-Z and a-z, digits, _ and -"}
		}
		return s, nil
	}, defaultStream}
}

// natsURL is where NATS servers are.
func natsURL() form[Secret] {
	f := password()
	f.check = func(s Secret) (Secret, error) {
		for server := range strings.SplitSeq(string(s), ",") {
			u, err := url.Parse(strings.TrimSpace(server)) // whose error has the URL
			if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
				return s, &invalid{"Invalid url", `must be that of a NATS server, such as "nats://127.0.0.1:4222", or of several with commas between`}
			}
			if port := u.Port(); port != "" {
				if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
					return s, &invalid{"Invalid url", "must have a port of 1 to 65535, or none"}
				}
			}
			web := strings.HasPrefix(u.Scheme, "ws")
			if first, _, _ := strings.Cut(strings.TrimSpace(string(s)), "://"); web != strings.HasPrefix(strings.ToLower(first), "ws") {
				return s, &invalid{"Invalid url", "must be of one kind: ws and wss servers are not in a list with others"}
			}
		}
		return s, nil
	}
	return f
}

// optional lets a value be left out.
func optional[V comparable](f form[V]) form[V] {
	check := f.check
	f.check = func(v V) (V, error) {
		if v == f.standard {
			return v, nil
		}
		return check(v)
	}
	return f
}

const (
	syncWant  = `"always", "never" or a duration such as "100ms"`
	syncRange = "must be 1 ms to 1 h, %s or %s" // the words differ: those of a file are constants in Go
)

// syncPolicy is a duration, or a word that is one in Go.
func syncPolicy() form[time.Duration] {
	f := duration(time.Hour, 100*time.Millisecond)
	inRange := f.check
	f.read = func(d *decoder, n *node) (time.Duration, bool) {
		s, ok := d.scalar(n, syncWant)
		switch {
		case !ok:
			return 0, false
		case equalFold(s.text, "always"):
			return SyncAlways, true
		case equalFold(s.text, "never"):
			return SyncNever, true
		}
		quiet := d.quiet()
		v, ok := quiet.duration(n)
		if !ok || v < 0 { // in the file, the special values are words
			d.wrongType(n, syncWant)
			return 0, false
		}
		if _, err := inRange(v); err != nil {
			d.refuse(n.span, outOfRange(syncRange, `"always"`, `"never"`))
			return 0, false
		}
		return v, true
	}
	f.check = func(v time.Duration) (time.Duration, error) {
		if v == SyncAlways || v == SyncNever {
			return v, nil
		}
		if _, err := inRange(v); err != nil {
			return v, outOfRange(syncRange, "SyncAlways", "SyncNever")
		}
		return v, nil
	}
	return f
}

// letterCount is a number of files, 0 in the file for none, which in Go is -1.
func letterCount() form[int] {
	f := orMinusOne(number(1000, 5), "none")
	f.read = func(d *decoder, n *node) (int, bool) {
		v, ok := d.int(n)
		if v == 0 {
			v = -1
		}
		return v, ok
	}
	return f
}

// oneOf lists words for people.
func oneOf[W ~string](words []W) string {
	var list strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			list.WriteString(" or ")
		default:
			list.WriteString(", ")
		}
		fmt.Fprintf(&list, "%q", string(w))
	}
	return list.String()
}

// line is a string of one line that is not empty.
func line() form[string] {
	return form[string]{
		read: (*decoder).text,
		check: func(s string) (string, error) {
			if s == "" {
				return s, &invalid{"Empty value", "must not be empty; leave it out if there is none"}
			}
			if strings.ContainsFunc(s, unicode.IsControl) {
				return s, &invalid{"Invalid value", "must not contain control characters"}
			}
			return s, nil
		},
	}
}

// label is the name of an endpoint.
func label() form[string] {
	return form[string]{read: (*decoder).text, check: func(s string) (string, error) { return s, checkName(s) }}
}

// uriReference is the name of something, absolute or not (RFC 3986, 4.1).
func uriReference() form[string] {
	f := line()
	check := f.check
	f.check = func(s string) (string, error) {
		if s, err := check(s); err != nil {
			return s, err
		}
		_, err := url.Parse(s)
		if err != nil || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("<>\"{}|\\^`", r) }) {
			return s, &invalid{"Invalid value", `must be a URI or a part of one, such as "/brokers/north" or "https://example.com/brokers/north"`}
		}
		return s, nil
	}
	return f
}

// filePath is a path, in a file relative to the file's folder.
func filePath() form[string] {
	f := line()
	f.read = func(d *decoder, n *node) (string, bool) {
		s, ok := d.text(n)
		if s != "" {
			s = d.path(s)
		}
		return s, ok
	}
	return f
}

// password is any string, no string included.
func password() form[Secret] {
	return form[Secret]{
		read: func(d *decoder, n *node) (Secret, bool) {
			s, ok := d.text(n)
			return Secret(s), ok
		},
		check: func(s Secret) (Secret, error) { return s, nil },
	}
}

// signingSecret is a secret that signatures are made with.
func signingSecret() form[Secret] {
	f := password()
	f.check = func(s Secret) (Secret, error) {
		if _, err := s.key(); err != nil {
			return s, &invalid{"Invalid secret", err.Error()}
		}
		return s, nil
	}
	return f
}

// tlsVersion is a string in the file, and in Go a constant of crypto/tls.
func tlsVersion() form[uint16] {
	versions := []struct {
		text   string
		number uint16
	}{{"1.0", tls.VersionTLS10}, {"1.1", tls.VersionTLS11}, {"1.2", tls.VersionTLS12}, {"1.3", tls.VersionTLS13}}
	unknown := &invalid{"Unknown value", `must be "1.0", "1.1", "1.2" or "1.3"`}
	return form[uint16]{
		read: func(d *decoder, n *node) (uint16, bool) {
			s, ok := d.text(n)
			for _, v := range versions {
				if v.text == s {
					return v.number, ok
				}
			}
			if ok {
				d.refuse(n.span, unknown)
			}
			return 0, false
		},
		check: func(number uint16) (uint16, error) {
			for _, v := range versions {
				if v.number == number {
					return number, nil
				}
			}
			return number, unknown
		},
		standard: defaultMinTLS,
	}
}
