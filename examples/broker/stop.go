package main

import (
	"errors"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/mochi-hooks/webhook"
)

const (
	// goodbye is how long clients have to take their DISCONNECT.
	goodbye = time.Second
	// last is how long their goroutines have to end after that.
	last = 500 * time.Millisecond
	// slack is what a clean stop may take beside these and the draining.
	slack = 3 * time.Second
)

// stop disconnects the clients, lets the hook deliver what waits, and closes
// the server. It always returns.
//
// Server.Close does all that too, but it waits forever for a client that has
// sent no CONNECT or does not read, and can lock up when clients come or go
// meanwhile. So the clients go first, and Close has a time limit.
func stop(server *mqtt.Server, hook *webhook.Hook, clients *listener, drain time.Duration) error {
	closed := make(chan error, 1) // holds the result when nobody waits for it any more
	go func() {
		clients.Close()
		disconnect(server)
		clients.closeConns() // those that are not clients yet
		clients.wait()
		server.Listeners.ClientsWg.Wait() // for the hooks' part in it
		closed <- server.Close()
	}()
	defer time.AfterFunc(goodbye, func() {
		for _, cl := range server.Clients.GetAll() {
			cl.Stop(packets.ErrServerShuttingDown) // before its connection: that would be the reason
		}
		clients.closeConns()
	}).Stop()

	// Clients that wait for room in a queue may get it yet.
	patience := goodbye + last + drain/2
	tooLate := time.After(patience + drain + slack)
	select {
	case err := <-closed:
		return err
	case <-time.After(patience):
	}
	_ = hook.Stop() // which they do not outlast
	select {
	case err := <-closed:
		return err
	case <-tooLate:
		return errors.New("the broker did not stop in time")
	}
}

// disconnect tells every client that the server goes, and returns when all
// have been told. One that does not read holds up no other.
func disconnect(server *mqtt.Server) {
	var told sync.WaitGroup
	for _, cl := range server.Clients.GetAll() {
		told.Go(func() {
			_ = server.DisconnectClient(cl, packets.ErrServerShuttingDown) // always an error: the code
		})
	}
	told.Wait()
}
