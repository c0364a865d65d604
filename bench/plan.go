package main

import (
	"fmt"
	"time"
)

// plan is everything that is measured.
func plan() []*table {
	send := func(role string, args arguments) func(b *bench) (outcome, error) {
		return func(b *bench) (outcome, error) { return b.send(role, args) }
	}
	std := arguments{Events: 40000, Clients: 1000, Payload: 64, Pool: connections}
	with := func(change func(a *arguments)) arguments {
		a := std
		change(&a)
		return a
	}
	// The first connections and the growth of the heap are no part of what a
	// webhook costs: enough events to make that little.
	long := with(func(a *arguments) { a.Events = 200000 })
	var hangs []row
	for _, clients := range []string{"", ", paho.mqtt.golang"} {
		for qos := range byte(2) {
			name, library := fmt.Sprintf("QoS %d%s", qos, clients), clients != ""
			hangs = append(hangs,
				row{name: name + ", no hook", base: true, measure: hung(qos, false, library)},
				row{name: name + ", hook", measure: hung(qos, true, library)})
		}
	}
	tables := []*table{
		{title: "Delivery", unit: "webhooks", rows: []row{
			{name: "raw socket loop (the limit)", base: true, measure: send("loop", long)},
			{name: "this package", measure: send("hook", long)},
			{name: "this package, disk queue", measure: send("hook", with(func(a *arguments) { a.Events, a.Dir = long.Events, "queue" }))},
			{name: "net/http", measure: send("net/http", std)},
		}},
		{title: "Batches of 100", unit: "events", rows: []row{
			{name: "one by one", base: true, measure: send("hook", std)},
			{name: "batches, 10,000 waiting", measure: send("hook", with(func(a *arguments) { a.Batch, a.Capacity, a.Events = true, 10000, 1500000 }))},
			{name: "batches, 100,000 waiting", measure: send("hook", with(func(a *arguments) { a.Batch, a.Events = true, 1500000 }))},
			{name: "batches, gzip", measure: send("hook", with(func(a *arguments) { a.Batch, a.Gzip, a.Capacity, a.Events = true, true, 10000, 500000 }))},
			{name: "batches, disk queue", measure: send("hook", with(func(a *arguments) { a.Batch, a.Dir, a.Events = true, "queue", 500000 }))},
		}},
		{title: "Broker, endpoint hangs", unit: "publishes", rows: hangs},
		{title: "End to end, 50 publishers at QoS 1", unit: "webhooks", rows: []row{
			{name: "raw socket loop alone", base: true, measure: send("loop", with(func(a *arguments) { a.Events = 80000 }))},
			{name: "broker without hook", measure: endToEnd(false)},
			{name: "broker with hook", minus: "broker without hook", measure: endToEnd(true)},
		}},
	}
	enqueue := &table{title: "A publish, to enqueued", unit: "publishes"}
	for _, n := range []int{1, 1000, 100000} {
		enqueue.rows = append(enqueue.rows, row{name: "matches none of " + count(n, "rule"), base: n == 1,
			measure: send("enqueue", with(func(a *arguments) { a.Rules, a.Events = n, 2000000 }))})
	}
	for _, n := range []int{1, 1000, 100000} {
		enqueue.rows = append(enqueue.rows, row{name: "matches, " + count(n, "client"),
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Full, a.Clients, a.Events = true, true, n, 300000 }))})
	}
	for _, n := range []int{1 << 10, 16 << 10} {
		enqueue.rows = append(enqueue.rows, row{name: fmt.Sprintf("matches, payload %d KiB", n>>10),
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Full, a.Capacity, a.Payload, a.Events = true, true, 2000, n, 20000 }))})
	}
	disk := &table{title: "Disk queue", unit: "publishes", rows: []row{
		{name: "enqueue, memory queue, payload 110 bytes", base: true,
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Payload, a.Events = true, 110, 500000 }))},
		{name: `enqueue, sync = "100ms"`,
			measure: send("enqueue", with(func(a *arguments) { a.Match, a.Payload, a.Dir, a.Events = true, 110, "queue", 500000 }))},
		{name: `sync = "always", 1 publisher at QoS 1`, base: true, measure: always(1)},
		{name: `sync = "always", 50 publishers at QoS 1`, measure: always(50)},
	}}
	payload := &table{title: "Payload", unit: "webhooks"}
	for _, n := range []int{64, 1 << 10, 16 << 10, 256 << 10} {
		payload.rows = append(payload.rows, row{name: fmt.Sprintf("%d bytes", n), base: n == 64,
			measure: send("hook", with(func(a *arguments) { a.Payload, a.Events = n, min(20000, 1<<30/n) }))})
	}
	pool := &table{title: "pool_size", unit: "webhooks"}
	for _, n := range []int{1, 4, 32, 256} {
		pool.rows = append(pool.rows, row{name: fmt.Sprint(n), base: n == 1,
			measure: send("hook", with(func(a *arguments) { a.Pool, a.Events = n, 20000 }))})
	}
	tables = append(tables, enqueue, disk, payload, pool)
	for _, t := range tables {
		t.page = readme
	}
	return append(tables, planStreams(std)...)
}

// count is n of something, in words.
func count(n int, noun string) string {
	if n > 1 {
		noun += "s"
	}
	return fmt.Sprint(n, " ", noun)
}

// planStreams is what is measured of queues, the stream among them.
func planStreams(std arguments) []*table {
	queues := &table{title: "Queues", unit: "events", page: scaling, rows: []row{
		{name: "memory queue, to the reply", base: true, measure: func(b *bench) (outcome, error) { return b.send("hook", std) }},
		{name: "disk queue, to the reply", measure: func(b *bench) (outcome, error) {
			args := std
			args.Dir = "queue"
			return b.send("hook", args)
		}},
		{name: "broker into a stream", measure: func(b *bench) (outcome, error) { return b.throughStream(std, "hook") }},
		{name: "worker from a stream, to the reply", measure: func(b *bench) (outcome, error) { return b.throughStream(std, "worker") }},
		{name: "NATS server, of both", measure: func(b *bench) (outcome, error) { return b.throughStream(std, "nats") }},
	}}
	workers := &table{title: "Workers, receiver with 20 ms latency", unit: "webhooks", page: scaling}
	for _, n := range []int{1, 2, 4} {
		workers.rows = append(workers.rows, row{name: fmt.Sprintf("%d, each with a pool of 32", n), base: n == 1,
			measure: func(b *bench) (outcome, error) {
				args := std
				args.Delay, args.Events = 20*time.Millisecond, 8000
				return b.workers(args, n)
			}})
	}
	return []*table{queues, workers}
}
