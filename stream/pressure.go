package stream

import (
	"context"
	"errors"
	"math"
	"runtime"
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
	if h.Pressure() >= 1 {
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
// ends.
func (h *Hub) feelPressure(ctx context.Context) {
	defer h.felt.Store(math.MaxInt64)
	waits := newWaits()
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
		// Likewise, over three seconds: many who come at once are no load that stays.
		wait := time.Duration(h.waits.Load())
		h.waits.Store(int64(wait + (min(waits.mean(), 2*h.config.MaxWait)-wait)/64))
		if now.Sub(due) > h.config.Lease/4 {
			h.pauses.Add(1)
		}
		h.felt.Store(int64(now.Sub(h.began)))
		due = now.Add(probing)
	}
}

// Pressure is how full this replica is. What is begun at 1 or above would make
// all replies that are under way slower, so Send refuses it. Timers are late where
// there is hardly any processor. Where there is one and too little of it they are
// not, since they go first, while tokens pile up before the process and what it
// could do waits for its turn.
func (h *Hub) Pressure() float64 {
	late := float64(h.late.Load()) / float64(h.config.MaxLateness)
	waits := float64(h.waits.Load()) / float64(h.config.MaxWait)
	crowded := float64(h.Replies()) / float64(h.config.Crowd*runtime.GOMAXPROCS(0))
	return max(late, min(waits, crowded))
}

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
