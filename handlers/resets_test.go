package handlers_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
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

const (
	resetPath    = "/api/v1/auth/reset-password/"
	newPassword  = "another 9 words"
	resetDone    = "The password is changed, and all devices were signed out. Sign in with the new password."
	resetInvalid = "This link is not valid, was used, or has expired. Ask for another one."
)

// resetToken does what the delivery of a mail that was asked for does: it makes
// the token that stands in it.
func (s *service) resetToken(userID int64) string {
	s.t.Helper()
	token := auth.NewResetToken()
	if err := s.db.SetReset(s.t.Context(), userID, auth.HashResetToken(token), time.Now().Add(time.Hour)); err != nil {
		s.t.Fatal(err)
	}
	return token
}

// askForReset asks for a mail to an address, as a stranger.
func (s *service) askForReset(email string, header http.Header) answer {
	s.t.Helper()
	return s.do(call{method: "POST", path: "/api/v1/auth/reset-password-request", body: `{"email":"` + email + `"}`, header: header})
}

func TestResetPassword(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		invalid := problem(400, "invalid_reset_token", resetInvalid, "")
		s.askForReset("ann@example.com", nil)
		replaced := s.resetToken(ann.ID)
		token := s.resetToken(ann.ID)
		weak := "The password is among the most common ones."
		use := func(token, body string) call { return call{method: "POST", path: resetPath + token, body: body} }
		valid := call{method: "GET", path: resetPath + token}
		for range 3 { // it is not used up
			s.check(t, valid, wanted{200, `{"valid":true}`, map[string]string{"Cache-Control": "no-store"}})
		}
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"a token that another one replaced": {use(replaced, `{"password":"`+newPassword+`"}`), invalid},
			"is not valid either":               {call{method: "GET", path: resetPath + replaced}, invalid},
			"a token that is none":              {use("x", `{"password":"`+newPassword+`"}`), invalid},
			"its hash":                          {use(auth.HashResetToken(token), `{"password":"`+newPassword+`"}`), invalid},
			"no password": {use(token, `{}`), problem(400, "missing_fields", "Fields are missing; errors names them.",
				field("password", "required", "password is required."))},
			"a weak password":                     {use(token, `{"password":"password1"}`), problem(400, "weak_password", weak, field("password", "weak_password", weak))},
			"a weak password and a token of none": {use("x", `{"password":"password1"}`), invalid},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, tt.call, tt.want) })
		}
		s.check(t, use(token, `{"password":"`+newPassword+`","email":"bob@example.com","id":2}`), wanted{200, `{"message":"` + resetDone + `"}`, nil})
		s.check(t, valid, invalid)
		s.check(t, use(token, `{"password":"`+newPassword+`"}`), invalid)
		got := map[string]string{
			"the old password": s.login("ann@example.com", password, nil).told(),
			"the new password": s.login("ann@example.com", newPassword, nil).told(),
			"her device":       s.works(ann),
			"somebody else":    s.works(bob),
		}
		want := map[string]string{"the old password": "401", "the new password": "200", "her device": isNoMore, "somebody else": works}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("afterwards (-want +got):\n%s", diff)
		}
	})
}

// Of many who use one token, at several replicas, one succeeds.
func TestParallelUsesOfOneResetToken(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var replicas []*service
		for range 3 {
			replicas = append(replicas, start(t, db, says()))
		}
		ann := replicas[0].signup("ann@example.com")
		replicas[0].askForReset("ann@example.com", nil)
		token := replicas[0].resetToken(ann.ID)
		const n = 24
		got := make([]answer, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				got[i] = replicas[i%3].do(call{method: "POST", path: resetPath + token, body: `{"password":"password of user ` + string(rune('a'+i)) + `"}`})
			})
		}
		all.Wait()
		winner := ""
		for i, a := range got {
			switch {
			case a.status == 200 && winner == "":
				winner = "password of user " + string(rune('a'+i))
			case a.status != 400 || !strings.Contains(a.body, `"invalid_reset_token"`):
				t.Errorf("use %d: %d %s, want one 200 and else invalid_reset_token", i, a.status, a.body)
			}
		}
		if got := replicas[1].login("ann@example.com", winner, nil).status; got != 200 {
			t.Errorf("login with the winner's password: %d, want 200", got)
		}
	})
}

