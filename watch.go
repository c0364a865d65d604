package webhook

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is how long files have to be left alone before they are read:
	// editors and copies write in several steps. mostSettle is how long that
	// may put it off.
	settleTime = 100 * time.Millisecond
	mostSettle = time.Second

	// recheck is how often files are looked at without a notice. File systems
	// of other machines send none.
	recheck = time.Minute
)

// A watcher reloads a hook's configuration when its files change. Notices come
// from the folders that the files and the links to them are in, so that a file
// may be replaced, and a link on the way to it pointed elsewhere, as Kubernetes
// does with ..data. They are hints: what counts is whether the contents have
// changed.
type watcher struct {
	hook      *Hook
	notices   *fsnotify.Watcher // nil: there are none
	places    map[string]bool   // whose notices say something about the files
	unwatched map[string]bool   // folders that cannot be watched, which the log has
	stopped   chan struct{}
	ended     sync.WaitGroup
}

func newWatcher(h *Hook) *watcher {
	notices, err := fsnotify.NewWatcher()
	if err != nil { // the system has no more of them: no reason for a broker not to start
		h.Log.Warn("configuration is only looked at once a minute, there are no notices of changes", "error", err)
		notices = nil
	}
	return &watcher{hook: h, notices: notices, stopped: make(chan struct{})}
}

func (w *watcher) start() { w.ended.Go(w.run) }

// stop ends the watcher. A reload in progress may wait for a disk that hangs:
// then stop does not wait for it.
func (w *watcher) stop() {
	close(w.stopped)
	endsBefore(time.After(stopGrace), w.ended.Wait)
}

func (w *watcher) run() {
	var changes chan fsnotify.Event // nil, like faults, without notices: then the timer is all there is
	var faults chan error
	if w.notices != nil {
		defer w.notices.Close()
		changes, faults = w.notices.Events, w.notices.Errors
		w.follow()
	}
	timer := time.NewTimer(0) // something may have changed since Init has read it
	defer timer.Stop()
	var first time.Time // of the notices that are not dealt with
	for {
		select {
		case <-w.stopped:
			return
		case n := <-changes:
			if !w.places[n.Name] {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(settleTime, time.Until(first.Add(mostSettle))))
		case <-faults: // notices may be missing
			timer.Reset(settleTime)
		case <-timer.C:
			first = time.Time{}
			if w.hook.files.changed() {
				_ = w.hook.Reload(nil) // which logs what came of it
			}
			if w.notices != nil {
				w.follow()
			}
			timer.Reset(recheck)
		}
	}
}

// follow watches the folders that matter now.
func (w *watcher) follow() {
	folders := make(map[string]bool)
	w.places = make(map[string]bool)
	for _, name := range w.hook.files.list() {
		eachLink(name, func(folder, place string) {
			folders[folder] = true
			w.places[folder], w.places[place] = true, true
		})
	}
	for _, folder := range w.notices.WatchList() {
		if !folders[folder] {
			_ = w.notices.Remove(folder)
		}
	}
	unwatched := make(map[string]bool)
	for folder := range folders {
		if err := w.notices.Add(folder); err != nil {
			unwatched[folder] = true
			if !w.unwatched[folder] {
				w.warnUnwatched(folder, err)
			}
		}
	}
	if len(unwatched) == 0 && len(w.unwatched) > 0 {
		w.hook.Log.Info("folders of the configuration are watched again")
	}
	w.unwatched = unwatched
}

// warnUnwatched logs that a folder cannot be watched. It names those of the
// configuration file alone: another's path may be from env().
func (w *watcher) warnUnwatched(folder string, err error) {
	if errors.Is(err, syscall.ENOSPC) { // which sounds as if a disk were full
		err = fmt.Errorf("%w: fs.inotify.max_user_watches are in use", err)
	}
	attrs := []any{"error", err}
	own := false
	eachLink(w.hook.files.path, func(of, _ string) { own = own || of == folder })
	if own {
		attrs = append(attrs, "folder", folder)
	}
	w.hook.Log.Warn("configuration is only looked at once a minute, its folder cannot be watched", attrs...)
}

// eachLink calls visit for everything on the way to a file that can be replaced to
// make it another one: each symbolic link, and the file itself, or the first
// that is missing, with the folder it is in.
func eachLink(name string, visit func(folder, place string)) {
	name, err := filepath.Abs(name)
	if err != nil {
		return // there is no working directory
	}
	const mostLinks = 40 // as the kernel has it
	root := filepath.VolumeName(name) + string(filepath.Separator)
	at, rest := root, strings.TrimPrefix(name, root)
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, string(filepath.Separator))
		place := filepath.Join(at, part)
		info, err := os.Lstat(place)
		switch {
		case err != nil:
			visit(at, place)
			return
		case info.Mode()&os.ModeSymlink != 0:
			visit(at, place)
			target, err := os.Readlink(place)
			if links++; err != nil || links > mostLinks {
				return
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(at, target)
			}
			at, rest = root, strings.TrimPrefix(filepath.Join(target, rest), root)
		case rest == "":
			visit(at, place)
		default:
			at = place
		}
	}
}
