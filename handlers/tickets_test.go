package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
	"parley/models"
	"parley/models/modelstest"
)

// ticketOf makes a ticket for a message that need not exist.
func (s *service) ticketOf(access string, messageID int64) string {
	s.t.Helper()
	caller, err := s.tokens.VerifyAccess(access)
	if err != nil {
		s.t.Fatal(err)
	}
	ticket, _, err := s.tokens.IssueTicket(caller, messageID)
	if err != nil {
		s.t.Fatal(err)
	}
	return ticket
}

// ticket asks for a ticket.
func (s *service) ticket(token string, messageID int64) string {
	s.t.Helper()
	a := s.check(s.t, call{method: "POST", path: fmt.Sprintf("/api/v1/messages/%d/stream-ticket", messageID), token: token},
		wanted{200, `{"ticket":"<token>","expires_in":900}`, map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}})
	var out struct{ Ticket string }
	decodeInto(s.t, a.body, &out)
	return out.Ticket
}

var (
	badTicketDetail = "The ticket does not open this stream, or has expired. Ask for another one."
	badTicket       = problem(401, "invalid_ticket", badTicketDetail, "").with("WWW-Authenticate",
		`Bearer realm="parley", error="invalid_token", error_description="`+badTicketDetail+`"`)
)

func TestATicketOpensItsStream(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := start(t, db, hangs(release))
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsAsync})
		path := "/api/v1/messages/2/stream?ticket=" + s.ticket(ann.Access, 2)

		// A browser whose connection breaks comes back with the same URL.
		cut := s.open(call{method: "GET", path: path})
		if got := firstWords(t, cut.Body); got != "Hello" {
			t.Errorf("the stream begins with %q, want Hello", got)
		}
		cut.Body.Close()
		close(release)
		complete := "event: message_complete\nid: 1-5\ndata: {\"message_id\":2,\"full_text\":\"Hello\",\"finish_reason\":\"stop\"" + fewTokens + "}"
		basic := http.Header{"Authorization": {"Basic YW5uOnB3"}}
		for name, tt := range map[string]struct {
			path   string
			header http.Header
			want   []string
		}{
			"from the beginning":              {path, nil, []string{startEvent(1, 1, 2, "Hi"), "Hello", complete}},
			"from where it was cut":           {path, http.Header{"Last-Event-Id": {"1-2"}}, []string{"llo", complete}},
			"from where it was cut, by query": {path + "&last_event_id=1-2", nil, []string{"llo", complete}},
			"under the old path":              {strings.Replace(path, "/v1", "", 1), nil, []string{startEvent(1, 1, 2, "Hi"), "Hello", complete}},
			"behind a proxy with a password":  {path, basic, []string{startEvent(1, 1, 2, "Hi"), "Hello", complete}},
		} {
			t.Run(name, func(t *testing.T) {
				res := s.open(call{method: "GET", path: tt.path, header: tt.header})
				defer res.Body.Close()
				if diff := cmp.Diff(tt.want, events(t, res.Body)); diff != "" || res.StatusCode != 200 {
					t.Errorf("%d, events (-want +got):\n%s", res.StatusCode, diff)
				}
			})
		}
		s.check(t, call{method: "GET", path: path, header: http.Header{"Last-Event-Id": {"1-5"}}}, wanted{204, "", nil})
	})
}

func TestTicketsThatOpenNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		for range 2 {
			s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		}
		past := tokenConfig
		past.Now = func() time.Time { return time.Now().Add(-16 * time.Minute) }
		old := auth.NewTokens(s.ring, past)
		session := old.NewSession(ann.ID)
		expired, _, err := old.IssueTicket(auth.Identity{UserID: ann.ID, SID: session.SID, Generation: 1, IssuedAt: session.RotatedAt}, 2)
		if err != nil {
			t.Fatal(err)
		}
		const path = "/api/v1/messages/2/stream"
		good := s.ticket(ann.Access, 2)
		noToken := problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "").with("WWW-Authenticate", challenge)
		invalidToken := signedOut("The access token is not valid.")
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"no ticket":                           {call{path: path}, noToken},
			"a token where none is taken from":    {call{path: path + "?access_token=" + ann.Access}, noToken},
			"an empty ticket":                     {call{path: path + "?ticket="}, badTicket},
			"a word":                              {call{path: path + "?ticket=x"}, badTicket},
			"two tickets":                         {call{path: path + "?ticket=" + good + "&ticket=" + good}, badTicket},
			"a ticket cut short":                  {call{path: path + "?ticket=" + good[:len(good)-1]}, badTicket},
			"an expired ticket":                   {call{path: path + "?ticket=" + expired}, badTicket},
			"an access token":                     {call{path: path + "?ticket=" + ann.Access}, badTicket},
			"a refresh token":                     {call{path: path + "?ticket=" + ann.Refresh}, badTicket},
			"a ticket for another reply":          {call{path: "/api/v1/messages/4/stream?ticket=" + good}, badTicket},
			"a ticket for no id":                  {call{path: "/api/v1/messages/x/stream?ticket=" + good}, badTicket},
			"a ticket for somebody else's":        {call{path: path + "?ticket=" + s.ticketOf(bob.Access, 2)}, forbidden},
			"a ticket for what is no reply":       {call{path: "/api/v1/messages/1/stream?ticket=" + s.ticketOf(ann.Access, 1)}, notFound},
			"a ticket of nobody":                  {call{path: path + "?ticket=" + s.ticketOf(s.tokenOf(99), 2)}, forbidden},
			"a ticket as access token":            {call{path: path, token: good}, invalidToken},
			"a ticket beside a bad access token":  {call{path: path + "?ticket=" + good, token: "x"}, invalidToken},
			"a ticket beside two access tokens":   {call{path: path + "?ticket=" + good, header: http.Header{"Authorization": {"Bearer " + ann.Access, "Bearer " + ann.Access}}}, invalidToken},
			"a ticket where it is not taken":      {call{path: "/api/v1/messages/2?ticket=" + good}, noToken},
			"a ticket to stop with":               {call{method: "POST", path: "/api/v1/messages/2/stop?ticket=" + good}, noToken},
			"a ticket for a ticket":               {call{method: "POST", path: "/api/v1/messages/2/stream-ticket?ticket=" + good}, noToken},
			"a ticket as access token, elsewhere": {call{path: "/api/v1/user/profile", token: good}, invalidToken},
			"a ticket as refresh token": {
				call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + good + `"}`},
				problem(401, "invalid_refresh_token", "The refresh token is not valid; sign in again.", ""),
			},
		} {
			t.Run(name, func(t *testing.T) {
				if tt.call.method == "" {
					tt.call.method = "GET"
				}
				s.check(t, tt.call, tt.want)
			})
		}
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"for somebody else's":    {call{path: "2", token: bob.Access}, forbidden},
			"for what is no reply":   {call{path: "1", token: ann.Access}, notFound},
			"for none":               {call{path: "4711", token: ann.Access}, notFound},
			"for what is no id":      {call{path: "x", token: ann.Access}, notFound},
			"without a token":        {call{path: "2"}, noToken},
			"with a body of no JSON": {call{path: "2", token: ann.Access, body: "{"}, problem(400, "invalid_json", "The body is not valid JSON.", "")},
		} {
			t.Run("asked "+name, func(t *testing.T) {
				tt.call.method, tt.call.path = "POST", "/api/v1/messages/"+tt.call.path+"/stream-ticket"
				s.check(t, tt.call, tt.want)
			})
		}
	})
}

// A ticket dies with the session it was made in, and with the account.
func TestATicketOfASessionThatEnded(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		var other tokens
		decodeInto(t, s.do(call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"` + password + `"}`}).body, &other)
		stream := func(ticket string) call {
			return call{method: "GET", path: "/api/v1/messages/2/stream?ticket=" + ticket}
		}
		mine, kept := stream(s.ticket(ann.Access, 2)), stream(s.ticket(other.Access, 2))
		s.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access})
		s.check(t, mine, signedOut("This device was signed out."))
		if got := s.do(kept); got.status != 200 {
			t.Errorf("the ticket of another device: %d %s, want 200", got.status, got.body)
		}
		// A reply that is gone has no stream, whoever asks.
		s.check(t, call{method: "DELETE", path: "/api/v1/chats/1", token: other.Access}, wanted{204, "", nil})
		s.check(t, kept, notFound)
	})
}

func TestNoTicketIsLogged(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says("Hello."))
	ann := s.signup("ann@example.com")
	s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
	ticket := s.ticket(ann.Access, 2)
	for _, path := range []string{"/messages/2/stream", "/messages/4/stream", "/messages/2/stream/x", "/messages/2"} {
		s.do(call{method: "GET", path: "/api/v1" + path + "?ticket=" + ticket})
		s.do(call{method: "GET", path: "/api/v1" + path + "?ticket=" + ticket + "x"})
	}
	if strings.Contains(s.log.String(), ticket[len(ticket)-40:]) || strings.Contains(s.log.String(), ticket[:40]) {
		t.Errorf("the log holds a ticket:\n%s", s.log.String())
	}
	var streamed []map[string]any
	for _, line := range s.requests() {
		if line["route"] == "/api/v1/messages/:id/stream" {
			streamed = append(streamed, map[string]any{"status": line["status"], "user_id": line["user_id"], "code": line["code"]})
		}
	}
	bad := map[string]any{"status": 401., "user_id": nil, "code": "invalid_ticket"}
	want := []map[string]any{{"status": 200., "user_id": float64(ann.ID), "code": nil}, bad, bad, bad}
	if diff := cmp.Diff(want, streamed); diff != "" {
		t.Errorf("lines of streams (-want +got):\n%s", diff)
	}
}
