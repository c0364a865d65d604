package webhook

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strings"
)

// Base62 text is the payload as a big-endian integer, with a '0' for each
// leading zero byte. Short numbers are converted ten digits at a time, at a cost
// that grows with the square of their length; long ones are halved until they
// are short, at the cost of math/big's multiplication and division, about
// n^1.6. math/big's own conversion to text takes twice as long for short
// numbers, a fourth longer for long ones of up to some KiB, and allocates more;
// the one from text is quadratic.

// longestBase62 is the longest payload in bytes where nothing else is said, because
// of that cost.
const longestBase62 = 256 << 10

const base62Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// base62Values has the value of each digit, and notBase62 for other bytes.
var base62Values = func() (values [256]uint8) {
	for c := range values {
		values[c] = notBase62
	}
	for i, c := range []byte(base62Digits) {
		values[c] = uint8(i)
	}
	return values
}()

const notBase62 = 0xff

// A chunk is ten digits, the most whose value fits 64 bits.
const (
	chunkDigits = 10
	halfChunk   = 62 * 62 * 62 * 62 * 62
	chunkBase   = halfChunk * halfChunk
)

// Numbers of at most shortBytes bytes or shortDigits digits are short. Such
// digits fit the bytes: 62^320 has 1906 bits.
const (
	shortDigits = 320
	shortBytes  = 240
)

// halving is how the digits of a long number are halved, those halves again,
// and so on to parts of at most shortDigits.
type halving struct {
	part   int        // digits of a part
	powers []*big.Int // 62^part, its square, the square of that, …
}

// newHalving plans it for a number of so many digits, more than shortDigits.
func newHalving(digits int) (h halving) {
	levels := bits.Len(uint((digits - 1) / shortDigits))
	h.part = (digits-1)>>levels + 1
	power := new(big.Int).Exp(big.NewInt(62), big.NewInt(int64(h.part)), nil)
	h.powers = append(h.powers, power)
	for len(h.powers) < levels {
		power = new(big.Int).Mul(power, power)
		h.powers = append(h.powers, power)
	}
	return h
}

// low returns how many of so many digits, more than one part's, are the lower
// half, and 62 to the power of that.
func (h halving) low(digits int) (int, *big.Int) {
	level := bits.Len(uint((digits-1)/h.part)) - 1
	return h.part << level, h.powers[level]
}

// appendBase62 appends the base62 text of payload.
func appendBase62(dst, payload []byte) []byte {
	number := bytes.TrimLeft(payload, "\x00")
	dst = appendZeros(dst, len(payload)-len(number))
	if len(number) <= shortBytes {
		return appendShortText(dst, number, 0)
	}
	x := new(big.Int).SetBytes(number)
	digits := int(float64(x.BitLen())/math.Log2(62)) + 2 // surely enough
	start := len(dst)
	dst = newHalving(digits).appendText(dst, x, digits)
	text := bytes.TrimLeft(dst[start:], "0")
	return append(dst[:start], text...)
}

// appendText appends so many digits of x.
func (h halving) appendText(dst []byte, x *big.Int, digits int) []byte {
	if digits <= h.part {
		var number [shortBytes]byte
		return appendShortText(dst, bytes.TrimLeft(x.FillBytes(number[:]), "\x00"), digits)
	}
	low, power := h.low(digits)
	high, rest := new(big.Int).QuoRem(x, power, new(big.Int))
	dst = h.appendText(dst, high, digits-low)
	return h.appendText(dst, rest, low)
}

// appendShortText appends the digits of a short big-endian number without
// leading zeros, at least so many of them.
func appendShortText(dst, number []byte, digits int) []byte {
	var wordSpace [shortBytes / 8]uint64
	words := wordSpace[:0] // the most significant first
	for len(number) > 0 {
		n := (len(number)-1)%8 + 1
		var word uint64
		for _, b := range number[:n] {
			word = word<<8 | uint64(b)
		}
		words = append(words, word)
		number = number[n:]
	}

	var chunkSpace [shortDigits/chunkDigits + 1]uint64
	chunks := chunkSpace[:0] // the least significant first
	for len(words) > 0 {
		var rest uint64
		for i := range words {
			words[i], rest = bits.Div64(rest, words[i], chunkBase)
		}
		chunks = append(chunks, rest)
		if words[0] == 0 {
			words = words[1:]
		}
	}

	if len(chunks) == 0 {
		return appendZeros(dst, digits)
	}
	high := len(chunks) - 1
	text := chunkText(chunks[high])
	first := bytes.TrimLeft(text[:], "0")
	dst = appendZeros(dst, digits-len(first)-high*chunkDigits)
	dst = append(dst, first...)
	for i := high - 1; i >= 0; i-- {
		text = chunkText(chunks[i])
		dst = append(dst, text[:]...)
	}
	return dst
}

// chunkText returns the digits of a chunk. Its halves do not depend on each
// other, so that the processor can work on both at a time.
func chunkText(chunk uint64) (text [chunkDigits]byte) {
	high, low := uint32(chunk/halfChunk), uint32(chunk%halfChunk)
	for i := chunkDigits/2 - 1; i >= 0; i-- {
		text[i] = base62Digits[high%62]
		text[chunkDigits/2+i] = base62Digits[low%62]
		high, low = high/62, low/62
	}
	return text
}

func appendZeros(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, '0')
	}
	return dst
}

// decodeBase62 returns the payload whose base62 text is text.
func decodeBase62(text string) ([]byte, error) {
	for i := range len(text) {
		if base62Values[text[i]] == notBase62 {
			return nil, fmt.Errorf("illegal base62 data at input byte %d", i)
		}
	}
	digits := strings.TrimLeft(text, "0")
	payload := make([]byte, len(text)-len(digits), len(text))
	if len(digits) <= shortDigits {
		return appendShortNumber(payload, digits), nil
	}
	return append(payload, newHalving(len(digits)).number(digits).Bytes()...), nil
}

// number returns the number that digits stand for.
func (h halving) number(digits string) *big.Int {
	if len(digits) <= h.part {
		var number [shortBytes]byte
		return new(big.Int).SetBytes(appendShortNumber(number[:0], digits))
	}
	low, power := h.low(len(digits))
	high := h.number(digits[:len(digits)-low])
	rest := h.number(digits[len(digits)-low:])
	return rest.Add(rest, high.Mul(high, power))
}

// appendShortNumber appends the number that at most shortDigits digits stand
// for, big-endian and without leading zeros.
func appendShortNumber(dst []byte, digits string) []byte {
	var wordSpace [shortBytes / 8]uint64
	words := wordSpace[:0] // the least significant first
	for len(digits) > 0 {
		n := (len(digits)-1)%chunkDigits + 1 // the first chunk has what is over
		var carry uint64
		for i := range n {
			carry = carry*62 + uint64(base62Values[digits[i]])
		}
		digits = digits[n:]
		for i, word := range words {
			high, low := bits.Mul64(word, chunkBase)
			low, c := bits.Add64(low, carry, 0)
			words[i], carry = low, high+c
		}
		if carry > 0 {
			words = append(words, carry)
		}
	}
	start := len(dst)
	for i := len(words) - 1; i >= 0; i-- {
		dst = binary.BigEndian.AppendUint64(dst, words[i])
	}
	number := bytes.TrimLeft(dst[start:], "\x00")
	return append(dst[:start], number...)
}
