package stream

import (
	"context"
	"errors"
	"time"

	"parley/models"
)

// keepSpeeches looks after the speeches that the database has under this
// replica's name, as inspect does, and takes over what nobody has spoken.
func (h *Hub) keepSpeeches(ctx context.Context) {
	if h.config.Synthesizer == nil {
		return
	}
	began, before := time.Now(), h.speakersHere()
	own, orphaned, err := h.db.RunningSpeeches(ctx, h.config.Replica, maxTaken)
	if err != nil {
		if ctx.Err() == nil {
			h.log.Warn("what is spoken cannot be looked after, trying again", "err", err)
		}
		return
	}
	known, trusted := h.speakersHere(), h.knowsTheDead()
	for _, o := range own {
		if known[o.MessageID] == o.Fence {
			delete(before, o.MessageID)
		} else if began.Sub(o.StartedAt) > 2*storing {
			orphaned = append(orphaned, o) // the commit's answer got lost
		}
	}
	for id, fence := range before {
		h.silence(id, fence, errLost)
	}
	if h.Draining() {
		return
	}
	for _, o := range orphaned {
		if o.Owner != "" && o.Owner != h.config.Replica && !trusted {
			continue
		}
		if err := h.takeSpeech(ctx, o); err != nil && ctx.Err() == nil {
			h.log.Warn("a reply cannot be spoken on, trying again", "message_id", o.MessageID, "err", err)
		}
	}
}

// speakersHere are the replies that are spoken here, with the fences of that.
func (h *Hub) speakersHere() map[int64]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	fences := make(map[int64]int64)
	for id, r := range h.replies {
		r.mu.Lock()
		if r.spoken != nil && r.spoken.speaker != nil {
			fences[id] = r.spoken.speaker.fence
		}
		r.mu.Unlock()
	}
	return fences
}

// silence ends the speaker with that fence, for that reason.
func (h *Hub) silence(messageID, fence int64, cause error) {
	r := h.lookup(messageID)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.spoken.speaker; s != nil && s.fence == fence {
		s.cancel(cause)
	}
}

// takeSpeech has a reply spoken here that nobody speaks, unless another replica was
// faster.
func (h *Hub) takeSpeech(ctx context.Context, o models.Speech) error {
	fence, err := h.db.TakeSpeech(ctx, o.MessageID, o.Fence, h.config.Replica)
	if errors.Is(err, models.ErrStaleOwner) || errors.Is(err, models.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := h.find(ctx, o.UserID, o.MessageID)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return errors.Join(err, h.db.ReleaseSpeech(ctx, o.MessageID, fence))
	}
	defer h.release(r)
	h.log.Info("took a speech over", "message_id", o.MessageID, "from", o.Owner, "pieces", o.Pieces)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.speak(r, fence, false)
	return nil
}
