package handlers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// signIn begins a device session of an account that is there.
func (s *service) signIn(email, password string, header http.Header) account {
	s.t.Helper()
	a := s.login(email, password, header)
	if a.status != http.StatusOK {
		s.t.Fatalf("login: %d %s", a.status, a.body)
	}
	return s.accountOf(a)
}

// works says what a device's tokens get: the access token, the refresh token.
func (s *service) works(a account) string {
	s.t.Helper()
	access := s.do(call{method: "GET", path: "/api/v1/user/profile", token: a.Access})
	return fmt.Sprint(access.status, " ", s.refresh(a.Refresh).status)
}

const (
	works    = "200 200"
	isNoMore = "401 401"
)

func TestDevices(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		first := s.signup("ann@example.com")
		bob := s.signup("bob@example.com")
		phone := s.signIn("ann@example.com", password, http.Header{"User-Agent": {"A phone"}, "X-Forwarded-For": {"198.51.100.7"}})
		list := call{method: "GET", path: "/api/v1/auth/devices", token: phone.Access}
		const times = `"created_at":"<time>","last_seen_at":"<time>"`
		s.check(t, list, wanted{200, `{"devices":[` +
			`{"id":3,"name":"A phone","ip":"198.51.100.7",` + times + `,"current":true},` +
			`{"id":1,"name":"Go-http-client/1.1","ip":"127.0.0.1",` + times + `,"current":false}]}`, nil})

		remove := func(id string, token string) call {
			return call{method: "DELETE", path: "/api/v1/auth/devices/" + id, token: token}
		}
		notFound := problem(404, "not_found", "There is no such thing.", "")
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"somebody else's":  {remove("2", phone.Access), problem(403, "forbidden", "This belongs to someone else.", "")},
			"none":             {remove("99", phone.Access), notFound},
			"no id":            {remove("x", phone.Access), notFound},
			"one, by a nobody": {remove("1", ""), problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "")},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, tt.call, tt.want) })
		}
		s.check(t, remove("1", phone.Access), wanted{204, "", nil})
		s.check(t, remove("1", phone.Access), notFound)
		got := map[string]string{"removed": s.works(first), "the other": s.works(phone), "somebody else": s.works(bob)}
		if diff := cmp.Diff(map[string]string{"removed": isNoMore, "the other": works, "somebody else": works}, got); diff != "" {
			t.Errorf("tokens (-want +got):\n%s", diff)
		}
		s.check(t, remove("3", phone.Access), wanted{204, "", nil})
		if got := s.works(phone); got != isNoMore {
			t.Errorf("after removing itself the device gets %s, want %s", got, isNoMore)
		}
	})
}

// A device whose tokens have all expired for want of use is signed in no longer,
// though its row is there for as long as the session could have lasted.
func TestDevicesThatRestedTooLong(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		s.signup("ann@example.com")
		for range 2 {
			s.signIn("ann@example.com", password, nil)
		}
		ann := s.signIn("ann@example.com", password, nil)
		for id, rested := range map[int64]time.Duration{1: 720*time.Hour + 16*time.Minute, 2: 719 * time.Hour} {
			_, err := db.Bun().NewRaw("UPDATE device_sessions SET rotated_at = ? WHERE id = ?", time.Now().UTC().Add(-rested), id).Exec(t.Context())
			if err != nil {
				t.Fatal(err)
			}
		}
		var out struct{ Devices []struct{ ID int64 } }
		decodeInto(t, s.do(call{method: "GET", path: "/api/v1/auth/devices", token: ann.Access}).body, &out)
		got := make(map[int64]bool)
		for _, d := range out.Devices {
			got[d.ID] = true
		}
		if diff := cmp.Diff(map[int64]bool{2: true, 3: true, 4: true}, got); diff != "" {
			t.Errorf("devices (-want +got):\n%s", diff)
		}
	})
}

func TestLogoutAll(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		bob := s.signup("bob@example.com")
		devices := []account{s.signup("ann@example.com")}
		for range 3 {
			devices = append(devices, s.signIn("ann@example.com", password, nil))
		}
		all := call{method: "POST", path: "/api/v1/auth/logout-all", token: devices[1].Access}
		s.check(t, all, wanted{200, `{"message":"Signed out everywhere."}`, nil})
		for i, device := range devices {
			if got := s.works(device); got != isNoMore {
				t.Errorf("device %d gets %s, want %s", i, got, isNoMore)
			}
		}
		if got := s.works(bob); got != works {
			t.Errorf("somebody else gets %s, want %s", got, works)
		}
		s.check(t, all, signedOut("This device was signed out."))
		all.token = ""
		s.check(t, all, problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", ""))
	})
}

