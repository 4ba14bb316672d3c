package stream

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"parley/metrics"
)

// lingering is how long an ended connection stays half open, so that what a
// client sent meanwhile does not reset it before it has read the end.
const lingering = 500 * time.Millisecond

// sendBuffer bounds what the system keeps for a client that does not read, in
// bytes. By itself it grows to megabytes.
const sendBuffer = 128 << 10

// chunkRoom is kept free in front of a buffer for the length of its chunk.
const chunkRoom = 10

// A conn is the way to one client: over HTTP/1.1 a connection that was taken
// over from net/http, so that a stream costs neither its goroutine nor its
// buffers; otherwise (HTTP/2) one that net/http keeps. Its methods are called
// by one goroutine at a time, but for abort.
type conn struct {
	w        http.ResponseWriter // of a connection that net/http keeps
	own      net.Conn            // the one that was taken over
	socket   net.Conn            // what is below own: itself, but for TLS
	raw      syscall.RawConn     // to write to own without waiting; nil where that cannot be
	stall    time.Duration       // how long one write may take
	deadline time.Time           // of the write that is under way, or was last
	metrics  *metrics.Replies    // set before the first write
	head     []byte              // not sent yet
	chunked  bool
}

// open answers r with the head of an event stream and returns the way to the
// client. The head leaves with the first write. Where gone is not nil the
// handler must stay until the stream closes it. A write that takes longer than
// stall fails.
func open(w http.ResponseWriter, r *http.Request, stall time.Duration) (c *conn, gone chan struct{}, err error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	own, _, err := http.NewResponseController(w).Hijack()
	if errors.Is(err, http.ErrNotSupported) {
		if r.ProtoMajor == 1 {
			h.Set("Connection", "close") // its deadlines are those of the stream
		}
		w.WriteHeader(http.StatusOK)
		return &conn{w: w, stall: stall}, make(chan struct{}), nil
	}
	if err == nil {
		if err = own.SetDeadline(time.Time{}); err != nil {
			own.Close() //nolint:errcheck // it is broken already
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("stream: take over the connection: %w", err)
	}
	c = &conn{own: own, socket: own, stall: stall, chunked: r.ProtoAtLeast(1, 1)}
	c.head = responseHead(h, c.chunked)
	if secured, ok := own.(interface{ NetConn() net.Conn }); ok {
		c.socket = secured.NetConn()
	}
	if b, ok := c.socket.(interface{ SetWriteBuffer(bytes int) error }); ok {
		b.SetWriteBuffer(sendBuffer) //nolint:errcheck // then it is as large as the system likes
	}
	if sc, ok := own.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn() // none: then without
	}
	return c, nil, nil
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

// frame makes p, of which the first chunkRoom bytes are free for its use, what
// goes over the wire. It may share p's memory.
func (c *conn) frame(p []byte, last bool) []byte {
	if c.chunked {
		p = frameChunk(p, last)
	} else {
		p = p[chunkRoom:]
	}
	if c.head != nil {
		p = append(c.head, p...)
		c.head = nil
	}
	return p
}

// frameChunk makes p one chunk of RFC 9112, section 7.1, with the last chunk
// behind it where the body ends.
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

// write sends what frame returned whole, or fails when it takes too long.
func (c *conn) write(p []byte) error {
	if c.own == nil {
		rc := http.NewResponseController(c.w)
		// A writer that knows no deadlines (a recorder) never makes one wait. Over
		// HTTP/2 one that is left standing would end the stream between two writes.
		c.deadline = time.Now().Add(c.stall)
		rc.SetWriteDeadline(c.deadline)        //nolint:errcheck // see above
		defer rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // see above
		if _, err := c.w.Write(p); err != nil {
			return fmt.Errorf("stream: write: %w", err)
		}
		if err := rc.Flush(); err != nil {
			return fmt.Errorf("stream: flush: %w", err)
		}
		return nil
	}
	if err := c.keepDeadline(); err != nil {
		return err
	}
	if _, err := c.own.Write(p); err != nil {
		return fmt.Errorf("stream: write: %w", err)
	}
	return nil
}

// try sends as much of what frame returned as the system takes at once, where
// there is a raw to do it with, and returns how much that was.
func (c *conn) try(p []byte) (int, error) {
	// Nothing waits here, but the system refuses a write past the deadline.
	if err := c.keepDeadline(); err != nil {
		return 0, err
	}
	return writeDirectly(c.raw, p)
}

// note counts a client that does not read, if that is why a write failed: a stream
// that is ended from this side fails before its deadline.
func (c *conn) note(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(c.deadline) {
		c.metrics.Stuck()
	}
}

// keepDeadline sees to it that a write has time enough. Moving the deadline
// costs more than looking at it: it is moved when a fifth of it has gone.
func (c *conn) keepDeadline() error {
	now := time.Now()
	if c.deadline.Sub(now) >= c.stall*4/5 {
		return nil
	}
	c.deadline = now.Add(c.stall)
	if err := c.own.SetWriteDeadline(c.deadline); err != nil {
		return fmt.Errorf("stream: set the deadline: %w", err)
	}
	return nil
}

// end closes the stream after the last write, in such a way that the client
// gets all that was written. What net/http keeps it ends itself, when the handler
// returns.
func (c *conn) end() {
	if c.own == nil {
		return
	}
	half, ok := c.own.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		c.abort()
		return
	}
	time.AfterFunc(lingering, c.abort)
}

// abort ends the stream at once; a write under way fails. It never waits, as
// TLS would to say goodbye.
func (c *conn) abort() {
	if c.own != nil {
		c.socket.Close() //nolint:errcheck // nothing is left to do
		return
	}
	http.NewResponseController(c.w).SetWriteDeadline(time.Now()) //nolint:errcheck // as in write; the connection is net/http's to close
}
