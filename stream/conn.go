package stream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A conn is the way to one client. Its methods are called by one goroutine at
// a time, but for abort.
type conn interface {
	// write sends p, of which the first chunkRoom bytes are free for its use,
	// whole, or fails within stallLimit. After the last p the stream is closed
	// in such a way that the client gets all that was written.
	write(p []byte, last bool) error
	// abort closes the connection at once; a write under way fails.
	abort()
}

// stallLimit is how long one write may take: a client that reads nothing for
// so long is let go.
const stallLimit = 25 * time.Second

// lingering is how long an ended connection stays half open, so that what a
// client sent meanwhile does not reset it before it has read the end.
const lingering = 500 * time.Millisecond

// chunkRoom is kept free in front of a buffer for the length of its chunk.
const chunkRoom = 10

// open answers r with the head of an event stream and returns the way to the
// client. The head leaves with the first write.
//
// Over HTTP/1.1 the connection is taken over from net/http, so that a stream
// costs neither its goroutine nor its buffers, and the handler may return.
// Where that cannot be done (HTTP/2) gone is not nil: the handler must stay
// until the stream closes it.
func open(w http.ResponseWriter, r *http.Request) (c conn, gone chan struct{}, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	nc, _, err := rc.Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		w.WriteHeader(http.StatusOK)
		return &sharedConn{w: w, rc: rc}, make(chan struct{}), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("stream: take over the connection: %w", err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		nc.Close() //nolint:errcheck // it is broken already
		return nil, nil, fmt.Errorf("stream: take over the connection: %w", err)
	}
	o := &ownedConn{conn: nc, chunked: r.ProtoAtLeast(1, 1)}
	o.head = responseHead(h, o.chunked)
	return o, nil, nil
}

// responseHead is the status line and the fields of h.
func responseHead(h http.Header, chunked bool) []byte {
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Del("Content-Length")
	if chunked {
		h.Set("Transfer-Encoding", "chunked")
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	h.Write(&b) //nolint:errcheck // a bytes.Buffer takes all
	b.WriteString("\r\n")
	return b.Bytes()
}

// An ownedConn is a connection taken over from net/http.
type ownedConn struct {
	conn     net.Conn
	head     []byte
	chunked  bool
	deadline time.Time
}

func (c *ownedConn) write(p []byte, last bool) error {
	// Moving the deadline costs more than looking at it: it is moved when a
	// fifth of it has gone.
	if now := time.Now(); c.deadline.Sub(now) < stallLimit*4/5 {
		c.deadline = now.Add(stallLimit)
		if err := c.conn.SetWriteDeadline(c.deadline); err != nil {
			return fmt.Errorf("stream: set the deadline: %w", err)
		}
	}
	if c.chunked {
		p = frameChunk(p, last)
	} else {
		p = p[chunkRoom:]
	}
	if c.head != nil {
		p = append(c.head, p...)
		c.head = nil
	}
	if _, err := c.conn.Write(p); err != nil {
		return fmt.Errorf("stream: write: %w", err)
	}
	if last {
		c.linger()
	}
	return nil
}

// frameChunk makes p, which begins with chunkRoom free bytes, one chunk of RFC
// 9112, section 7.1, with the last chunk behind it where the body ends.
func frameChunk(p []byte, last bool) []byte {
	n, at := len(p)-chunkRoom, chunkRoom-2
	p[at], p[at+1] = '\r', '\n'
	for ; n > 0; n >>= 4 {
		at--
		p[at] = hexDigits[n&0xf]
	}
	p = append(p[at:], "\r\n"...)
	if last {
		p = append(p, "0\r\n\r\n"...)
	}
	return p
}

// linger closes the connection for writing, and whole after a while.
func (c *ownedConn) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		c.abort()
		return
	}
	time.AfterFunc(lingering, c.abort)
}

func (c *ownedConn) abort() { c.conn.Close() } //nolint:errcheck // nothing is left to do

// A sharedConn is a stream of a connection that net/http keeps.
type sharedConn struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (c *sharedConn) write(p []byte, _ bool) error {
	// A writer that knows no deadlines (a recorder) never makes one wait.
	c.rc.SetWriteDeadline(time.Now().Add(stallLimit)) //nolint:errcheck // see above
	if _, err := c.w.Write(p[chunkRoom:]); err != nil {
		return fmt.Errorf("stream: write: %w", err)
	}
	if err := c.rc.Flush(); err != nil {
		return fmt.Errorf("stream: flush: %w", err)
	}
	return nil
}

// abort makes a write under way fail; the connection is net/http's to close.
func (c *sharedConn) abort() {
	c.rc.SetWriteDeadline(time.Now()) //nolint:errcheck // as in write
}
