package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mochi-hooks/webhook"
)

// redeliver sends a dead letter file again, prints what came of it and returns
// the exit status. A signal ends it, and a second one the process.
func redeliver(opts *options, cfg *webhook.Config, stdout, stderr io.Writer) int {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	context.AfterFunc(ctx, restore)
	stats, err := webhook.Redeliver(ctx, cfg, opts.redeliver)
	var sent, delivered uint64
	for _, s := range stats.Endpoints {
		sent += s.Offered
		delivered += s.Delivered
	}
	fmt.Fprintf(stdout, "%s: %d events, %d delivered\n", opts.redeliver, sent, delivered)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}
