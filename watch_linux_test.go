package webhook

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// inUserNamespace runs the test in a process of its own, whose limits it may set,
// and reports whether this is that process.
func inUserNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "WEBHOOK_TEST_NAMESPACE"
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Fatalf("%v\n%s", err, out)
	} else if err != nil {
		t.Skip("no user namespaces: ", err)
	}
	return false
}

func setLimit(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0o600); err != nil {
		t.Skip(err)
	}
}

// TestWatchWithoutNotices has no inotify instance left: the broker starts all the
// same, and a change is seen within a minute.
func TestWatchWithoutNotices(t *testing.T) {
	if !inUserNamespace(t) {
		return
	}
	setLimit(t, "max_inotify_instances", "0")
	synctest.Test(t, func(t *testing.T) {
		file, log := filepath.Join(t.TempDir(), "webhook.hcl"), new(logLines)
		write(t, file, `webhook { url = "http://127.0.0.1:1/" }`)
		h := new(Hook)
		h.Log = log.logger()
		if err := h.Init(&Options{File: file, Watch: true}); err != nil {
			t.Fatal(err)
		}
		defer h.Stop()
		synctest.Wait()
		write(t, file, `webhook { url = "http://127.0.0.1:2/" }`)
		time.Sleep(2 * recheck)
		synctest.Wait()
		text := log.String()
		if strings.Count(text, "level=WARN") != 1 || strings.Count(text, "configuration reloaded") != 1 {
			t.Errorf("log %s", text)
		}
	})
}

// TestWatchUnwatchedFolder has no inotify watches left for a while: the log has a
// line about each folder, and another when there are some again.
func TestWatchUnwatchedFolder(t *testing.T) {
	if !inUserNamespace(t) {
		return
	}
	setLimit(t, "max_inotify_watches", "0")
	dir, log := t.TempDir(), new(logLines)
	t.Setenv("TOKEN_FILE", dir+"/hunter2/token")
	_ = os.Mkdir(dir+"/hunter2", 0o700)
	write(t, dir+"/hunter2/token", "x")
	write(t, dir+"/webhook.hcl", `webhook { url = "http://127.0.0.1:1/", headers.x = file(env("TOKEN_FILE")) }`)
	h := new(Hook)
	h.Log = log.logger()
	h.files.path, h.files.watched = dir+"/webhook.hcl", true
	if _, err := h.files.parse(); err != nil {
		t.Fatal(err)
	}
	w := newWatcher(h)
	defer w.notices.Close()
	w.follow()
	w.follow()
	text := log.String()
	if strings.Count(text, "level=WARN") != 2 || strings.Count(text, "folder="+dir+"\n") != 1 ||
		strings.Count(text, "max_user_watches") != 2 || strings.Contains(text, "hunter2") {
		t.Errorf("log %s", text)
	}
	setLimit(t, "max_inotify_watches", "10")
	w.follow()
	w.follow()
	if text := log.String()[len(text):]; strings.Count(text, "watched again") != 1 || strings.Count(text, "\n") != 1 {
		t.Errorf("log %s", text)
	}
}
