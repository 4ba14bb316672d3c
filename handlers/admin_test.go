package handlers_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// signupAdmin is signup of somebody who administers.
func (s *service) signupAdmin(email string) account {
	s.t.Helper()
	a := s.signup(email)
	if _, err := s.db.SetUser(s.t.Context(), a.ID, models.UserState{IsAdmin: new(true)}, 0, models.By{}); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// adminCalls are all that an administrator can do, and others cannot.
var adminCalls = []call{
	{method: "GET", path: "/admin/metrics/system"},
	{method: "GET", path: "/admin/users"},
	{method: "PATCH", path: "/admin/users/1", body: `{"disabled":true}`},
	{method: "DELETE", path: "/admin/users/1"},
	{method: "POST", path: "/admin/delete-all-users"},
	{method: "GET", path: "/admin/audit"},
}

func TestOnlyAdministratorsAdminister(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		s.signupAdmin("root@example.com")
		ann, former := s.signup("ann@example.com"), s.signupAdmin("former@example.com")
		former.Access = s.tokenOf(former.ID)
		if _, err := db.SetUser(t.Context(), former.ID, models.UserState{IsAdmin: new(false)}, 0, models.By{}); err != nil {
			t.Fatal(err)
		}
		refused := problem(403, "admin_required", "Only an administrator may do this.", "")
		for _, c := range adminCalls {
			for _, mount := range []string{"/api", "/api/v1"} {
				c := call{method: c.method, path: mount + c.path, body: c.body}
				s.check(t, c, problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", ""))
				c.token = ann.Access
				s.check(t, c, refused)
				c.token = former.Access
				s.check(t, c, refused)
			}
		}
		if _, err := db.SetUser(t.Context(), ann.ID, models.UserState{IsAdmin: new(true), Disabled: new(true)}, 0, models.By{}); err != nil {
			t.Fatal(err)
		}
		s.check(t, call{method: "GET", path: "/api/v1/admin/audit", token: ann.Access}, problem(403, "account_disabled", "This account is disabled.", ""))
	})
}

func TestSystemMetrics(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Fine."))
		root := s.signupAdmin("root@example.com")
		c := call{method: "GET", path: "/api/v1/admin/metrics/system", token: root.Access}
		s.check(t, c, wanted{200, `{"total_users":1,"total_chat_sessions":0,"total_messages":0,"estimates":[],` +
			`"active_users":{"day":0,"week":0,"month":0},"running_replies":0,"days":[]}`, nil})
		s.do(call{method: "POST", path: "/api/v1/messages", token: root.Access, body: `{"message":"Hi"}`, header: http.Header{"Accept": {"application/json"}}})
		s.check(t, c, wanted{200, `{"total_users":1,"total_chat_sessions":1,"total_messages":2,"estimates":[],` +
			`"active_users":{"day":1,"week":1,"month":1},"running_replies":0,"days":[{"day":"` + models.Day(time.Now()) +
			`","active_users":1,"replies":1,"input_tokens":3,"output_tokens":2,"estimated_tokens":0}]}`, nil})
	})
}

// summary is a user as an administrator sees it who has sent nothing.
func summary(id int64, name string, isAdmin, disabled bool, lastSeen string) string {
	return fmt.Sprintf(`{"id":%d,"email":"%s@example.com","user_name":"%s","is_admin":%v,"created_at":"<time>",`+
		`"chat_count":0,"message_count":0,"last_seen_at":%s,"disabled":%v}`, id, name, name, isAdmin, lastSeen, disabled)
}

