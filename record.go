package webhook

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"unsafe"
)

// A record is the form in which a queue keeps an event, in memory, on disk and
// in a stream: compact, without pointers, and complete in itself.
//
//	byte 0      version of the format
//	byte 1      kind
//	bytes 2-5   field bits, little-endian
//	bytes 6-21  id, whose first 48 bits are the event's time
//	then        each text that has its bit: length as uvarint, bytes
//	then        each number that has its bit, as uvarint
//
// Texts and numbers stand in the order of their bits. A field that is zero has
// no bit, so there is one record for an event. New fields take new bits, at the
// end of their group; a reader that does not know a bit, or a mark or lane, refuses
// the record.
const (
	recordVersion = 1
	recordHeader  = 2 + 4 + len(eventID{})
)

// The field bits. They are in records on disk: what is there must not move.
const (
	bitClient = iota
	bitUsername
	bitFrom
	bitFromUser
	bitTopic
	bitPayload
	bitReason
	bitIP

	firstExtra    = 8 // bits 8-13, in the order of extra.texts; room to bit 15
	firstNumber   = 16
	firstExtraNum = 22 // bits 22-27, in the order of extra.numbers
	bitRule       = 28 // every event may have it; room to bit 29

	flagRetain   = 1 << 30
	flagAccepted = 1 << 31

	extraFields = (1<<extraTexts-1)<<firstExtra | (1<<extraNumbers-1)<<firstExtraNum
	knownFields = 1<<firstExtra - 1 | (1<<firstExtraNum - 1<<firstNumber) | extraFields | 1<<bitRule | flagRetain | flagAccepted
)

// Bits 16-21: the numbers that every event may have.
const (
	bitPublished = firstNumber + iota
	bitConn
	bitKeepalive
	bitProtoVer
	bitQoS
	bitLane
)

var (
	// errRecordCorrupt says that bytes are not a record.
	errRecordCorrupt = errors.New("corrupt record")
	// errRecordNewer says that a record has what this version cannot read.
	errRecordNewer = errors.New("record written by a newer version")
)

// recordSize returns the length of ev's record.
func recordSize(ev *event) int {
	size := recordHeader
	if ev.extra != nil {
		for _, text := range ev.extra.texts() {
			size += textSize(len(text))
		}
		for _, number := range ev.extra.numbers() {
			size += numberSize(number)
		}
	}
	return size +
		textSize(len(ev.client)) + textSize(len(ev.username)) +
		textSize(len(ev.from)) + textSize(len(ev.fromUser)) +
		textSize(len(ev.topic)) + textSize(len(ev.payload)) +
		textSize(len(ev.reason)) + textSize(len(ev.ip)) +
		numberSize(uint64(ev.published)) + numberSize(ev.conn) +
		numberSize(uint64(ev.keepalive)) + numberSize(uint64(ev.protoVer)) +
		numberSize(uint64(ev.qos)) + numberSize(uint64(ev.lane)) + numberSize(uint64(ev.rule))
}

// isShort reports whether the record of ev surely fits into a slot: what is not
// text takes less than 256 bytes.
func (ev *event) isShort() bool {
	n := len(ev.client) + len(ev.username) + len(ev.from) + len(ev.fromUser) +
		len(ev.topic) + len(ev.payload) + len(ev.reason) + len(ev.ip)
	if ev.extra != nil {
		for _, text := range ev.extra.texts() {
			n += len(text)
		}
	}
	return n <= maxSlot-256
}

func textSize(n int) int { return n + numberSize(uint64(n)) }

// numberSize returns the length of x as uvarint, 0 for a zero, which is left
// out.
func numberSize(x uint64) int { return (bits.Len64(x) + 6) / 7 }

