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
// end of their group; a reader that does not know a bit refuses the record.
const (
	recordVersion = 1
	recordHeader  = 2 + 4 + len(eventID{})
)

// The field bits. They are in records on disk: what is there must not move.
const (
	recordTexts   = 8 // bits 0-7, in the order of event.texts
	firstExtra    = 8 // bits 8-13, in the order of extra.texts; room to bit 15
	firstNumber   = 16
	recordNumbers = 6  // bits 16-21, in the order of event.numbers
	firstExtraNum = 22 // bits 22-27, in the order of extra.numbers; room to bit 29
	flagRetain    = 1 << 30
	flagAccepted  = 1 << 31

	extraFields = (1<<extraTexts-1)<<firstExtra | (1<<extraNumbers-1)<<firstExtraNum
	knownFields = 1<<recordTexts - 1 | (1<<recordNumbers-1)<<firstNumber | extraFields | flagRetain | flagAccepted
)

var (
	// errRecordCorrupt says that bytes are not a record.
	errRecordCorrupt = errors.New("corrupt record")
	// errRecordNewer says that a record has what this version cannot read.
	errRecordNewer = errors.New("record written by a newer version")
)

// texts returns the texts of ev in the order of their bits.
func (ev *event) texts() [recordTexts]string {
	return [recordTexts]string{ev.client, ev.username, ev.from, ev.fromUser, ev.topic,
		unsafe.String(unsafe.SliceData(ev.payload), len(ev.payload)), ev.reason, ev.ip}
}

// numbers returns the numbers of ev in the order of their bits.
func (ev *event) numbers() [recordNumbers]uint64 {
	return [recordNumbers]uint64{uint64(ev.published), ev.conn, uint64(ev.keepalive),
		uint64(ev.protoVer), uint64(ev.qos), uint64(ev.lane)}
}

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
		numberSize(uint64(ev.qos)) + numberSize(uint64(ev.lane))
}

func textSize(n int) int { return n + numberSize(uint64(n)) }

// numberSize returns the length of x as uvarint, 0 for a zero, which is left
// out.
func numberSize(x uint64) int { return (bits.Len64(x) + 6) / 7 }

// appendRecord appends the record of ev, whose id was made for its time.
func appendRecord(dst []byte, ev *event) []byte {
	start := len(dst)
	dst = append(dst, recordVersion, byte(ev.kind), 0, 0, 0, 0)
	dst = append(dst, ev.id[:]...)
	var fields uint32
	for i, text := range ev.texts() {
		dst = appendTextField(dst, &fields, i, text)
	}
	if ev.extra != nil {
		for i, text := range ev.extra.texts() {
			dst = appendTextField(dst, &fields, firstExtra+i, text)
		}
	}
	for i, number := range ev.numbers() {
		dst = appendNumberField(dst, &fields, firstNumber+i, number)
	}
	if ev.extra != nil {
		for i, number := range ev.extra.numbers() {
			dst = appendNumberField(dst, &fields, firstExtraNum+i, number)
		}
	}
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
	id := eventID(rec[6:recordHeader])
	rest := rec[recordHeader:]

	var text [recordTexts][]byte
	var number [recordNumbers]uint64
	var x *extra
	rest, err := readTexts(rest, fields, text[:])
	if fields&extraFields != 0 && err == nil {
		x, rest, err = readExtra(rest, fields, number[:])
	} else if err == nil {
		rest, err = readNumbers(rest, fields>>firstNumber, number[:], maxNumbers[:])
	}
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: %d bytes left over", errRecordCorrupt, len(rest))
	}

	*ev = event{
		id:        id,
		kind:      k,
		time:      int64(binary.BigEndian.Uint64(id[:8]) >> 16),
		client:    view(text[0]),
		username:  view(text[1]),
		from:      view(text[2]),
		fromUser:  view(text[3]),
		topic:     view(text[4]),
		payload:   text[5],
		reason:    view(text[6]),
		ip:        view(text[7]),
		published: int64(number[0]),
		conn:      number[1],
		keepalive: uint16(number[2]),
		protoVer:  byte(number[3]),
		qos:       byte(number[4]),
		lane:      laneKind(number[5]),
		retain:    fields&flagRetain != 0,
		accepted:  fields&flagAccepted != 0,
		extra:     x,
	}
	return nil
}

// readTexts reads the texts whose bits are the lowest of fields.
func readTexts(rest []byte, fields uint32, text [][]byte) ([]byte, error) {
	for i := range text {
		if fields&(1<<i) == 0 {
			continue
		}
		size, n := nonzeroUvarint(rest)
		if n == 0 || size > uint64(len(rest)-n) {
			return nil, fmt.Errorf("%w: text %d", errRecordCorrupt, i)
		}
		end := n + int(size)
		text[i], rest = rest[n:end:end], rest[end:]
	}
	return rest, nil
}

// readNumbers reads the numbers whose bits are the lowest of fields.
func readNumbers(rest []byte, fields uint32, number, most []uint64) ([]byte, error) {
	for i := range number {
		if fields&(1<<i) == 0 {
			continue
		}
		x, n := nonzeroUvarint(rest)
		if n == 0 || x > most[i] {
			return nil, fmt.Errorf("%w: number %d", errRecordCorrupt, i)
		}
		number[i], rest = x, rest[n:]
	}
	return rest, nil
}

// readExtra reads the texts of an extra, the numbers that come before its own,
// and its own.
func readExtra(rest []byte, fields uint32, number []uint64) (*extra, []byte, error) {
	var text [extraTexts][]byte
	var own [extraNumbers]uint64
	rest, err := readTexts(rest, fields>>firstExtra, text[:])
	if err == nil {
		rest, err = readNumbers(rest, fields>>firstNumber, number, maxNumbers[:])
	}
	if err == nil {
		rest, err = readNumbers(rest, fields>>firstExtraNum, own[:], maxExtraNumbers[:])
	}
	return &extra{
		user:          view(text[0]),
		contentType:   view(text[1]),
		responseTopic: view(text[2]),
		correlation:   view(text[3]),
		listener:      view(text[4]),
		trace:         view(text[5]),
		seq:           own[0],
		packetID:      uint16(own[1]),
		code:          uint16(own[2]),
		marks:         marks(own[3]),
		subID:         uint32(own[4]),
		connectedAt:   int64(own[5]),
	}, rest, err
}

// maxNumbers has the largest value of each number.
var maxNumbers = [recordNumbers]uint64{math.MaxUint64, math.MaxUint64, math.MaxUint16,
	math.MaxUint8, math.MaxUint8, uint64(laneConn)}

var maxExtraNumbers = [extraNumbers]uint64{math.MaxUint64, math.MaxUint16, 1 << 8,
	uint64(marksEnd) - 1, math.MaxUint32, math.MaxUint64}

// nonzeroUvarint reads a uvarint that is neither zero nor longer than it needs
// to be. n is 0 if there is none.
func nonzeroUvarint(b []byte) (x uint64, n int) {
	x, n = binary.Uvarint(b)
	if n <= 0 || x == 0 || b[n-1] == 0 {
		return 0, 0
	}
	return x, n
}

// view returns b as a string without copying it.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
