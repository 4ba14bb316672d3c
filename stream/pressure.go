package stream

import (
	"context"
	"errors"
	"time"
)

// ErrOverloaded means that this replica cannot serve another reply as it should.
var ErrOverloaded = errors.New("stream: this replica has as many replies as it can serve")

// probing is how often it is measured how late this process runs.
const probing = 50 * time.Millisecond

// feelPressure measures how late this process gets to what is due, until ctx
// ends. Replies that are under way then wait too: what comes on top would make
// all of them slower, so Send refuses it.
func (h *Hub) feelPressure(ctx context.Context) {
	due := time.Now().Add(probing)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(due)):
		}
		now := time.Now()
		// A mean over about a second: a single pause says nothing.
		late := time.Duration(h.late.Load())
		h.late.Store(int64(late + (now.Sub(due)-late)/16))
		due = now.Add(probing)
	}
}

// Lateness is how late this process gets to what is due, as a mean over about
// a second: how full the replica is.
func (h *Hub) Lateness() time.Duration { return time.Duration(h.late.Load()) }

// Replies counts the replies that this replica writes.
func (h *Hub) Replies() int64 { return h.writers.Load() }
