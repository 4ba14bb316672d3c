package stream

import (
	"context"
	"errors"
	"runtime"
	"time"

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
	opens   bool       // the chat: nothing was said before
	from    *takenText // nil: the reply begins
	spoken  *spoken    // nil: it is text alone

	speechFence int64 // of the owner who has it spoken, where that is to begin here

	under context.Context //nolint:containedctx // what the call to the backend is part of; nil: nothing
}

// A composition is one reply being written. The backend is asked while the reply
// is still being stored; what it says waits until that is done.
type composition struct {
	claim

	hub    *Hub
	ctx    context.Context //nolint:containedctx // its end is the end of this very value
	cancel context.CancelCauseFunc
	prompt Prompt
	ending ending

	settled chan struct{} // closed when the reply is stored, or will not be
	reply   *reply        // set before that; nil: it was not stored
	placed  bool          // likewise: it has a place among those that run

	first    bool   // no chunk has come yet
	heard    bool   // one has, at some time
	expected string // what the backend has yet to repeat

	sent  int64         // what the backend was asked with, in bytes
	given int           // how much of the text was there before, in bytes
	extra *models.Usage // what a call has cost that led nowhere

	began time.Time // when the backend was asked
	spoke time.Time // when it last sent text; began before that
}

// begin asks the backend for a reply that is about to be stored. write or
// abandon must follow.
func (h *Hub) begin(cl claim) *composition {
	c := &composition{
		claim: cl, hub: h,
		prompt: Prompt{
			UserID:    cl.start.userID,
			ChatID:    cl.start.ChatID,
			MessageID: cl.start.MessageID,
			Message:   cl.message,
			Model:     h.config.Model,
		},
		ending:  ending{status: "complete", finishReason: "stop"},
		settled: make(chan struct{}),
		began:   time.Now(),
	}
	c.spoke = c.began
	if cl.from != nil {
		c.given = len(cl.from.text)
	}
	if c.under == nil {
		c.under = context.Background()
	}
	c.ctx, c.cancel = context.WithCancelCause(c.under)
	h.mu.Lock()
	h.begun[cl.start.MessageID] = c
	h.mu.Unlock()
	h.writers.Add(1)
	defer h.yield()
	if cl.opens {
		go c.run(nil)
		return c
	}
	go func() {
		err := h.persist(c.ctx, cl.start.MessageID, func(ctx context.Context) error {
			history, err := h.db.History(ctx, cl.start.ChatID, cl.start.UserMessageID, h.config.ContextBytes, h.config.ContextMessages)
			c.prompt.History = turns(history)
			return err
		})
		// A goroutine of its own waits for the tokens, for minutes: this one has
		// the stack that a query needs.
		go c.run(err)
	}()
	return c
}

// yield lets whoever asks the backend go first, and then what sends that on its way:
// what is left of the transaction takes longer, and begin's caller would keep the
// processor for it. A process that is short of time does not, since others wait
// for the transaction.
func (h *Hub) yield() {
	if time.Duration(h.late.Load()) < time.Millisecond {
		runtime.Gosched()
		runtime.Gosched()
	}
}

// abandon ends a composition whose reply was not stored.
func (c *composition) abandon() {
	c.cancel(errReleased)
	c.hub.mu.Lock()
	c.settle()
	c.hub.mu.Unlock()
}

// settle says that it is known whether the reply is stored. Where that was taken
// back, its id may be another one's by then. Hub.mu is held.
func (c *composition) settle() {
	if id := c.start.MessageID; c.hub.begun[id] == c {
		delete(c.hub.begun, id)
	}
	close(c.settled)
}

