package stream

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley/models"
)

// A follower is one client of a reply's stream. It is a cursor and a
// connection; a goroutine (run) only while there is something to send. Its
// fields below gone are guarded by reply.mu.
type follower struct {
	cursor

	hub    *Hub
	viewer Viewer
	conn   *conn
	gone   chan struct{} // closed at the end; nil where nobody waits for it

	asides
	running bool  // somebody writes: run, or sendNow
	left    bool  // the stream has ended, or is about to
	told    int32 // bytes that were sent of an event too large for one write: of whoever runs it
}

// buffers are shared by the streams that are sending.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, chunkRoom, 1024)
	return &b
}}

// maxKeptBuffer is the largest buffer in bytes that is kept for the next one.
const maxKeptBuffer = 64 << 10

// A source is what a stream is filled from.
type source interface {
	// fill appends to b what there is to send; last when the stream ends with it.
	// ok is false when that is nothing, and whoever wakes the source next must
	// see to it that it is sent.
	fill(b []byte) (_ []byte, last, ok bool)
}

// pump writes what there is to send, until there is nothing, the last of it was
// written, or a write fails, which aborts the connection. rest, already framed,
// goes first. It reports whether the stream has ended.
func pump(c *conn, s source, rest []byte, last bool) (ended bool) {
	buf := buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put
	defer buffers.Put(buf)
	for {
		if len(rest) > 0 {
			if err := c.write(rest); err != nil {
				c.note(err)
				c.abort()
				return true
			}
		}
		if last {
			c.end()
			return true
		}
		var b []byte
		var ok bool
		if b, last, ok = s.fill((*buf)[:chunkRoom]); !ok {
			return last
		}
		if cap(b) <= maxKeptBuffer {
			*buf = b
		}
		rest = c.frame(b, last)
	}
}

// run sends all that is ready, in as few writes as there are, and returns when
// the client has caught up or the stream has ended. rest and last are what was
// begun.
func (f *follower) run(rest []byte, last bool) {
	defer f.hub.contain(f.conn, f.end)
	if pump(f.conn, f, rest, last) {
		f.end()
	}
}

// end takes the follower out of its reply: its stream has ended. Whoever writes
// calls it, and nobody does after that.
func (f *follower) end() {
	f.reply.mu.Lock()
	defer f.reply.mu.Unlock()
	f.left = true
	at := slices.Index(f.reply.followers, f)
	f.reply.followers = slices.Delete(f.reply.followers, at, at+1)
	f.hub.audience.remove(f)
	if f.gone != nil {
		close(f.gone)
	}
}

// sendNow sends what is ready as run does, as far as that needs no waiting for
// the client: a goroutine is started only for one that does not keep up.
func (f *follower) sendNow() {
	defer f.hub.contain(f.conn, f.end)
	buf := buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put
	defer buffers.Put(buf)
	for {
		b, last, ok := f.fill((*buf)[:chunkRoom])
		if !ok && last {
			f.end()
		}
		if !ok {
			return
		}
		if cap(b) <= maxKeptBuffer {
			*buf = b
		}
		p := f.conn.frame(b, last)
		n, err := f.conn.try(p)
		if err != nil {
			f.conn.abort()
			f.end()
			return
		}
		if n < len(p) || last {
			go f.run(bytes.Clone(p[n:]), last)
			return
		}
	}
}

// fill appends what there is to send. Where that is nothing the follower rests.
func (f *follower) fill(b []byte) (_ []byte, last, ok bool) {
	s, also, left, ok := f.due()
	switch {
	case !ok:
		return b, left, false
	case also.cut:
		return append(b, signedOut...), true, true
	case also.pulse && f.told == 0: // not in the middle of an event
		b = append(b, comment...)
	}
	b = s.append(b, f.reply.start.MessageID)
	if s.voice != nil {
		b, last = f.appendVoice(b, s)
	} else if s.end != nil {
		b, last = f.appendEnding(b, s)
	}
	if last || f.told > 0 {
		return b, last, true
	}
	if also.moved > 0 {
		return appendRetry(b, also.moved), true, true
	}
	return b, false, true
}

// due takes what there is to send. Where that is nothing the follower has left,
// or rests.
func (f *follower) due() (s step, also asides, left, ok bool) {
	f.reply.mu.Lock()
	defer f.reply.mu.Unlock()
	if f.cut && f.told > 0 {
		// In the middle of an event no other one can be told.
		f.left = true
		f.conn.abort()
	}
	if f.left {
		return step{}, asides{}, true, false
	}
	some := false
	if !f.cut {
		s, some = f.next()
	}
	also = f.asides
	f.pulse = false
	f.running = some || also.any()
	return s, also, false, f.running
}

// appendEnding appends the next piece of the ending, which holds the whole text:
// all followers share one, so that those who are slow cost no copy of it. They do
// not share its id where the reply is spoken, and each is at another piece.
func (f *follower) appendEnding(b []byte, s step) (_ []byte, done bool) {
	f.reply.mu.Lock()
	if f.reply.ending == nil {
		f.reply.ending = appendEnding(nil, s.at, f.reply.start.MessageID, s.whole, *s.end)
		if s.voice != nil {
			event, rest, _ := bytes.Cut(f.reply.ending, []byte("\nid: "))
			f.reply.ending = append(event, rest[bytes.IndexByte(rest, '\n'):]...)
		}
	}
	ending := f.reply.ending
	f.reply.mu.Unlock()
	if s.voice != nil && f.told == 0 {
		event := ending[:bytes.IndexByte(ending, '\n')]
		b = s.at.append(append(append(b, event...), "\nid: "...))
		f.told = int32(len(event))
	}
	to := min(len(ending), int(f.told)+maxEventText)
	b = append(b, ending[f.told:to]...)
	f.told = int32(to)
	return b, to == len(ending)
}

