package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

var (
	wrongPassword = problem(403, "wrong_password", "The current password is wrong.",
		field("current_password", "wrong_password", "The current password is wrong."))
	noPassword = problem(400, "missing_fields", "Fields are missing; errors names them.",
		field("current_password", "required", "current_password is required."))
)

func TestChangePassword(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		other, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		ann := s.signIn("ann@example.com", password, nil)
		s.askForReset("ann@example.com", nil)
		token := s.resetToken(ann.ID)
		change := func(body string) call {
			return call{method: "POST", path: "/api/v1/auth/change-password", token: ann.Access, body: body}
		}
		both := func(current, next string) string {
			return `{"current_password":"` + current + `","new_password":"` + next + `"}`
		}
		weak := "The password is too close to the email address."
		for name, tt := range map[string]struct {
			body string
			want wanted
		}{
			"nothing": {`{}`, problem(400, "missing_fields", "Fields are missing; errors names them.",
				field("current_password", "required", "current_password is required.")+","+field("new_password", "required", "new_password is required."))},
			"a wrong password":    {both("wrong", newPassword), wrongPassword},
			"a weak new password": {both(password, "ann@example"), problem(400, "weak_password", weak, field("new_password", "weak_password", weak))},
		} {
			t.Run(name, func(t *testing.T) {
				got := s.check(t, change(tt.body), tt.want)
				if v := got.header.Get("WWW-Authenticate"); v != "" {
					t.Errorf("WWW-Authenticate is %q: the token is good", v)
				}
			})
		}
		s.check(t, change(both(password, newPassword)), wanted{200, `{"message":"Password changed; other devices were signed out."}`, nil})
		got := map[string]string{
			"this device":         s.works(ann),
			"another device":      s.works(other),
			"somebody else":       s.works(bob),
			"the old password":    s.login("ann@example.com", password, nil).told(),
			"the new password":    s.login("ann@example.com", newPassword, nil).told(),
			"a link of before it": s.do(call{method: "GET", path: resetPath + token}).told(),
		}
		want := map[string]string{
			"this device": works, "another device": isNoMore, "somebody else": works,
			"the old password": "401", "the new password": "200", "a link of before it": "400",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("afterwards (-want +got):\n%s", diff)
		}
	})
}

// Of many who change one password at once, one does, and for the others the one
// that they know is wrong by then.
func TestParallelChangesOfOnePassword(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		const n = 12
		got := make([]int, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				got[i] = s.do(call{
					method: "POST", path: "/api/v1/auth/change-password", token: ann.Access,
					body: fmt.Sprintf(`{"current_password":"%s","new_password":"password of user %c"}`, password, 'a'+i),
				}).status
			})
		}
		all.Wait()
		count := make(map[int]int)
		for _, status := range got {
			count[status]++
		}
		if diff := cmp.Diff(map[int]int{200: 1, 403: n - 1}, count); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	})
}

// The password of an old kind of hash is right also where a login replaces the
// hash at the same moment.
func TestChangeAPasswordOfAnOldHash(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		for i := range 10 {
			user := models.User{Email: fmt.Sprintf("old%d@example.com", i), UserName: "old", PasswordHash: oldHash(t)}
			if err := db.CreateUser(t.Context(), &user, &models.DeviceSession{SID: fmt.Sprint(i), ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
				t.Fatal(err)
			}
			token := s.tokenOf(user.ID)
			var both sync.WaitGroup
			both.Go(func() { s.login(user.Email, oldPassword, nil) })
			both.Go(func() {
				got := s.do(call{
					method: "POST", path: "/api/v1/auth/change-password", token: token,
					body: `{"current_password":"` + oldPassword + `","new_password":"` + newPassword + `"}`,
				})
				if got.status != 200 {
					t.Errorf("change: %d %s, want 200", got.status, got.body)
				}
			})
			both.Wait()
			if got := s.login(user.Email, newPassword, nil).status; got != 200 {
				t.Errorf("login with the new password: %d, want 200", got)
			}
		}
	})
}

// Many first logins at once, each of which replaces the hash, all succeed.
func TestParallelLoginsWithAnOldHash(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		user := models.User{Email: "old@example.com", UserName: "old", PasswordHash: oldHash(t)}
		if err := db.CreateUser(t.Context(), &user, &models.DeviceSession{SID: "x", ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() {
				if got := s.login("old@example.com", oldPassword, nil); got.status != 200 {
					t.Errorf("login: %d %s, want 200", got.status, got.body)
				}
			})
		}
		all.Wait()
	})
}

// Who signs in with a password while it is changed is signed in no more when it
// has been.
func TestLoginsBesideAChangeOfThePassword(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		logins := make(chan answer, 20)
		var all sync.WaitGroup
		for range cap(logins) {
			all.Go(func() { logins <- s.login("ann@example.com", password, nil) })
		}
		changed := s.do(call{
			method: "POST", path: "/api/v1/auth/change-password", token: ann.Access,
			body: `{"current_password":"` + password + `","new_password":"` + newPassword + `"}`,
		})
		all.Wait()
		close(logins)
		if changed.status != 200 {
			t.Fatalf("change: %d %s, want 200", changed.status, changed.body)
		}
		for a := range logins {
			switch a.status {
			case 401: // too late
			case 200:
				if got := s.works(s.accountOf(a)); got != isNoMore {
					t.Errorf("a login with the old password gets %s, want %s", got, isNoMore)
				}
			default:
				t.Errorf("login: %d %s, want 200 or 401", a.status, a.body)
			}
		}
	})
}