// write makes this replica the writer of a reply that is stored. Where somebody
// follows it here already, since it was stored before this is called, that is
// what is written.
func (h *Hub) write(c *composition) {
	id, text := c.start.MessageID, ""
	if c.from != nil {
		text = c.from.text
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.replies[id]
	if r == nil {
		r = newReply(c.start, c.attempt, "")
		h.replies[id] = r
	}
	r.mu.Lock()
	if r.spoken == nil {
		r.spoken = c.spoken
	} else if r.attempt != c.attempt {
		r.spoken.keep(c.shared)
	}
	r.attempt, r.shared, r.text = c.attempt, c.shared, []byte(text)
	r.fence, r.cancel, r.finished = c.fence, c.cancel, false
	r.saved = int64(len(text))
	r.savedAt = time.Time{} // the first text is saved soon
	r.wakeAll()
	r.mu.Unlock()
	if c.speechFence != 0 {
		h.speak(r, c.speechFence, true)
	}
	switch {
	case h.closed:
		c.cancel(errReleased)
	case c.from != nil && c.from.stop:
		c.cancel(errStopped)
	}
	c.reply = r
	c.settle()
}

// run has the reply written and stores how it ended: by err, if that is not nil.
// It is what waits for minutes, thousands of times: its frame is kept small.
func (c *composition) run(err error) {
	defer c.hub.writers.Add(-1)
	if err == nil {
		err = c.compose()
	}
	if <-c.settled; c.reply != nil {
		c.close(err)
	}
	c.cancel(nil)
	if c.placed {
		c.hub.leave()
	}
}

// close stores how the reply ended: by err, if that is not nil.
func (c *composition) close(err error) {
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause
	}
	e, log := c.ending, c.hub.log
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
		c.hub.config.Metrics.BackendFailed(failed.Code)
		log.Warn("the AI backend failed", "message_id", c.start.MessageID, "code", failed.Code, "err", failed.Err)
	default:
		e = ending{status: "failed", code: codeInternal}
		log.Error("a reply failed", "message_id", c.start.MessageID, "err", err)
	}
	c.conclude(e)
}

// conclude stores how the reply ended, and then tells its followers.
func (c *composition) conclude(e ending) {
	h, r := c.hub, c.reply
	r.mu.Lock()
	r.finished = true
	text := string(r.text)
	r.mu.Unlock()
	e.usage = c.used(e.status, len(text))
	end := models.ReplyEnd{
		MessageID:    r.start.MessageID,
		Fence:        c.fence,
		Content:      text,
		Status:       e.status,
		FinishReason: e.finishReason,
		ErrorCode:    e.code,
		Usage:        e.usage,
	}
	err := h.persist(context.Background(), end.MessageID, func(ctx context.Context) error {
		return h.db.FinishReply(ctx, end)
	})
	switch {
	case err == nil:
		r.finish(e)
		h.config.Metrics.Ended(e.status, time.Since(c.began), e.usage.InputTokens, e.usage.OutputTokens)
		if r.isWatched(time.Now()) {
			h.tell(context.Background(), noticeSaved, r.start.MessageID)
		}
		if e.status == models.StatusComplete {
			h.entitle(c.start, c.message, text)
		}
	case errors.Is(err, errLost):
		h.lose(r)
		return
	case !errors.Is(err, errDeleted):
		return
	case !h.endedBefore(r):
		r.finish(ending{status: "failed", code: codeChatDeleted})
	}
	if r.isThrough() {
		h.drop(r)
	}
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
// while the database is away, of which one line is logged. errDeleted, errLost and
// errReleased mean that this replica has nothing more to write.
func (h *Hub) persist(ctx context.Context, messageID int64, do func(context.Context) error) error {
	const first = 50 * time.Millisecond
	for wait := first; ; wait = min(2*wait, time.Second) {
		limited, cancel := context.WithTimeout(ctx, storing)
		err := do(limited)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, models.ErrNotFound):
			return errDeleted
		case errors.Is(err, models.ErrStaleOwner):
			return errLost
		}
		if ctx.Err() == nil {
			h.config.Metrics.Flushed(0, 0, err)
		}
		if wait == first { // there may be thousands
			h.log.Warn("a reply waits for the database", "message_id", messageID, "err", err)
		}
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
