package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// A receiver is what a user of the webhook writes: an HTTP server that answers
// 200. This one prints and counts the requests.
type receiver struct {
	listener net.Listener
	server   *http.Server

	mu   sync.Mutex
	got  uint64
	more sync.Cond // got has grown
}

func startReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{listener: l}
	r.more.L = &r.mu
	r.server = &http.Server{Handler: r}
	go r.server.Serve(l) // until close
	return r, nil
}

func (r *receiver) url() string { return "http://" + r.listener.Addr().String() + "/hook" }

func (r *receiver) close() { _ = r.server.Close() }

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		w.WriteHeader(http.StatusRequestTimeout) // not 200: it is to come again
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Println(req.Method, req.URL.Path, string(body))
	r.got++
	r.more.Broadcast()
}

// total returns how many requests have come.
func (r *receiver) total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

// waitFor returns when n requests have come.
func (r *receiver) waitFor(n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.got < n {
		r.more.Wait()
	}
}
