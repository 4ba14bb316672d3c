package stream

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"parley/models"
)

// ErrDraining means that this replica is about to end and takes no new reply.
var ErrDraining = errors.New("stream: this replica is ending")

// Config adjusts a Hub. A zero field means the default in brackets.
type Config struct {
	Replica         string        // names this process among the replicas; required, unique
	ContextBytes    int64         // how much history goes to the backend [0: all]
	ContextMessages int64         // likewise, in messages [0: all]
	Model           string        // asked of the backend ["": its choice]
	MaxReplyBytes   int           // a longer answer is cut off [1 MiB]
	FlushEvery      time.Duration // how often new text is looked for, to save it [250ms]
	SaveEvery       time.Duration // how often one reply is saved at the most [1s]
	PollEvery       time.Duration // how often the database is asked what happened elsewhere [1s]
	Lease           time.Duration // a replica silent for so long has lost its replies [3s]
	Heartbeat       time.Duration // between two comments to one client [10s]
}

func (c *Config) setDefaults() {
	if c.MaxReplyBytes == 0 {
		c.MaxReplyBytes = 1 << 20
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.FlushEvery, 250 * time.Millisecond},
		{&c.SaveEvery, time.Second},
		{&c.PollEvery, time.Second},
		{&c.Lease, 3 * time.Second},
		{&c.Heartbeat, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

// A Hub holds the replies that this replica writes or follows. Its methods may
// be called from many goroutines; Run must be running for all of it to work.
type Hub struct {
	db      *models.DB
	backend Backend
	config  Config
	log     *slog.Logger

	draining atomic.Bool
	streams  atomic.Int64 // open ones
	writers  atomic.Int64 // replies being written here, and turns being stored
	saving   sync.Mutex   // one statement at a time: the next begins where it ended

	mu      sync.Mutex // before any reply's
	replies map[int64]*reply
	closed  bool          // the replies that run have been let go of
	closing chan struct{} // closed with it

	renewed, renewedSince time.Time // keepLease's
}

// NewHub returns a Hub that keeps its replies in db and has them written by
// backend.
func NewHub(db *models.DB, backend Backend, config Config, log *slog.Logger) *Hub {
	config.setDefaults()
	return &Hub{db: db, backend: backend, config: config, log: log, replies: make(map[int64]*reply), closing: make(chan struct{})}
}

// storing is how long a write may take that must not be cut short by a client
// that leaves: nobody could tell whether it was done.
const storing = 10 * time.Second

// Send stores the turn and starts the reply, which from then on depends on no
// request. A turn that was sent before under the same key is not sent again.
func (h *Hub) Send(ctx context.Context, turn models.NewTurn) (models.Exchange, error) {
	h.writers.Add(1)
	defer h.writers.Add(-1)
	if h.Draining() {
		return models.Exchange{}, ErrDraining
	}
	turn.Owner = h.config.Replica
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storing)
	defer cancel()
	ex, err := h.db.AppendTurn(ctx, turn)
	if err != nil || ex.Replayed {
		return ex, err
	}
	r := newReply(startInfo{
		ChatID:        ex.Chat.ID,
		UserMessageID: ex.User.ID,
		MessageID:     ex.Reply.ID,
		Title:         ex.Chat.Title,
		userID:        turn.UserID,
	}, ex.Reply.Attempt, "")
	h.write(r, 1, ex.User.Content, nil)
	return ex, nil
}

// Forget ends the reply of a message that is deleted.
func (h *Hub) Forget(messageID int64) {
	if r := h.lookup(messageID); r != nil {
		r.stopWriting(errDeleted)
	}
}

// Draining reports whether the replica has been told to end.
func (h *Hub) Draining() bool { return h.draining.Load() }

// lookup returns the reply that this replica writes or follows, or nil.
func (h *Hub) lookup(messageID int64) *reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.replies[messageID]
}

// all returns the replies that this replica writes, or those that it follows.
func (h *Hub) all(written bool) []*reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	rs := make([]*reply, 0, len(h.replies))
	for _, r := range h.replies {
		if r.written() == written {
			rs = append(rs, r)
		}
	}
	return rs
}

// drop forgets a reply, if it is still the one known by its id.
func (h *Hub) drop(r *reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.replies[r.start.MessageID] == r {
		delete(h.replies, r.start.MessageID)
	}
}

// find returns a reply to read, held until release.
func (h *Hub) find(ctx context.Context, userID, messageID int64) (*reply, error) {
	if r, err := h.hold(userID, messageID, nil); r != nil || err != nil {
		return r, err
	}
	p, err := h.db.ReplyProgress(ctx, messageID, 0)
	if err != nil {
		return nil, err
	}
	if p.UserID != userID {
		return nil, models.ErrForbidden
	}
	r := newReply(startInfo{
		ChatID:        p.Message.ChatID,
		UserMessageID: p.UserMessageID,
		MessageID:     messageID,
		Title:         p.Title,
		userID:        userID,
	}, 0, "")
	r.mirror(p, 0)
	if r.end != nil {
		r.awaiting++
		return r, nil
	}
	return h.hold(userID, messageID, r)
}

// hold takes hold of a known reply, or of fresh in its place.
func (h *Hub) hold(userID, messageID int64, fresh *reply) (*reply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.replies[messageID]
	if r == nil {
		if fresh == nil {
			return nil, nil
		}
		r = fresh
		h.replies[messageID] = r
	}
	if r.start.userID != userID {
		return nil, models.ErrForbidden
	}
	r.mu.Lock()
	r.awaiting++
	r.mu.Unlock()
	return r, nil
}

// release lets go of a reply that find returned. What nobody reads and this
// replica does not write is forgotten by the next poll.
func (h *Hub) release(r *reply) {
	r.mu.Lock()
	r.awaiting--
	r.mu.Unlock()
}

// Run saves what is written, follows what is written elsewhere, keeps this
// replica's lease, takes over what dead replicas left, and sends heartbeats,
// until ctx ends.
func (h *Hub) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, l := range []struct {
		every time.Duration
		do    func(context.Context)
	}{
		{h.config.FlushEvery, h.save},
		{h.config.PollEvery, h.poll},
		{h.config.PollEvery, h.keepLease},
		{h.config.Heartbeat / 4, func(context.Context) { h.beat(time.Now()) }},
	} {
		loops.Go(func() { every(ctx, l.every, l.do) })
	}
	loops.Wait()
}

// every calls do at once and then at that interval, until ctx ends.
func every(ctx context.Context, interval time.Duration, do func(context.Context)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// beat has a comment sent to every client that was not sent one for a while.
func (h *Hub) beat(now time.Time) {
	for _, r := range append(h.all(true), h.all(false)...) {
		r.mu.Lock()
		for f := range r.followers {
			if now.Sub(f.beat) >= h.config.Heartbeat {
				f.pulse, f.beat = true, now
				f.wake()
			}
		}
		r.mu.Unlock()
	}
}

// spread returns a reconnection time in milliseconds, so that the clients of
// an ending replica do not all come back at once.
func spread() int { return 1 + rand.IntN(2000) }
