package stream

import (
	"context"
	"errors"

	"parley/models"
)

// recall reads the voice of a reply that is spoken, nil of any other.
func (h *Hub) recall(ctx context.Context, p models.Progress) (*spoken, error) {
	if p.Speech == nil {
		return nil, nil
	}
	s := &spoken{voice: p.Speech.Voice, state: p.Speech.State, made: p.Speech.Pieces}
	if s.state == models.SpeechExpired {
		return s, nil
	}
	asked, err := h.db.Message(ctx, p.UserID, p.UserMessageID)
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		return nil, err
	}
	s.transcript = asked.Content
	stored, err := h.db.Audio(ctx, p.Message.ID, 0)
	if err != nil {
		return nil, err
	}
	s.take(stored, p.Message.Attempt)
	if p.Running == nil && !s.running() && len(s.pieces) < s.made {
		s.state = models.SpeechExpired // in between
	}
	return s, nil
}

// mirrorVoice is mirror of the voice: it brings the log to what the database had
// when p was read, and reads the audio that is missing.
func (h *Hub) mirrorVoice(ctx context.Context, r *reply, p models.Progress) {
	if p.Speech == nil {
		return
	}
	missing := func() (have int, ok bool) {
		if !r.speaking() {
			return 0, false
		}
		return len(r.spoken.pieces), r.spoken.speaker == nil && r.attempt == p.Message.Attempt
	}
	r.mu.Lock()
	have, ok := missing()
	r.mu.Unlock()
	if !ok {
		return
	}
	var stored []models.AudioPiece
	if p.Speech.Pieces > have {
		var err error
		if stored, err = h.db.Audio(ctx, p.Message.ID, have); err != nil {
			if ctx.Err() == nil {
				h.log.Warn("audio made elsewhere cannot be read, trying again", "message_id", p.Message.ID, "err", err)
			}
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := missing(); !ok {
		return
	}
	r.spoken.take(stored, r.attempt)
	// Of what was kept no more in between, the end is told all the same.
	r.spoken.state = p.Speech.State
	r.wakeAll()
}
