// Command receiver prints the webhooks that it gets, one line each, with the
// payload decoded:
//
//	POST /hook {"ts":1706703724960,"topic":"a/b", … ,"payload":"aGVsbG8="} payload="hello"
//
// The first line is "listening on ADDR". To play a bad endpoint, give it a
// -status to answer with or a -delay before it answers. With a -secret it
// checks signatures: a line then ends with signature=ok, or the answer is 401
// and the line says why. SIGTERM and SIGINT stop it.
//
// The exit status is 0 after a clean stop, 1 when it cannot listen, 2 when the
// command line is wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mochi-hooks/webhook"
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
		return 2
	}
	if err := serve(opts, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "receiver:", err)
		return 1
	}
	return 0
}

// options is the command line.
type options struct {
	listen   string
	status   int
	delay    time.Duration
	encoding webhook.Encoding
	secrets  []string // of signatures, any of them
}

// parseFlags reads the command line. What is wrong with it has been printed to
// stderr when it returns an error.
func parseFlags(args []string, stderr io.Writer) (*options, error) {
	opts := new(options)
	flags := flag.NewFlagSet("receiver", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:8080", "`address` to listen on")
	flags.IntVar(&opts.status, "status", http.StatusOK, "HTTP status `code` to answer with, 200 to 599")
	flags.DurationVar(&opts.delay, "delay", 0, "how long to wait before answering")
	encoding := flags.String("encoding", string(webhook.Plain),
		"`encoding` of payloads that do not name theirs: plain, base64 or base62 (not EMQX's own, of body.format = \"emqx\")")
	flags.Func("secret", "signing `secret` that webhooks must be signed with; repeated: any one of them", func(s string) error {
		opts.secrets = append(opts.secrets, s) // checked below: the package flag would print it
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}

	var err error
	switch opts.encoding = webhook.Encoding(*encoding); {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.listen == "": // would be all interfaces and any port
		err = errors.New("-listen is empty")
	case opts.status < 200 || opts.status > 599:
		err = fmt.Errorf("-status %d: want 200 to 599", opts.status)
	case opts.delay < 0:
		err = fmt.Errorf("-delay %v: must not be negative", opts.delay)
	case opts.encoding != webhook.Plain && opts.encoding != webhook.Base64 && opts.encoding != webhook.Base62:
		err = fmt.Errorf("-encoding %q: want plain, base64 or base62", *encoding)
	}
	for _, secret := range opts.secrets {
		if invalid := webhook.Verify(nil, nil, secret); !errors.Is(invalid, webhook.ErrUnsigned) {
			err = fmt.Errorf("-secret: %w", invalid)
		}
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
		return nil, err
	}
	return opts, nil
}

// serve receives until a signal comes.
func serve(opts *options, stdout, stderr io.Writer) error {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer restore()
	l, err := net.Listen("tcp", opts.listen)
	if err != nil {
		return err
	}
	const readTimeout = time.Minute
	server := &http.Server{
		Handler:           &receiver{options: *opts, out: log.New(stdout, "", 0)},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       readTimeout,
		WriteTimeout:      readTimeout + opts.delay + 10*time.Second, // it runs from the end of the head
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          log.New(stderr, "receiver: ", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1) // holds the error of Serve until it is asked for
	go func() { failed <- server.Serve(l) }()
	fmt.Fprintln(stdout, "listening on", l.Addr())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	restore() // a second signal ends the process
	shutdown, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := server.Shutdown(shutdown); err != nil {
		return server.Close() // a request that is still being sent
	}
	return nil
}