// appendRecord appends the record of ev, whose id was made for its time. It is
// the greater part of what an event costs the broker: one line for each field
// takes half the time of a loop over them.
func appendRecord(dst []byte, ev *event) []byte {
	start := len(dst)
	dst = append(dst, recordVersion, byte(ev.kind), 0, 0, 0, 0)
	dst = append(dst, ev.id[:]...)
	var fields uint32
	dst = appendTextField(dst, &fields, bitClient, ev.client)
	dst = appendTextField(dst, &fields, bitUsername, ev.username)
	dst = appendTextField(dst, &fields, bitFrom, ev.from)
	dst = appendTextField(dst, &fields, bitFromUser, ev.fromUser)
	dst = appendTextField(dst, &fields, bitTopic, ev.topic)
	dst = appendTextField(dst, &fields, bitPayload, view(ev.payload))
	dst = appendTextField(dst, &fields, bitReason, ev.reason)
	dst = appendTextField(dst, &fields, bitIP, ev.ip)
	if ev.extra != nil {
		for i, text := range ev.extra.texts() {
			dst = appendTextField(dst, &fields, firstExtra+i, text)
		}
	}
	dst = appendNumberField(dst, &fields, bitPublished, uint64(ev.published))
	dst = appendNumberField(dst, &fields, bitConn, ev.conn)
	dst = appendNumberField(dst, &fields, bitKeepalive, uint64(ev.keepalive))
	dst = appendNumberField(dst, &fields, bitProtoVer, uint64(ev.protoVer))
	dst = appendNumberField(dst, &fields, bitQoS, uint64(ev.qos))
	dst = appendNumberField(dst, &fields, bitLane, uint64(ev.lane))
	if ev.extra != nil {
		for i, number := range ev.extra.numbers() {
			dst = appendNumberField(dst, &fields, firstExtraNum+i, number)
		}
	}
	dst = appendNumberField(dst, &fields, bitRule, uint64(ev.rule))
	if ev.retain {
		fields |= flagRetain
	}
	if ev.accepted {
		fields |= flagAccepted
	}
	binary.LittleEndian.PutUint32(dst[start+2:], fields)
	return dst
}

