package stream_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/stream"
)

// inTheClear serves r's handler by HTTP/2 without TLS, until the test's end, and
// returns what opens a stream there, all on one connection.
func inTheClear(t *testing.T, r *replica) func(userID, messageID int64, lastID string) *follow {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(r.server.Config.Handler)
	server.Config.Protocols = &protocols
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return func(userID, messageID int64, lastID string) *follow {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/%d?user=%d", server.URL, messageID, userID), nil)
		if err != nil {
			t.Fatal(err)
		}
		if lastID != "" {
			req.Header.Set("Last-Event-ID", lastID)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.ProtoMajor != 2 || res.StatusCode != http.StatusOK {
			t.Fatalf("got %s %s, want 200 over HTTP/2", res.Proto, res.Status)
		}
		t.Cleanup(func() { res.Body.Close() })
		return &follow{t: t, response: res, lines: bufio.NewReader(res.Body)}
	}
}

// Who reads nothing uses up the window of its stream, is let go, and has lost
// nothing when it comes back; another stream of the same connection goes on.
func TestAStuckReaderOverHTTP2(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words), func(c *stream.Config) {
			c.Stall, c.MaxReplyBytes = 2*time.Second, 64<<20
		})
		ex := r.send(t, user, chat, "hello")
		open := inTheClear(t, r)
		stuck, well := open(user, ex.Reply.ID, ""), open(user, ex.Reply.ID, "")
		var tr transcript
		e, _ := stuck.next()
		lastID := e.id
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, e := range well.all() {
				tr.take(t, e)
			}
		}()
		word := strings.Repeat("more than the window of a stream holds, ", 1<<13)
		for range 24 {
			words <- word
		}
		until(t, "the stuck reader is let go", func() bool { return r.Streams() == 1 })
		close(words)
		<-done
		if want := strings.Repeat(word, 24); tr.text != want || tr.ending.name != "message_complete" {
			t.Errorf("the other reader has %d bytes of %d", len(tr.text), len(want))
		}
		again := transcript{}
		for _, e := range open(user, ex.Reply.ID, lastID).all() {
			again.take(t, e)
		}
		if again.text != tr.text {
			t.Errorf("the stuck reader has %d bytes after it came back", len(again.text))
		}
	})
}

// The deadline of a write is not one of the pause behind it.
func TestAStreamOverHTTP2HasNoTimeLimit(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words), func(c *stream.Config) { c.Stall = 50 * time.Millisecond })
		ex := r.send(t, user, chat, "hello")
		f := inTheClear(t, r)(user, ex.Reply.ID, "")
		f.next()
		for range 4 {
			time.Sleep(60 * time.Millisecond) // longer than a write may take
			words <- "word "
			if e, ok := f.next(); !ok {
				t.Fatalf("it ends with %+v", e)
			}
		}
		close(words)
		if e, ok := f.next(); !ok || e.name != "message_complete" {
			t.Errorf("it ends with %+v", e)
		}
	})
}
