// Package webhook turns the events of a mochi-mqtt broker into HTTP POSTs with
// JSON bodies. It is a hook that a program with an embedded broker adds, and
// it is configured with an HCL file. NanoMQ's webhook configuration and
// receivers written for NanoMQ work unchanged.
//
// The smallest broker with webhooks:
//
//	server := mqtt.New(nil)
//	_ = server.AddListener(listeners.NewTCP(listeners.Config{ID: "tcp", Address: ":1883"}))
//	_ = server.AddHook(new(auth.AllowHook), nil)
//	err := server.AddHook(new(webhook.Hook), &webhook.Options{File: "webhook.hcl"})
//	if err != nil {
//		_ = webhook.WriteDiagnostics(os.Stderr, err) // what is wrong in the file, and where
//		os.Exit(1)
//	}
//	err = server.Serve()
//
// and its webhook.hcl:
//
//	webhook {
//	  url = "http://127.0.0.1:8080/hook"
//	  events = [
//	    { event = "on_client_connected" }
//	    { event = "on_message_publish", topic = "sensors/#" }
//	  ]
//	}
//
// The README of the module has the reference of the file and of the bodies.
//
// # Delivery
//
// Events wait until the endpoint has answered them with a 2xx status: in
// memory, on disk ([DiskQueue]) or in NATS JetStream ([Stream]), from where
// workers deliver them ([Deliver]). What waits in memory is lost when the
// process dies. Nothing else is lost without being counted: an endpoint that is
// down, slow, misconfigured or asks for a pause gets the event again, with
// exponential backoff, until the event is five minutes old, or a day where
// events outlive the process, unless [Retry] says otherwise. A receiver may
// therefore see an event more than once; the webhook-id header is the same each
// time. An event that the endpoint refuses, with status 400 or 422 for example,
// is not sent again. What was refused or given up is a dead letter
// ([DeadLetter]).
//
// The events of one client are delivered one after the other, retries
// included, in the order in which the broker saw them. Clients do not wait for
// each other, nor do endpoints: each has its own queue, connections, circuit
// breaker and counters.
//
// # Overload
//
// A queue is bounded in events and in bytes. When it is full, the oldest
// waiting event is dropped, or the one that comes, or a publishing client
// waits for a moment: see [Overflow]. Every drop is counted with its reason in
// [Stats]; nothing is lost in silence.
//
// No callback of the hook waits for the network, whatever the endpoint does.
// The only thing that ever waits is the publish of a network client, and only
// under [Block] for room or [SyncAlways] for the disk, for a bounded time.
//
// # Caveats
//
// Add the hook last: a message that a hook behind it rejects has been sent as
// a webhook already, and clients that a hook before it turns away in OnConnect
// are not seen.
//
// A connection that never gets a CONNACK makes no event, and neither does a
// delayed will whose session has ended before it is published: mochi tells no
// hook of them.
//
// mqtt.Server.Close calls [Hook.Stop], which delivers what waits for as long
// as Options.DrainTimeout allows. Close itself can hang, for example while a
// TCP connection is open that has sent no CONNECT; a program that has to end
// bounds it, as examples/broker does.
package webhook