// append appends the step's events to b, but for the ending.
func (s *step) append(b []byte, messageID int64) []byte {
	if s.start != nil {
		b = append(b, retryStart...)
		if s.voice != nil {
			b = s.voice.appendGreeting(b)
		}
		b = appendStart(b, eventID{attempt: s.at.attempt}, s.start)
	}
	if s.reset {
		b = appendReset(b, eventID{attempt: s.at.attempt}, messageID, s.at.attempt)
	}
	if len(s.text) > 0 {
		b = appendToken(b, s.at, 0, s.text)
	}
	return b
}

// wake sets the follower going. reply.mu is held.
func (f *follower) wake() {
	if f.running || f.left {
		return
	}
	f.running = true
	go f.run(nil, false)
}

// leave ends the stream from outside, if it has not ended; gone is closed when
// that is done.
func (f *follower) leave() {
	f.reply.mu.Lock()
	defer f.reply.mu.Unlock()
	if f.left {
		return
	}
	f.wake() // to end
	f.left = true
	f.conn.abort()
}

func (f *follower) whose() Viewer { return f.viewer }

func (f *follower) note(change func(*asides) bool) {
	f.reply.mu.Lock()
	defer f.reply.mu.Unlock()
	if change(&f.asides) {
		f.wake()
	}
}

// Serve answers with the events of a reply, from behind the event with id
// lastID, or from the start where that is empty. It returns before the stream
// has ended where the connection allows it.
//
// The errors come before the first byte: ErrInvalidEventID, ErrTooManyStreams,
// and those of models for a reply that is not the viewer's to read. A finished
// reply of which nothing is missing is answered with 204.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, viewer Viewer, messageID int64, lastID string) error {
	f, err := h.follow(r.Context(), viewer, messageID, r)
	if err != nil {
		return err
	}
	defer h.release(f.reply)
	if lastID != "" {
		id, err := parseEventID(lastID)
		if err != nil {
			return err
		}
		through, err := h.resume(r.Context(), &f.cursor, id)
		if err != nil {
			return err
		}
		if through {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		f.pulse = true // there may be nothing to send for a while: open the stream
	}
	if err := h.audience.admit(viewer.UserID, h.config.MaxStreams); err != nil {
		return err
	}
	if f.conn, f.gone, err = open(w, r, h.config.Stall); err != nil {
		h.audience.dismiss(viewer.UserID)
		return err
	}
	h.attach(f)
	h.catchUp(f)
	stay(r.Context(), f.gone, f.leave)
	return nil
}

// resume puts a cursor behind an event, as cursor.resume does. Before an id is
// refused the database is asked. Who writes a reply knows how much of it there is,
// unless another replica has taken it over and that has not been noticed yet. And
// what a replica has sent that then died may be more than the whole of the reply.
func (h *Hub) resume(ctx context.Context, c *cursor, id eventID) (through bool, err error) {
	r := c.reply
	fence := r.writer()
	through, refused := c.resume(id, h.config.MaxReplyBytes, false)
	if refused == nil {
		return through, nil
	}
	if fence > 0 {
		p, err := h.db.ReplyProgress(ctx, r.start.MessageID, math.MaxInt64)
		switch {
		case err != nil:
			return false, err
		case p.Running != nil && p.Running.Owner == h.config.Replica && p.Running.Fence == fence:
			return false, refused
		case p.Running != nil, r.writes(fence): // not one whose end has just been stored here
			h.lose(r)
		}
	}
	taken := false
	if r.ended() {
		if taken, err = h.db.WasTakenOver(ctx, r.start.MessageID); err != nil {
			return false, err
		}
	}
	return c.resume(id, h.config.MaxReplyBytes, taken)
}

// follow returns a follower of a reply, which is held, for the client of r. It is
// at the beginning, and has no connection yet.
func (h *Hub) follow(ctx context.Context, viewer Viewer, messageID int64, r *http.Request) (*follower, error) {
	reply, err := h.find(ctx, viewer.UserID, messageID)
	if err != nil {
		return nil, err
	}
	f := &follower{cursor: cursor{reply: reply}, hub: h, viewer: viewer, asides: asides{beat: time.Now()}}
	reply.mu.Lock()
	spoken := reply.spoken
	heard := spoken != nil && spoken.state != models.SpeechExpired
	reply.mu.Unlock()
	if heard {
		f.heard = &hearing{whole: r.URL.Query().Get("audio") != "chunks"}
	}
	return f, nil
}

// stay keeps a handler until its stream is gone, where the stream needs it to.
func stay(ctx context.Context, gone <-chan struct{}, leave func()) {
	if gone == nil {
		return
	}
	select {
	case <-gone:
	case <-ctx.Done():
		leave()
		<-gone
	}
}

// attach adds f, which was admitted, to its reply's readers and sets it going.
func (h *Hub) attach(f *follower) {
	f.reply.mu.Lock()
	defer f.reply.mu.Unlock()
	f.conn.metrics = h.config.Metrics
	h.config.Metrics.Opened(false, f.begun)
	f.reply.followers = append(f.reply.followers, f)
	h.audience.add(f)
	f.wake()
}

// Await waits for the end of a reply and returns the message as saved.
// ErrDraining means that this replica ends before the reply does.
func (h *Hub) Await(ctx context.Context, userID, messageID int64) (models.Message, error) {
	reply, err := h.find(ctx, userID, messageID)
	if err != nil {
		return models.Message{}, err
	}
	defer h.release(reply)
	select {
	case <-reply.done:
	case <-ctx.Done():
		return models.Message{}, ctx.Err()
	}
	if !reply.ended() {
		return models.Message{}, ErrDraining
	}
	return h.db.Message(ctx, userID, messageID)
}
