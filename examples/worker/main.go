// Command worker delivers the webhooks that brokers have put into NATS
// JetStream, by the same configuration file. Any number of workers, on any
// machines, share the work.
//
//	worker -config webhook.hcl
//
// It prints one line, "delivering from STREAM", on stdout for each stream when
// it has reached all of them, and logs to stderr. SIGTERM, SIGINT and SIGHUP stop
// it: what is under way may end for as long as -drain allows, the rest is for other
// workers. A second signal ends it at once. A worker that is started again reads
// its configuration again, and does not otherwise.
//
// The exit status is 0 after a clean stop, 1 when the configuration is wrong or
// does not fit the stream, 2 when the command line is wrong.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/mochi-hooks/webhook"
	"github.com/mochi-hooks/webhook/examples/internal/web"
	_ "github.com/mochi-hooks/webhook/jetstream"
)

// options is the command line.
type options struct {
	config, stats, metrics string
	drain                  time.Duration
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	cfg, err := webhook.ParseFile(opts.config)
	if err != nil {
		_ = webhook.WriteDiagnostics(stderr, err)
		return 1
	}
	if err := work(opts, cfg, stdout, slog.New(slog.NewTextHandler(stderr, nil))); err != nil {
		fmt.Fprintln(stderr, "worker:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, stderr io.Writer) (*options, error) {
	opts := new(options)
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.config, "config", "", "configuration `file`, that of the brokers")
	flags.StringVar(&opts.stats, "stats", "", "`address` of an HTTP server that has the counters at /stats")
	flags.StringVar(&opts.metrics, "metrics", "", "`address` of an HTTP server that has metrics for Prometheus at /metrics; may be that of -stats")
	flags.DurationVar(&opts.drain, "drain", 5*time.Second, "how long what is under way may take when stopping")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var err error
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.config == "":
		err = errors.New("-config is missing")
	case opts.drain < 0:
		err = fmt.Errorf("-drain %v: must not be negative", opts.drain)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
	}
	return opts, err
}

// work delivers until a signal comes.
func work(opts *options, cfg *webhook.Config, stdout io.Writer, log *slog.Logger) error {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer restore()
	worker := &webhook.Deliverer{Config: cfg, Log: log, DrainTimeout: cmp.Or(opts.drain, -1)} // 0 would be the default
	pages, err := web.New(opts.stats, opts.metrics, worker, log)
	if err != nil {
		return err
	}
	defer pages.Close()
	pages.Serve()
	ended := context.AfterFunc(ctx, func() {
		restore() // a second signal ends the process
		log.Info("stopping", "drain", opts.drain)
	})
	defer ended()
	go func() { // ends with ctx
		select {
		case <-worker.Ready():
			for _, name := range streams(cfg) {
				fmt.Fprintln(stdout, "delivering from", name)
			}
		case <-ctx.Done():
		}
	}()
	return worker.Run(ctx)
}

// streams returns the names of the streams that have to do with cfg.
func streams(cfg *webhook.Config) (names []string) {
	for i := range cfg.Endpoints {
		e := &cfg.Endpoints[i]
		if name := e.Stream.Name; name != "" && !e.Disabled && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
