package webhook

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math"
	"reflect"
	"strings"
	"testing"
)

func newEventID(unixMilli int64) (id eventID) {
	id.renew(unixMilli)
	return id
}

// samplePublish is the event that the benchmarks and size bounds are about.
func samplePublish() *event {
	const now = 1795422703175
	return &event{
		id:      newEventID(now),
		kind:    kindPublish,
		time:    now,
		from:    "client-001",
		topic:   "plant/7/temperature1",
		payload: []byte(`{"t":21.5,"unit":"C","seq":100001,"site":"north","status":"ok!"}`),
		qos:     1,
	}
}

// fullEvent has a value other than zero in every field.
func fullEvent() *event {
	const now = 1795422703175
	return &event{
		id: newEventID(now), kind: kindDelivered, lane: laneConn, rule: math.MaxUint32, conn: math.MaxUint64,
		time: now, published: 1795422703000,
		client: "c", username: strings.Repeat("u", 127), from: strings.Repeat("f", 128), fromUser: "\xff",
		topic: "a/b", payload: bytes.Repeat([]byte{0}, 16384), reason: "normal", ip: "::1",
		protoVer: 5, keepalive: math.MaxUint16, qos: 2, retain: true, accepted: true,
		extra: fullExtra(),
	}
}

// fullExtra has a value other than zero in every field.
func fullExtra() *extra {
	return &extra{
		user: "\x01k\x01v", contentType: "text/plain", responseTopic: "r", correlation: "\x00", listener: "tcp", trace: "traceparent: …\r\n",
		seq: math.MaxUint64, packetID: math.MaxUint16, code: 256, marks: marksEnd - 1, subID: 268435455, connectedAt: 1795422703000,
	}
}