func TestChangeProfile(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		s.signup("bob@example.com")
		s.askForReset("ann@example.com", nil)
		token := s.resetToken(ann.ID)
		user := func(email, name string) wanted {
			return wanted{200, `{"id":1,"email":"` + email + `","user_name":"` + name + `","is_admin":false,"created_at":"<time>"}`, nil}
		}
		invalid := func(code, name, detail string) wanted { return problem(400, code, detail, field(name, code, detail)) }
		pass := `,"current_password":"` + password + `"}`
		for _, tt := range []struct {
			name, body string
			want       wanted
		}{
			{"nothing", `{}`, user("ann@example.com", "ann")},
			{"what nobody may set", `{"id":2,"is_admin":true,"role":"admin","password_hash":"x","created_at":"2000-01-01T00:00:00Z","disabled_at":null}`, user("ann@example.com", "ann")},
			{"another name", `{"user_name":" Ann O'Neill "}`, user("ann@example.com", "Ann O'Neill")},
			{"a name with a line end", `{"user_name":"Ann\r\nBcc: x@example.com"}`, invalid("invalid_user_name", "user_name", "user_name must not hold control characters.")},
			{"the same address", `{"email":" Ann@Example.com"}`, user("ann@example.com", "Ann O'Neill")},
			{"another address without the password", `{"email":"new@example.com"}`, noPassword},
			{"another address and a wrong password", `{"email":"new@example.com","current_password":"wrong"}`, wrongPassword},
			{"no address", `{"email":"new"` + pass, invalid("invalid_email", "email", "The email address needs exactly one @.")},
			{"an address with a line end", `{"email":"new@example.com\r\nBcc: x@example.com"` + pass, invalid("invalid_email", "email", "The email address may not hold spaces or control characters.")},
			{"somebody else's address", `{"user_name":"Eve","email":"BOB@example.com"` + pass, problem(400, "user_exists", "There is an account with this email address.", "")},
			{"null for an address", `{"email":null}`, problem(400, "invalid_json", "email must not be null.", field("email", "null", "email must not be null."))},
			{"another address", `{"user_name":"Ann","email":"New@example.com"` + pass, user("new@example.com", "Ann")},
		} {
			t.Run(tt.name, func(t *testing.T) {
				s.check(t, call{method: "PATCH", path: "/api/v1/user/profile", token: ann.Access, body: tt.body}, tt.want)
			})
		}
		s.check(t, call{method: "GET", path: "/api/v1/user/profile", token: ann.Access}, user("new@example.com", "Ann"))
		got := map[string]string{
			"the old address":     s.login("ann@example.com", password, nil).told(),
			"the new address":     s.login("new@example.com", password, nil).told(),
			"her device":          s.works(ann),
			"a link of before it": s.do(call{method: "GET", path: resetPath + token}).told(),
		}
		want := map[string]string{"the old address": "401", "the new address": "200", "her device": works, "a link of before it": "400"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("afterwards (-want +got):\n%s", diff)
		}
		mails, err := db.ClaimMails(t.Context(), 10, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if len(mails) != 1 || mails[0].Kind != models.MailEmailChanged || mails[0].Recipient != "ann@example.com" {
			t.Errorf("mails %+v, want one to the old address", mails)
		}
	})
}

func TestDeleteUser(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := start(t, db, hangs(release))
		defer close(release)
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		phone := s.signIn("ann@example.com", password, nil)
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsAsync})
		s.do(call{method: "POST", path: "/api/v1/messages", token: bob.Access, body: `{"message":"Hi"}`, header: wantsAsync})
		s.askForReset("ann@example.com", nil)
		reset := s.resetToken(ann.ID)
		remove := func(body string) call {
			return call{method: "DELETE", path: "/api/v1/user", token: ann.Access, body: body}
		}
		s.check(t, remove(""), noPassword)
		s.check(t, remove(`{}`), noPassword)
		s.check(t, remove(`{"current_password":"wrong"}`), wrongPassword)
		if got := s.works(phone); got != works {
			t.Errorf("before the account is deleted a device gets %s, want %s", got, works)
		}
		s.check(t, remove(`{"current_password":"`+password+`"}`), wanted{204, "", nil})
		got := map[string]string{
			"this device":     s.works(ann),
			"the other":       s.works(phone),
			"somebody else":   s.works(bob),
			"her password":    s.login("ann@example.com", password, nil).told(),
			"a link":          s.do(call{method: "GET", path: resetPath + reset}).told(),
			"her chat":        s.do(call{method: "GET", path: "/api/v1/chats/1", token: bob.Access}).told(),
			"a chat of bob's": s.do(call{method: "GET", path: "/api/v1/chats/2", token: bob.Access}).told(),
		}
		want := map[string]string{
			"this device": isNoMore, "the other": isNoMore, "somebody else": works, "her password": "401", "a link": "400",
			"her chat": "404", "a chat of bob's": "200",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("afterwards (-want +got):\n%s", diff)
		}
		// The address is free, and the new user is another one.
		again := s.signup("ann@example.com")
		if again.ID == ann.ID {
			t.Errorf("the new user has id %d, the old one's", again.ID)
		}
		entries, _, err := db.AuditEntries(t.Context(), models.Page{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.SubjectID == ann.ID && e.SubjectEmail != "" || e.ActorID == ann.ID && e.ActorEmail != "" {
				t.Errorf("the audit names who has left: %+v", e)
			}
		}
	})
}

