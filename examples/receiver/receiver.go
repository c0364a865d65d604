package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/mochi-hooks/webhook"
)

// maxBody is the longest body that is read. The hook's own limit for a
// payload is 8 MiB unless it is configured otherwise.
const maxBody = 64 << 20

// A receiver prints the webhooks that it gets.
type receiver struct {
	options
	out *log.Logger // writes each line in one piece
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "webhooks are POSTs", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		status := http.StatusBadRequest
		if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}

	target := printable(r.URL.RequestURI())
	signature := ""
	if len(rc.secrets) > 0 {
		if err := webhook.Verify(r.Header, body, rc.secrets...); err != nil {
			rc.out.Printf("POST %s signature_error=%q", target, err)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		signature = " signature=ok"
	}
	// Only now: what is signed is the body as it was sent.
	body, status := decompress(r.Header.Get("Content-Encoding"), body)
	if status != http.StatusOK {
		http.Error(w, http.StatusText(status), status)
		return
	}
	events, isPayload := [][]byte{body}, r.Header.Get("ce-id") != "" // in the binary mode of CloudEvents
	if !isPayload {
		events = split(body)
	}
	for _, event := range events {
		rc.out.Print("POST ", target, " ", rc.line(event, isPayload), signature)
	}
	if rc.delay > 0 {
		select {
		case <-time.After(rc.delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // no answer is not a good answer
		}
	}
	w.WriteHeader(rc.status)
}

// decompress undoes the content coding of a body. The status is 200, or that of
// the answer to a body that it cannot read.
func decompress(coding string, body []byte) (plain []byte, status int) {
	switch strings.ToLower(coding) {
	case "":
		return body, http.StatusOK
	case "gzip":
	default:
		return nil, http.StatusUnsupportedMediaType
	}
	r, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, http.StatusBadRequest
	}
	plain, err = io.ReadAll(io.LimitReader(r, maxBody+1)) // a few bytes can become gigabytes
	switch {
	case err != nil:
		return nil, http.StatusBadRequest
	case len(plain) > maxBody:
		return nil, http.StatusRequestEntityTooLarge
	}
	return plain, http.StatusOK
}

// split returns the events of a body: the elements of a JSON array, which is a
// batch, or the body itself.
func split(body []byte) [][]byte {
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) {
		return [][]byte{body}
	}
	var batch []json.RawMessage
	if json.Unmarshal(body, &batch) != nil || len(batch) == 0 {
		return [][]byte{body}
	}
	events := make([][]byte, len(batch))
	for i, event := range batch {
		events[i] = event
	}
	return events
}