// Whatever ends a device session ends its streams, at once where it is asked
// for; the reply goes on.
func TestStreamsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, end := range map[string]func(s *service, other account) call{
			"logout": func(_ *service, a account) call {
				return call{method: "POST", path: "/api/v1/auth/logout", body: `{"refresh_token":"` + a.Refresh + `"}`}
			},
			"logout everywhere": func(_ *service, a account) call {
				return call{method: "POST", path: "/api/v1/auth/logout-all", token: a.Access}
			},
			"a reused token": func(s *service, a account) call {
				s.refreshed(s.refreshed(a.Refresh).Refresh)
				return call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + a.Refresh + `"}`}
			},
			"the removal of the device": func(s *service, a account) call {
				var out struct {
					Devices []struct {
						ID      int64
						Current bool
					}
				}
				decodeInto(s.t, s.do(call{method: "GET", path: "/api/v1/auth/devices", token: a.Access}).body, &out)
				for _, d := range out.Devices {
					if d.Current {
						return call{method: "DELETE", path: fmt.Sprintf("/api/v1/auth/devices/%d", d.ID), token: a.Access}
					}
				}
				return call{}
			},
			"the end of the account": func(_ *service, a account) call {
				return call{method: "DELETE", path: "/api/v1/user", token: a.Access, body: `{"current_password":"` + password + `"}`}
			},
		} {
			t.Run(name, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				s := start(t, db, hangs(release))
				ann := s.signup(strings.ReplaceAll(name, " ", ".") + "@example.com")
				sent := s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsAsync})
				var out struct {
					Message struct{ ID int64 }
				}
				decodeInto(t, sent.body, &out)
				reply := s.open(call{method: "GET", path: fmt.Sprintf("/api/v1/messages/%d/stream", out.Message.ID), token: ann.Access})
				defer reply.Body.Close()
				byTicket := s.open(call{method: "GET", path: fmt.Sprintf("/api/v1/messages/%d/stream?ticket=%s", out.Message.ID, s.ticket(ann.Access, out.Message.ID))})
				defer byTicket.Body.Close()
				feed := s.open(call{method: "GET", path: "/api/v1/events", token: ann.Access})
				defer feed.Body.Close()
				firstWords(t, reply.Body)
				if a := s.do(end(s, ann)); a.status >= 300 && name != "a reused token" {
					t.Fatalf("%s: %d %s", name, a.status, a.body)
				}
				for which, body := range map[string]io.ReadCloser{"the reply": reply.Body, "the reply, by a ticket": byTicket.Body, "the feed": feed.Body} {
					stuck := time.AfterFunc(30*time.Second, func() { body.Close() })
					rest, err := io.ReadAll(body)
					stuck.Stop()
					want := "event: error\ndata: {\"message\":\"This device was signed out.\",\"code\":\"signed_out\",\"retryable\":false}\n\n"
					if err != nil || !strings.HasSuffix(string(rest), want) {
						t.Errorf("%s ends with %q, %v, want %q", which, rest, err, want)
					}
				}
			})
		}
	})
}

// A replica that cannot know what the others have ended reads the database.
func TestAStaleReplicaAsksWhetherTheSessionIsAlive(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		here, stale := start(t, db, says("Fine.")), start(t, db, says(), neverFresh)
		ann, bob := here.signup("ann@example.com"), here.signup("bob@example.com")
		here.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		ticket := here.ticket(ann.Access, 2)
		calls := map[string]call{
			"a token":   {method: "GET", path: "/api/v1/user/profile", token: ann.Access},
			"a stream":  {method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access},
			"a ticket":  {method: "GET", path: "/api/v1/messages/2/stream?ticket=" + ticket},
			"the chats": {method: "GET", path: "/api/v1/chats", token: ann.Access},
		}
		for name, c := range calls {
			if got := stale.do(c).status; got != 200 {
				t.Errorf("%s of a living session gets %d, want 200", name, got)
			}
		}
		here.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access})
		for name, c := range calls {
			t.Run(name, func(t *testing.T) { stale.check(t, c, signedOut("This device was signed out.")) })
		}
		check := call{method: "GET", path: "/api/v1/auth/check", token: ann.Access}
		stale.check(t, check, wanted{200, `{"authenticated":false}`, nil})
		if got := stale.works(bob); got != works {
			t.Errorf("somebody else gets %s, want %s", got, works)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		unavailable := problem(503, "unavailable", "The service cannot reach its data at the moment. Try again soon.", "")
		for name, c := range calls {
			t.Run(name+" without a database", func(t *testing.T) { stale.check(t, c, unavailable) })
		}
		stale.check(t, check, unavailable)
	})
}

