package webhook

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

// eventID is a UUID, version 7 (RFC 9562, section 5.7): 48 bits of Unix
// milliseconds, then random bits. Ids of one process sort by time.
type eventID [16]byte

// renew makes id a new one, for an event of the given time. The generator is
// ChaCha8, seeded by the operating system and private to each thread, so ids
// are unique across processes and cost no lock.
//
// It sets the id where it is: a processor stalls where a value is copied as a
// whole right after its parts were written.
func (id *eventID) renew(unixMilli int64) {
	hi := uint64(unixMilli)<<16 | 0x7000 | rand.Uint64()&0x0fff
	lo := rand.Uint64()&^(3<<62) | 2<<62
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
}

// idLen is the length of an id's text.
const idLen = 36

// append appends the id in its text form, 8-4-4-4-12.
func (id eventID) append(dst []byte) []byte {
	var digits [2 * len(id)]byte
	hex.Encode(digits[:], id[:])
	dst = append(append(dst, digits[:8]...), '-')
	dst = append(append(dst, digits[8:12]...), '-')
	dst = append(append(dst, digits[12:16]...), '-')
	dst = append(append(dst, digits[16:20]...), '-')
	return append(dst, digits[20:]...)
}

func (id eventID) String() string { return string(id.append(make([]byte, 0, idLen))) }

// parseID reads the text form of an id.
func parseID(text string) (id eventID, err error) {
	plain := strings.ReplaceAll(text, "-", "")
	if len(text) != idLen || hex.DecodedLen(len(plain)) != len(id) {
		return id, fmt.Errorf("id %q is not a UUID", text)
	}
	if _, err := hex.Decode(id[:], []byte(plain)); err != nil || id.String() != strings.ToLower(text) {
		return id, fmt.Errorf("id %q is not a UUID", text)
	}
	return id, nil
}
