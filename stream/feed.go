package stream

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley/models"
)

// A feed is one client of all that happens to a user: what was stored (chats,
// messages, deletions), read from the database, and the replies that run,
// each followed with a cursor. Like a follower it has a goroutine only while
// there is something to send.
type feed struct {
	hub    *Hub
	viewer Viewer
	encode Encode
	conn   *conn
	gone   chan struct{} // closed at the end; nil where nobody waits for it

	mu      sync.Mutex // after any reply's
	running bool       // run is under way, or the feed is yet to be opened
	woken   bool       // something happened since it looked
	news    bool       // something may have been stored since it looked
	left    bool       // the stream has ended, or is about to
	asides
	seen int64 // at.seq, for others to read

	// Of whoever runs it.
	at     feedID
	tracks []*track
	known  map[int64]bool // replies that were followed before their event was read
	opened bool           // the first event was sent
	resync bool           // the client has missed what is not kept any more
}

// Encode says what an event of the user's is called and what its data is; ok is
// false for one that there is nothing to say about any more.
type Encode func(e models.UserEvent) (name string, data any, ok bool)

// A track is a reply that a feed follows.
type track struct {
	cursor
	done bool
}

// maxTracks bounds the replies that one feed follows at once. Further ones wait
// for their turn.
const maxTracks = 32

// ServeEvents answers with all that happens to a user from now on, or from
// behind the event with id lastID, if that is kept still; otherwise it says so
// with a resync event. It returns as Serve does.
func (h *Hub) ServeEvents(w http.ResponseWriter, r *http.Request, viewer Viewer, lastID string, encode Encode) error {
	if err := h.audience.admit(viewer.UserID, h.config.MaxStreams); err != nil {
		return err
	}
	f := &feed{
		hub: h, viewer: viewer, encode: encode, asides: asides{beat: time.Now()},
		woken: true, news: true, known: make(map[int64]bool),
		running: true, // from the end of this on: the replies that begin follows wake it before it has a connection
	}
	err := f.begin(r.Context(), lastID)
	if err == nil {
		f.conn, f.gone, err = open(w, r, h.config.Stall)
	}
	if err != nil {
		f.unfollow(true)
		h.audience.dismiss(viewer.UserID)
		return err
	}
	f.conn.metrics = h.config.Metrics
	h.config.Metrics.Opened(true, lastID != "")
	h.feeds.add(f)
	h.audience.add(f)
	h.catchUp(f)
	go f.run()
	stay(r.Context(), f.gone, f.leave)
	return nil
}

// begin puts the feed where the client stands.
func (f *feed) begin(ctx context.Context, lastID string) error {
	oldest, latest, err := f.hub.db.EventBounds(ctx, f.viewer.UserID)
	if err != nil {
		return err
	}
	if lastID != "" {
		at, err := parseFeedID(lastID)
		if err != nil {
			return err
		}
		if at.seq > latest {
			return ErrInvalidEventID
		}
		if at.seq >= oldest-1 {
			f.at.seq, f.opened = at.seq, true
			f.pulse = true // there may be nothing to send for a while: open the stream
			return f.resume(ctx, at.places)
		}
		f.resync = true
	}
	f.at.seq = latest
	running, err := f.hub.db.RunningReplies(ctx, f.viewer.UserID)
	if err != nil {
		return err
	}
	followed := min(len(running), maxTracks)
	for _, id := range running[:followed] {
		f.known[id] = true
		if err := f.follow(ctx, place{messageID: id}); err != nil {
			return err
		}
	}
	return f.standBefore(ctx, running[followed:])
}