func appendTextField(dst []byte, fields *uint32, bit int, text string) []byte {
	if text == "" {
		return dst
	}
	*fields |= 1 << bit
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

func appendNumberField(dst []byte, fields *uint32, bit int, number uint64) []byte {
	if number == 0 {
		return dst
	}
	*fields |= 1 << bit
	return binary.AppendUvarint(dst, number)
}

// decodeRecord sets ev to the event of a record. The texts and the payload of
// ev are views of rec, which must not change while they are in use. On error,
// errRecordCorrupt or errRecordNewer, ev is undefined.
func decodeRecord(rec []byte, ev *event) error {
	switch {
	case len(rec) > 0 && rec[0] > recordVersion:
		return fmt.Errorf("%w: version %d", errRecordNewer, rec[0])
	case len(rec) < recordHeader || rec[0] == 0:
		return fmt.Errorf("%w: header", errRecordCorrupt)
	}
	k, fields := kind(rec[1]), binary.LittleEndian.Uint32(rec[2:])
	switch {
	case k == 0:
		return fmt.Errorf("%w: no kind", errRecordCorrupt)
	case k >= kindEnd || fields&^knownFields != 0:
		return fmt.Errorf("%w: kind %d, fields %#x", errRecordNewer, k, fields)
	}
	*ev = event{} // fields in it would be copied once more
	ev.id = eventID(rec[6:recordHeader])
	ev.kind = k
	ev.retain = fields&flagRetain != 0
	ev.accepted = fields&flagAccepted != 0
	ev.time = int64(binary.BigEndian.Uint64(ev.id[:8]) >> 16)
	r := recordReader{rest: rec[recordHeader:], fields: fields}
	ev.client = r.text(bitClient)
	ev.username = r.text(bitUsername)
	ev.from = r.text(bitFrom)
	ev.fromUser = r.text(bitFromUser)
	ev.topic = r.text(bitTopic)
	ev.payload = r.bytes(bitPayload)
	ev.reason = r.text(bitReason)
	ev.ip = r.text(bitIP)
	if fields&extraFields != 0 {
		ev.extra = r.extraTexts()
	}
	ev.published = int64(r.number(bitPublished, math.MaxUint64))
	ev.conn = r.number(bitConn, math.MaxUint64)
	ev.keepalive = uint16(r.number(bitKeepalive, math.MaxUint16))
	ev.protoVer = byte(r.number(bitProtoVer, math.MaxUint8))
	ev.qos = byte(r.number(bitQoS, 3))
	ev.lane = laneKind(r.number(bitLane, math.MaxUint8))
	if ev.extra != nil {
		r.extraNumbers(ev.extra)
	}
	ev.rule = uint32(r.number(bitRule, math.MaxUint32))
	switch {
	case r.bad != 0:
		return fmt.Errorf("%w: field %d", errRecordCorrupt, r.bad-1)
	case len(r.rest) > 0:
		return fmt.Errorf("%w: %d bytes left over", errRecordCorrupt, len(r.rest))
	case ev.lane > laneConn:
		return fmt.Errorf("%w: lane %d", errRecordNewer, ev.lane)
	case ev.extra != nil && ev.extra.marks >= marksEnd:
		return fmt.Errorf("%w: marks %#x", errRecordNewer, ev.extra.marks)
	}
	return nil
}

// A recordReader reads fields in the order of their bits. After a field that
// is not right, it finds no others.
type recordReader struct {
	rest   []byte
	fields uint32
	bad    int // 1 + the bit of the field that was not right
}

func (r *recordReader) text(bit int) string { return view(r.bytes(bit)) }

func (r *recordReader) bytes(bit int) []byte {
	if r.fields&(1<<bit) == 0 {
		return nil
	}
	return r.readBytes(bit)
}

func (r *recordReader) readBytes(bit int) []byte {
	size, n := nonzeroUvarint(r.rest)
	if n == 0 || size > uint64(len(r.rest)-n) {
		r.fail(bit)
		return nil
	}
	end := n + int(size)
	b := r.rest[n:end:end]
	r.rest = r.rest[end:]
	return b
}

// number reads a number that is at most most.
func (r *recordReader) number(bit int, most uint64) uint64 {
	if r.fields&(1<<bit) == 0 {
		return 0
	}
	return r.readNumber(bit, most)
}

func (r *recordReader) readNumber(bit int, most uint64) uint64 {
	x, n := nonzeroUvarint(r.rest)
	if n == 0 || x > most {
		r.fail(bit)
		return 0
	}
	r.rest = r.rest[n:]
	return x
}

func (r *recordReader) fail(bit int) { r.bad, r.fields = bit+1, 0 }

// extraTexts and extraNumbers read the fields of an extra.
func (r *recordReader) extraTexts() *extra {
	return &extra{
		user:          r.text(firstExtra),
		contentType:   r.text(firstExtra + 1),
		responseTopic: r.text(firstExtra + 2),
		correlation:   r.text(firstExtra + 3),
		listener:      r.text(firstExtra + 4),
		trace:         r.text(firstExtra + 5),
	}
}

func (r *recordReader) extraNumbers(x *extra) {
	x.seq = r.number(firstExtraNum, math.MaxUint64)
	x.packetID = uint16(r.number(firstExtraNum+1, math.MaxUint16))
	x.code = uint16(r.number(firstExtraNum+2, 1<<8))
	x.marks = marks(r.number(firstExtraNum+3, math.MaxUint16))
	x.subID = uint32(r.number(firstExtraNum+4, math.MaxUint32))
	x.connectedAt = int64(r.number(firstExtraNum+5, math.MaxUint64))
}

// nonzeroUvarint reads a uvarint that is neither zero nor longer than it needs
// to be. n is 0 if there is none.
func nonzeroUvarint(b []byte) (x uint64, n int) {
	if len(b) > 0 && b[0]-1 < 0x7f { // nearly always
		return uint64(b[0]), 1
	}
	x, n = binary.Uvarint(b)
	if n <= 0 || x == 0 || b[n-1] == 0 {
		return 0, 0
	}
	return x, n
}

// view returns b as a string without copying it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
