package stream

import (
	"context"
	"sync/atomic"
	"time"
)

// moving is how long the clients of an ending replica have to take their
// leave once its replies are done.
const moving = 1500 * time.Millisecond

// Drain ends the Hub in order. No new reply is taken; clients are sent
// elsewhere; the replies that run are made and saved until they are finished
// or ctx ends, when the rest is saved and let go of, for another replica to
// take. Run must go on until Drain has returned.
func (h *Hub) Drain(ctx context.Context) {
	h.draining.Store(true)
	h.titles.end()
	h.moveAway()
	if !settled(ctx, &h.writers) || !settled(ctx, &h.speakers) {
		h.letGo()
	}
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), moving)
	settled(leaving, &h.audience.open)
	settled(leaving, &h.titles.running)
	cancel()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), storing)
	defer cancel()
	if err := h.db.RemoveReplica(end, h.config.Replica); err != nil {
		h.log.Warn("the lease of this replica is left to lapse", "err", err)
	}
}

// settled waits until there are none of what n counts, or ctx ends.
func settled(ctx context.Context, n *atomic.Int64) bool {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for n.Load() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
		}
	}
	return true
}

// letGo saves the replies that run, ends their calls to the backend, and
// leaves them without an owner.
func (h *Hub) letGo() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	close(h.closing)
	for _, r := range h.all((*reply).written) {
		r.stopWriting(errReleased)
	}
	for id, fence := range h.speakersHere() {
		h.silence(id, fence, errReleased)
	}
	ctx, cancel := context.WithTimeout(context.Background(), storing)
	defer cancel()
	settled(ctx, &h.speakers)
	settled(ctx, &h.writers) // from then on nothing is added to a log, nor a reply
	rs := h.all((*reply).written)
	h.saveDue(ctx, dueAtAge, 0)
	var free []int64
	for _, r := range rs {
		r.mu.Lock()
		fence, clean := r.fence, r.saved == int64(len(r.text)) && r.end == nil
		r.letGo()
		r.mu.Unlock()
		if !clean {
			continue
		}
		if err := h.db.ReleaseReply(ctx, r.start.MessageID, fence, h.config.Replica); err != nil {
			h.log.Warn("a reply is left for its lease to lapse", "message_id", r.start.MessageID, "err", err)
			continue
		}
		free = append(free, r.start.MessageID)
	}
	h.config.Metrics.Released(len(free))
	h.tell(ctx, noticeFree, free...)
	h.log.Info("let go of the replies that were not finished in time", "replies", len(rs))
}