// Whoever asks for a mail learns nothing of whether there is an account, and has
// no word in what the mail says.
func TestAskingForAReset(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		s.signup("ann@example.com")
		off := time.Now()
		disabled := models.User{Email: "off@example.com", UserName: "off", PasswordHash: oldHash(t), DisabledAt: &off}
		if err := db.CreateUser(t.Context(), &disabled, &models.DeviceSession{SID: "x", ExpiresAt: off.Add(time.Hour)}, models.By{}); err != nil {
			t.Fatal(err)
		}
		forged := http.Header{
			"Host": {"evil.example"}, "X-Forwarded-Host": {"evil.example"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Prefix": {"/evil"},
			"Forwarded": {"host=evil.example;proto=http"}, "Origin": {"https://evil.example"}, "Referer": {"https://evil.example/"},
			"X-Original-Url": {"https://evil.example/"}, "X-Host": {"evil.example"},
		}
		done := wanted{200, `{"message":"If there is an account with this address, a mail with a link is on its way."}`, nil}
		ask := func(body string, header http.Header) call {
			return call{method: "POST", path: "/api/v1/auth/reset-password-request", body: body, header: header}
		}
		for name, tt := range map[string]struct {
			body string
			want wanted
			mail bool
		}{
			"an address with an account": {`{"email":" ANN@example.com"}`, done, true},
			"an unknown address":         {`{"email":"nobody@example.com"}`, done, false},
			"a disabled account":         {`{"email":"off@example.com"}`, done, false},
			"no address":                 {`{"email":"ann"}`, done, false},
			"two addresses":              {`{"email":"ann@example.com,evil@evil.example"}`, done, false},
			"another header in it":       {`{"email":"ann@example.com\r\nBcc: evil@evil.example"}`, done, false},
			"a line end and a name":      {`{"email":"Ann\n<ann@example.com>"}`, done, false},
			"more fields":                {`{"email":"ann@example.com","url":"https://evil.example","host":"evil.example","user_id":2}`, done, true},
			"an array": {`{"email":["ann@example.com","evil@evil.example"]}`, problem(400, "invalid_json", "email must be a string.",
				field("email", "invalid_type", "email must be a string.")), false},
			"nothing": {`{}`, problem(400, "missing_fields", "Fields are missing; errors names them.", field("email", "required", "email is required.")), false},
		} {
			t.Run(name, func(t *testing.T) {
				if _, err := db.Bun().ExecContext(t.Context(), "DELETE FROM mails"); err != nil {
					t.Fatal(err)
				}
				got := s.check(t, ask(tt.body, forged), tt.want)
				if v := got.header.Values("Set-Cookie"); v != nil {
					t.Errorf("cookies %q", v)
				}
				mails, err := db.ClaimMails(t.Context(), 10, time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				var want []models.Mail
				if tt.mail {
					want = []models.Mail{{Kind: models.MailResetPassword, UserID: 1, Recipient: "ann@example.com", Data: map[string]string{"ip": "127.0.0.1"}, Attempts: 1}}
				}
				for i := range mails {
					mails[i].ID, mails[i].CreatedAt = 0, time.Time{}
				}
				if diff := cmp.Diff(want, mails); diff != "" {
					t.Errorf("mails (-want +got):\n%s", diff)
				}
			})
		}
	})
}

// Too many mails to one address are not sent, and nobody is told. Too many
// requests from one network are refused.
func TestResetMailsAreThrottled(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(handlers.Limits{
			ResetMails:    auth.Limit{Quota: 2, Window: time.Hour},
			ResetRequests: auth.Limit{Quota: 4, Window: time.Hour},
		}))
		s.signup("ann@example.com")
		// mails is how many were put into the outbox since the last time.
		mails := func() int {
			claimed, err := db.ClaimMails(t.Context(), 10, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			return len(claimed)
		}
		for _, tt := range []struct {
			email, ip, want string
			mails           int
		}{
			{"ann@example.com", "198.51.100.7", `200 "reset-password-request";r=3`, 1},
			{"nobody@example.com", "198.51.100.8", `200 "reset-password-request";r=3`, 0},
			{"ann@example.com", "198.51.100.7", `200 "reset-password-request";r=2`, 1},
			{"nobody@example.com", "198.51.100.8", `200 "reset-password-request";r=2`, 0},
			{"Ann@example.com", "198.51.100.7", `200 "reset-password-request";r=1`, 0},
			{"Nobody@example.com", "198.51.100.8", `200 "reset-password-request";r=1`, 0},
			{"ann@example.com", "127.0.0.1", `200`, 0},
			{"bob@example.com", "198.51.100.7", `200 "reset-password-request";r=0`, 0},
			{"bob@example.com", "198.51.100.7", `429 "reset-password-request";r=0`, 0},
		} {
			got := s.askForReset(tt.email, from(tt.ip))
			if got.told() != tt.want {
				t.Errorf("%s from %s: %s, want %s", tt.email, tt.ip, got.told(), tt.want)
			}
			if n := mails(); n != tt.mails {
				t.Errorf("%s from %s: %d mails, want %d", tt.email, tt.ip, n, tt.mails)
			}
			if v, want := got.header.Get("RateLimit-Policy"), `"reset-password-request";q=4;w=3600`; v != want {
				t.Errorf("RateLimit-Policy is %q, want %q", v, want)
			}
		}
		checkRefused(t, s.askForReset("ann@example.com", from("198.51.100.7")), "too_many_attempts", tooOften, "reset-password-request", 15*time.Minute)
	})
}

// form sends the page's form.
func (s *service) form(body, contentType string) answer {
	s.t.Helper()
	return s.do(call{method: "POST", path: "/reset-password", body: body, header: http.Header{"Content-Type": {contentType}, "Origin": {"null"}}})
}

const formType = "application/x-www-form-urlencoded"

