package handlers_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

// What may stand where an id is wanted. 1 and 2 are there: 1 is Ann's chat or
// message, 2 her reply or Bob's chat.
var hostileIDs = []string{
	"1", "2", "0", "-1", "+1", "01", "1.0", "1e0", "0x1", "9223372036854775807", "9223372036854775808", "list", "create", "send",
	"%00", "1%00", "%0d%0aSet-Cookie:%20a=b", "a%2Fb", "%2e%2e%2f", "..%2F..%2Fetc%2Fpasswd", "%ff%fe", "%F0%9F%98%80",
	"'%20OR%201=1--", "%7B%7D", "%25", "*", "%20", strings.Repeat("9", 5000),
}

// cursors made like ours, of keys that no list ever had.
func forged(kind byte, key ...byte) string {
	return base64.RawURLEncoding.EncodeToString(append([]byte{kind}, key...))
}

var hostileQueries = []string{
	"limit=", "limit=0", "limit=-1", "limit=201", "limit=1e3", "limit=99999999999999999999", "limit=%00", "limit=1&limit=2",
	"cursor=%00", "cursor=%ff", "cursor=" + strings.Repeat("A", 100_000), "cursor==", "%zz", ";", "a=b;c=d", "limit=1;cursor=2",
	"last_event_id=%00", "last_event_id=1-99999999999999999999", "last_event_id=-1--1", "last_event_id=9999999999-0", "ticket=x",
	"ticket=", "ticket=%00", "ticket=x&ticket=y", "ticket=..", "ticket=" + strings.Repeat("a.", 50_000), "ticket=eyJhbGciOiJub25lIn0.e30.",
	"cursor=" + forged('c', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
	"cursor=" + forged('c', 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
	"cursor=" + forged('c', 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
	"cursor=" + forged('c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
	"cursor=" + forged('m', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
	"cursor=" + forged('m', 0x80, 0, 0, 0, 0, 0, 0, 0),
	"cursor=" + forged('m'),
}

var hostileBodies = []string{
	"", " ", "null", "[]", `""`, "0", "{", "{}", `{"message":"hi"}`, `{"title":"x"}`, `{"a":1}{"a":1}`, "\xff", "\x00", "{\"\x00\":1}",
	`{"message":null}`, `{"message":"a\u0000b"}`, `{"message":"\ud800"}`, `{"message":1,"chat_id":"x","title":[],"email":{},"password":true,"refresh_token":{}}`,
	`{"message":"hi","chat_id":9223372036854775807}`, `{"message":"hi","chat_id":1e400}`, `{"message":"hi","session_id":2}`,
	`{"email":"a@b.example","password":"` + strings.Repeat("p", 100_000) + `"}`, `{"email":"` + strings.Repeat("a", 100_000) + `@b.example","password":"` + password + `"}`,
	`{"email":"'; DROP TABLE users; --@b.example","password":"` + password + `"}`, `{"email":"a\r\nBcc: x@b.example","password":"` + password + `"}`,
	`{"email":"ann@example.com","password":"` + password + `","user_name":"\u202e\u200b"}`,
	`{"title":"?0 ?1 ?user_id ?TableName %s \\' \" -- ;"}`, `{"message":"?0 ?1 ?user_id ?TableName %s \\' \" -- ;"}`, `{"title":"\uffff\ufffe😀"}`,
	`{"current_password":"` + password + `x","new_password":"another 9 words","email":"ann@example.com"}`, `{"current_password":7,"new_password":[]}`,
	`{"password":"` + password + `","is_admin":true,"id":1,"role":"admin","created_at":"2000-01-01T00:00:00Z"}`, "token=1&password=12345678", "token=%zz&password=;",
	`{"refresh_token":"` + strings.Repeat("a.", 100_000) + `"}`, `{"refresh_token":"..","message":"..","title":".."}`,
	strings.Repeat("[", 100_000), `{"a":` + strings.Repeat(`{"a":`, 10_000) + "1" + strings.Repeat("}", 10_001), strings.Repeat("x", 1<<20+1),
}

var hostileHeaders = []http.Header{
	{"Content-Type": {"application/json; charset=\x80"}},
	{"Content-Type": {"multipart/form-data; boundary=x"}},
	{"Content-Encoding": {"br"}},
	{"Accept": {"application/xml"}},
	{"Accept": {"application/json"}},
	{"Accept": {strings.Repeat("*/*;q=0.1,", 10_000)}},
	{"Accept": {`application/json;q=NaN, text/event-stream;q="`}},
	{"Accept": {"application/json"}, "Prefer": {"respond-async", ";;,=,\""}},
	{"Authorization": {"Bearer " + strings.Repeat("a.", 50_000)}},
	{"Authorization": {"Bearer ..", "Bearer .."}},
	{"Authorization": {"Bearer eyJhbGciOiJub25lIn0.e30."}},
	{"Authorization": {"\xff"}},
	{"Idempotency-Key": {""}},
	{"Idempotency-Key": {strings.Repeat("k", 255)}},
	{"Idempotency-Key": {strings.Repeat("k", 256)}},
	{"Idempotency-Key": {"a", "b"}},
	{"Idempotency-Key": {"?0"}},
	{"Last-Event-Id": {"\xff"}},
	{"Last-Event-Id": {"1-4"}},
	{"Last-Event-Id": {"1-1", "1-2"}},
	{"Last-Event-Id": {"1-9223372036854775807"}},
	{"X-Request-Id": {"\"\\\xff"}},
	{"X-Forwarded-For": {"::::,'\x80,%00", strings.Repeat("10.0.0.1,", 10_000)}},
	{"User-Agent": {strings.Repeat("\x80\xf0\x9f\x98\x80", 10_000)}},
	{"Origin": {"null"}, "Access-Control-Request-Method": {"\xff"}},
	{"Transfer-Encoding": {"chunked"}},
	{"Content-Type": {"application/x-www-form-urlencoded"}},
	{"Content-Type": {"application/x-www-form-urlencoded", "application/json"}},
	{"Cookie": {"parley_device=" + strings.Repeat("a.", 5_000)}},
	{"Cookie": {"parley_device=eyJhbGciOiJub25lIn0.e30.; parley_device=\xff; ;;=="}},
	{"X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"gopher"}, "Forwarded": {"host=evil.example"}},
}

// Nothing that a client sends makes a 500, on any route and either database,
// and every error is a problem document.
func TestNothingMakesA500(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var routes [][2]string
		s := startVoiced(t, db, says("Fine."), listens(counted), spells{}, func(c *handlers.Config) { routes = handlers.Routes(handlers.New(*c)) })
		ann, bob, eve := s.signup("ann@example.com"), s.signup("bob@example.com"), s.signup("eve@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		s.do(call{method: "POST", path: "/api/v1/chats", token: bob.Access})
		// What there is to read is deleted last.
		slices.SortStableFunc(routes, func(a, b [2]string) int { return deletes(a) - deletes(b) })
		for _, route := range routes {
			method, pattern := route[0], route[1]
			if strings.HasPrefix(pattern, "/api/") && !strings.HasPrefix(pattern, "/api/v1/") {
				continue // the same handlers
			}
			parameter := regexp.MustCompile(":[a-z]+")
			path := parameter.ReplaceAllString(pattern, "1")
			caller := ann
			if signsOut.MatchString(pattern) {
				// Ann has to stay. Eve's session is not stored, so nothing ends it.
				caller = account{ID: eve.ID, Access: s.tokenOf(eve.ID)}
			}
			if path != pattern {
				for _, id := range hostileIDs {
					s.harmless(t, call{method: method, path: parameter.ReplaceAllLiteralString(pattern, id), token: caller.Access, body: `{"message":"hi"}`})
				}
			}
			if method == "GET" || method == "DELETE" {
				for _, query := range hostileQueries {
					s.harmless(t, call{method: method, path: path + "?" + query, token: caller.Access})
					s.harmless(t, call{method: method, path: path + "?" + query})
				}
			} else {
				for _, body := range hostileBodies {
					s.harmless(t, call{method: method, path: path, token: caller.Access, body: body})
				}
			}
			for _, header := range hostileHeaders {
				s.harmless(t, call{method: method, path: path, token: caller.Access, body: `{"message":"hi"}`, header: header})
			}
			for _, other := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
				s.harmless(t, call{method: other, path: path, token: caller.Access})
				s.harmless(t, call{method: other, path: path})
				s.harmless(t, call{method: other, path: path + "/"})
			}
		}
		if a := s.do(call{method: "GET", path: "/api/v1/user/profile", token: ann.Access}); a.status != 200 {
			t.Errorf("the caller was not signed in to the end: %d %s", a.status, a.body)
		}
		for _, line := range s.requests() {
			if line["level"] == "ERROR" {
				t.Errorf("an error in the log: %v", line)
			}
		}
	})
}

// signsOut are the routes that may end the caller's own session.
var signsOut = regexp.MustCompile(`/(logout|logout-all|devices/:id|user)$`)

// harmless sends a call and looks at the answer for what no client may get.
func (s *service) harmless(t *testing.T, c call) {
	t.Helper()
	r, err := s.request(c)
	if err != nil {
		return // refused by the client itself
	}
	began, err := s.fetch(r)
	if err != nil {
		return // likewise
	}
	defer began.Body.Close()
	if began.StatusCode < 400 {
		return // a stream of events has no end to read to
	}
	body, err := io.ReadAll(began.Body)
	if err != nil {
		t.Errorf("%s %s: %v", c.method, brief(c.path), err)
	}
	res := answer{began.StatusCode, began.Header, string(body)}
	name := c.method + " " + brief(c.path) + " " + brief(c.body)
	if res.status >= 500 {
		t.Errorf("%s %v: %d %s", name, keys(c.header), res.status, res.body)
		return
	}
	if c.method == "HEAD" {
		return
	}
	if page := strings.HasPrefix(c.path, "/reset-password"); page && res.header.Get("Content-Type") == "text/html; charset=utf-8" {
		if !strings.HasPrefix(res.header.Get("Content-Security-Policy"), "default-src 'none'; ") || strings.Contains(res.body, "<script") {
			t.Errorf("%s: a page that could do more than it should: %v %s", name, res.header, res.body)
		}
		return
	}
	var p struct {
		Type, Title, Detail, Code, Message string
		Status                             int
		RequestID                          string `json:"request_id"`
	}
	if res.header.Get("Content-Type") != "application/problem+json" || json.Unmarshal([]byte(res.body), &p) != nil {
		t.Errorf("%s: %d as %s: %s, want a problem", name, res.status, res.header.Get("Content-Type"), res.body)
		return
	}
	if p.Type != "about:blank" || p.Title == "" || p.Status != res.status || p.Code == "" || p.Detail == "" || p.Message != p.Detail ||
		p.RequestID != res.header.Get("X-Request-Id") {
		t.Errorf("%s: %s, want a whole problem", name, res.body)
	}
}

func deletes(route [2]string) int { return strings.Count(route[0], http.MethodDelete) }

func brief(s string) string { return s[:min(len(s), 80)] }

func keys(h http.Header) string { return url.Values(h).Encode() }