func roundTrip(t *testing.T, ev *event) {
	t.Helper()
	rec := appendRecord(nil, ev)
	if got := recordSize(ev); got != len(rec) {
		t.Errorf("recordSize(%+v) = %d, want %d", ev, got, len(rec))
	}
	var got event
	if err := decodeRecord(rec, &got); err != nil {
		t.Fatalf("decodeRecord(appendRecord(%+v)): %v", ev, err)
	}
	if !reflect.DeepEqual(&got, ev) {
		t.Errorf("record of\n%+v decodes as\n%+v", ev, &got)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	t.Run("every field", func(t *testing.T) {
		ev := fullEvent()
		for v, i := reflect.ValueOf(*ev), 0; i < v.NumField(); i++ {
			if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "stamped" { // which is in no record
				t.Errorf("the test leaves %s zero", name)
			}
		}
		for v, i := reflect.ValueOf(*ev.extra), 0; i < v.NumField(); i++ {
			if v.Field(i).IsZero() {
				t.Errorf("the test leaves extra.%s zero", v.Type().Field(i).Name)
			}
		}
		roundTrip(t, ev)
	})
	t.Run("some of an extra", func(t *testing.T) {
		ev := samplePublish()
		ev.extra = &extra{responseTopic: "r", marks: markPacket}
		roundTrip(t, ev)
	})
	t.Run("no field", func(t *testing.T) {
		roundTrip(t, &event{id: newEventID(1), time: 1, kind: kindConnect})
	})
	t.Run("publish", func(t *testing.T) { roundTrip(t, samplePublish()) })
	t.Run("negative times", func(t *testing.T) {
		roundTrip(t, &event{id: newEventID(0), kind: kindAcked, published: -1})
	})
}

func TestRecordAppends(t *testing.T) {
	ev := samplePublish()
	got := appendRecord([]byte("before"), ev)
	if want := "before" + string(appendRecord(nil, ev)); string(got) != want {
		t.Errorf("appended to \"before\":\n%q, want\n%q", got, want)
	}
}

func TestRecordSize(t *testing.T) {
	if got := recordSize(samplePublish()); got > 125 {
		t.Errorf("a publish of 64 bytes to a topic of 20 takes %d bytes, want at most 125", got)
	}
}

// TestRecordGolden holds the format still: records stay on disk over updates.
func TestRecordGolden(t *testing.T) {
	ev := fullEvent()
	ev.id = eventID{0x01, 0xa2, 0x07, 0x88, 0x4e, 0x47, 0x70, 0x01, 0x80, 2, 3, 4, 5, 6, 7, 8}
	ev.username, ev.from, ev.payload, ev.conn = "u", "f", []byte("p"), 300
	ev.extra, ev.rule = nil, 0
	const want = "\x01\x0b\xff\x00\x3f\xc0" + "\x01\xa2\x07\x88\x4e\x47\x70\x01\x80\x02\x03\x04\x05\x06\x07\x08" +
		"\x01c\x01u\x01f\x01\xff\x03a/b\x01p\x06normal\x03::1" +
		"\x98\x9b\xa1\xbc\xa0\x34\xac\x02\xff\xff\x03\x05\x02\x02"
	if got := string(appendRecord(nil, ev)); got != want {
		t.Errorf("appendRecord(%+v) =\n%q, want\n%q", ev, got, want)
	}
	ev.extra = fullExtra()
	const wantExtra = "\x01\x0b\xff\x3f\xff\xcf" + "\x01\xa2\x07\x88\x4e\x47\x70\x01\x80\x02\x03\x04\x05\x06\x07\x08" +
		"\x01c\x01u\x01f\x01\xff\x03a/b\x01p\x06normal\x03::1" +
		"\x04\x01k\x01v\x0atext/plain\x01r\x01\x00\x03tcp\x12traceparent: …\r\n" +
		"\x98\x9b\xa1\xbc\xa0\x34\xac\x02\xff\xff\x03\x05\x02\x02" +
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff\xff\x03\x80\x02\xff\x01\xff\xff\xff\x7f\x98\x9b\xa1\xbc\xa0\x34"
	if got := string(appendRecord(nil, ev)); got != wantExtra {
		t.Errorf("appendRecord(%+v) =\n%q, want\n%q", ev, got, wantExtra)
	}
	ev.extra, ev.rule = nil, 0x81
	wantRule := strings.Replace(want, "\xc0", "\xd0", 1) + "\x81\x01"
	if got := string(appendRecord(nil, ev)); got != wantRule {
		t.Errorf("appendRecord(%+v) =\n%q, want\n%q", ev, got, wantRule)
	}
}

func TestRecordErrors(t *testing.T) {
	change := func(i int, b byte) []byte {
		rec := appendRecord(nil, samplePublish())
		rec[i] = b
		return rec
	}
	withText := func(tail string) []byte {
		rec := appendRecord(nil, &event{kind: kindConnect})
		rec[2] = 1
		return append(rec, tail...)
	}
	withNumber := func(i int, tail string) []byte {
		rec := appendRecord(nil, &event{kind: kindConnect})
		binary.LittleEndian.PutUint32(rec[2:], 1<<(firstNumber+i))
		return append(rec, tail...)
	}
	for _, tt := range []struct {
		name string
		rec  []byte
		want error
	}{
		{"nothing", nil, errRecordCorrupt},
		{"one byte", []byte{1}, errRecordCorrupt},
		{"zeros", make([]byte, 100), errRecordCorrupt},
		{"version 0", change(0, 0), errRecordCorrupt},
		{"version 2", change(0, 2), errRecordNewer},
		{"version 2, short", []byte{2}, errRecordNewer},
		{"kind 0", change(1, 0), errRecordCorrupt},
		{"kind 13", change(1, byte(kindEnd)), errRecordNewer},
		{"unknown text", change(3, 1<<extraTexts), errRecordNewer},
		{"unknown number", change(5, 1<<5), errRecordNewer},
		{"byte too many", append(change(0, 1), 0), errRecordCorrupt},
		{"no text", withText(""), errRecordCorrupt},
		{"empty text", withText("\x00"), errRecordCorrupt},
		{"long form of a length", withText("\x81\x00x"), errRecordCorrupt},
		{"text longer than the record", withText("\x02x"), errRecordCorrupt},
		{"length of 64 bits", withText("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x"), errRecordCorrupt},
		{"length of 65 bits", withText("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02x"), errRecordCorrupt},
		{"no number", withNumber(0, ""), errRecordCorrupt},
		{"zero number", withNumber(0, "\x00"), errRecordCorrupt},
		{"keepalive of 17 bits", withNumber(2, "\x80\x80\x04"), errRecordCorrupt},
		{"protocol version of 9 bits", withNumber(3, "\x80\x02"), errRecordCorrupt},
		{"qos of 9 bits", withNumber(4, "\x80\x02"), errRecordCorrupt},
		{"unknown lane", withNumber(5, "\x03"), errRecordNewer},
		{"lane of 9 bits", withNumber(5, "\x80\x02"), errRecordCorrupt},
		{"unknown mark", withNumber(9, "\x80\x02"), errRecordNewer},
		{"marks of 17 bits", withNumber(9, "\x80\x80\x04"), errRecordCorrupt},
		{"rule of 33 bits", withNumber(bitRule-firstNumber, "\x80\x80\x80\x80\x10"), errRecordCorrupt},
		{"packet id of 17 bits", withNumber(7, "\x80\x80\x04"), errRecordCorrupt},
		{"no text of an extra", change(3, 1), errRecordCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ev event
			if err := decodeRecord(tt.rec, &ev); !errors.Is(err, tt.want) {
				t.Errorf("decodeRecord(%q) = %v, want %v", tt.rec, err, tt.want)
			}
		})
	}
}