// Every change to an account leaves a line that says who, from where and by
// which request.
func TestTheAudit(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		step := 0
		act := func(method, path, token, body string) answer {
			step++
			return s.do(call{method: method, path: "/api/v1" + path, token: token, body: body, header: http.Header{
				"X-Forwarded-For": {"198.51.100.7"}, "X-Request-Id": {fmt.Sprintf("step-%d", step)}, "User-Agent": {"A phone"},
			}})
		}
		account := func(email, password string) string {
			b, _ := json.Marshal(map[string]string{"email": email, "password": password})
			return string(b)
		}
		ann := s.accountOf(act("POST", "/auth/signup", "", account("ann@example.com", password)))
		second := s.accountOf(act("POST", "/auth/login", "", account("ann@example.com", password)))
		act("POST", "/auth/change-password", ann.Access, `{"current_password":"`+password+`","new_password":"another 9 words"}`)
		act("PATCH", "/user/profile", ann.Access, `{"email":"new@example.com","current_password":"another 9 words"}`)
		act("POST", "/auth/reset-password-request", "", `{"email":"new@example.com"}`)
		token := s.resetToken(ann.ID)
		act("POST", "/auth/reset-password/"+token, "", `{"password":"a third 10 words"}`)
		third := s.accountOf(act("POST", "/auth/login", "", account("new@example.com", "a third 10 words")))
		act("POST", "/auth/logout", third.Access, "")
		fourth := s.accountOf(act("POST", "/auth/login", "", account("new@example.com", "a third 10 words")))
		act("DELETE", "/auth/devices/4", fourth.Access, "")
		fifth := s.accountOf(act("POST", "/auth/login", "", account("new@example.com", "a third 10 words")))
		act("POST", "/auth/logout-all", fifth.Access, "")
		if got := s.works(second); got != isNoMore {
			t.Errorf("a device of before gets %s, want %s", got, isNoMore)
		}
		entries, _, err := db.AuditEntries(t.Context(), models.Page{})
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, e := range entries {
			if e.IP != "198.51.100.7" || e.SubjectID != ann.ID {
				t.Errorf("entry %+v, want one about user %d from 198.51.100.7", e, ann.ID)
			}
			got[e.RequestID] += fmt.Sprintf("%s by %d ", e.Action, e.ActorID)
		}
		want := map[string]string{
			"step-1": "account.created", "step-2": "session.started", "step-3": "password.changed", "step-4": "email.changed",
			"step-5": "password.reset_requested", "step-6": "password.reset", "step-7": "session.started", "step-8": "session.ended",
			"step-9": "session.started", "step-10": "device.removed", "step-11": "session.started", "step-12": "sessions.ended",
		}
		by := regexp.MustCompile(` by \d+ $`)
		for id, line := range got {
			got[id] = by.ReplaceAllString(line, "")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("entries by request (-want +got):\n%s", diff)
		}
	})
}

// Who waits for a whole reply and is signed out meanwhile does not get it.
func TestAReplyEndsAfterItsSession(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		asked, release := make(chan struct{}), make(chan struct{})
		s := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			close(asked)
			<-release
			return each(stream.Chunk{Text: "A secret.", Done: true, FinishReason: "stop"})
		}))
		ann := s.signup("ann@example.com")
		got := make(chan answer)
		go func() {
			a, err := s.send(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsJSON})
			if err != nil {
				t.Error(err)
			}
			got <- a
		}()
		<-asked
		s.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access})
		close(release)
		want := signedOut("This device was signed out.")
		if a := <-got; a.status != want.status || stable(a.body) != want.body {
			t.Errorf("got %d %s, want %v", a.status, a.body, want)
		}
	})
}
