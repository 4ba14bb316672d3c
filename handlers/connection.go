package handlers

import (
	"context"
	"net/http"
	"time"
)

type withoutPlaceKey struct{}

// WithoutPlace marks the context of a connection that is one too many: the
// health checks are answered on it, all else is told to try again.
func WithoutPlace(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutPlaceKey{}, true)
}

func hasPlace(ctx context.Context) bool { return ctx.Value(withoutPlaceKey{}) == nil }

const (
	// writeTimeout is how long a client may take to read one piece of an answer: one
	// that does not read is let go. Before the first piece net/http reads what no
	// handler has read of the body, which has a time of its own.
	writeTimeout = bodyTimeout + 5*time.Second
	// pieceBytes is how long such a piece is: whoever reads at all reads it in time.
	pieceBytes = 64 << 10
)

// Write sends p, in pieces that each have their time.
func (a *answer) Write(p []byte) (n int, err error) {
	if a.status == 0 {
		a.status, a.at = http.StatusOK, time.Now()
	}
	for {
		piece := p[n:min(len(p), n+pieceBytes)]
		written := 0
		err = a.inTime(func() (err error) {
			written, err = a.ResponseWriter.Write(piece)
			return err
		})
		n += written
		if err != nil || n == len(p) {
			return n, err
		}
	}
}

// FlushError is for http.ResponseController.
func (a *answer) FlushError() error {
	return a.inTime(http.NewResponseController(a.ResponseWriter).Flush)
}

// SetWriteDeadline is for http.ResponseController: a handler that calls it, as
// streams and exports do, keeps the deadlines of its writes itself.
func (a *answer) SetWriteDeadline(t time.Time) error {
	a.ownDeadlines.Store(true)
	return http.NewResponseController(a.ResponseWriter).SetWriteDeadline(t)
}

// inTime writes, with a deadline for that alone: over HTTP/2 one that is left
// standing would end an answer that pauses.
func (a *answer) inTime(write func() error) error {
	if a.ownDeadlines.Load() {
		return write()
	}
	a.setDeadline(time.Now().Add(writeTimeout))
	defer a.setDeadline(time.Time{})
	return write()
}

// end sets the deadline of what net/http has still to send; it takes it away when
// that is done.
func (a *answer) end() {
	if !a.hijacked {
		a.setDeadline(time.Now().Add(writeTimeout))
	}
}

func (a *answer) setDeadline(t time.Time) {
	// What is no connection (a recorder in a test) has none.
	http.NewResponseController(a.ResponseWriter).SetWriteDeadline(t) //nolint:errcheck // see above
}
