package webhook

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A pool is the workers of one endpoint, as many as it has connections, and
// what they know of its configuration, which does not change: a reload retires
// the pool and starts another one on the same queue. Start starts the workers;
// stop ends them.
type pool struct {
	queue   *queue
	config  *Endpoint
	log     *slog.Logger
	format  *format            // of most events, and of batches
	formats map[uint32]*format // of all, by event.rule
	asIs    bool               // events are whole bodies: redelivery

	// render makes what is sent of one event, all but its id: a request, or what
	// goes into a stream. It appends the body to req.body.
	render func(req *request, ev *event)

	letters letterBox // nil: dead events are only counted
	workers []*worker
	wg      sync.WaitGroup
	live    atomic.Int32 // workers that have not ended
	retired bool         // no attempt begins any more; the queue's lock guards it
	older   []*pool      // retired, with attempts in flight

	lastFailure atomic.Pointer[outcome] // of any attempt

	warned      atomic.Bool // about a configuration at fault, since the last delivery
	configWarn  interval
	readWarn    interval
	lettersWarn interval
}

func newPool(q *queue, config *Endpoint, log *slog.Logger, dial func() poster) *pool {
	p := &pool{queue: q, config: config, log: log}
	p.formats = newFormats(config)
	p.format = p.formats[0]
	p.render = p.renderWebhook
	for range config.PoolSize {
		p.workers = append(p.workers, &worker{pool: p, poster: dial(), wake: make(chan struct{}, 1)})
	}
	return p
}

func (p *pool) start() {
	p.live.Store(int32(len(p.workers)))
	for _, w := range p.workers {
		p.wg.Go(w.run)
	}
}

// stop ends the workers; attempts in progress are cancelled and their events
// wait again. It returns when all have ended, or after stopGrace if a
// foreign http.RoundTripper does not heed its context.
func (p *pool) stop() {
	p.queue.halt()
	pools := append(p.older, p)
	for _, p := range pools {
		for _, w := range p.workers {
			w.poster.cancel()
		}
	}
	endsBefore(time.After(stopGrace), func() {
		for _, p := range pools {
			p.wg.Wait()
		}
	})
}

// formatOf is the format of an event: the usual one if its rule is not there any
// more.
func (p *pool) formatOf(ev *event) *format {
	if ev.rule != 0 {
		if f := p.formats[ev.rule]; f != nil {
			return f
		}
	}
	return p.format
}

// renderWebhook makes the request of one event.
func (p *pool) renderWebhook(req *request, ev *event) {
	f := p.formatOf(ev)
	req.head = f.head
	if p.asIs {
		renderBody(req, ev)
	} else {
		f.render(req, ev)
	}
}
