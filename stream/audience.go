package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrTooManyStreams means that a user has as many streams open as one may have.
var ErrTooManyStreams = errors.New("stream: the user has too many streams open")

// A Viewer is whose stream it is, and by which device session: the token that
// opened it was issued to that session at that time.
type Viewer struct {
	UserID   int64
	SID      string
	IssuedAt time.Time
}

// An openStream is one that is being sent: a follower's or a feed's.
type openStream interface {
	whose() Viewer
	// note sets what the client is sent besides its events, and the stream going
	// if change says so.
	note(change func(*asides) bool)
	leave()
}

// asides are what a client is sent besides its events.
type asides struct {
	pulse bool // a comment is due
	cut   bool // the viewer was signed out
	moved int  // send the client elsewhere: its reconnection time in ms; 0: no
	beat  time.Time
}

// any reports whether there is something to send.
func (a *asides) any() bool { return a.pulse || a.cut || a.moved > 0 }

// The audience is the streams that are open on this replica.
type audience struct {
	open atomic.Int64 // how many there are

	mu        sync.Mutex // after any reply's
	streams   map[openStream]struct{}
	of        map[int64]int64 // how many each user has, with those about to open
	elsewhere map[int64]int64 // likewise on other replicas, of users who have many there
}

// admit counts a stream that is about to open, if the user may have another one:
// of most in all, or of any number where that is 0. add or dismiss must follow.
func (a *audience) admit(userID, most int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if most > 0 && a.of[userID]+a.elsewhere[userID] >= most {
		return ErrTooManyStreams
	}
	a.of[userID]++
	return nil
}

// dismiss takes back what admit has counted.
func (a *audience) dismiss(userID int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of[userID]--; a.of[userID] == 0 {
		delete(a.of, userID)
	}
}

// add adds a stream that was admitted.
func (a *audience) add(s openStream) {
	a.open.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams[s] = struct{}{}
}

// remove forgets a stream that has ended.
func (a *audience) remove(s openStream) {
	a.mu.Lock()
	delete(a.streams, s)
	a.mu.Unlock()
	a.dismiss(s.whose().UserID)
	a.open.Add(-1)
}

// all returns the streams that are open.
func (a *audience) all() []openStream {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.AppendSeq(make([]openStream, 0, len(a.streams)), maps.Keys(a.streams))
}

// Streams counts the streams that are open.
func (h *Hub) Streams() int64 { return h.audience.open.Load() }

// MayOpen returns ErrTooManyStreams where Serve would, for one who does something
// before it that cannot be taken back.
func (h *Hub) MayOpen(userID int64) error {
	err := h.audience.admit(userID, h.config.MaxStreams)
	if err == nil {
		h.audience.dismiss(userID)
	}
	return err
}

// catchUp says to a stream that was just added what may have been said to all of
// them before.
func (h *Hub) catchUp(s openStream) {
	if h.revoked(s.whose()) {
		h.cut(s)
	}
	if h.Draining() {
		// It came back to a replica that is ending: not at once again.
		s.note(func(a *asides) bool { a.moved = 1000 + spread()/2; return true })
	}
}

// beat has a comment sent to every client that was not sent one for a while.
func (h *Hub) beat(now time.Time) {
	for _, s := range h.audience.all() {
		s.note(func(a *asides) bool {
			if now.Sub(a.beat) < h.config.Heartbeat {
				return false
			}
			a.pulse, a.beat = true, now
			return true
		})
	}
}

// moveAway sends every client elsewhere, each with a time of its own to come
// back, so that they do not all come at once.
func (h *Hub) moveAway() {
	for _, s := range h.audience.all() {
		s.note(func(a *asides) bool { a.moved = spread(); return true })
	}
}

// CutOff ends the open streams of viewers that Config.Revoked names, each with
// an event that says so. The replies go on.
func (h *Hub) CutOff() {
	for _, s := range h.audience.all() {
		if h.revoked(s.whose()) {
			h.cut(s)
		}
	}
}

func (h *Hub) revoked(v Viewer) bool { return h.config.Revoked != nil && h.config.Revoked(v) }

// parting is how long a viewer who was signed out has to read that it was so.
const parting = 250 * time.Millisecond

// cut ends a stream whose viewer was signed out.
func (h *Hub) cut(s openStream) {
	s.note(func(a *asides) bool { a.cut = true; return true })
	time.AfterFunc(parting, s.leave)
}

// signedOut is the event that ends such a stream. It has no id: the client is
// where it was.
const signedOut = "event: error\n" +
	`data: {"message":"This device was signed out.","code":"signed_out","retryable":false}` + "\n\n"

// contain, deferred, ends a stream in whose sending something panics, and nothing
// else: the client comes back and goes on where it was.
func (h *Hub) contain(c *conn, end func()) {
	p := recover() //nolint:revive // this is the deferred function
	if p == nil {
		return
	}
	h.log.Error("a stream failed", "err", fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	c.abort()
	end()
}

// manyStreams is the part of MaxStreams that a user must have open here for
// other replicas to be told: most users never cost a row.
const manyStreams = 4

// shareCounts tells the other replicas which users have many streams open here,
// and learns how many they have there.
func (h *Hub) shareCounts(ctx context.Context) {
	most := h.config.MaxStreams
	if most == 0 {
		return
	}
	elsewhere, err := h.db.ShareStreamCounts(ctx, h.config.Replica, h.audience.many(most))
	if err != nil {
		if ctx.Err() == nil {
			h.log.Warn("the users' streams elsewhere are not counted, trying again", "err", err)
		}
		return
	}
	h.audience.mu.Lock()
	defer h.audience.mu.Unlock()
	h.audience.elsewhere = elsewhere
}

// many returns the users who have many of most streams open, with how many.
func (a *audience) many(most int64) map[int64]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := make(map[int64]int64)
	for id, n := range a.of {
		if n*manyStreams >= most {
			of[id] = n
		}
	}
	return of
}
