package webhook

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestTraceHeader(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	pairs := func(s ...string) (user []packets.UserProperty) {
		for i := 0; i < len(s); i += 2 {
			user = append(user, packets.UserProperty{Key: s[i], Val: s[i+1]})
		}
		return user
	}
	members := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("k%d=v", i))
		}
		return strings.Join(list, ",")
	}
	line := func(s string) string { return "traceparent: " + s + "\r\n" }
	for _, tt := range []struct {
		name string
		user []packets.UserProperty
		want string
	}{
		{"none", nil, ""},
		{"others", pairs("a", "b", "Traceparent", parent), ""},
		{"parent", pairs("a", "b", "traceparent", parent), line(parent)},
		{"not sampled", pairs("traceparent", parent[:53]+"00"), line(parent[:53] + "00")},
		{"state before it", pairs("tracestate", "a=1", "traceparent", parent), line(parent) + "tracestate: a=1\r\n"},
		{"two states", pairs("traceparent", parent, "tracestate", "a=1, ,b=2 ", "tracestate", "c@d=x y"),
			line(parent) + "tracestate: a=1,b=2,c@d=x y\r\n"},
		{"state alone", pairs("tracestate", "a=1"), ""},
		{"two parents", pairs("traceparent", parent, "traceparent", parent), ""},
		{"empty", pairs("traceparent", ""), ""},
		{"short", pairs("traceparent", parent[:54]), ""},
		{"long", pairs("traceparent", parent+"-"), ""},
		{"upper case", pairs("traceparent", strings.ToUpper(parent)), ""},
		{"no trace id", pairs("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"), ""},
		{"no parent id", pairs("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"), ""},
		{"other separator", pairs("traceparent", strings.ReplaceAll(parent, "-", "_")), ""},
		{"version ff", pairs("traceparent", "ff"+parent[2:]), ""},
		{"later version", pairs("traceparent", "cc"+parent[2:]), line(parent)},
		{"later version with more", pairs("traceparent", "01"+parent[2:53]+"ff-what-ever\r\nx: y"), line(parent)},
		{"later version, other flags", pairs("traceparent", "01"+parent[2:53]+"fe"), line(parent[:53] + "00")},
		{"later version run together", pairs("traceparent", "01"+parent[2:]+"x"), ""},
		{"line break", pairs("traceparent", parent+"\r\nx: y"), ""},
		{"state with line break", pairs("traceparent", parent, "tracestate", "a=1\r\nx: y"), line(parent)},
		{"state without value", pairs("traceparent", parent, "tracestate", "a"), line(parent)},
		{"state with empty value", pairs("traceparent", parent, "tracestate", "a="), line(parent)},
		{"state key in upper case", pairs("traceparent", parent, "tracestate", "A=1"), line(parent)},
		{"state key twice", pairs("traceparent", parent, "tracestate", "a=1,a=2"), line(parent)},
		{"state not ASCII", pairs("traceparent", parent, "tracestate", "a=é"), line(parent)},
		{"state of commas", pairs("traceparent", parent, "tracestate", strings.Repeat(",", 9000)), line(parent)},
		{"long key", pairs("traceparent", parent, "tracestate", strings.Repeat("k", 257)+"=1"), line(parent)},
		{"long value", pairs("traceparent", parent, "tracestate", "k="+strings.Repeat("1", 257)), line(parent)},
		{"32 members", pairs("traceparent", parent, "tracestate", members(32)), line(parent) + "tracestate: " + members(32) + "\r\n"},
		{"33 members", pairs("traceparent", parent, "tracestate", members(33)), line(parent)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := traceHeader(tt.user); got != tt.want {
				t.Errorf("traceHeader(%q) = %q, want %q", tt.user, got, tt.want)
			}
		})
	}
}