func TestTheResetPage(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		s.askForReset("ann@example.com", nil)
		token := s.resetToken(ann.ID)
		for range 3 { // a program that looks at links uses nothing up
			page := s.do(call{method: "GET", path: "/reset-password?token=" + token})
			checkPage(t, page, 200, "Choose a new password", "")
			if want := `<input type="hidden" name="token" value="` + token + `">`; !strings.Contains(page.body, want) {
				t.Errorf("the page lacks %s: %s", want, page.body)
			}
			if head := s.do(call{method: "HEAD", path: "/reset-password?token=" + token}); head.status != 200 || head.body != "" {
				t.Errorf("HEAD: %d %q, want 200 and nothing", head.status, head.body)
			}
		}
		values := func(token, password string) string {
			return url.Values{"token": {token}, "password": {password}}.Encode()
		}
		form := "Send token and password, once each, as a form."
		for name, tt := range map[string]struct {
			got           answer
			status        int
			heading, said string
			form          bool
		}{
			"no token":              {s.do(call{method: "GET", path: "/reset-password"}), 400, "That did not work", resetInvalid, false},
			"a token that is none":  {s.do(call{method: "GET", path: "/reset-password?token=%22%3E%3Cscript%3E"}), 400, "That did not work", resetInvalid, false},
			"a form with such one":  {s.form(values(`"><script>`, newPassword), formType), 400, "That did not work", resetInvalid, false},
			"a weak password":       {s.form(values(token, "password1"), formType), 400, "Choose a new password", "The password is among the most common ones.", true},
			"no password":           {s.form(values(token, ""), formType), 400, "Choose a new password", "The password needs at least 8 characters.", true},
			"a NUL in the password": {s.form(values(token, newPassword+"\x00"), formType), 400, "Choose a new password", "The password holds characters that cannot be used.", true},
			"bad UTF-8":             {s.form(values(token, newPassword+"\xff"), formType), 400, "Choose a new password", "The password holds characters that cannot be used.", true},
			"the token twice":       {s.form(values(token, newPassword)+"&token=x", formType), 400, "That did not work", form, false},
			"no field at all":       {s.form("x", formType), 400, "That did not work", form, false},
			"a form that is none":   {s.form("token=%zz", formType), 400, "That did not work", form, false},
			"JSON":                  {s.form(`{"token":"x","password":"y"}`, "application/json"), 400, "That did not work", form, false},
			"a large form":          {s.form(values(token, strings.Repeat("x", 1<<20)), formType), 413, "That did not work", "The body may have 1 MiB at most.", false},
		} {
			t.Run(name, func(t *testing.T) {
				checkPage(t, tt.got, tt.status, tt.heading, tt.said)
				if got := strings.Contains(tt.got.body, "<form"); got != tt.form {
					t.Errorf("it has a form: %v, want %v", got, tt.form)
				}
			})
		}
		if got := s.works(ann); got != works {
			t.Errorf("before the form is sent her device gets %s, want %s", got, works)
		}
		checkPage(t, s.form(values(token, newPassword), formType+"; charset=utf-8"), 200, "Done", resetDone)
		checkPage(t, s.form(values(token, newPassword), formType), 400, "That did not work", resetInvalid)
		if got := s.login("ann@example.com", newPassword, nil).status; got != 200 {
			t.Errorf("login with the new password: %d, want 200", got)
		}
		if got := s.works(ann); got != isNoMore {
			t.Errorf("afterwards her device gets %s, want %s", got, isNoMore)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		down := s.form(values(token, newPassword), formType)
		checkPage(t, down, 503, "That did not work", "The service cannot reach its data at the moment. Try again soon.")
		if v := down.header.Get("Retry-After"); v != "2" {
			t.Errorf("Retry-After is %q, want 2", v)
		}
		if log := s.log.String(); strings.Contains(log, token) || strings.Contains(log, url.QueryEscape(newPassword)) {
			t.Errorf("a token or a password stands in the log: %s", log)
		}
	})
}

// checkPage looks at a page for a browser: what it says, and that it can do
// nothing but send its form.
func checkPage(t *testing.T, got answer, status int, heading, said string) {
	t.Helper()
	if got.status != status || !strings.Contains(got.body, "<h1>"+heading+"</h1>") || !strings.Contains(got.body, "<p>"+said) && said != "" {
		t.Errorf("got %d %s, want %d with %q and %q", got.status, got.body, status, heading, said)
	}
	_, style, _ := strings.Cut(got.body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	for name, want := range map[string]string{
		"Content-Type":    "text/html; charset=utf-8",
		"Cache-Control":   "no-store",
		"Referrer-Policy": "no-referrer",
		"X-Frame-Options": "DENY",
		"Content-Security-Policy": "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"X-Content-Type-Options": "nosniff",
		"Set-Cookie":             "",
	} {
		if v := strings.Join(got.header.Values(name), ", "); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	for _, part := range []string{"<script", "onload=", "http:", "https:", "javascript:", " style="} {
		if strings.Contains(got.body, part) {
			t.Errorf("the page holds %s: %s", part, got.body)
		}
	}
}
