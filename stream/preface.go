package stream

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"
)

// A Failure is what an error event says of an error.
type Failure struct {
	Message   string `json:"message"` // for a person
	Code      string `json:"code"`    // a stable word
	Retryable bool   `json:"retryable"`
	UploadID  int64  `json:"upload_id,omitempty"` // of a recording that can be completed once more
}

// errAway means that the stream of a preface has ended before it.
var errAway = errors.New("stream: the client is not there any more")

// A preface is a stream on which no reply is sent yet. Besides the request's
// goroutine, it has one that sends asides.
type preface struct {
	viewer Viewer
	cancel context.CancelCauseFunc // of what is done before the reply

	mu sync.Mutex
	asides
	past  bool          // what is done before the reply is done
	due   chan struct{} // there are asides
	begun bool          // an event was sent: of the request's goroutine

	sending sync.Mutex // guards all below
	conn    *conn
	over    bool // the stream has ended
}

// ServeAfter answers with an event stream on which before is done first, in the
// request's goroutine: tell sends an event, and comments go out meanwhile. From the
// beginning of the reply that before names on, it goes on as Serve does. An error
// is told as describe says, and ends the stream.
//
// The request's body must have been read. The ctx of before ends when the client
// leaves, or is sent elsewhere since this replica is ending; what is to be done all
// the same must not depend on it.
//
// The errors come before the first byte: ErrTooManyStreams. ServeAfter returns as
// Serve does.
func (h *Hub) ServeAfter(w http.ResponseWriter, r *http.Request, viewer Viewer,
	before func(ctx context.Context, tell func(event string, data any) error) (messageID int64, err error),
	describe func(error) Failure,
) error {
	if err := h.audience.admit(viewer.UserID, h.config.MaxStreams); err != nil {
		return err
	}
	c, gone, err := open(w, r, h.config.Stall)
	if err != nil {
		h.audience.dismiss(viewer.UserID)
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	p := &preface{viewer: viewer, cancel: cancel, due: make(chan struct{}, 1), conn: c, asides: asides{beat: time.Now()}}
	h.audience.add(p)
	defer h.audience.remove(p)
	defer h.contain(c, func() {})
	h.catchUp(p)

	id, err := p.play(ctx, before)
	var f *follower
	if err == nil {
		f, err = h.follow(ctx, viewer, id, r)
	}
	if p.over { // alone with it from here on
		if f != nil {
			h.release(f.reply)
		}
		return nil
	}
	if err != nil {
		p.send(appendPlain(p.room(), "error", describe(err)), true) //nolint:errcheck // then it is not there any more
		return nil
	}
	defer h.release(f.reply)
	f.conn, f.gone = c, gone
	if err := h.audience.admit(viewer.UserID, 0); err != nil { // beside p, for a moment
		return err
	}
	h.attach(f)
	h.catchUp(f)
	stay(r.Context(), gone, f.leave)
	return nil
}

// play does what comes before the reply.
func (p *preface) play(ctx context.Context, before func(context.Context, func(string, any) error) (int64, error)) (int64, error) {
	unwatch := p.conn.watch(func() { p.cancel(errAway) })
	attended, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(attended)
		p.attend(stop)
	}()
	defer func() {
		close(stop)
		<-attended
		unwatch()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.past = true
	}()
	id, err := before(ctx, func(event string, data any) error {
		b := p.room()
		if !p.begun {
			p.begun, b = true, append(b, retryStart...)
		}
		return p.send(appendPlain(b, event, data), false)
	})
	if cause := context.Cause(ctx); errors.Is(cause, errAway) {
		p.end()
	}
	return id, err
}

// attend sends asides until stop is closed.
func (p *preface) attend(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-p.due:
		}
		p.mu.Lock()
		also := p.asides
		p.pulse = false
		p.mu.Unlock()
		b := p.room()
		switch {
		case also.cut:
			b = append(b, signedOut...)
		case also.moved > 0:
			b = appendRetry(b, also.moved)
		default:
			b = append(b, comment...)
		}
		last := also.cut || also.moved > 0
		if err := p.send(b, last); err != nil || last {
			p.cancel(errAway)
		}
	}
}

// room is an empty buffer for send.
func (p *preface) room() []byte { return make([]byte, chunkRoom, 256) }

// send writes b, of which the first chunkRoom bytes are free for its use. errAway
// when nobody reads it.
func (p *preface) send(b []byte, last bool) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	if p.over {
		return errAway
	}
	if err := p.conn.write(p.conn.frame(b, last)); err != nil {
		p.over = true
		p.conn.abort()
		return errAway
	}
	if last {
		p.over = true
		p.conn.end()
	}
	return nil
}

// end ends the stream of a client who has left.
func (p *preface) end() {
	p.sending.Lock()
	defer p.sending.Unlock()
	if !p.over {
		p.over = true
		p.conn.abort()
	}
}

func (p *preface) whose() Viewer { return p.viewer }

func (p *preface) note(change func(*asides) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if change(&p.asides) {
		signal(p.due)
	}
}

func (p *preface) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.past {
		return // the connection has another stream, or has ended
	}
	p.cancel(errAway)
	p.conn.abort()
}

// watch calls gone when the client leaves a connection that was taken over, until
// the function that it returns is called. Of others, the request knows.
func (c *conn) watch(gone func()) (stop func()) {
	if c.own == nil {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rest := make([]byte, 512)
		for {
			// What a client sends behind its request is nothing that was asked for.
			if _, err := c.own.Read(rest); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					gone()
				}
				return
			}
		}
	}()
	return func() {
		c.own.SetReadDeadline(time.Now()) //nolint:errcheck // then it is broken, and the read has ended
		<-done
		c.own.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
	}
}
