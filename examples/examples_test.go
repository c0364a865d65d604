// Package examples_test runs the example programs as what they are, processes,
// and drives them from outside.
package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// patience is how long anything may take before a test fails. It is far more
// than is needed, because machines that run tests are busy.
const patience = 30 * time.Second

// programs is the folder that TestMain builds the examples into.
var programs string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "examples"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	args := []string{"build", "-o", programs + string(filepath.Separator)}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./broker", "./receiver", "./quickstart", "./otel", "./worker")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the examples:", err)
		return 1
	}
	return m.Run()
}

// A process is a running example.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *output
	stderr *output
	exited chan struct{} // closed when it has ended and its output is complete
}

// start starts an example and makes sure that the test does not outlive it.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{
		t:      t,
		cmd:    exec.Command(filepath.Join(programs, name), args...),
		stdout: newOutput(),
		stderr: newOutput(),
		exited: make(chan struct{}),
	}
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // instead of a second at each exit
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has the outcome
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s %q\nstdout:\n%s\nstderr:\n%s", name, args, p.stdout, p.stderr)
		}
	})
	return p
}

// listen starts an example that listens and returns its address.
func listen(t *testing.T, name string, args ...string) (*process, string) {
	t.Helper()
	p := start(t, name, append([]string{"-listen", "127.0.0.1:0"}, args...)...)
	line := p.stdout.waitLine(t, "listening on ")
	return p, strings.TrimPrefix(line, "listening on ")
}

// wait returns the exit status.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s still runs", p.cmd.Path)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("sending %v: %v", s, err)
	}
}

// end stops the process as an operator would and checks that it goes in peace.
func (p *process) end() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if got := p.wait(); got != 0 {
		p.t.Errorf("exit status after SIGTERM: got %d, want 0", got)
	}
}

// kill stops the process as an operator does who has no patience.
func (p *process) kill() {
	p.t.Helper()
	for late := time.After(patience); ; {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails when it has ended
		select {
		case <-p.exited:
			if got := p.wait(); got != -1 {
				p.t.Errorf("exit status: got %d, want -1: killed by the signal", got)
			}
			return
		case <-time.After(100 * time.Millisecond): // it may not have taken the first one yet
		case <-late:
			p.t.Fatalf("%s still runs", p.cmd.Path)
		}
	}
}

// An output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text []byte
	more chan struct{} // closed and replaced when text grows
}

func newOutput() *output { return &output{more: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	close(o.more)
	o.more = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// lines returns the complete lines.
func (o *output) lines() []string {
	all := strings.Split(o.String(), "\n")
	return all[:len(all)-1]
}

// waitLine returns the first line that contains what is wanted.
func (o *output) waitLine(t *testing.T, want string) string {
	t.Helper()
	return o.waitLines(t, want, 1)[0]
}

// waitLines returns the first n of them.
func (o *output) waitLines(t *testing.T, want string, n int) (found []string) {
	t.Helper()
	late := time.After(patience)
	for {
		o.mu.Lock()
		more := o.more
		o.mu.Unlock()
		found = found[:0]
		for _, line := range o.lines() {
			if strings.Contains(line, want) {
				if found = append(found, line); len(found) == n {
					return found
				}
			}
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%d lines contain %q, want %d:\n%s", len(found), want, n, o)
		}
	}
}

// An endpoint is a receiver inside the test: it hands over the bodies that it
// gets, and answers each when the test says so.
type endpoint struct {
	*httptest.Server
	bodies chan string   // one for each request, as it comes
	answer chan struct{} // closed: answer
}

func newEndpoint(t *testing.T) *endpoint {
	e := &endpoint{bodies: make(chan string, 1000), answer: make(chan struct{})}
	e.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		e.bodies <- string(body)
		select {
		case <-e.answer:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() {
		e.CloseClientConnections()
		e.Close()
	})
	return e
}

// next returns the next body.
func (e *endpoint) next(t *testing.T) string {
	t.Helper()
	select {
	case body := <-e.bodies:
		return body
	case <-time.After(patience):
		t.Fatal("no webhook came")
		return ""
	}
}

// configure writes a configuration with one rule for each event.
func configure(t *testing.T, url string, events ...string) (path string) {
	t.Helper()
	var text bytes.Buffer
	fmt.Fprintf(&text, "webhook = {\n  url = %q\n  events = [\n", url)
	for _, event := range events {
		fmt.Fprintf(&text, "    { event = %q }\n", event)
	}
	text.WriteString("  ]\n}\n")
	return write(t, text.String())
}

func write(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "webhook.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// connect connects an MQTT client.
func connect(t *testing.T, broker, id, user, password string) (*paho.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn := dial(t, broker)
	client := paho.NewClient(paho.ClientConfig{Conn: conn})
	_, err := client.Connect(ctx, &paho.Connect{
		ClientID: id, KeepAlive: 60, CleanStart: true,
		Username: user, UsernameFlag: user != "",
		Password: []byte(password), PasswordFlag: password != "",
	})
	return client, err
}

// publish connects a client, publishes payloads and disconnects.
func publish(t *testing.T, broker, topic string, payloads ...string) {
	t.Helper()
	client, err := connect(t, broker, "publisher", "", "")
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	for _, payload := range payloads {
		publishOne(t, client, topic, payload)
	}
	if err := client.Disconnect(&paho.Disconnect{}); err != nil {
		t.Fatalf("disconnecting: %v", err)
	}
}

func publishOne(t *testing.T, client *paho.Client, topic, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	message := &paho.Publish{Topic: topic, QoS: 1, Payload: []byte(payload)}
	if _, err := client.Publish(ctx, message); err != nil {
		t.Fatalf("publishing %q: %v", payload, err)
	}
}

// dial opens a TCP connection for the length of the test.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// readAll returns what comes until the peer closes the connection.
func readAll(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	all, err := io.ReadAll(bufio.NewReader(conn))
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatalf("the connection stays open; read %x", all)
	}
	return all
}
