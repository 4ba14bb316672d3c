package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"parley/models"
)

// A caller is one connection, on which requests are written as they stand.
type caller struct {
	t      *testing.T
	conn   net.Conn
	answer *bufio.Reader
}

func call(t *testing.T, s *service) *caller {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &caller{t, conn, bufio.NewReader(conn)}
}

// said is an answer; its status is 0 where the connection was closed instead.
type said struct {
	status int
	header http.Header
	body   string
	last   bool // the connection is closed after it
}

// get asks for path. Of a stream it reads the head alone.
func (c *caller) get(u user, path string) said {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, u.AccessToken); err != nil {
		return said{}
	}
	res, err := http.ReadResponse(c.answer, nil) //nolint:bodyclose // a stream's has no end, and the connection is closed
	if err != nil {
		return said{}
	}
	got := said{res.StatusCode, res.Header, "", res.Close}
	if res.Header.Get("Content-Type") != "text/event-stream" {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			c.t.Error(err)
		}
		got.body = string(body)
	}
	return got
}

// Streams take up the connections that there may be. Then the health checks are
// still answered, all else is told to come back, and when a stream ends there is
// room again.
func TestTheLimitOfConnections(t *testing.T) {
	t.Parallel()
	const most, spare = 8, 32
	s := start(t, with(database(t, models.SQLite), fmt.Sprintf("MAX_CONNECTIONS=%d", most))...)
	you := signUp(t, s)

	// Idle connections are no reason to turn anybody away.
	var idle []*caller
	for range 2 * most {
		c := call(t, s)
		if got := c.get(you, "/api/v1/user/profile"); got.status != 200 {
			t.Fatalf("beside idle connections: got %+v", got)
		}
		idle = append(idle, c)
	}
	if got := idle[0].get(you, "/livez"); got.status != 0 {
		t.Errorf("the one that was idle for longest: got %+v, want it closed", got)
	}
	if got := idle[len(idle)-1].get(you, "/livez"); got.status != 200 {
		t.Errorf("the one that was idle for the shortest time: got %+v, want 200", got)
	}

	var streams []*caller
	for range most {
		c := call(t, s)
		if got := c.get(you, "/api/v1/events"); got.status != 200 {
			t.Fatalf("a stream: got %+v", got)
		}
		streams = append(streams, c)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/api/health": 200, "/api/v1/user/profile": 503, "/api/v1/events": 503} {
		got := call(t, s).get(you, path)
		if got.status != want || !got.last {
			t.Errorf("%s when all is taken: got %+v, want %d and the connection closed", path, got, want)
		}
		if want != 503 {
			continue
		}
		var problem struct{ Code string }
		if err := json.Unmarshal([]byte(got.body), &problem); err != nil || problem.Code != "unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s when all is taken: got %+v, want unavailable, and when to come back", path, got)
		}
	}
	// Those who say nothing take the spare places from one another, and from
	// nobody else.
	for range 2 * spare {
		call(t, s)
	}
	if got := call(t, s).get(you, "/livez"); got.status != 200 {
		t.Errorf("/livez beside those who say nothing: got %+v, want 200", got)
	}
	for i, c := range streams {
		if _, err := c.answer.Peek(1); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
	}
	if err := streams[0].conn.(*net.TCPConn).SetLinger(0); err != nil { // the next write to it fails
		t.Fatal(err)
	}
	streams[0].conn.Close()
	eventually(t, "there is room again", func() bool { return call(t, s).get(you, "/api/v1/user/profile").status == 200 })
}

// Where the system gives the process fewer files than connections are set, the
// start says so, and the database still has its own.
func TestFewerFilesThanConnections(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "ulimit -n 300; exec "+parley(t))
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{quickExit, "PORT=0", "LOG_FORMAT=json", "PASSWORD_MEMORY_KIB=64"}, database(t, models.SQLite)...)
	s := startCommand(t, cmd)
	you := signUp(t, s)
	for range 320 {
		call(t, s)
	}
	if got := call(t, s).get(you, "/api/v1/user/profile"); got.status != 200 {
		t.Errorf("beside 320 connections that say nothing: got %+v, want 200", got)
	}
	s.kill()
	// A half of 300: what is set aside for others is more than the rest.
	if log := strings.Join(s.log, "\n"); !strings.Contains(log, `"connections":150,"open_files":300`) {
		t.Errorf("the log does not say how many connections there may be:\n%s", log)
	}
}
