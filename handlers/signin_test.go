package handlers_test

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

func TestGenerationsThatWereNoted(t *testing.T) {
	t.Parallel()
	var g handlers.Generations
	for name, tt := range map[string]struct {
		generation int64
		want       bool
	}{
		"the one that was noted": {7, true},
		"one before it":          {6, true},
		"one after it":           {8, false},
	} {
		g.Add("sid", 7)
		g.Add("sid", 5) // late
		if got := g.Has("sid", tt.generation); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if g.Has("other", 1) {
		t.Error("a session that was never seen is known")
	}
	// Whoever comes back is kept, and the rest makes room.
	for i := range 200_000 {
		g.Add(strconv.Itoa(i), 1)
		if !g.Has("sid", 7) {
			t.Fatalf("an active session is forgotten after %d others", i)
		}
	}
	if size := g.Size(); size > 1<<16 {
		t.Errorf("%d sessions are remembered, want 65,536 at most", size)
	}
	if g.Has("0", 1) {
		t.Error("the oldest session is remembered still")
	}
}

// Who is signed out while a body is on its way does nothing with it.
func TestABodyThatComesAfterTheSessionsEnd(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for route, body := range map[string]string{
			"POST /api/v1/messages":             `{"message":"Hi"}`,
			"POST /api/v1/chats":                `{"title":"Mine"}`,
			"PATCH /api/v1/user/profile":        `{"user_name":"Anna"}`,
			"POST /api/v1/auth/change-password": `{"current_password":"` + password + `","new_password":"another 8 staples"}`,
			"POST /api/v1/voice/messages":       `{"audio":"UklGRg==","format":"wav"}`,
			"DELETE /api/v1/user":               `{"current_password":"` + password + `"}`,
		} {
			t.Run(route, func(t *testing.T) {
				s := startVoiced(t, db, says(), listens(counted), spells{})
				ann := s.signup(strings.NewReplacer("/", "-", " ", "-").Replace(route) + "@example.com")
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
					"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", route, ann.Access, len(body))
				answers := bufio.NewReader(conn)
				if line, err := answers.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" { // the body is being read
					t.Fatalf("got %q, %v", line, err)
				}
				if _, err := answers.Discard(len("\r\n")); err != nil {
					t.Fatal(err)
				}
				s.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access})
				got := exchangeOn(t, conn, answers, body)
				if want := signedOut("This device was signed out."); got.status != want.status || stable(got.body) != want.body {
					t.Errorf("got %d %s, want %v", got.status, got.body, want)
				}
			})
		}
	})
}