// A token that was stolen is no way to guess the password.
func TestWrongCurrentPasswordsAreThrottled(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(handlers.Limits{LoginAccountNetwork: auth.Limit{Quota: 3, Window: 15 * time.Minute}}))
		ann := s.signup("ann@example.com")
		phone := s.signIn("ann@example.com", password, from("192.0.2.1"))
		clients := 0
		send := func(who account, method, path, body string) answer {
			clients++
			a := s.do(call{method: method, path: "/api/v1" + path, token: who.Access, body: body, header: from(fmt.Sprintf("203.0.113.%d", clients))})
			if v, want := a.header.Get("RateLimit-Policy"), `"login";q=3;w=900`; v != want {
				t.Errorf("%s %s: RateLimit-Policy is %q, want %q", method, path, v, want)
			}
			return a
		}
		change := func(current string) string {
			return `{"current_password":"` + current + `","new_password":"` + newPassword + `"}`
		}
		got := []string{
			send(ann, "POST", "/auth/change-password", change("wrong")).told(),
			send(ann, "PATCH", "/user/profile", `{"user_name":"Ann"}`).told(),
			send(ann, "PATCH", "/user/profile", `{"email":"new@example.com","current_password":"wrong"}`).told(),
			send(ann, "PATCH", "/user/profile", `{"email":"ann2@example.com","current_password":"`+password+`"}`).told(),
			send(ann, "PATCH", "/user/profile", `{"email":"ann@example.com","current_password":"`+password+`"}`).told(),
			send(ann, "DELETE", "/user", `{"current_password":"wrong"}`).told(),
			send(ann, "DELETE", "/user", `{"current_password":"`+password+`"}`).told(),
			send(ann, "POST", "/auth/change-password", change(password)).told(),
			send(phone, "POST", "/auth/change-password", change(password)).told(),
		}
		want := []string{
			`403 "login";r=2`, `200`, `403 "login";r=1`, `200 "login";r=1`, `200 "login";r=3`, `403 "login";r=0`,
			`429 "login";r=0`, `429 "login";r=0`, `200 "login";r=3`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	})
}

// That an address has an account is found out by a change of the own one no
// more often than by signing up.
func TestAddressesAreNotFoundOutByTrying(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(handlers.Limits{Signups: auth.Limit{Quota: 3, Window: time.Hour}}))
		eve := s.signup("eve@example.com")
		var got []int
		for i := range 5 {
			got = append(got, s.do(call{
				method: "PATCH", path: "/api/v1/user/profile", token: eve.Access, header: from("198.51.100.7"),
				body: fmt.Sprintf(`{"email":"eve%d@example.com","current_password":"%s"}`, i, password),
			}).status)
		}
		if diff := cmp.Diff([]int{200, 200, 200, 429, 429}, got); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	})
}

// Of several spellings of one address, signed up at once at several replicas,
// one gets the account.
func TestParallelSignupsOfOneAddress(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var replicas []*service
		for range 3 {
			replicas = append(replicas, start(t, db, says()))
		}
		spellings := []string{
			"ann@example.com", "Ann@example.com", "ANN@EXAMPLE.COM", "ann@Example.Com", " ann@example.com", "ann@example.com\\r\\n",
			"\\tann@example.com ", "\\u0061nn@example.com", "aNN@eXAMPLE.cOM",
		}
		const n = 27
		got := make([]answer, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				got[i] = replicas[i%3].do(call{
					method: "POST", path: "/api/v1/auth/signup",
					body: `{"email":"` + spellings[i%len(spellings)] + `","password":"` + password + `"}`,
				})
			})
		}
		all.Wait()
		count := make(map[string]int)
		for _, a := range got {
			switch {
			case a.status == http.StatusCreated && strings.Contains(a.body, `"email":"ann@example.com"`):
				count["created"]++
			case a.status == http.StatusBadRequest && strings.Contains(a.body, `"user_exists"`):
				count["user_exists"]++
			default:
				t.Errorf("got %d %s", a.status, a.body)
			}
		}
		if diff := cmp.Diff(map[string]int{"created": 1, "user_exists": n - 1}, count); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if rows := replicas[0].rows("users"); rows != 1 {
			t.Errorf("%d users, want 1", rows)
		}
	})
}
