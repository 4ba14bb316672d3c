package stream

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"parley/models"
)

// ErrDraining means that this replica is about to end and takes no new reply.
var ErrDraining = errors.New("stream: this replica is ending")

// A Hub holds the replies that this replica writes or follows. Its methods may
// be called from many goroutines; Run must be running for all of it to work.
type Hub struct {
	db      *models.DB
	backend Backend
	config  Config
	log     *slog.Logger

	draining atomic.Bool
	late     atomic.Int64  // how late this process's timers are, as a mean over about a second, in nanoseconds
	waits    atomic.Int64  // how long what could go on waits for a processor, in nanoseconds
	began    time.Time     // when this process did
	felt     atomic.Int64  // when it last ran in time, in nanoseconds from began; without Run always
	pauses   atomic.Int64  // how often it was paused for long
	survived atomic.Int64  // of these, those after which it was seen what it still owns
	writers  atomic.Int64  // replies being written here, and turns that wait or are being stored
	queued   atomic.Int64  // requests that wait for a place
	places   chan struct{} // as full as there are replies that were begun here; nil: no limit
	speakers atomic.Int64  // replies that are spoken here
	voices   chan struct{} // as full as there are sentences of replies being spoken
	speaking chan struct{} // likewise, texts by Speak
	saving   sync.Mutex    // one statement at a time: the next begins where it ended
	failing  atomic.Bool   // the last of them did
	firsts   chan struct{} // a reply has its first text
	flushes  int           // save's

	mu      sync.Mutex // before any reply's
	replies map[int64]*reply
	begun   map[int64]*composition // of replies that are being stored
	ended   map[int64]*reply       // that are read still
	reads   singleflight.Group     // of replies from the database
	closed  bool                   // the replies that run have been let go of
	closing chan struct{}          // closed with it

	stale chan struct{} // there is something to read of a reply that is written elsewhere
	free  chan struct{} // another replica let go of replies

	audience  audience
	feeds     feeds
	feedsKept time.Time // pollFeeds': when the users were last said to be followed
	titles    *titles

	renewed, renewedSince time.Time // keepLease's
	inspected             time.Time // likewise: when all replies were looked at
}

// NewHub returns a Hub that keeps its replies in db and has them written by
// backend.
func NewHub(db *models.DB, backend Backend, config Config, log *slog.Logger) *Hub {
	config.setDefaults()
	h := &Hub{
		db: db, backend: backend, config: config, log: log,
		replies: make(map[int64]*reply),
		begun:   make(map[int64]*composition),
		ended:   make(map[int64]*reply),
		closing: make(chan struct{}),
		firsts:  make(chan struct{}, 1),
		stale:   make(chan struct{}, 1),
		free:    make(chan struct{}, 1),
		began:   time.Now(),
		audience: audience{
			streams: make(map[openStream]struct{}),
			of:      make(map[int64]int64),
		},
		feeds:  feeds{of: make(map[int64]map[*feed]struct{})},
		titles: newTitles(),
	}
	h.felt.Store(math.MaxInt64)
	h.voices, h.speaking = make(chan struct{}, config.MaxSpoken), make(chan struct{}, config.MaxSpoken)
	if config.MaxReplies > 0 {
		h.places = make(chan struct{}, config.MaxReplies)
	}
	return h
}

// storing is how long a write may take that must not be cut short by a client
// that leaves: nobody could tell whether it was done.
const storing = 10 * time.Second

// Send stores the turn and starts the reply, which from then on depends on no
// request. A turn that was sent before under the same key is not sent again.
func (h *Hub) Send(ctx context.Context, turn models.NewTurn) (models.Exchange, error) {
	turn.Owner, turn.Budget = h.config.Replica, h.config.budget()
	if turn.Voice != nil && h.config.Synthesizer == nil {
		return models.Exchange{}, ErrVoiceUnavailable
	}
	return h.answer(ctx, turn.UserID, turn.Key, turn.Voice, func(ctx context.Context, stored func(models.Exchange)) (models.Exchange, error) {
		turn.Stored = stored
		return h.db.AppendTurn(ctx, turn)
	})
}

// Regenerate starts another reply in the place of the last one, as Send does.
func (h *Hub) Regenerate(ctx context.Context, w models.Rewrite) (models.Exchange, error) {
	return h.rewrite(ctx, w, h.db.Regenerate)
}

// Edit changes a message of the user and starts the reply to it, as Send does.
func (h *Hub) Edit(ctx context.Context, w models.Rewrite) (models.Exchange, error) {
	return h.rewrite(ctx, w, h.db.Edit)
}

func (h *Hub) rewrite(ctx context.Context, w models.Rewrite, do func(context.Context, models.Rewrite) (models.Exchange, error)) (models.Exchange, error) {
	w.Owner, w.Budget = h.config.Replica, h.config.budget()
	return h.answer(ctx, w.UserID, w.Key, nil, func(ctx context.Context, stored func(models.Exchange)) (models.Exchange, error) {
		w.Stored = stored
		return do(ctx, w)
	})
}

