package stream

import (
	"context"
	"time"

	"parley/models"
)

// stopping is how long Stop waits for the end of a reply that is written
// elsewhere.
const stopping = 10 * time.Second

// Stop ends a reply that runs, on whatever replica, and returns the message as
// it is then saved. One that has ended stays as it is.
func (h *Hub) Stop(ctx context.Context, userID, messageID int64) (models.Message, error) {
	r, err := h.find(ctx, userID, messageID)
	if err != nil {
		return models.Message{}, err
	}
	defer h.release(r)
	if err := h.stopElsewhere(ctx, r, r.stop(errStopped)); err != nil {
		return models.Message{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, stopping)
	defer cancel()
	select {
	case <-r.done:
	case <-waiting.Done():
		if ctx.Err() != nil {
			return models.Message{}, ctx.Err()
		}
	}
	return h.db.Message(ctx, userID, messageID)
}

// stopElsewhere has other replicas stop what they have of a reply in hand, unless
// all of it was here.
func (h *Hub) stopElsewhere(ctx context.Context, r *reply, here bool) error {
	r.mu.Lock()
	writing, speaking, id := r.end == nil, r.speaking(), r.start.MessageID
	r.mu.Unlock()
	if here || !writing && !speaking {
		return nil
	}
	if writing {
		if err := h.db.RequestStop(ctx, id); err != nil {
			return err
		}
	}
	if speaking {
		if err := h.db.StopSpeech(ctx, id); err != nil {
			return err
		}
		h.refresh(r)
	}
	h.tell(ctx, noticeStop, id)
	return nil
}

// Forget ends the reply of a message that is deleted, wherever it is written.
func (h *Hub) Forget(ctx context.Context, messageID int64) {
	if r := h.lookup(messageID); r == nil || !r.stop(errDeleted) {
		h.tell(ctx, noticeGone, messageID)
	}
}

// Halt ends replies whose stop is requested, wherever they are written, and does
// not wait for that.
func (h *Hub) Halt(ctx context.Context, messageIDs ...int64) {
	var elsewhere []int64
	for _, id := range messageIDs {
		if r := h.lookup(id); r == nil || !r.stop(errStopped) {
			elsewhere = append(elsewhere, id)
		}
	}
	if len(elsewhere) > 0 {
		h.tell(ctx, noticeStop, elsewhere...)
	}
}
