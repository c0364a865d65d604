package webhook

import (
	"slices"
	"strings"
	"testing"
)

// naiveMatch matches by the words of MQTT 5, 4.7.
func naiveMatch(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if (f[0] == "#" || f[0] == "+") && strings.HasPrefix(topic, "$") {
		return false // 4.7.2
	}
	for i, level := range f {
		switch {
		case level == "#":
			return true // the parent level and whatever is below it, 4.7.1.2
		case i == len(t):
			return false
		case level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

// filterMatches reports whether an index of one filter finds it.
func filterMatches(filter, topic string) bool {
	var x filterIndex
	x.add(filter, hit{})
	return len(x.match(topic, nil)) == 1
}

func TestFilterMatches(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		// The examples of MQTT 5, 4.7.1.2, 4.7.1.3, 4.7.2 and 4.7.3.
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player10", false},
		{"sport/#", "sport", true},
		{"#", "sport", true},
		{"#", "/", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player2", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+", "sport", true},
		{"+/tennis/#", "sport/tennis", true},
		{"+/tennis/#", "sport/tennis/player1", true},
		{"sport/+/player1", "sport/tennis/player1", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"#", "$SYS/x", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/x", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"ACCOUNTS", "Accounts", false},
		{"Accounts payable", "Accounts payable", true},

		{"+/#", "a", true},
		{"+/#", "a/b/c", true},
		{"+/#", "$SYS", false},
		{"+/+/#", "a", false},
		{"a/+/#", "a", false},
		{"a/+/#", "a/b", true},
		{"+/#", "/", true},
		{"#", "$", false},
		{"+", "$", false},
		{"$", "$", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/#", "$sys/x", false},
		{"$SYS/+/#", "$SYS", false},
		{"+/$x", "a/$x", true},
		{"a/+", "a/$x", true},

		// Levels about as long as a machine word.
		{"1234567", "1234567", true},
		{"1234567", "12345678", false},
		{"12345678", "12345678", true},
		{"12345678", "1234567", false},
		{"12345678", "12345679", false},
		{"123456789", "123456789", true},
		{"123456789", "123456780", false},
		{"1234567890123456", "1234567890123456", true},
		{"1234567890123456", "1234567890123450", false},
		{"1234567890123456", "0234567890123456", false},
		{"1234567/12345678/a", "1234567/12345678/a", true},
		{"12345678/1234567/a", "12345678/1234567/a", true},
		{"a\x01", "a", false},
		{"a", "a\x00", false},
		{".", "/", false},

		// The client's filter, with its wildcards as text.
		{"a/#", "a/+/c", true},
		{"a/+", "a/#", true},
		{"a/+", "a/+", true},
		{"a/#", "a/#", true},
		{"a/b", "a/+", false},
		{"a/b", "a/#", false},
		{"a/b", "#", false},
		{"#", "#", true},
		{"+/#", "+/+/#", true},
		{"+", "#", true},
		{"+/b", "#", false},
	} {
		t.Run(tt.filter+" "+tt.topic, func(t *testing.T) {
			if err := checkFilter(tt.filter); err != nil {
				t.Fatal(err)
			}
			if got := naiveMatch(tt.filter, tt.topic); got != tt.want {
				t.Errorf("naiveMatch(%q, %q) = %t, want %t", tt.filter, tt.topic, got, tt.want)
			}
			if got := filterMatches(tt.filter, tt.topic); got != tt.want {
				t.Errorf("%q matches %q: %t, want %t", tt.filter, tt.topic, got, tt.want)
			}
		})
	}
}

// TestFilterMatchesLikeNanoMQ has what NanoMQ 0.25.3 sent for rules with these
// filters: exactly what MQTT says.
func TestFilterMatchesLikeNanoMQ(t *testing.T) {
	topics := []string{"a", "a/", "/a", "a/b", "a/b/", "a/b/c", "a//c", "a/b/c/d", "A/b", "b",
		"/", "//", "$SYS/x", "$SYS", "$share/g/a/b", "$foo/a", "a/$x", "ab"}
	for _, tt := range []struct {
		filter  string
		matched []string
	}{
		{"a/b", []string{"a/b"}},
		{"a/+", []string{"a/", "a/$x", "a/b"}},
		{"a/#", []string{"a", "a/", "a/$x", "a//c", "a/b", "a/b/", "a/b/c", "a/b/c/d"}},
		{"/#", []string{"/", "//", "/a"}},
	} {
		for _, topic := range topics {
			t.Run(tt.filter+" "+topic, func(t *testing.T) {
				got, want := filterMatches(tt.filter, topic), slices.Contains(tt.matched, topic)
				if got != want {
					t.Errorf("%q matches %q: %t, want %t", tt.filter, topic, got, want)
				}
			})
		}
	}
}

// TestFilterMatchesExtremes has the longest and deepest topics and filters.
func TestFilterMatchesExtremes(t *testing.T) {
	slashes := strings.Repeat("/", maxFilter)
	pluses := strings.Repeat("+/", maxFilter/2)
	as := strings.Repeat("a/", maxFilter/2)
	long := strings.Repeat("x", maxFilter)
	filters := []string{"#", "+/#", "/#", slashes, slashes[1:] + "#", pluses + "+", pluses + "#", as, as + "#",
		strings.Repeat("a/+/", maxFilter/4), strings.Repeat("+/a/", maxFilter/4) + "#", long, "+"}
	topics := []string{"", "a", slashes, slashes[1:], as, as[2:], as + "b", long, long[1:], long[1:] + "y",
		as[:len(as)/2] + long[len(as)/2:], strings.Repeat("+/", maxFilter/2), slashes[1:] + "$", "$" + slashes[1:]}

	var all filterIndex
	each := make([]filterIndex, len(filters))
	for i := len(filters) - 1; i >= 0; i-- {
		if err := checkFilter(filters[i]); err != nil {
			t.Fatal(err)
		}
		all.add(filters[i], hit{endpoint: int32(i)})
		each[i].add(filters[i], hit{})
	}
	for i, topic := range topics {
		var want []hit
		for e, filter := range filters {
			m := naiveMatch(filter, topic)
			if m {
				want = append(want, hit{endpoint: int32(e)})
			}
			if got := len(each[e].match(topic, nil)) == 1; got != m {
				t.Errorf("filter %d (%.20q) matches topic %d (%.20q): %t, want %t", e, filter, i, topic, got, m)
			}
		}
		if got := all.match(topic, nil); !slices.Equal(got, want) {
			t.Errorf("topic %d (%.20q): got %v, want %v", i, topic, got, want)
		}
	}
}
