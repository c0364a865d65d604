package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// options is the command line.
type options struct {
	config  string
	listen  string
	allow   map[string]string // user name to password
	stats   string
	metrics string
	check   bool
	drain   time.Duration

	redeliver string // "" for not
}

// parseFlags reads the command line. What is wrong with it has been printed to
// stderr when it returns an error.
func parseFlags(args []string, stderr io.Writer) (*options, error) {
	opts := new(options)
	var allow []string
	flags := flag.NewFlagSet("broker", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Func("config", "configuration `file` of the webhook; without it there is none", fileInto(&opts.config))
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:1883", "`address` for MQTT clients")
	flags.Func("allow", "let only `USER:PASSWORD` connect; may be repeated", func(value string) error {
		allow = append(allow, value)
		return nil
	})
	flags.StringVar(&opts.stats, "stats", "", "`address` of an HTTP server that has the counters at /stats")
	flags.StringVar(&opts.metrics, "metrics", "", "`address` of an HTTP server that has metrics for Prometheus at /metrics; may be that of -stats")
	flags.BoolVar(&opts.check, "check", false, "check the configuration file and exit")
	flags.Func("redeliver", "send the events of this dead letter `file` again and exit", fileInto(&opts.redeliver))
	flags.DurationVar(&opts.drain, "drain", 5*time.Second, "how long to deliver waiting webhooks when stopping")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}

	users, err := parseUsers(allow)
	opts.allow = users
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case opts.listen == "": // would be all interfaces and any port
		err = errors.New("-listen is empty")
	case opts.check && opts.config == "":
		err = errors.New("-check needs -config")
	case opts.redeliver != "" && opts.config == "":
		err = errors.New("-redeliver needs -config")
	case opts.redeliver != "" && opts.check:
		err = errors.New("-redeliver and -check do not go together")
	case opts.drain < 0:
		err = fmt.Errorf("-drain %v: must not be negative", opts.drain)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		flags.Usage()
		return nil, err
	}
	return opts, nil
}

// fileInto reads the name of a file. Without a name, a variable that is not set
// would start a broker that does not do what it is there for.
func fileInto(to *string) func(value string) error {
	return func(value string) error {
		if value == "" {
			return errors.New("want a file")
		}
		*to = value
		return nil
	}
}

// parseUsers reads the values of -allow. Its errors do not repeat a value that
// may be a password, as the flag package would.
func parseUsers(allow []string) (map[string]string, error) {
	users := make(map[string]string, len(allow))
	for _, value := range allow {
		user, password, _ := strings.Cut(value, ":")
		if user == "" || password == "" {
			return nil, errors.New("-allow: want USER:PASSWORD, neither of them empty")
		}
		if _, twice := users[user]; twice {
			return nil, fmt.Errorf("-allow: user %q is there twice", user)
		}
		users[user] = password
	}
	return users, nil
}
