package stream

import (
	"context"
	"errors"
	"math"
	"time"
)

// ErrOverloaded means that this replica cannot serve another reply as it should.
var ErrOverloaded = errors.New("stream: this replica has as many replies as it can serve")

// queueing is how long a reply waits for a place among those that run.
const queueing = 2 * time.Second

// admit returns nil when a reply may begin, which leave must follow. Of those
// that find no place, a tenth as many as there are places wait for one.
func (h *Hub) admit(ctx context.Context) error {
	if h.Draining() {
		return ErrDraining
	}
	if h.Lateness() > h.config.MaxLateness {
		return ErrOverloaded
	}
	if err := h.backend.Admit(); err != nil {
		return err
	}
	if h.places == nil {
		return nil
	}
	select {
	case h.places <- struct{}{}:
		return nil
	default:
	}
	defer h.queued.Add(-1)
	if h.queued.Add(1) > int64(cap(h.places)/10+1) {
		return ErrOverloaded
	}
	waited := time.NewTimer(queueing)
	defer waited.Stop()
	select {
	case h.places <- struct{}{}:
		return nil
	case <-waited.C:
		return ErrOverloaded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave gives the place of a reply back.
func (h *Hub) leave() {
	if h.places != nil {
		<-h.places
	}
}

// probing is how often it is measured how late this process runs.
const probing = 50 * time.Millisecond

// feelPressure measures how late this process gets to what is due, until ctx
// ends. Replies that are under way then wait too: what comes on top would make
// all of them slower, so Send refuses it.
func (h *Hub) feelPressure(ctx context.Context) {
	defer h.felt.Store(math.MaxInt64)
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
		if now.Sub(due) > h.config.Lease/4 {
			h.pauses.Add(1)
		}
		h.felt.Store(int64(now.Sub(h.began)))
		due = now.Add(probing)
	}
}

// Lateness is how late this process gets to what is due, as a mean over about
// a second: how full the replica is.
func (h *Hub) Lateness() time.Duration { return time.Duration(h.late.Load()) }

// Replica is the name of this process among the replicas.
func (h *Hub) Replica() string { return h.config.Replica }

// Replies counts the replies that this replica writes.
func (h *Hub) Replies() int64 { return max(0, h.writers.Load()-h.queued.Load()) }

// sureOfItself waits until it is certain that, just now, this replica owns what it
// writes, or ctx ends, and then returns why. A process that was paused for a
// good part of its lease may have lost it, and what it would send is then not
// the reply's text: keepLease finds out. That the database is away is no such
// reason, since then nobody can take anything.
func (h *Hub) sureOfItself(ctx context.Context, now time.Time) error {
	for h.wasPaused(now) && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now = <-time.After(10 * time.Millisecond):
		}
	}
	return context.Cause(ctx)
}

// wasPaused reports whether it is not known yet what a pause of the process before
// now has cost it; the pause may have ended just before that.
func (h *Hub) wasPaused(now time.Time) bool {
	silent := now.Sub(h.began) - time.Duration(h.felt.Load())
	return silent > h.config.Lease/2 || h.pauses.Load() != h.survived.Load()
}
