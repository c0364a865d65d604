package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Signing makes requests prove who sent them, by Standard Webhooks 1.0.0: the
// header webhook-signature has an HMAC-SHA256 over the webhook-id, the
// webhook-timestamp and the body as it is sent. Without a secret nothing is
// signed. [Verify] is the other side of it.
type Signing struct {
	// Secret is the key: 24 to 64 bytes in base64, with or without the
	// prefix "whsec_".
	Secret Secret

	// PreviousSecret signs too, so that receivers can change from one key
	// to the other at their own time.
	PreviousSecret Secret
}

const (
	// secretPrefix marks a text as the secret of Standard Webhooks.
	secretPrefix = "whsec_"

	// Standard Webhooks, "Signature scheme": the length of a key in bytes.
	minKey, maxKey = 24, 64

	// signatureVersion stands before each symmetric signature.
	signatureVersion = "v1,"

	// signatureTolerance is how far the clocks of the two sides may be
	// apart; the reference libraries have the same.
	signatureTolerance = 5 * time.Minute
)

// errSecret says what a secret has to look like.
var errSecret = errors.New(`must be 24 to 64 bytes in base64, with or without "whsec_" before it`)

// key returns the bytes that a signing secret stands for. The error does not
// repeat the secret.
func (s Secret) key() ([]byte, error) {
	text := strings.TrimPrefix(string(s), secretPrefix)
	key, err := base64.StdEncoding.DecodeString(text)
	// The decoder skips line breaks, which other libraries do not.
	if err != nil || len(key) < minKey || len(key) > maxKey || strings.ContainsAny(text, "\r\n") {
		return nil, errSecret
	}
	return key, nil
}

// A signer makes signatures, one at a time, without allocating.
type signer struct {
	macs []hash.Hash // of the current secret, then of the previous one
	head []byte
	sum  []byte
}

// newSigner returns the signer of a checked configuration, nil if it has no
// secret.
func newSigner(s Signing) (*signer, error) {
	var sg signer
	for _, secret := range []Secret{s.Secret, s.PreviousSecret} {
		if secret == "" {
			continue
		}
		key, err := secret.key()
		if err != nil {
			return nil, fmt.Errorf("signing: the secret %w", err)
		}
		sg.macs = append(sg.macs, hmac.New(sha256.New, key))
	}
	if len(sg.macs) == 0 {
		return nil, nil
	}
	return &sg, nil
}

// append appends the value of webhook-signature for an attempt.
func (s *signer) append(dst, id []byte, unix int64, body []byte) []byte {
	s.head = append(append(s.head[:0], id...), '.')
	s.head = append(strconv.AppendInt(s.head, unix, 10), '.')
	for i, mac := range s.macs {
		if i > 0 {
			dst = append(dst, ' ')
		}
		mac.Reset()
		mac.Write(s.head)
		mac.Write(body)
		s.sum = mac.Sum(s.sum[:0])
		dst = append(dst, signatureVersion...)
		dst = base64.StdEncoding.AppendEncode(dst, s.sum)
	}
	return dst
}

// signingKeys returns the keys of secrets, of which there must be one.
func signingKeys(secrets []string) (keys [][]byte, err error) {
	for _, secret := range secrets {
		key, err := Secret(secret).key()
		if err != nil {
			return nil, fmt.Errorf("the secret %w", err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no secret to verify with")
	}
	return keys, nil
}

// What [Verify] has against a request. Test for them with errors.Is.
var (
	// ErrUnsigned: a header is missing or malformed.
	ErrUnsigned = errors.New("webhook: not signed")

	// ErrSignature: no signature is that of a secret over the request.
	ErrSignature = errors.New("webhook: signature does not match")

	// ErrTimestamp: the request was sent more than five minutes before or
	// after now, so it may be a replay.
	ErrTimestamp = errors.New("webhook: timestamp too far from now")
)

// Verify checks the signature of a webhook, for receivers written in Go. The
// header and the body are those of the request, the body byte for byte as it
// was received, before any decompression or decoding. The request is genuine
// if one of its signatures was made with one of the secrets, each in the form
// of [Signing], and its timestamp is within five minutes of now. The errors
// are [ErrUnsigned], [ErrSignature] and [ErrTimestamp]; any other is about the
// secrets, and does not repeat them.
//
// A genuine request may come more than once, by retries or by a replay within
// those minutes: it then has the same webhook-id. The signature does not cover
// other headers.
func Verify(header http.Header, body []byte, secrets ...string) error {
	keys, err := signingKeys(secrets)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	signatures := strings.Fields(header.Get("webhook-signature"))
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	switch {
	case id == "":
		return fmt.Errorf("%w: no webhook-id", ErrUnsigned)
	case strings.Contains(id, "."):
		// The rest of it would pass for the time and the body's beginning, so that
		// one signature would be good for several requests.
		return fmt.Errorf("%w: webhook-id has a dot", ErrUnsigned)
	case timestamp == "":
		return fmt.Errorf("%w: no webhook-timestamp", ErrUnsigned)
	case err != nil:
		return fmt.Errorf("%w: webhook-timestamp is not a number of seconds", ErrUnsigned)
	case len(signatures) == 0:
		return fmt.Errorf("%w: no webhook-signature", ErrUnsigned)
	}
	matches := false
	for _, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		want := signatureVersion + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		for _, signature := range signatures {
			if hmac.Equal([]byte(signature), []byte(want)) {
				matches = true
			}
		}
	}
	if !matches {
		return ErrSignature
	}
	// Compared in seconds: a Duration cannot hold every difference.
	now, tolerance := time.Now().Unix(), int64(signatureTolerance/time.Second)
	switch {
	case seconds < now-tolerance:
		return fmt.Errorf("%w: more than %v ago", ErrTimestamp, signatureTolerance)
	case seconds > now+tolerance:
		return fmt.Errorf("%w: more than %v ahead", ErrTimestamp, signatureTolerance)
	}
	return nil
}
