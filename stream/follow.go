package stream

import (
	"context"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"parley/models"
)

// A follower is one client on its way through a reply's log. It is a cursor
// and a connection; a goroutine (run) only while there is something to send.
// Its fields below conn are guarded by reply.mu.
type follower struct {
	hub   *Hub
	reply *reply
	conn  conn
	gone  chan struct{} // closed at the end; nil where nobody waits for it

	attempt int   // of the text that the client has
	at      int64 // so many bytes of it
	begun   bool  // message_start was sent, or is not to be
	running bool  // run is under way
	left    bool  // the follower is through
	pulse   bool  // a comment is due
	moved   int   // send the client elsewhere: its reconnection time in ms; 0: no
	beat    time.Time
}

// maxEventText bounds the text of one event in bytes, for clients that bound
// a line and so that a reader who is far behind costs a small buffer.
const maxEventText = 16 << 10

// A step is what a follower is sent in one write.
type step struct {
	pulse   bool
	start   *startInfo // message_start, in front of all
	reset   bool
	attempt int
	at      int64  // the offset behind text
	text    []byte // what is new
	whole   []byte // all of it, where end is set
	end     *ending
	moved   int
}

// next takes what there is to send and moves the cursor. ok is false when
// there is nothing. reply.mu is held.
func (f *follower) next() (s step, ok bool) {
	r := f.reply
	s.pulse, f.pulse = f.pulse, false
	if !f.begun {
		f.begun, f.attempt, f.at = true, r.attempt, 0
		s.start = &r.start
	}
	if f.attempt > r.attempt && r.end == nil {
		return s, s.pulse // of an attempt that has not been read from the database yet
	}
	s.reset = f.align()
	s.text = f.take()
	s.attempt, s.at = f.attempt, f.at
	switch {
	case r.end != nil && f.at == int64(len(r.text)):
		s.end, s.whole = r.end, r.text
	case f.moved > 0:
		s.moved = f.moved
	}
	return s, s.pulse || s.start != nil || s.reset || len(s.text) > 0 || s.last()
}

// align puts the cursor into the log as it is. It reports whether the client
// has to forget its text, which is then not what the log begins with.
func (f *follower) align() (reset bool) {
	r := f.reply
	switch {
	case f.attempt != r.attempt:
		// What the client has may be the beginning of this attempt's text too.
		reset = f.attempt > r.attempt || f.at > r.shared
		f.attempt = r.attempt
	case r.end != nil:
		reset = f.at > int64(len(r.text)) // an id from elsewhere that no text ever reached
	}
	if reset {
		f.at = 0
	}
	return reset
}

// take moves the cursor over as much text as one event may hold.
func (f *follower) take() []byte {
	text := f.reply.text
	size := int64(len(text))
	if f.at >= size {
		return nil
	}
	from, to := f.at, min(size, f.at+maxEventText)
	for to < size && !utf8.RuneStart(text[to]) {
		to--
	}
	f.at = to
	return text[from:to:to]
}

// last reports whether the stream ends with this step.
func (s *step) last() bool { return s.end != nil || s.moved > 0 }

// append appends the step's events to b.
func (s *step) append(b []byte, messageID int64) []byte {
	if s.start != nil {
		b = append(b, retryStart...)
		b = appendEvent(b, "message_start", s.attempt, 0, s.start)
	}
	if s.reset {
		b = appendReset(b, messageID, s.attempt)
	}
	if len(s.text) > 0 {
		b = appendToken(b, s.attempt, s.at, s.text)
	}
	if s.pulse {
		b = append(b, comment...)
	}
	if s.end != nil {
		b = appendEnding(b, messageID, s.attempt, s.whole, *s.end)
	} else if s.moved > 0 {
		b = appendRetry(b, s.moved)
	}
	return b
}

// buffers are shared by the followers that are sending.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, chunkRoom, 1024)
	return &b
}}

// maxKeptBuffer is the largest buffer in bytes that is kept for the next one.
const maxKeptBuffer = 64 << 10

