package main

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

// A web is what the broker serves over HTTP: pages, on one address or several.
type web struct {
	log     *slog.Logger
	healthy func() error
	sites   []*site
}

// A site is the pages of one address.
type site struct {
	address  string // as on the command line
	listener net.Listener
	server   *http.Server
	pages    *http.ServeMux
	paths    []string
}

// newWeb takes the addresses of the command line, which may be the same. The
// caller closes the web.
func newWeb(opts *options, hook *webhook.Hook, log *slog.Logger) (*web, error) {
	w := &web{log: log, healthy: hook.Healthy}
	if opts.config == "" {
		w.healthy = func() error { return nil } // there is no hook
	}
	err := w.add(opts.stats, "/stats", w.stats(hook))
	if err == nil {
		err = w.add(opts.metrics, "/metrics", w.metrics(hook))
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// add adds a page, if it has an address.
func (w *web) add(address, path string, page http.Handler) error {
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
func (w *web) site(address string) (*site, error) {
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

// serve begins to serve.
func (w *web) serve() {
	for _, s := range w.sites {
		go func() { // ends with close
			if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				w.log.Error("HTTP server ended", "error", err)
			}
		}()
		for _, path := range s.paths {
			w.log.Info("serving "+strings.Trim(path, "/"), "url", "http://"+s.listener.Addr().String()+path)
		}
	}
}

func (w *web) close() {
	for _, s := range w.sites {
		_ = s.server.Close()
		_ = s.listener.Close() // the server's only if it served
	}
}

// stats has the hook's counters as JSON.
func (w *web) stats(hook *webhook.Hook) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Cache-Control", "no-store")
		if err := json.NewEncoder(rw).Encode(hook.Stats()); err != nil {
			w.log.Debug("stats not sent", "error", err)
		}
	}
}

// metrics has the hook's counters, and the process's, for Prometheus.
func (w *web) metrics(hook *webhook.Hook) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		whprometheus.NewCollector(hook),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelWarn),
	})
}

// health says whether the hook delivers.
func (w *web) health(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	if err := w.healthy(); err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(rw, err)
		return
	}
	fmt.Fprintln(rw, "ok")
}
