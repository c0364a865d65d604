package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// A child is a process whose CPU time is counted. Most are this program in
// another role. It ends when its standard input is closed, or by itself.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // of its standard output
	name  string
}

// The environment variables that give a child its role and its arguments.
const (
	roleVariable = "WEBHOOK_BENCH_ROLE"
	argsVariable = "WEBHOOK_BENCH_ARGS"
)

// roles are what a child can be.
var roles = map[string]func(arguments) error{
	"receiver":   receive,
	"loop":       sendLoop,
	"net/http":   sendNetHTTP,
	"hook":       sendHook,
	"enqueue":    enqueue,
	"publishers": publish,
	"nats":       serveNATS,
	"worker":     work,
}

// arguments are those of all roles.
type arguments struct {
	Addr     string // of the receiver or the broker
	Events   int
	Rules    int
	Clients  int
	Payload  int // bytes
	Pool     int
	QoS      byte
	Window   int  // messages of a publisher that are on their way at once
	Library  bool // publishers use an MQTT library
	Match    bool
	Batch    bool
	Capacity int  // events that may wait, of batches and if Full; 0 for the default
	Full     bool // the queue is full before anything is measured
	Gzip     bool
	Hang     bool          // the receiver does not answer
	Latency  bool          // the receiver takes the time from a payload
	Dir      string        // of a disk queue, or of NATS
	Always   bool          // sync of a disk queue
	NATS     string        // the URL of NATS; "" for no stream
	Delay    time.Duration // of the receiver's answers
}

// outcome is what a child prints at its end.
type outcome struct {
	Events   int
	Seconds  float64
	Lost     int
	P50, P99 float64 // from publish to receipt, milliseconds

	AckP50, AckP99 float64 // from publish to acknowledgement, milliseconds
	CPU            float64 // seconds; of the whole process if it does not tell
}

// A meter measures what happens in a child from its start on.
type meter struct {
	start time.Time
	cpu   float64
}

func startMeter() meter { return meter{time.Now(), cpuSeconds()} }

func (m meter) outcome(events int) outcome {
	return outcome{Events: events, Seconds: time.Since(m.start).Seconds(), CPU: cpuSeconds() - m.cpu}
}

// runRole runs this process as a child and returns its exit status.
func runRole(role string) int {
	var args arguments
	err := json.Unmarshal([]byte(os.Getenv(argsVariable)), &args)
	if err == nil {
		err = roles[role](args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// report prints an outcome.
func report(o outcome) error { return json.NewEncoder(os.Stdout).Encode(o) }

// start starts a child in a role.
func start(role string, args arguments) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, argsVariable+"="+string(text))
	return startCommand(role, cmd)
}

func startCommand(name string, cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, name: name, lines: make(chan string, 100)} // more than any child prints
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the child's output
		defer close(c.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			c.lines <- in.Text()
		}
	}()
	return c, nil
}

// line waits for the next line that the child prints.
func (c *child) line() (string, error) {
	select {
	case line, ok := <-c.lines:
		if !ok {
			return "", fmt.Errorf("%s ended early", c.name)
		}
		return line, nil
	case <-time.After(time.Minute):
		return "", fmt.Errorf("%s is stuck", c.name)
	}
}

// addr waits for the line that ends in the address on which the child listens.
func (c *child) addr() (string, error) {
	line, err := c.line()
	return line[strings.LastIndexByte(line, ' ')+1:], err
}

// outcome waits for the child's outcome and its end.
func (c *child) outcome() (o outcome, err error) {
	_ = c.stdin.Close() // the receiver ends by that, others when they have sent
	line, err := c.line()
	if err == nil {
		err = json.Unmarshal([]byte(line), &o)
	}
	cpu, endErr := c.end()
	if o.CPU == 0 {
		o.CPU = cpu
	}
	if err == nil {
		err = endErr
	}
	return o, err
}

// end ends the child and returns the CPU time that it took, in seconds.
func (c *child) end() (cpu float64, err error) {
	_ = c.stdin.Close()
	if _, ours := roles[c.name]; !ours {
		_ = c.cmd.Process.Signal(os.Interrupt)
	}
	for range c.lines { // Wait may only be called when all is read
	}
	err = c.cmd.Wait()
	return (c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()).Seconds(), err
}

// kill ends a child that may not end by itself.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_, _ = c.end()
}

// untilStdinCloses is how a child waits for its parent.
func untilStdinCloses() { _, _ = io.Copy(io.Discard, os.Stdin) }
