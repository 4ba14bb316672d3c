package stream

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"parley/models"
)

// Why a call to the backend is ended from this side.
var (
	errStopped  = errors.New("stream: the user stopped the reply")
	errDeleted  = errors.New("stream: the chat was deleted")
	errLost     = errors.New("stream: another replica took the reply over")
	errReleased = errors.New("stream: let go of, for another replica to take")
	errTooLong  = errors.New("stream: the answer is longer than a reply may be")
	errDiffers  = errors.New("stream: the backend does not repeat what it said")
)

// takenText is what a replica finds of a reply that it takes over.
type takenText struct {
	text  string // as saved
	clean bool   // the last owner saved all that it had sent
	stop  bool   // the user wants it stopped
}

// A claim makes a replica the writer of a reply.
type claim struct {
	start   startInfo
	fence   int
	attempt int
	shared  int64
	message string     // of the user, that is answered
	from    *takenText // nil: the reply begins
}

// write makes this replica the writer of a reply. Where somebody follows it here
// already, since it was stored before this is called, that is what is written.
func (h *Hub) write(cl claim) {
	ctx, cancel := context.WithCancelCause(context.Background())
	id, text := cl.start.MessageID, ""
	if cl.from != nil {
		text = cl.from.text
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.replies[id]
	if r == nil {
		r = newReply(cl.start, cl.attempt, "")
		h.replies[id] = r
	}
	r.mu.Lock()
	r.attempt, r.shared, r.text = cl.attempt, cl.shared, []byte(text)
	r.fence, r.cancel, r.finished = cl.fence, cancel, false
	r.saved = int64(len(text))
	r.savedAt = time.Time{} // the first text is saved soon
	r.wakeAll()
	r.mu.Unlock()
	switch {
	case h.closed:
		cancel(errReleased)
	case cl.from != nil && cl.from.stop:
		cancel(errStopped)
	}
	h.writers.Add(1)
	go func() {
		var history []models.Turn
		err := h.persist(ctx, r, func(ctx context.Context) (err error) {
			history, err = h.db.History(ctx, r.start.ChatID, r.start.UserMessageID, h.config.ContextBytes, h.config.ContextMessages)
			return err
		})
		prompt := Prompt{
			UserID:    r.start.userID,
			ChatID:    r.start.ChatID,
			MessageID: r.start.MessageID,
			Message:   cl.message,
			History:   turns(history),
			Model:     h.config.Model,
		}
		// A goroutine of its own waits for the tokens, for minutes: this one has
		// the stack that a query needs.
		go func() {
			defer h.writers.Add(-1)
			defer cancel(nil)
			h.generate(ctx, r, cl.fence, prompt, cl.from, err)
		}()
	}()
}

// generate has the reply written and stores how it ended: by err, if that is
// not nil.
func (h *Hub) generate(ctx context.Context, r *reply, fence int, prompt Prompt, from *takenText, err error) {
	e := ending{status: "complete", finishReason: "stop"}
	if err == nil {
		c := composition{hub: h, reply: r, fence: fence, prompt: prompt, ending: &e}
		err = c.compose(ctx, from)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	var failed *BackendError
	switch {
	case err == nil:
	case errors.Is(err, errTooLong):
		e.finishReason = "length"
	case errors.Is(err, errLost), errors.Is(err, errReleased):
		return // the text goes on elsewhere
	case errors.Is(err, errStopped):
		e.status, e.finishReason = "stopped", "stopped"
	case errors.Is(err, errDeleted):
		e = ending{status: "failed", code: codeChatDeleted}
	case errors.As(err, &failed):
		e = ending{status: "failed", code: failed.Code}
		h.log.Warn("the AI backend failed", "message_id", r.start.MessageID, "code", failed.Code, "err", failed.Err)
	default:
		e = ending{status: "failed", code: codeInternal}
		h.log.Error("a reply failed", "message_id", r.start.MessageID, "err", err)
	}
	h.conclude(r, fence, e)
}

// compose asks the backend for the answer and appends it to the log.
//
// A reply that is taken over goes on from the saved text. Its readers may have
// been sent more than that, unless the last owner let go of it in order. So
// the backend is first asked to go on from a little before the end: if it
// repeats what is saved there, it is taken to repeat also what was sent and
// not saved, and nobody notices. If it says something else, readers with more
// than the saved text begin anew, and the others go on.
func (c *composition) compose(ctx context.Context, from *takenText) error {
	if from == nil {
		return c.ask(ctx, "", "")
	}
	if from.clean {
		return c.ask(ctx, from.text, "")
	}
	known := probeStart(from.text)
	if known > 0 {
		err := c.ask(ctx, from.text[:known], from.text[known:])
		if !errors.Is(err, errDiffers) {
			return err
		}
	}
	if err := c.restart(ctx, from.text); err != nil {
		return err
	}
	return c.ask(ctx, from.text, "")
}

// probeSize is how much of the saved text a backend is asked to repeat, in
// bytes: half of it at the most.
const probeSize = 64

// probeStart returns where a backend is asked to go on from so that it repeats
// the end of text: a rune's first byte.
func probeStart(text string) int {
	at := len(text) - min(probeSize, len(text)/2)
	for at > 0 && at < len(text) && !utf8.RuneStart(text[at]) {
		at--
	}
	return at
}

func turns(history []models.Turn) []Turn {
	ts := make([]Turn, len(history))
	for i, t := range history {
		ts[i] = Turn(t)
	}
	return ts
}

// A composition is one reply being written.
type composition struct {
	hub    *Hub
	reply  *reply
	fence  int // of this owner
	prompt Prompt
	ending *ending
}

// ask calls the backend once. What it says, from behind expected, is appended
// to the log; errDiffers when it does not begin with expected.
func (c *composition) ask(ctx context.Context, continueFrom, expected string) error {
	p := c.prompt
	p.ContinueFrom = continueFrom
	first := true
	err := c.hub.backend.Reply(ctx, p, func(chunk Chunk) error {
		if first && continueFrom != "" && !chunk.Continued {
			if err := c.restart(ctx, ""); err != nil {
				return err
			}
			expected = ""
		}
		first = false
		if err := c.hub.sureOfItself(ctx); err != nil {
			return err
		}
		text := chunk.Text
		if n := min(len(text), len(expected)); n > 0 {
			if text[:n] != expected[:n] {
				return errDiffers
			}
			text, expected = text[n:], expected[n:]
		}
		if chunk.Done {
			if chunk.FinishReason != "" {
				c.ending.finishReason = chunk.FinishReason
			}
			c.ending.usage = chunk.Usage
		}
		return c.reply.append(c.fence, text, c.hub.config.MaxReplyBytes)
	})
	if err == nil && expected != "" {
		return errDiffers
	}
	return err
}

// restart begins another attempt that shares text with what was sent before.
// It is stored before anybody is sent its ids, so that no two attempts have
// one number.
func (c *composition) restart(ctx context.Context, text string) error {
	r := c.reply
	r.mu.Lock()
	restart := models.Restart{
		MessageID:   r.start.MessageID,
		Fence:       c.fence,
		Attempt:     r.attempt + 1,
		SharedBytes: min(r.shared, int64(len(text))),
		Text:        text,
	}
	if r.attempt == 1 {
		restart.SharedBytes = int64(len(text))
	}
	r.mu.Unlock()
	err := c.hub.persist(ctx, r, func(ctx context.Context) error {
		return c.hub.db.RestartReply(ctx, restart)
	})
	if err != nil {
		return err
	}
	return r.replace(c.fence, restart.Attempt, restart.SharedBytes, text)
}

// conclude stores how the reply ended, and then tells its followers.
func (h *Hub) conclude(r *reply, fence int, e ending) {
	r.mu.Lock()
	r.finished = true
	end := models.ReplyEnd{
		MessageID:    r.start.MessageID,
		Fence:        fence,
		Content:      string(r.text),
		Status:       e.status,
		FinishReason: e.finishReason,
		ErrorCode:    e.code,
	}
	r.mu.Unlock()
	if e.usage != nil {
		end.InputTokens, end.OutputTokens = &e.usage.InputTokens, &e.usage.OutputTokens
	}
	err := h.persist(context.Background(), r, func(ctx context.Context) error {
		return h.db.FinishReply(ctx, end)
	})
	switch {
	case err == nil:
		r.finish(e)
		if r.isWatched(time.Now()) {
			h.tell(context.Background(), noticeSaved, r.start.MessageID)
		}
	case !errors.Is(err, errDeleted):
		return
	case !h.endedBefore(r):
		r.finish(ending{status: "failed", code: codeChatDeleted})
	}
	h.drop(r)
}

// endedBefore tells a reply whose end was stored by a transaction whose answer
// got lost from one that is gone, and ends it as it was stored.
func (h *Hub) endedBefore(r *reply) bool {
	ctx, cancel := context.WithTimeout(context.Background(), storing)
	defer cancel()
	p, err := h.db.ReplyProgress(ctx, r.start.MessageID, 0)
	if err != nil || p.Running != nil {
		return false
	}
	h.lose(r)
	r.mirror(p, 0)
	return true
}

// persist does with the database what a reply needs to go on, again and again
// while the database is away. errDeleted, errLost and errReleased mean that this
// replica has nothing more to write.
func (h *Hub) persist(ctx context.Context, r *reply, do func(context.Context) error) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		limited, cancel := context.WithTimeout(ctx, storing)
		err := do(limited)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, models.ErrNotFound):
			return errDeleted
		case errors.Is(err, models.ErrStaleOwner):
			h.lose(r)
			return errLost
		}
		h.log.Warn("a reply waits for the database", "message_id", r.start.MessageID, "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.closing:
			return errReleased
		case <-time.After(wait):
		}
	}
}

// lose makes a reply one that is written elsewhere, or was.
func (h *Hub) lose(r *reply) {
	r.stopWriting(errLost)
	r.mu.Lock()
	r.fence, r.cancel, r.finished = 0, nil, false
	// What was not saved is not the reply's text. Readers who were sent it wait
	// for what the new owner says.
	r.text = r.text[:r.saved:r.saved]
	r.mu.Unlock()
}