// answer starts the reply of the exchange that store stores under key, which is
// spoken if there is a voice. The commit runs beside the call to the backend.
func (h *Hub) answer(ctx context.Context, userID int64, key *models.IdempotencyKey, voice *models.Voice, store func(context.Context, func(models.Exchange)) (models.Exchange, error)) (models.Exchange, error) {
	h.writers.Add(1)
	defer h.writers.Add(-1)
	if refused := h.admit(ctx); refused != nil {
		// A reply that was begun before asks for no place here.
		ex, found, err := h.db.Repeated(ctx, userID, key)
		if !found && err == nil {
			err = refused
		}
		return ex, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storing)
	defer cancel()
	var begun *composition
	ex, err := store(ctx, func(ex models.Exchange) {
		if begun != nil { // it was taken back, and done over
			begun.abandon()
		}
		begun = h.begin(claim{
			start: startInfo{
				ChatID:        ex.Chat.ID,
				UserMessageID: ex.User.ID,
				MessageID:     ex.Reply.ID,
				Title:         ex.Chat.Title,
				userID:        userID,
			},
			fence: 1, attempt: ex.Reply.Attempt, message: ex.User.Content, opens: ex.Chat.MessageCount == 2,
			spoken: spokenBy(voice, ex), speechFence: ex.SpeechFence,
			under: h.carried(ctx),
		})
	})
	if err != nil || ex.Replayed {
		if begun != nil {
			begun.abandon()
		}
		h.leave()
		return ex, err
	}
	begun.placed = true
	h.write(begun)
	h.changedHere(userID)
	if ex.Followed {
		h.tell(ctx, noticeUser, userID)
	}
	return ex, nil
}

// Draining reports whether the replica has been told to end.
func (h *Hub) Draining() bool { return h.draining.Load() }

// lookup returns the reply that this replica writes or follows, or nil.
func (h *Hub) lookup(messageID int64) *reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.replies[messageID]
}

// writes reports whether this replica writes the reply as that owner, or is
// about to: before it is stored it is known here.
func (h *Hub) writes(messageID int64, fence int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begun[messageID] != nil {
		return true
	}
	r := h.replies[messageID]
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence == fence
}

// all returns the replies that are as is says: written here, or elsewhere.
func (h *Hub) all(is func(*reply) bool) []*reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	rs := make([]*reply, 0, len(h.replies))
	for _, r := range h.replies {
		if is(r) {
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
	// Many may come for one that has just ended, and each would hold all of its text
	// for a moment.
	read, err, shared := h.reads.Do(strconv.FormatInt(messageID, 10), func() (any, error) {
		return h.stored(context.WithoutCancel(ctx), messageID)
	})
	r, _ := read.(*reply)
	if err != nil && shared { // what was asked before this one came tells it nothing
		r, err = h.stored(ctx, messageID)
	}
	if errors.Is(err, models.ErrNotFound) {
		// What somebody said is no reply, and forbidden to all others.
		if _, why := h.db.Message(ctx, userID, messageID); why != nil {
			err = why
		}
	}
	if err != nil {
		return nil, err
	}
	if r.start.userID != userID {
		return nil, models.ErrForbidden
	}
	if r.isThrough() {
		return h.share(r), nil
	}
	r.mu.Lock()
	ended := r.end != nil
	r.mu.Unlock()
	if !ended {
		h.watch(ctx, messageID)
	}
	return h.hold(userID, messageID, r)
}

// stored returns a reply as the database has it.
func (h *Hub) stored(ctx context.Context, messageID int64) (*reply, error) {
	p, err := h.db.ReplyProgress(ctx, messageID, 0)
	if err != nil {
		return nil, err
	}
	r := newReply(startInfo{
		ChatID:        p.Message.ChatID,
		UserMessageID: p.UserMessageID,
		MessageID:     messageID,
		Title:         p.Title,
		userID:        p.UserID,
	}, 0, "")
	if r.spoken, err = h.recall(ctx, p); err != nil {
		return nil, err
	}
	r.mirror(p, 0)
	return r, nil
}

// share takes hold of a reply that has ended: of the one that others read, so
// that all have one copy of its text. That it exists was just read.
func (h *Hub) share(r *reply) *reply {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.ended[r.start.MessageID]; old != nil && old.attempt == r.attempt && len(old.text) == len(r.text) && old.sounds(r) {
		r = old
	} else {
		h.ended[r.start.MessageID] = r
	}
	r.mu.Lock()
	r.awaiting++
	r.mu.Unlock()
	return r
}

// forgetEnded forgets the ended replies that nobody reads any more.
func (h *Hub) forgetEnded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, r := range h.ended {
		r.mu.Lock()
		if r.abandoned() {
			delete(h.ended, id)
		}
		r.mu.Unlock()
	}
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
// until ctx ends. A panic in any of that ends the process: another replica does
// it all within seconds, while one that does a part of it would hold its replies
// and lose them.
func (h *Hub) Run(ctx context.Context) {
	var loops sync.WaitGroup
	for _, l := range []struct {
		every time.Duration
		do    func(context.Context)
	}{
		{h.config.FlushEvery, h.save},
		{h.config.PollEvery, h.pollFeeds},
		{h.config.Heartbeat / 4, func(context.Context) { h.beat(time.Now()) }},
	} {
		loops.Go(func() { every(ctx, l.every, nil, l.do) })
	}
	loops.Go(func() { every(ctx, h.config.PollEvery, h.free, h.keepLease) })
	loops.Go(func() { h.saveFirst(ctx) })
	loops.Go(func() { h.mirrorAll(ctx) })
	loops.Go(func() { h.listen(ctx) })
	loops.Go(func() { h.feelPressure(ctx) })
	loops.Wait()
}

// every calls do at once, at that interval, and when sooner has something,
// until ctx ends.
func every(ctx context.Context, interval time.Duration, sooner <-chan struct{}, do func(context.Context)) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-sooner:
		}
	}
}

// spread returns a reconnection time in milliseconds, so that the clients of
// an ending replica do not all come back at once.
func spread() int { return 1 + rand.IntN(2000) }
