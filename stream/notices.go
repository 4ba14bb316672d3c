package stream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What replicas tell one another. A notice only wakes: what it is about stands
// in a row, which is also read without it, only later.
const (
	noticeSaved = "saved" // there is more of these replies
	noticeWatch = "watch" // somebody follows these replies elsewhere
	noticeStop  = "stop"  // the user wants these replies stopped
	noticeGone  = "gone"  // these replies were deleted
	noticeFree  = "free"  // these replies were let go of
	noticeUser  = "user"  // something was stored for these users
	noticeEnded = "ended" // device sessions were; of no id
)

// maxTold is how many ids one notice has at the most.
const maxTold = 300

// tell sends a notice to all replicas.
func (h *Hub) tell(ctx context.Context, what string, ids ...int64) {
	var notices []string
	for len(ids) > 0 {
		n := min(len(ids), maxTold)
		notice := what
		for _, id := range ids[:n] {
			notice += " " + strconv.FormatInt(id, 10)
		}
		notices, ids = append(notices, notice), ids[n:]
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storing)
	defer cancel()
	if err := h.db.Notify(ctx, notices...); err != nil {
		h.log.Warn("other replicas are not told, and will find out by themselves", "what", what, "err", err)
	}
}

// listen hears what other replicas tell, until ctx ends.
func (h *Hub) listen(ctx context.Context) {
	every(ctx, h.config.PollEvery, nil, func(ctx context.Context) {
		if err := h.db.Listen(ctx, h.readAll, h.hear); err != nil && ctx.Err() == nil {
			h.log.Warn("notices of other replicas are not heard, trying again", "err", err)
		}
	})
}

// TellSessionsEnded has the other replicas learn at once that device sessions
// have ended.
func (h *Hub) TellSessionsEnded(ctx context.Context) { h.tell(ctx, noticeEnded, 0) }

// readAll has all read that happened elsewhere.
func (h *Hub) readAll() {
	h.config.SessionsEnded()
	h.feeds.each(0, func(f *feed) { f.wake(true) })
	for _, r := range h.all((*reply).elsewhere) {
		h.refresh(r)
	}
}

// refresh has a reply read that is written elsewhere.
func (h *Hub) refresh(r *reply) {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
	signal(h.stale)
}

// signal says once that there is something to do, however often it is called
// until somebody does it.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hear does what a notice says, where it concerns a reply that is known here.
func (h *Hub) hear(notice string) {
	words := strings.Fields(notice)
	for i, w := range words {
		if i == 0 {
			continue
		}
		id, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			h.log.Warn("a notice makes no sense", "err", fmt.Errorf("stream: %w", err))
			return
		}
		switch words[0] {
		case noticeUser:
			h.changedHere(id)
			continue
		case noticeFree:
			signal(h.free)
			continue
		case noticeEnded:
			h.config.SessionsEnded()
			continue
		}
		r := h.lookup(id)
		if r == nil {
			continue
		}
		switch words[0] {
		case noticeSaved:
			h.refresh(r)
		case noticeWatch:
			r.keepWatched(time.Now())
		case noticeStop:
			r.stop(errStopped)
		case noticeGone:
			if !r.stop(errDeleted) {
				h.refresh(r)
			}
		}
	}
}

// keepWatched has the reply saved often for a while.
func (r *reply) keepWatched(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watched = now.Add(watching)
}

// isWatched reports whether somebody follows the reply elsewhere.
func (r *reply) isWatched(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.watched)
}

// isFinished reports whether the reply's ending is being stored, or is.
func (r *reply) isFinished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.finished || r.end != nil
}
