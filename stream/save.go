package stream

import (
	"context"
	"errors"
	"math"
	"time"

	"parley/models"
)

// maxSaved bounds the text of one statement in bytes.
const maxSaved = 1 << 20

// sparing is one in how many flushes looks at all replies, and not only at those
// that are followed elsewhere: a transaction costs more than what is in it.
const sparing = 5

// wellBegun is how much of a reply is saved as it comes, in bytes: whoever takes
// it over can have so much repeated that it tells something.
const wellBegun = probeSize

// together is the least time between two savings of first texts.
const together = 100 * time.Millisecond

// An urgency is why a reply is saved now, the most urgent first.
type urgency int

const (
	dueFirst urgency = iota // nothing of it was saved
	dueSoon                 // it has hardly begun, or is watched
	dueAtAge                // it was last saved so long ago
)

// save writes what is new of the replies that are due, in as few statements as
// their size allows. What cannot be saved stays in memory for the next time: while
// the database is away, nothing is urgent.
func (h *Hub) save(ctx context.Context) {
	h.flushes++
	switch {
	case h.flushes%sparing == 0:
		h.saveDue(ctx, dueAtAge, h.config.SaveEvery)
	case !h.failing.Load():
		h.saveDue(ctx, dueSoon, 0)
	}
}

// saveFirst saves the first text of replies when it comes, so that whoever takes one
// over has something to go on from. Where many begin, some are saved together.
func (h *Hub) saveFirst(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.firsts:
			if !h.failing.Load() {
				h.saveDue(ctx, dueFirst, 0)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(together):
		}
	}
}

// saveDue saves the replies that are due as urgently as that, or more.
func (h *Hub) saveDue(ctx context.Context, least urgency, age time.Duration) {
	h.saving.Lock()
	defer h.saving.Unlock()
	var (
		due   []*reply
		texts []models.ReplyText
		size  int
	)
	now := time.Now()
	for _, r := range h.all((*reply).written) {
		t, ok := r.unsaved(now, least, age)
		if !ok {
			continue
		}
		due, texts, size = append(due, r), append(texts, t), size+len(t.Text)
		if size >= maxSaved {
			h.saveTexts(ctx, due, texts)
			due, texts, size = nil, nil, 0
		}
	}
	if len(due) > 0 {
		h.saveTexts(ctx, due, texts)
	}
}

func (h *Hub) saveTexts(ctx context.Context, due []*reply, texts []models.ReplyText) {
	ctx, cancel := context.WithTimeout(ctx, storing)
	defer cancel()
	began := time.Now()
	saved, err := h.db.SaveTexts(ctx, texts)
	h.config.Metrics.Flushed(len(saved), time.Since(began), err)
	h.failing.Store(err != nil)
	if err != nil {
		if ctx.Err() == nil || errors.Is(err, models.ErrUnavailable) {
			h.log.Warn("replies not saved, trying again", "replies", len(texts), "err", err)
		}
		return
	}
	kept := make(map[int64]bool, len(saved))
	for _, id := range saved {
		kept[id] = true
	}
	now := time.Now()
	var watched []int64
	for i, r := range due {
		if !kept[texts[i].MessageID] {
			if r.writes(texts[i].Fence) {
				h.verify(ctx, r, texts[i].Fence)
			}
			continue
		}
		r.noteSaved(texts[i])
		if r.isWatched(now) {
			watched = append(watched, texts[i].MessageID)
		}
	}
	if len(watched) > 0 {
		h.tell(ctx, noticeSaved, watched...)
	}
}

// verify finds out why a reply's text was refused: it was saved before, by a
// statement whose answer got lost; or the reply was deleted, or taken over.
func (h *Hub) verify(ctx context.Context, r *reply, fence int) {
	p, err := h.db.ReplyProgress(ctx, r.start.MessageID, math.MaxInt64)
	switch {
	case errors.Is(err, models.ErrNotFound):
		r.stopWriting(errDeleted)
	case err != nil:
		h.log.Warn("a reply's state cannot be read, trying again", "message_id", r.start.MessageID, "err", err)
	case p.Running != nil && p.Running.Owner == h.config.Replica && p.Running.Fence == fence:
		r.mu.Lock()
		r.saved = min(p.Running.SavedBytes, int64(len(r.text)))
		r.mu.Unlock()
	default:
		h.lose(r)
	}
}

// unsaved returns the text that the database lacks, if the reply is due.
func (r *reply) unsaved(now time.Time, least urgency, age time.Duration) (models.ReplyText, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := dueAtAge
	switch {
	case r.savedAt.IsZero():
		is = dueFirst
	case r.saved < wellBegun, now.Before(r.watched):
		is, age = dueSoon, 0
	}
	if is > least {
		return models.ReplyText{}, false
	}
	if r.finished || r.fence == 0 || int64(len(r.text)) == r.saved || now.Sub(r.savedAt) < age {
		return models.ReplyText{}, false
	}
	r.savedAt = now
	return models.ReplyText{
		MessageID: r.start.MessageID,
		Fence:     r.fence,
		Start:     r.saved,
		Text:      string(r.text[r.saved:]),
	}, true
}

// noteSaved remembers that the database has t.
func (r *reply) noteSaved(t models.ReplyText) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fence == t.Fence && r.saved == t.Start {
		r.saved += int64(len(t.Text))
	}
}