// run sends all that is ready, in as few writes as there are, and returns when
// the client has caught up or the stream has ended.
func (f *follower) run() {
	buf := buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put
	for {
		f.reply.mu.Lock()
		s, ok := f.next()
		if !ok || f.left {
			f.rest()
			f.reply.mu.Unlock()
			break
		}
		f.reply.mu.Unlock()

		b := s.append((*buf)[:chunkRoom], f.reply.start.MessageID)
		if cap(b) <= maxKeptBuffer {
			*buf = b
		}
		err := f.conn.write(b, s.last())
		if err != nil || s.last() {
			if err != nil {
				f.conn.abort()
			}
			f.reply.mu.Lock()
			f.left = true
			f.rest()
			f.reply.mu.Unlock()
			break
		}
	}
	buffers.Put(buf)
}

// wake sets the follower going. reply.mu is held.
func (f *follower) wake() {
	if f.running || f.left {
		return
	}
	f.running = true
	go f.run()
}

// rest says that nothing is written for the follower, and takes one that has
// left out of its reply. reply.mu is held.
func (f *follower) rest() {
	f.running = false
	if !f.left {
		return
	}
	if _, in := f.reply.followers[f]; !in {
		return
	}
	delete(f.reply.followers, f)
	f.hub.streams.Add(-1)
	if f.gone != nil {
		close(f.gone)
	}
}

// leave ends the stream from outside; gone is closed when that is done.
func (f *follower) leave() {
	f.reply.mu.Lock()
	f.left = true
	if !f.running {
		f.rest()
	}
	f.reply.mu.Unlock()
	f.conn.abort()
}

// Serve answers with the events of a reply, from behind the event with id
// lastID, or from the start where that is empty. It returns before the stream
// has ended where the connection allows it.
//
// The errors come before the first byte: ErrInvalidEventID, and those of
// models for a reply that is not the user's to read. A finished reply of which
// nothing is missing is answered with 204.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, userID, messageID int64, lastID string) error {
	reply, err := h.find(r.Context(), userID, messageID)
	if err != nil {
		return err
	}
	defer h.release(reply)

	f := &follower{hub: h, reply: reply, beat: time.Now()}
	if lastID != "" {
		through, err := f.resume(lastID)
		if err != nil {
			return err
		}
		if through {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		f.pulse = true // there may be nothing to send for a while: open the stream
	}
	c, owned, err := open(w, r)
	if err != nil {
		return err
	}
	f.conn = c
	if !owned {
		f.gone = make(chan struct{})
	}
	h.attach(f)
	if owned {
		return nil
	}
	select {
	case <-f.gone:
	case <-r.Context().Done():
		f.leave()
		<-f.gone
	}
	return nil
}

// attach adds f to its reply's readers and sets it going.
func (h *Hub) attach(f *follower) {
	h.streams.Add(1)
	f.reply.mu.Lock()
	defer f.reply.mu.Unlock()
	f.reply.followers[f] = struct{}{}
	if h.Draining() {
		f.moved = spread()
	}
	f.wake()
}

// resume puts the cursor behind the event with that id. through is true when
// nothing comes after it.
func (f *follower) resume(lastID string) (through bool, err error) {
	id, err := parseEventID(lastID)
	if err != nil {
		return false, err
	}
	r := f.reply
	r.mu.Lock()
	defer r.mu.Unlock()
	size := int64(len(r.text))
	// Elsewhere more may have been sent than is saved so far: such an id is
	// believed until the reply ends.
	behind := r.fence == 0 && r.end == nil && id.offset <= int64(f.hub.config.MaxReplyBytes)
	switch {
	case id.attempt > r.attempt && !behind:
		return false, ErrInvalidEventID
	case id.attempt == r.attempt && id.offset > size && !behind:
		return false, ErrInvalidEventID
	case id.attempt == r.attempt && id.offset < size && !utf8.RuneStart(r.text[id.offset]):
		return false, ErrInvalidEventID
	}
	f.begun, f.attempt, f.at = true, id.attempt, id.offset
	return r.end != nil && id.attempt == r.attempt && id.offset == size, nil
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
	reply.mu.Lock()
	ended := reply.end != nil
	reply.mu.Unlock()
	if !ended {
		return models.Message{}, ErrDraining
	}
	return h.db.Message(ctx, userID, messageID)
}
