package webhook

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain checks that all tests together leave no goroutine of this package
// or of the broker behind, and no socket.
func TestMain(m *testing.M) {
	status := m.Run()
	if left := leftBehind(); status == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "left behind by the tests:\n%s\n", left)
		status = 1
	}
	os.Exit(status)
}

// leftBehind waits for what is about to end and returns what does not.
func leftBehind() string {
	http.DefaultClient.CloseIdleConnections()
	var left []string
	for wait := time.Millisecond; wait < 5*time.Second; wait *= 2 {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		left = slices.DeleteFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
			ours := strings.Contains(stack, "mochi-hooks/webhook") || strings.Contains(stack, "mochi-mqtt/server")
			return !ours || strings.Contains(stack, ".leftBehind(")
		})
		if n := openSockets(); n > 0 {
			left = append(left, fmt.Sprintf("%d sockets", n))
		}
		if len(left) == 0 {
			return ""
		}
		time.Sleep(wait) // nothing announces the end of a goroutine
	}
	return strings.Join(left, "\n\n")
}

// checkLeaks fails the test if it leaves goroutines or sockets behind. It has
// to be called first, so that it runs after all other cleanups.
func checkLeaks(t testing.TB) {
	t.Helper()
	goroutines, sockets := runtime.NumGoroutine(), openSockets()
	t.Cleanup(func() {
		var g, s int
		for wait := time.Millisecond; wait < 5*time.Second; wait *= 2 {
			g, s = runtime.NumGoroutine(), openSockets()
			if g <= goroutines && s <= sockets {
				return
			}
			time.Sleep(wait) // nothing announces the end of a goroutine
		}
		buf := make([]byte, 1<<20)
		t.Errorf("left behind: goroutines %d, before %d; sockets %d, before %d\n%s",
			g, goroutines, s, sockets, buf[:runtime.Stack(buf, true)])
	})
}

// openSockets counts the process's sockets, where the system tells.
func openSockets() (n int) {
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}