func TestUsersAreListedAndSearched(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Fine."))
		root := s.signupAdmin("root@example.com")
		s.signup("ann@example.com")
		bob := s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: bob.Access, body: `{"message":"Hi"}`, header: http.Header{"Accept": {"application/json"}}})
		list := func(query string) call {
			return call{method: "GET", path: "/api/v1/admin/users" + query, token: root.Access}
		}
		bobs := strings.Replace(summary(3, "bob", false, false, `"<time>"`), `"chat_count":0,"message_count":0`, `"chat_count":1,"message_count":2`, 1)
		all := []string{bobs, summary(2, "ann", false, false, `"<time>"`), summary(1, "root", true, false, `"<time>"`)}
		s.check(t, list(""), wanted{200, `{"users":[` + strings.Join(all, ",") + `]}`, nil})
		s.check(t, list("?limit=2"), wanted{200, `{"users":[` + strings.Join(all[:2], ",") + `],"next_cursor":"<cursor>"}`, nil})
		s.check(t, list("?limit=2&cursor="+s.cursor(root, list("?limit=2").path)), wanted{200, `{"users":[` + all[2] + `]}`, nil})
		for name, tt := range map[string]struct {
			query string
			want  wanted
		}{
			"by a part of the address": {"?q=nn@exa", wanted{200, `{"users":[` + all[1] + `]}`, nil}},
			"in another case":          {"?q=+BOB+", wanted{200, `{"users":[` + bobs + `]}`, nil}},
			"a wildcard is none":       {"?q=%25", wanted{200, `{"users":[]}`, nil}},
			"SQL is none":              {"?q=%27%20OR%201=1--", wanted{200, `{"users":[]}`, nil}},
			"no UTF-8":                 {"?q=%ff", invalidParameter("q", "q must be a text in UTF-8.")},
			"NUL":                      {"?q=%00", invalidParameter("q", "q must be a text in UTF-8.")},
			"too long":                 {"?q=" + strings.Repeat("x", 201), invalidParameter("q", "q may have 200 characters at most.")},
			"a limit that is none":     {"?limit=0", invalidParameter("limit", "limit must be a number from 1 to 200.")},
			"a cursor of another list": {"?cursor=YQAAAAAAAAAB", problem(400, "invalid_cursor", "cursor must be a next_cursor of this list.",
				field("cursor", "invalid_cursor", "cursor must be a next_cursor of this list."))},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, list(tt.query), tt.want) })
		}
	})
}

func invalidParameter(name, detail string) wanted {
	return problem(400, "invalid_parameter", detail, field(name, "invalid_parameter", detail))
}

func TestUsersAreDisabledAndPromoted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		root, ann := s.signupAdmin("root@example.com"), s.signup("ann@example.com")
		set := func(id, body string) call {
			return call{method: "PATCH", path: "/api/v1/admin/users/" + id, token: root.Access, body: body}
		}
		last := problem(409, "last_admin", "This is the last administrator. Make another one first.", "")
		s.check(t, set("1", `{"disabled":true}`), last)
		s.check(t, set("1", `{"is_admin":false}`), last)
		s.check(t, call{method: "DELETE", path: "/api/v1/admin/users/1", token: root.Access}, last)
		s.check(t, set("2", `{}`), wanted{200, summary(2, "ann", false, false, `"<time>"`), nil})
		s.check(t, set("2", `{"id":1,"email":"x@example.com","is_admin":true}`), wanted{200, summary(2, "ann", true, false, `"<time>"`), nil})

		// Her device is signed out, streams too, and so is she when she comes back.
		events := s.open(call{method: "GET", path: "/api/v1/events", token: ann.Access})
		defer events.Body.Close()
		s.check(t, set("2", `{"disabled":true}`), wanted{200, summary(2, "ann", true, true, "null"), nil})
		told, err := io.ReadAll(events.Body)
		if err != nil || !strings.Contains(string(told), `"code":"signed_out"`) {
			t.Errorf("her stream says %q, %v", told, err)
		}
		s.check(t, call{method: "GET", path: "/api/v1/chats", token: ann.Access}, signedOut("This device was signed out."))
		login := call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"` + password + `"}`}
		if got := s.do(login); got.status != 403 || !strings.Contains(got.body, `"account_disabled"`) {
			t.Errorf("her login answers %d %s", got.status, got.body)
		}
		s.check(t, set("2", `{"disabled":false,"is_admin":false}`), wanted{200, summary(2, "ann", false, false, "null"), nil})
		if got := s.do(login); got.status != 200 {
			t.Errorf("her login answers %d %s", got.status, got.body)
		}

		none := problem(404, "not_found", "There is no such thing.", "")
		for _, id := range []string{"99", "0", "-1", "x", "01", "99999999999999999999"} {
			s.check(t, set(id, `{"disabled":true}`), none)
			s.check(t, call{method: "DELETE", path: "/api/v1/admin/users/" + id, token: root.Access}, none)
		}
		for _, body := range []string{`{"disabled":null}`, `{"disabled":"yes"}`, `{"is_admin":1}`, `[]`, `{"Disabled":true}`, `{"disabled":true}x`} {
			if got := s.do(set("2", body)); got.status != 400 || !strings.Contains(got.body, `"invalid_json"`) {
				t.Errorf("%s answers %d %s", body, got.status, got.body)
			}
		}
	})
}

func TestAUserIsDeletedByAnAdministrator(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ended := make(chan struct{})
		s := start(t, db, backend(func(ctx context.Context, _ stream.Prompt, _ func(stream.Chunk) error) error {
			defer close(ended)
			<-ctx.Done()
			return ctx.Err()
		}))
		root, ann := s.signupAdmin("root@example.com"), s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: http.Header{
			"Accept": {"application/json"}, "Prefer": {"respond-async"},
		}})
		c := call{method: "DELETE", path: "/api/v1/admin/users/2", token: root.Access}
		s.check(t, c, wanted{204, "", nil})
		<-ended
		s.check(t, c, problem(404, "not_found", "There is no such thing.", ""))
		s.check(t, call{method: "GET", path: "/api/v1/chats", token: ann.Access}, signedOut("This device was signed out."))
		if got := s.do(call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"` + password + `"}`}); got.status != 401 {
			t.Errorf("her login answers %d %s", got.status, got.body)
		}
	})
}