func TestRecordTruncated(t *testing.T) {
	ev := fullEvent()
	ev.payload = ev.payload[:200]
	rec := appendRecord(nil, ev)
	for n := range rec {
		var got event
		if err := decodeRecord(rec[:n:n], &got); !errors.Is(err, errRecordCorrupt) {
			t.Errorf("the first %d of %d bytes: %v, want %v", n, len(rec), err, errRecordCorrupt)
		}
	}
}

// FuzzDecodeRecord: any bytes are refused, or they are the one record of the
// event that they decode as.
func FuzzDecodeRecord(f *testing.F) {
	f.Add(appendRecord(nil, samplePublish()))
	small := fullEvent()
	small.payload, small.username, small.from = small.payload[:3], "u", "f"
	f.Add(appendRecord(nil, small))
	f.Fuzz(func(t *testing.T, rec []byte) {
		var ev event
		if err := decodeRecord(rec, &ev); err != nil {
			return
		}
		if got := appendRecord(nil, &ev); !bytes.Equal(got, rec) {
			t.Errorf("%q decodes as\n%+v, whose record is\n%q", rec, &ev, got)
		}
		if got := recordSize(&ev); got != len(rec) {
			t.Errorf("recordSize(%+v) = %d, want %d", &ev, got, len(rec))
		}
	})
}

func FuzzRecordRoundTrip(f *testing.F) {
	f.Add(uint8(1), uint64(0), int64(5), int64(-1), "c", "u", "f", "", "t", []byte("p"), "", "ip", uint8(5), uint16(60), uint8(0xff), uint32(0))
	f.Fuzz(func(t *testing.T, k uint8, conn uint64, ms, published int64, client, username, from, fromUser,
		topic string, payload []byte, reason, ip string, protoVer uint8, keepalive uint16, rest uint8, rule uint32) {
		if len(payload) == 0 {
			payload = nil
		}
		ms &= 1<<48 - 1
		roundTrip(t, &event{
			id: newEventID(ms), kind: 1 + kind(k)%(kindEnd-1), lane: laneKind(rest >> 5 % 3), rule: rule, conn: conn,
			time: ms, published: published,
			client: client, username: username, from: from, fromUser: fromUser,
			topic: topic, payload: payload, reason: reason, ip: ip,
			protoVer: protoVer, keepalive: keepalive, qos: rest >> 2 & 3, retain: rest&1 != 0, accepted: rest&2 != 0,
		})
	})
}

func TestRecordAllocs(t *testing.T) {
	ev, buf := samplePublish(), make([]byte, 0, 256)
	var got event
	seed := maphash.MakeSeed()
	if allocs := testing.AllocsPerRun(100, func() {
		buf = appendRecord(buf[:0], ev)
		if len(buf) != recordSize(ev) || decodeRecord(buf, &got) != nil || got.laneKey(seed) == 0 {
			t.Fatal("not what was written")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

func BenchmarkRecord(b *testing.B) {
	ev := samplePublish()
	rec := appendRecord(nil, ev)
	b.Run("size", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			recordSize(ev)
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 256)
		for b.Loop() {
			buf = appendRecord(buf[:0], ev)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var got event
		for b.Loop() {
			if err := decodeRecord(rec, &got); err != nil {
				b.Fatal(err)
			}
		}
	})
}