// resume follows the replies that the client has a part of.
func (f *feed) resume(ctx context.Context, places []place) error {
	for _, p := range places {
		f.known[p.messageID] = true
		if err := f.follow(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// follow adds a reply to those that are followed, from that place on. One that
// is gone is passed over: its deletion is an event too.
func (f *feed) follow(ctx context.Context, from place) error {
	r, err := f.hub.find(ctx, f.viewer.UserID, from.messageID)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	t := &track{cursor: cursor{reply: r}}
	if from.id != (eventID{}) {
		// One that was taken over may have ended short of what was sent of it. That is
		// no reason to refuse the feed: it is told of a reset.
		if _, err := t.resume(from.id, f.hub.config.MaxReplyBytes, false); err != nil {
			t.begun, t.attempt, t.at = true, from.id.attempt, from.id.offset
		}
	}
	f.tracks = append(f.tracks, t)
	r.mu.Lock()
	if r.feeds == nil {
		r.feeds = make(map[*feed]struct{})
	}
	r.feeds[f] = struct{}{}
	r.mu.Unlock()
	return nil
}

// unfollow lets go of the replies that are done, or of all.
func (f *feed) unfollow(all bool) {
	f.tracks = slices.DeleteFunc(f.tracks, func(t *track) bool {
		if !t.done && !all {
			return false
		}
		t.reply.mu.Lock()
		delete(t.reply.feeds, f)
		t.reply.mu.Unlock()
		f.hub.release(t.reply)
		return true
	})
}

// wake sets the feed going; news says that something may have been stored.
func (f *feed) wake(news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.woken = true
	f.news = f.news || news
	f.start()
}

// start has the feed run, if it does not. f.mu is held.
func (f *feed) start() {
	if !f.running && !f.left {
		f.running = true
		go f.run()
	}
}

func (f *feed) run() {
	defer f.hub.contain(f.conn, f.end)
	if pump(f.conn, f, nil, false) {
		f.end()
	}
}

// end takes the feed out of everything: its stream has ended. Run calls it, which
// is not started again.
func (f *feed) end() {
	f.mu.Lock()
	f.left = true
	f.mu.Unlock()
	f.unfollow(true)
	f.hub.feeds.remove(f)
	f.hub.audience.remove(f)
	if f.gone != nil {
		close(f.gone)
	}
}

func (f *feed) whose() Viewer { return f.viewer }

func (f *feed) note(change func(*asides) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if change(&f.asides) {
		f.start()
	}
}

// leave ends the stream from outside, if it has not ended; gone is closed when
// that is done.
func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left {
		return
	}
	f.start() // to end
	f.left = true
	f.conn.abort()
}

// fill appends what there is to send. Where that is nothing the feed rests.
func (f *feed) fill(b []byte) (_ []byte, last, ok bool) {
	empty := len(b)
	for {
		f.mu.Lock()
		woken, news, also := f.woken, f.news, f.asides
		if f.left || !woken && !also.any() {
			left := f.left
			f.running = left
			f.mu.Unlock()
			return b, left, false
		}
		f.woken, f.news, f.pulse = false, false, false
		f.mu.Unlock()

		if also.cut {
			return append(b, signedOut...), true, true
		}
		if also.pulse {
			b = append(b, comment...)
		}
		b = f.appendOpening(b)
		if news {
			b = f.appendStored(b)
		}
		b = f.appendReplies(b)
		if also.moved > 0 {
			return appendRetry(b, also.moved), true, true
		}
		if len(b) > empty {
			return b, false, true
		}
	}
}

// appendOpening appends the first event: the client has an id from then on.
func (f *feed) appendOpening(b []byte) []byte {
	if f.opened {
		return b
	}
	f.opened = true
	name := "ready"
	if f.resync {
		name = "resync"
	}
	b = append(b, retryStart...)
	return appendEvent(b, name, f.place(nil, eventID{}), struct{}{})
}

// maxStored is how many stored events are read at once.
const maxStored = 100

// appendStored appends what was stored, and follows the replies that began.
func (f *feed) appendStored(b []byte) []byte {
	ctx, cancel := context.WithTimeout(context.Background(), storing)
	defer cancel()
	events, err := f.hub.db.UserEvents(ctx, f.viewer.UserID, f.at.seq, maxStored)
	if err != nil {
		f.hub.log.Warn("a user's events cannot be read, trying again", "user_id", f.viewer.UserID, "err", err)
		return b
	}
	for _, e := range events {
		if e.Kind == models.EventReply && !f.known[e.MessageID] {
			if len(f.tracks) >= maxTracks {
				return b // its turn comes when another one is done
			}
			if err := f.follow(ctx, place{messageID: e.MessageID}); err != nil {
				f.hub.log.Warn("a reply cannot be followed, trying again", "message_id", e.MessageID, "err", err)
				return b
			}
		}
		f.stand(e.Seq)
		switch e.Kind {
		case models.EventReply:
			continue
		case models.EventChatDeleted, models.EventMessagesDeleted:
			f.drop(e.ChatID, e.MessageID)
		}
		if name, data, ok := f.encode(e); ok {
			b = appendEvent(b, name, f.place(nil, eventID{}), data)
		}
	}
	if len(events) == maxStored {
		f.mu.Lock()
		f.woken, f.news = true, true
		f.mu.Unlock()
	}
	return b
}

// drop lets go of the replies in a chat that came after a message: the client is
// about to be told that they are gone. Those that were begun since then come with
// events of their own, and are told from their start.
func (f *feed) drop(chatID, after int64) {
	for _, t := range f.tracks {
		if start := &t.reply.start; start.ChatID == chatID && start.MessageID > after {
			t.done = true
			delete(f.known, start.MessageID)
		}
	}
	f.unfollow(false)
}

// stand notes that the stored events up to seq were sent.
func (f *feed) stand(seq int64) {
	f.at.seq = seq
	f.mu.Lock()
	f.seen = seq
	f.mu.Unlock()
}

// appendReplies appends what there is of the replies that are followed.
func (f *feed) appendReplies(b []byte) []byte {
	done := false
	for _, t := range f.tracks {
		for {
			s, some := t.read()
			if !some {
				break
			}
			t.done = s.end != nil
			b = f.appendStep(b, t, s)
			if done = done || t.done; t.done {
				break
			}
		}
	}
	if done {
		f.unfollow(false)
		f.mu.Lock()
		f.woken, f.news = true, true // those who waited for their turn
		f.mu.Unlock()
	}
	return b
}

// appendStep appends what is new of one reply.
func (f *feed) appendStep(b []byte, t *track, s step) []byte {
	id := t.reply.start.MessageID
	// Each event's id says how far the client is with it, and not further.
	at := f.place(t, eventID{attempt: s.at.attempt})
	if s.start != nil {
		b = appendStart(b, at, s.start)
	}
	if s.reset {
		b = appendReset(b, at, id, s.at.attempt)
	}
	at = f.place(t, s.at)
	if len(s.text) > 0 {
		b = appendToken(b, at, id, s.text)
	}
	if s.end != nil {
		b = appendEnding(b, f.place(nil, s.at), id, s.whole, *s.end)
	}
	return b
}
