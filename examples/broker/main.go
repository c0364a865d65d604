// Command broker is a mochi-mqtt broker with the webhook hook, to run for real
// or to copy from.
//
//	broker -config webhook.hcl -listen 127.0.0.1:1883
//
// It prints one line, "listening on ADDR", on stdout when it is ready, and logs
// to stderr. SIGTERM and SIGINT stop it: clients are disconnected and waiting
// webhooks delivered, for as long as -drain allows. A second signal ends it at
// once. A configuration file that changes is read again, at once or on SIGHUP.
//
// With -redeliver FILE it sends the events of a dead letter file again instead.
//
// The exit status is 0 after a clean stop, a good -check, or when all dead
// letters were delivered; 1 when the configuration is wrong, the broker cannot
// run or a dead letter was not delivered; 2 when the command line is wrong.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/mochi-hooks/webhook"
	"github.com/mochi-hooks/webhook/examples/internal/web"
	_ "github.com/mochi-hooks/webhook/jetstream" // queue { type = "jetstream" }
)

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
		return 2 // parseFlags has said why
	}

	var cfg *webhook.Config
	if opts.config != "" {
		if cfg, err = webhook.ParseFile(opts.config); err != nil {
			_ = webhook.WriteDiagnostics(stderr, err)
			return 1
		}
	}
	if opts.check {
		fmt.Fprintf(stdout, "%s is fine: %s\n", opts.config, summary(cfg))
		return 0
	}
	if opts.redeliver != "" {
		return redeliver(opts, cfg, stdout, stderr)
	}
	if err := serve(opts, cfg, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "broker:", err)
		return 1
	}
	return 0
}

// serve runs the broker until a signal comes.
func serve(opts *options, cfg *webhook.Config, stdout, stderr io.Writer) error {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	context.AfterFunc(ctx, restore) // a second signal ends the process
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	log := slog.New(slog.NewTextHandler(stderr, nil))

	// All addresses are taken before anything runs, so that one that is in
	// use is found while there is nothing to stop.
	tcp, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	clients := newListener(tcp, log)
	defer clients.Close()
	hook := new(webhook.Hook)
	var source web.Source = hook
	if cfg == nil {
		source = noHook{hook}
	}
	pages, err := web.New(opts.stats, opts.metrics, source, log)
	if err != nil {
		return err
	}
	defer pages.Close()

	server := newServer(log)
	if err := server.AddListener(listeners.NewNet("tcp", clients)); err != nil {
		return err
	}
	if err := addAuth(server, opts.allow); err != nil {
		return err
	}
	canReload := false
	if cfg != nil {
		hookOpts := hookOptions(opts, cfg)
		canReload = hookOpts.File != ""
		// The last hook, so that it sees what the others let through.
		if err := server.AddHook(hook, hookOpts); err != nil {
			return err
		}
	}
	if err := server.Serve(); err != nil {
		return err
	}
	pages.Serve()
	fmt.Fprintln(stdout, "listening on", clients.Addr())

	// A reload may hang, as a disk that is gone does; to stop must not.
	go reloadOn(ctx, hangups, func() {
		if !canReload {
			log.Warn("nothing to reload: there is no configuration file, or it cannot be read again")
			return
		}
		_ = hook.Reload(nil) // which logs what became of it
	})
	<-ctx.Done()
	log.Info("stopping", "drain", opts.drain)
	return stop(server, hook, clients, opts.drain)
}

func newServer(log *slog.Logger) *mqtt.Server {
	capabilities := mqtt.NewDefaultServerCapabilities()
	capabilities.MaximumClientWritesPending = 16 * 1024 // messages on their way to one subscriber
	return mqtt.New(&mqtt.Options{
		Logger:       log,
		Capabilities: capabilities,
		// Who sends many messages at a time has them read at once, and
		// acknowledged at once, see ackConn.
		ClientNetReadBufferSize: 4 << 10,
	})
}

// hookOptions lets the hook read the configuration file itself, at every change
// anew, unless it cannot be read again, as a pipe cannot.
func hookOptions(opts *options, cfg *webhook.Config) *webhook.Options {
	hookOpts := &webhook.Options{DrainTimeout: cmp.Or(opts.drain, -1)} // 0 would be the default
	if info, err := os.Stat(opts.config); err == nil && info.Mode().IsRegular() {
		hookOpts.File, hookOpts.Watch = opts.config, true
	} else {
		hookOpts.Config = cfg
	}
	return hookOpts
}

// reloadOn calls reload on signals, until the context ends.
func reloadOn(ctx context.Context, hangups <-chan os.Signal, reload func()) {
	for {
		select {
		case <-hangups:
			reload()
		case <-ctx.Done():
			return
		}
	}
}

// noHook stands for the hook of a broker without one, which nothing is wrong with.
type noHook struct{ *webhook.Hook }

func (noHook) Healthy() error { return nil }

// addAuth lets everyone connect, or the users of allow only.
func addAuth(server *mqtt.Server, allow map[string]string) error {
	if len(allow) == 0 {
		return server.AddHook(new(auth.AllowHook), nil)
	}
	users := make(auth.Users, len(allow))
	for user, password := range allow {
		users[user] = auth.UserRule{
			Username: auth.RString(user),
			Password: auth.RString(password),
		}
	}
	return server.AddHook(new(auth.Hook), &auth.Options{Ledger: &auth.Ledger{Users: users}})
}

// summary says in a few words what a configuration holds.
func summary(cfg *webhook.Config) string {
	var disabled int
	for _, e := range cfg.Endpoints {
		if e.Disabled {
			disabled++
		}
	}
	text := fmt.Sprintf("%d endpoints", len(cfg.Endpoints))
	if len(cfg.Endpoints) == 1 {
		text = "1 endpoint"
	}
	if disabled > 0 {
		text += fmt.Sprintf(", %d of them disabled", disabled)
	}
	return text
}
