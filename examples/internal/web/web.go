// Package web serves counters, metrics and health over HTTP.
package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mochi-hooks/webhook"
	whprometheus "github.com/mochi-hooks/webhook/prometheus"
)

// A Source is what the pages are about: a webhook.Hook or a webhook.Deliverer.
type Source interface {
	Stats() webhook.Stats
	Healthy() error
}

// A Web is pages, on one address or several.
type Web struct {
	log    *slog.Logger
	source Source
	sites  []*site
}

// A site is the pages of one address.
type site struct {
	address  string // as on the command line
	listener net.Listener
	server   *http.Server
	pages    *http.ServeMux
	paths    []string
}

// New takes the addresses of /stats and /metrics, which may be the same, or ""
// for none. The caller closes the web.
func New(stats, metrics string, source Source, log *slog.Logger) (*Web, error) {
	w := &Web{log: log, source: source}
	err := w.add(stats, "/stats", http.HandlerFunc(w.stats))
	if err == nil {
		err = w.add(metrics, "/metrics", w.metrics())
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// add adds a page, if it has an address.
func (w *Web) add(address, path string, page http.Handler) error {
	if address == "" {
		return nil
	}
	s, err := w.site(address)
	if err != nil {
		return err
	}
	s.pages.Handle("GET "+path, page)
	s.paths = append(s.paths, path)
	return nil
}

// site returns the site at an address.
func (w *Web) site(address string) (*site, error) {
	for _, s := range w.sites {
		if s.address == address {
			return s, nil
		}
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &site{address: address, listener: l, pages: http.NewServeMux()}
	s.pages.HandleFunc("GET /health", w.health)
	s.server = &http.Server{
		Handler:      s.pages,
		ReadTimeout:  10 * time.Second,
		WriteTimeout: 10 * time.Second,
		IdleTimeout:  time.Minute,
		ErrorLog:     slog.NewLogLogger(w.log.Handler(), slog.LevelWarn),
	}
	w.sites = append(w.sites, s)
	return s, nil
}

// Serve begins to serve.
func (w *Web) Serve() {
	for _, s := range w.sites {
		go func() { // ends with Close
			if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				w.log.Error("HTTP server ended", "error", err)
			}
		}()
		for _, path := range s.paths {
			w.log.Info("serving "+strings.Trim(path, "/"), "url", "http://"+s.listener.Addr().String()+path)
		}
	}
}

// Close ends it.
func (w *Web) Close() {
	for _, s := range w.sites {
		_ = s.server.Close()
		_ = s.listener.Close() // the server's only if it served
	}
}

// stats has the counters as JSON.
func (w *Web) stats(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(rw).Encode(w.source.Stats()); err != nil {
		w.log.Debug("stats not sent", "error", err)
	}
}

// metrics has the counters, and the process's, for Prometheus.
func (w *Web) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		whprometheus.NewCollector(w.source),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelWarn),
	})
}

// health says whether webhooks are delivered.
func (w *Web) health(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	if err := w.source.Healthy(); err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(rw, err)
		return
	}
	fmt.Fprintln(rw, "ok")
}
