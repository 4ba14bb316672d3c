package handlers_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

// A stream over HTTP/2 has its writes end from one goroutine while another one writes,
// when its client leaves.
func TestDeadlinesAreSetByTwo(t *testing.T) {
	t.Parallel()
	control := http.NewResponseController(handlers.NewAnswer(httptest.NewRecorder()))
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := control.SetWriteDeadline(time.Now()); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("got %v, want what the writer behind it says", err)
			}
		})
	}
	both.Wait()
}

// pipe is a listener of one connection that is made of memory, so that time in
// a bubble goes on while both sides wait.
type pipe struct {
	conn net.Conn
	once sync.Once
	done chan struct{}
}

func (p *pipe) Accept() (conn net.Conn, err error) {
	p.once.Do(func() { conn = p.conn })
	if conn == nil {
		<-p.done
		err = net.ErrClosed
	}
	return conn, err
}

func (p *pipe) Close() error   { return nil }
func (p *pipe) Addr() net.Addr { return p.conn.LocalAddr() }

// connect serves api on one connection until the test ends.
func connect(t *testing.T, api http.Handler) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	p := &pipe{conn: theirs, done: make(chan struct{})}
	server := &http.Server{Handler: api, ReadHeaderTimeout: time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(p) }) //nolint:errcheck // it ends as the test ends it
	t.Cleanup(func() {
		ours.Close()
		close(p.done)
		server.Close()
		serving.Wait()
	})
	return ours
}

// exchange writes a request as it stands and reads the answer.
func exchange(t *testing.T, conn net.Conn, request string) answer {
	t.Helper()
	return exchangeOn(t, conn, bufio.NewReader(conn), request)
}

// exchangeOn is exchange on a connection of which something has been read.
func exchangeOn(t *testing.T, conn net.Conn, answers *bufio.Reader, request string) answer {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(body)}
}

// A body that does not come is not waited for, by a handler that reads it or
// by the server that would read it away.
func TestABodyThatStalls(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]wanted{
		"/api/v1/auth/login": problem(408, "request_timeout", "The body did not arrive in time.", ""),
		"/api/v1/messages":   problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", ""),
	} {
		synctest.Test(t, func(t *testing.T) {
			conn := connect(t, handlers.New(handlers.Config{Log: slog.New(slog.DiscardHandler)}))
			got := exchange(t, conn, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
			if got.status != want.status || stable(got.body) != want.body {
				t.Errorf("%s: %d %s, want %v", path, got.status, got.body, want)
			}
		})
	}
}

// A client that waits for a long reply is not taken for one that has left.
func TestAReplyThatTakesMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		db := modelstest.New(t, models.SQLite)
		s, api := build(t, db, hangs(release))
		user := models.User{Email: "ann@example.com", UserName: "ann", PasswordHash: "x"}
		if err := db.CreateUser(t.Context(), &user, &models.DeviceSession{SID: "s", ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
			t.Fatal(err)
		}
		conn := connect(t, api)
		time.AfterFunc(5*time.Minute, func() { close(release) })
		const body = `{"message":"Hi"}`
		got := exchange(t, conn, fmt.Sprintf("POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: application/json\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.tokenOf(user.ID), len(body), body))
		want := `{"chat_id":1,"user_message":{"id":1,"chat_id":1,"role":"user","content":"Hi","timestamp":"<time>","status":"complete"},` +
			`"message":{"id":2,"chat_id":1,"role":"assistant","content":"Hello","timestamp":"<time>","status":"complete","finish_reason":"stop"` + fewTokens + `}}`
		if got.status != 200 || stable(got.body) != want {
			t.Errorf("got %d %s, want 200 %s", got.status, got.body, want)
		}
	})
}
