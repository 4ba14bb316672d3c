//go:build linux

package survival_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Why a connection ended before the reply did. Any other error of connect is a
// broken promise.
var (
	errCut     = errors.New("the connection broke")
	errMoved   = errors.New("the replica ended the stream in order")
	errRefused = errors.New("the replica answered 503")
)

// A cut is when a connection is broken off by the client's side. The zero cut
// never is.
type cut struct {
	bytes int64         // so many of them were read
	after time.Duration // or so much time has passed
	reset bool          // without a word

	// The client reads nothing before this is closed, and its side of the
	// connection has little room; nil: it reads.
	stuck <-chan struct{}
}

// A reader is a client that sends one message and reads the reply to it. It is
// used by one goroutine at a time, but for have.
type reader struct {
	service *service
	order   order
	key     string // Idempotency-Key, "": none
	async   bool   // sends first and follows then
	want    string // what the text must be the beginning of, "": unknown

	sends     int   // how often the message was sent
	messageID int64 // 0: nobody has acknowledged the message
	lastID    string
	text      []byte
	resets    int
	ending    string // the name of the event that ended the reply, or "204"
	full      string // the full_text of that event
	retry     time.Duration
	have      atomic.Int64 // bytes of text
	progress  atomic.Int64 // when the last of them came, in ns
}

// newReader makes a reader that has not sent its message yet.
func (s *service) newReader(o order, key string, async bool) *reader {
	return &reader{service: s, order: o, key: key, async: async, want: o.script()}
}

// clone returns a client with the same past.
func (r *reader) clone() *reader {
	return &reader{
		service: r.service, order: r.order, key: r.key, async: r.async, want: r.want,
		messageID: r.messageID, lastID: r.lastID, text: slices.Clone(r.text), resets: r.resets, retry: r.retry,
	}
}

// follow reads on at whatever replica choose names, until the reply has ended.
func (r *reader) follow(ctx context.Context, choose func() *process) error {
	for {
		err := r.connect(ctx, choose(), cut{})
		pause := 20 * time.Millisecond
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errMoved):
			pause = r.retry
		case !errors.Is(err, errCut) && !errors.Is(err, errRefused):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("message %d has not ended after %d bytes, id %s: %w", r.messageID, len(r.text), r.lastID, err)
		case <-time.After(pause):
		}
	}
}

// connect sends the message, where nobody has acknowledged it, and reads the
// reply's events until it has ended, which is no error, or the connection has.
func (r *reader) connect(ctx context.Context, p *process, c cut) error {
	if r.messageID == 0 && r.async {
		if err := r.send(ctx, p); err != nil {
			return err
		}
	}
	if c.after > 0 {
		timed, cancel := context.WithTimeout(ctx, c.after)
		defer cancel()
		ctx = timed
	}
	var dialer net.Dialer
	if c.stuck != nil {
		dialer.Control = smallWindow
	}
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if tcp, ok := conn.(*net.TCPConn); ok && c.reset {
		_ = tcp.SetLinger(0)
	}
	return r.exchange(ctx, conn, c)
}

// smallWindow has the system keep little of what is not read, on both sides of
// a connection: as on a network, whose segments are small.
func smallWindow(_, _ string, raw syscall.RawConn) error {
	var window, segment error
	err := raw.Control(func(fd uintptr) {
		window = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		segment = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
	})
	return errors.Join(err, window, segment)
}

// exchange sends a request and reads the answer to it.
func (r *reader) exchange(ctx context.Context, conn net.Conn, c cut) error {
	req, err := r.request(ctx)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	if c.stuck != nil {
		select {
		case <-c.stuck:
		case <-ctx.Done():
		}
	}
	in := &io.LimitedReader{R: conn, N: 1 << 62}
	if c.bytes > 0 {
		in.N = c.bytes
	}
	broken := func(err error) error {
		// Half a line of the head may look like a faulty one.
		if _, network := errors.AsType[net.Error](err); network || in.N == 0 || errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %w", errCut, err)
		}
		return fmt.Errorf("message %d: %w", r.messageID, err)
	}
	res, err := http.ReadResponse(bufio.NewReader(in), req)
	if err != nil {
		return broken(err)
	}
	defer res.Body.Close()
	switch kind := res.Header.Get("Content-Type"); {
	case res.StatusCode == http.StatusNoContent:
		r.ending = "204"
		return nil
	case res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") != "":
		return errRefused
	case res.StatusCode != http.StatusOK || kind != "text/event-stream":
		detail, _ := io.ReadAll(res.Body)
		return fmt.Errorf("message %d, id %s: %s %s %s", r.messageID, r.lastID, res.Status, kind, detail)
	}
	events := newEventSource(res.Body, r.lastID)
	for r.ending == "" {
		e, err := events.next()
		r.retry = events.retry
		if errors.Is(err, io.EOF) {
			return errMoved
		}
		if err != nil {
			return broken(err)
		}
		if err := r.take(e); err != nil {
			return err
		}
		r.lastID = e.id
	}
	return nil
}