// The audit as a whole, from both ends of a page.
func TestTheAuditIsShown(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		root := s.signupAdmin("root@example.com")
		s.signup("ann@example.com")
		s.do(call{method: "PATCH", path: "/api/v1/admin/users/2", token: root.Access, body: `{"disabled":true}`, header: http.Header{"X-Request-Id": {"r7"}}})
		const (
			created  = `{"id":%d,"at":"<time>","action":"account.created","subject_id":%d,"subject_email":"%s@example.com","ip":"127.0.0.1","request_id":"<id>","detail":""}`
			promoted = `{"id":2,"at":"<time>","action":"account.promoted","subject_id":1,"subject_email":"root@example.com","ip":"","request_id":"","detail":""}`
			disabled = `{"id":4,"at":"<time>","action":"account.disabled","actor_id":1,"actor_email":"root@example.com",` +
				`"subject_id":2,"subject_email":"ann@example.com","ip":"127.0.0.1","request_id":"r7","detail":""}`
		)
		ann, first := fmt.Sprintf(created, 3, 2, "ann"), fmt.Sprintf(created, 1, 1, "root")
		list := func(query string) call {
			return call{method: "GET", path: "/api/v1/admin/audit" + query, token: root.Access}
		}
		s.check(t, list(""), wanted{200, `{"entries":[` + strings.Join([]string{disabled, ann, promoted, first}, ",") + `]}`, nil})
		s.check(t, list("?limit=3"), wanted{200, `{"entries":[` + strings.Join([]string{disabled, ann, promoted}, ",") + `],"next_cursor":"<cursor>"}`, nil})
		s.check(t, list("?limit=3&cursor="+s.cursor(root, list("?limit=3").path)), wanted{200, `{"entries":[` + first + `]}`, nil})
		s.check(t, list("?limit=x"), invalidParameter("limit", "limit must be a number from 1 to 200."))
	})
}

func TestDeleteAllUsers(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ended := make(chan struct{})
		s := start(t, db, backend(func(ctx context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			defer close(ended)
			if err := each(stream.Chunk{Text: "A secret"}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}))
		root, ann := s.signupAdmin("root@example.com"), s.signup("ann@example.com")
		reply := s.open(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		defer reply.Body.Close()
		s.check(t, call{method: "POST", path: "/api/v1/admin/delete-all-users", token: root.Access}, wanted{200, `{"message":"All users are deleted, administrators too."}`, nil})
		<-ended
		if told, err := io.ReadAll(reply.Body); err != nil || !strings.Contains(string(told), `"code":"signed_out"`) && !strings.Contains(string(told), "message_stopped") {
			t.Errorf("her stream says %q, %v", told, err)
		}
		for _, old := range []account{root, ann} {
			s.check(t, call{method: "GET", path: "/api/v1/chats", token: old.Access}, signedOut("This device was signed out."))
			got := s.do(call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + old.Refresh + `"}`})
			if got.status != 401 || !strings.Contains(got.body, `"invalid_refresh_token"`) {
				t.Errorf("a former refresh token answers %d %s", got.status, got.body)
			}
		}
		// Who comes then has ids from 1 on, and nothing of the former users.
		next := s.signup("next@example.com")
		s.check(t, call{method: "GET", path: "/api/v1/user/profile", token: next.Access},
			wanted{200, strings.ReplaceAll(annBody, "ann", "next"), nil})
		s.check(t, call{method: "GET", path: "/api/v1/chats", token: next.Access}, wanted{200, `{"chats":[]}`, nil})
		s.check(t, call{method: "GET", path: "/api/v1/messages/2", token: next.Access}, problem(404, "not_found", "There is no such thing.", ""))
		s.check(t, call{method: "GET", path: "/api/v1/chats", token: root.Access}, signedOut("This device was signed out."))
	})
}
