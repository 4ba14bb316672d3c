package stream

import (
	"context"
	"errors"
	"time"

	"parley/models"
)

// mirror brings the log to what the database has. p was read from that offset
// of the text on: where the attempt is another than the log's, from the start.
func (r *reply) mirror(p models.Progress, from int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil || r.fence > 0 {
		return
	}
	if m := p.Message; r.attempt != m.Attempt {
		r.attempt, r.shared, r.text = m.Attempt, m.SharedBytes, []byte(p.Text)
	} else if size := int64(len(r.text)); from <= size && size < from+int64(len(p.Text)) {
		r.text = append(r.text, p.Text[size-from:]...)
	}
	if p.Message.Status != "streaming" {
		e := endingOf(p.Message)
		r.end = &e
		r.letGo()
	}
	r.wakeAll()
}

// poll reads what happened to the replies that are followed here and written
// elsewhere, and forgets those that nobody follows any more.
func (h *Hub) poll(ctx context.Context) {
	for _, r := range h.all(false) {
		if ctx.Err() != nil {
			return
		}
		if h.forgotten(r) {
			continue
		}
		r.mu.Lock()
		attempt, from := r.attempt, int64(len(r.text))
		r.mu.Unlock()
		p, err := h.db.ReplyProgress(ctx, r.start.MessageID, from)
		if err == nil && p.Message.Attempt != attempt && from > 0 {
			from = 0
			p, err = h.db.ReplyProgress(ctx, r.start.MessageID, from)
		}
		switch {
		case errors.Is(err, models.ErrNotFound):
			r.finish(ending{status: "failed", code: codeChatDeleted})
			h.drop(r)
		case err != nil:
			h.log.Warn("a reply written elsewhere cannot be read, trying again", "message_id", r.start.MessageID, "err", err)
		default:
			r.mirror(p, from)
			if p.Message.Status != "streaming" {
				h.drop(r)
			}
		}
	}
}

// forgotten drops a reply that is written elsewhere and that nobody reads.
func (h *Hub) forgotten(r *reply) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.abandoned() || r.fence > 0 {
		return false
	}
	delete(h.replies, r.start.MessageID)
	return true
}

// keepLease says that this replica lives, looks after the replies that the
// database has under its name, and takes over what dead replicas left.
func (h *Hub) keepLease(ctx context.Context) {
	asked := time.Now()
	if err := h.db.RenewReplica(ctx, h.config.Replica, h.config.Lease); err != nil {
		h.renewedSince = time.Time{}
		if ctx.Err() == nil {
			h.log.Warn("the lease of this replica is not renewed, trying again", "err", err)
		}
		return
	}
	// After an outage of the database every lease has lapsed. Whoever lives
	// renews his own within a lease: until then nobody is taken for dead.
	if h.renewedSince.IsZero() || asked.Sub(h.renewed) > h.config.Lease {
		h.renewedSince = asked
	}
	h.renewed = asked
	if err := h.inspect(ctx); err != nil && ctx.Err() == nil {
		h.log.Warn("the running replies cannot be looked after, trying again", "err", err)
	}
	if h.Draining() || asked.Sub(h.renewedSince) < h.config.Lease {
		return
	}
	orphans, err := h.db.OrphanedReplies(ctx, maxTaken)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("replies without an owner cannot be looked for, trying again", "err", err)
	}
	for _, o := range orphans {
		if err := h.take(ctx, o); err != nil && ctx.Err() == nil {
			h.log.Warn("a reply cannot be taken over, trying again", "message_id", o.MessageID, "err", err)
		}
	}
}

// maxTaken is how many replies a replica takes over at once, so that the
// others get their share.
const maxTaken = 100

// inspect compares the replies that the database has under this replica's name
// with those that it writes. One that was deleted is ended; one that is not
// known here (the commit's answer got lost) is let go of.
func (h *Hub) inspect(ctx context.Context) error {
	before := h.all(true)
	owned, err := h.db.OwnedReplies(ctx, h.config.Replica)
	if err != nil {
		return err
	}
	known := make(map[int64]models.RunningReply, len(owned))
	for _, o := range owned {
		known[o.MessageID] = o
		if h.lookup(o.MessageID) == nil && time.Since(o.StartedAt) > 2*storing {
			if err := h.db.ReleaseReply(ctx, o.MessageID, o.Fence, h.config.Replica); err != nil {
				return err
			}
		}
	}
	for _, r := range before {
		if _, ok := known[r.start.MessageID]; ok {
			continue
		}
		r.mu.Lock()
		finished := r.finished
		r.mu.Unlock()
		if !finished {
			r.stopWriting(errDeleted) // or lost: storing its end will tell
		}
	}
	return nil
}

// take makes this replica the writer of a reply without an owner, unless
// another one was faster.
func (h *Hub) take(ctx context.Context, o models.RunningReply) error {
	taken, text, err := h.db.TakeReply(ctx, o.MessageID, o.Fence, h.config.Replica)
	if errors.Is(err, models.ErrStaleOwner) || errors.Is(err, models.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := h.db.ReplyProgress(ctx, o.MessageID, 0)
	if err != nil {
		return err // inspect lets go of it
	}
	asked, err := h.db.Message(ctx, o.UserID, o.UserMessageID)
	if err != nil {
		return err
	}
	h.log.Info("took a reply over", "message_id", o.MessageID, "from", o.Owner, "bytes", len(text))
	r := h.lookup(o.MessageID)
	if r == nil {
		r = newReply(startInfo{
			ChatID:        o.ChatID,
			UserMessageID: o.UserMessageID,
			MessageID:     o.MessageID,
			Title:         p.Title,
			userID:        o.UserID,
		}, p.Message.Attempt, "")
	}
	r.mu.Lock()
	r.attempt, r.shared, r.text = p.Message.Attempt, p.Message.SharedBytes, []byte(text)
	r.mu.Unlock()
	h.write(r, taken.Fence, asked.Content, &takenText{text: text, clean: o.Owner == ""})
	return nil
}