// request is what the reader asks next: to follow its reply, or to answer its
// message.
func (r *reader) request(ctx context.Context) (*http.Request, error) {
	method, path, body := http.MethodGet, fmt.Sprintf("/messages/%d/stream", r.messageID), []byte(nil)
	if r.messageID == 0 {
		r.sends++
		var err error
		method, path = http.MethodPost, "/messages"
		if body, err = json.Marshal(map[string]string{"message": r.order.message()}); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://parley.example/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Authorization", "Bearer "+r.service.token)
	if r.messageID == 0 {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", r.key)
	}
	if r.lastID != "" {
		req.Header.Set("Last-Event-ID", r.lastID)
	}
	return req, nil
}

// sendSurely is send, again and again while the replica is too busy.
func (r *reader) sendSurely(ctx context.Context, p *process) error {
	for {
		err := r.send(ctx, p)
		if !errors.Is(err, errRefused) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// send sends the message and does not wait for the reply.
func (r *reader) send(ctx context.Context, p *process) error {
	var answer struct {
		Message stored `json:"message"`
	}
	r.sends++
	status, err := r.service.call(ctx, p, http.MethodPost, "/messages", map[string]string{"message": r.order.message()}, &answer,
		"Idempotency-Key", r.key, "Accept", "application/json", "Prefer", "respond-async")
	switch {
	case err != nil:
		return err
	case status == http.StatusServiceUnavailable:
		return errRefused
	case status != http.StatusAccepted:
		return fmt.Errorf("send %s: status %d", r.order.name, status)
	}
	r.messageID = answer.Message.ID
	return nil
}

// take dispatches one event.
func (r *reader) take(e event) error {
	var data struct {
		Text      string `json:"text"`
		MessageID int64  `json:"message_id"`
		FullText  string `json:"full_text"`
		Code      string `json:"code"`
	}
	if err := json.Unmarshal([]byte(e.data), &data); err != nil {
		return fmt.Errorf("message %d: %s: %w in %s", r.messageID, e.name, err, e.data)
	}
	switch e.name {
	case "message_start":
		if r.messageID != 0 && r.messageID != data.MessageID {
			return fmt.Errorf("message %d: message_start of %d", r.messageID, data.MessageID)
		}
		r.messageID = data.MessageID
	case "message_token":
		if rest := r.want[min(len(r.text), len(r.want)):]; r.want != "" && !strings.HasPrefix(rest, data.Text) {
			return fmt.Errorf("message %d: at %s comes\n%q, the backend said\n%q", r.messageID, e.id, data.Text, rest)
		}
		r.text = append(r.text, data.Text...)
		r.progress.Store(time.Now().UnixNano())
	case "message_reset":
		r.resets++
		r.text = nil
	case "message_complete", "message_stopped":
		r.ending, r.full = e.name, data.FullText
	case "error":
		return fmt.Errorf("message %d: an error event: %s", r.messageID, e.data)
	default:
		return fmt.Errorf("message %d: unknown event %q", r.messageID, e.name)
	}
	r.have.Store(int64(len(r.text)))
	if !strings.HasSuffix(e.id, fmt.Sprintf("-%d", len(r.text))) {
		return fmt.Errorf("message %d: the id of %s is %q after %d bytes", r.messageID, e.name, e.id, len(r.text))
	}
	return nil
}

// check reports what is wrong with what the reader has in the end.
func (r *reader) check(resets int) error {
	m, err := r.service.stored(r.messageID)
	status, said := "complete", r.want
	if r.ending == "message_stopped" {
		status, said = "stopped", r.want[:min(len(m.Content), len(r.want))]
	}
	switch {
	case err != nil:
		return err
	case string(r.text) != m.Content:
		return fmt.Errorf("message %d: the client has\n%q, stored is\n%q", r.messageID, r.text, m.Content)
	case r.ending != "204" && r.full != m.Content:
		return fmt.Errorf("message %d: full_text is\n%q, stored is\n%q", r.messageID, r.full, m.Content)
	case r.want != "" && m.Content != said:
		return fmt.Errorf("message %d: stored is\n%q, the backend said\n%q", r.messageID, m.Content, said)
	case m.Status != status:
		return fmt.Errorf("message %d: stored as %s, want %s", r.messageID, m.Status, status)
	case r.resets != resets:
		return fmt.Errorf("message %d: %d times message_reset, want %d", r.messageID, r.resets, resets)
	}
	return nil
}
