package webhook

import (
	"hash/maphash"
	"testing"
)

func TestLaneKey(t *testing.T) {
	seed := maphash.MakeSeed()
	for _, tt := range []struct {
		name string
		a, b event
		same bool
	}{
		{"a publish and another event of the client",
			event{kind: kindPublish, from: "x", topic: "t"}, event{kind: kindDelivered, client: "x", from: "y"}, true},
		{"a delivery to another client",
			event{kind: kindPublish, from: "x"}, event{kind: kindDelivered, client: "y", from: "x"}, false},
		{"two clients", event{kind: kindConnect, client: "x"}, event{kind: kindConnect, client: "y"}, false},
		{"one topic, two publishers",
			event{kind: kindPublish, lane: laneTopic, from: "x", topic: "t"}, event{kind: kindPublish, lane: laneTopic, from: "y", topic: "t"}, true},
		{"two topics",
			event{kind: kindPublish, lane: laneTopic, from: "x", topic: "t"}, event{kind: kindPublish, lane: laneTopic, from: "x", topic: "u"}, false},
		{"a client named like a topic",
			event{kind: kindPublish, from: "x"}, event{kind: kindPublish, lane: laneTopic, topic: "x"}, false},
		{"one connection, two client ids",
			event{kind: kindConnect, lane: laneConn, conn: 7, client: "x"}, event{kind: kindConnack, lane: laneConn, conn: 7, client: "y"}, true},
		{"two connections, one client id",
			event{kind: kindConnect, lane: laneConn, conn: 7, client: "x"}, event{kind: kindConnect, lane: laneConn, conn: 8, client: "x"}, false},
		{"no names", event{kind: kindConnect}, event{kind: kindPublish, lane: laneTopic}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if same := tt.a.laneKey(seed) == tt.b.laneKey(seed); same != tt.same {
				t.Errorf("%+v and\n%+v share a lane: %t, want %t", tt.a, tt.b, same, tt.same)
			}
		})
	}
	for lane := laneClient; lane <= laneConn; lane++ {
		ev := event{kind: kindConnect, lane: lane}
		if got := ev.laneKey(seed) >> 62; got != uint64(lane) {
			t.Errorf("the high bits of the key of lane kind %d are %d", lane, got)
		}
	}
}

func BenchmarkLaneKey(b *testing.B) {
	seed := maphash.MakeSeed()
	for _, lane := range []struct {
		name string
		kind laneKind
	}{{"client", laneClient}, {"topic", laneTopic}, {"conn", laneConn}} {
		ev := samplePublish()
		ev.lane = lane.kind
		b.Run(lane.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ev.laneKey(seed)
			}
		})
	}
}
