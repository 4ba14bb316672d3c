package handlers_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func (s *service) refresh(token string) answer {
	s.t.Helper()
	return s.do(call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + token + `"}`})
}

type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (s *service) refreshed(token string) tokens {
	s.t.Helper()
	a := s.refresh(token)
	if a.status != 200 || stable(a.body) != `{`+tokensBody+`}` {
		s.t.Fatalf("refresh: %d %s, want 200 and tokens", a.status, a.body)
	}
	var out tokens
	decodeInto(s.t, a.body, &out)
	return out
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	invalid := problem(401, "invalid_refresh_token", "The refresh token is not valid; sign in again.", "").with("WWW-Authenticate",
		`Bearer realm="parley", error="invalid_token", error_description="The refresh token is not valid; sign in again."`)
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		first := s.signup("ann@example.com")
		second := s.refreshed(first.Refresh)
		if again := s.refreshed(first.Refresh); again.Refresh != second.Refresh {
			t.Error("a repeated refresh gave another successor, want the same")
		}
		third := s.refreshed(second.Refresh)
		for name, tt := range map[string]struct {
			body string
			want wanted
		}{
			"no token": {`{}`, problem(400, "missing_fields", "Fields are missing; errors names them.",
				field("refresh_token", "required", "refresh_token is required."))},
			"no JWT":          {`{"refresh_token":"abc"}`, invalid},
			"an access token": {`{"refresh_token":"` + first.Access + `"}`, invalid},
		} {
			t.Run(name, func(t *testing.T) {
				s.check(t, call{method: "POST", path: "/api/v1/auth/refresh", body: tt.body}, tt.want)
			})
		}
		profile := call{method: "GET", path: "/api/v1/user/profile", token: third.Access}
		s.check(t, profile, wanted{200, annBody, nil})
		reused := "The refresh token was used before, so this device was signed out; sign in again."
		s.check(t, call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + first.Refresh + `"}`},
			problem(401, "refresh_token_reused", reused, "").with("WWW-Authenticate",
				`Bearer realm="parley", error="invalid_token", error_description="`+reused+`"`))
		s.check(t, profile, problem(401, "invalid_token", "This device was signed out.", "").with("WWW-Authenticate",
			`Bearer realm="parley", error="invalid_token", error_description="This device was signed out."`))
		s.check(t, call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + third.Refresh + `"}`}, invalid)
	})
}

// Also at several replicas.
func TestParallelRefreshesGiveOneSuccessor(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var replicas []*service
		for range 3 {
			replicas = append(replicas, start(t, db, says()))
		}
		ann := replicas[0].signup("ann@example.com")
		const n = 50
		got := make([]tokens, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { decodeInto(t, replicas[i%3].refresh(ann.Refresh).body, &got[i]) })
		}
		all.Wait()
		for i := range got {
			if got[i].Refresh == "" || got[i].Refresh != got[0].Refresh {
				t.Fatalf("refresh %d gave %q, want the one of refresh 0, %q", i, got[i].Refresh, got[0].Refresh)
			}
		}
		for i, s := range replicas {
			if a := s.do(call{method: "GET", path: "/api/v1/user/profile", token: got[i].Access}); a.status != 200 {
				t.Errorf("at replica %d its access token gets %d %s, want 200", i, a.status, a.body)
			}
		}
		if got := replicas[2].works(account{Access: got[0].Access, Refresh: got[0].Refresh}); got != works {
			t.Errorf("the successor gets %s, want %s", got, works)
		}
	})
}

// The grace of the token before ends with the first request that the tokens
// after it are used for.
func TestARequestEndsTheGraceOfTheTokenBefore(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		caller, err := s.tokens.VerifyAccess(ann.Access)
		if err != nil {
			t.Fatal(err)
		}
		second := s.refreshed(ann.Refresh)
		late := time.Now().Add(time.Hour)
		if _, got, err := db.RotateSession(t.Context(), caller.SID, 1, late, time.Minute, models.By{}); got != models.Repeated || err != nil {
			t.Fatalf("before any use: %v, %v, want the same again", got, err)
		}
		s.check(t, call{method: "GET", path: "/api/v1/user/profile", token: second.Access}, wanted{200, annBody, nil})
		if _, got, err := db.RotateSession(t.Context(), caller.SID, 1, late, time.Minute, models.By{}); got != models.Reused || err != nil {
			t.Errorf("after a use: %v, %v, want it to be refused", got, err)
		}
	})
}

func TestLogout(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		done := wanted{200, `{"message":"Signed out."}`, nil}
		for name, tt := range map[string]struct {
			call func(account) call
			ends bool
		}{
			"by the bearer token": {func(a account) call { return call{token: a.Access} }, true},
			"by the refresh token": {func(a account) call {
				return call{body: `{"refresh_token":"` + a.Refresh + `"}`}
			}, true},
			"by the refresh token beside a bearer token that is none": {func(a account) call {
				return call{token: "x", body: `{"refresh_token":"` + a.Refresh + `"}`}
			}, true},
			"twice": {func(a account) call {
				s.do(call{method: "POST", path: "/api/v1/auth/logout", token: a.Access})
				return call{token: a.Access, body: `{"refresh_token":"` + a.Refresh + `"}`}
			}, true},
			"without any token":        {func(account) call { return call{} }, false},
			"by tokens that are none":  {func(account) call { return call{token: "x", body: `{"refresh_token":"x"}`} }, false},
			"by an empty object":       {func(account) call { return call{body: `{}`} }, false},
			"by the tokens swapped":    {func(a account) call { return call{token: a.Refresh, body: `{"refresh_token":"` + a.Access + `"}`} }, false},
			"with an unknown property": {func(account) call { return call{body: `{"everything":true}`} }, false},
		} {
			t.Run(name, func(t *testing.T) {
				ann := s.signup(strings.ReplaceAll(name, " ", ".") + "@example.com")
				c := tt.call(ann)
				c.method, c.path = "POST", "/api/v1/auth/logout"
				s.check(t, c, done)
				want := 200
				if tt.ends {
					want = 401
				}
				if got := s.do(call{method: "GET", path: "/api/v1/user/profile", token: ann.Access}).status; got != want {
					t.Errorf("the access token gets %d afterwards, want %d", got, want)
				}
				if got := s.refresh(ann.Refresh); got.status != want || tt.ends && !strings.Contains(got.body, `"invalid_refresh_token"`) {
					t.Errorf("the refresh token gets %d %s afterwards, want %d", got.status, got.body, want)
				}
			})
		}
	})
}

// Clients forget who was signed in without a look at the answer: what cannot be
// read of the body does not keep the bearer signed in.
func TestLogoutWithABodyThatIsNone(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		for name, tt := range map[string]struct {
			body string
			want int
		}{
			"a token that is null":    {`{"refresh_token":null}`, 400},
			"a token that is no text": {`{"refresh_token":7}`, 400},
			"no JSON":                 {`{`, 400},
			"too much":                {strings.Repeat(" ", 1<<20+1), 413},
		} {
			t.Run(name, func(t *testing.T) {
				ann := s.signup(strings.ReplaceAll(name, " ", ".") + "@example.com")
				if got := s.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access, body: tt.body}).status; got != tt.want {
					t.Errorf("got %d, want %d", got, tt.want)
				}
				if got := s.works(ann); got != isNoMore {
					t.Errorf("the device gets %s afterwards, want %s", got, isNoMore)
				}
			})
		}
	})
}

func TestAuthCheck(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		off := time.Now()
		disabled := models.User{Email: "off@example.com", UserName: "off", PasswordHash: "x", DisabledAt: &off}
		if err := db.CreateUser(t.Context(), &disabled, &models.DeviceSession{SID: "x", ExpiresAt: off.Add(time.Hour)}, models.By{}); err != nil {
			t.Fatal(err)
		}
		no := wanted{200, `{"authenticated":false}`, nil}
		for name, tt := range map[string]struct {
			token string
			want  wanted
		}{
			"a valid token":             {ann.Access, wanted{200, `{"authenticated":true,"user":` + annBody + `}`, nil}},
			"no token":                  {"", no},
			"a refresh token":           {ann.Refresh, no},
			"garbage":                   {"x.y.z", no},
			"a user who does not exist": {s.tokenOf(99), no},
			"a disabled user":           {s.tokenOf(disabled.ID), no},
		} {
			t.Run(name, func(t *testing.T) {
				s.check(t, call{method: "GET", path: "/api/v1/auth/check", token: tt.token}, tt.want)
			})
		}
		s.check(t, call{method: "GET", path: "/api/v1/user/profile", token: s.tokenOf(disabled.ID)},
			problem(403, "account_disabled", "This account is disabled.", ""))
	})
}

// tokenOf makes a valid access token of a user who need not exist.
func (s *service) tokenOf(userID int64) string {
	s.t.Helper()
	pair, err := s.tokens.Issue(s.tokens.NewSession(userID))
	if err != nil {
		s.t.Fatal(err)
	}
	return pair.AccessToken
}

// A database that cannot be asked is never taken for a no.
func TestWithoutADatabase(t *testing.T) {
	t.Parallel()
	want := problem(503, "unavailable", "The service cannot reach its data at the moment. Try again soon.", "").with("Retry-After", "2")
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		ticket := s.ticketOf(ann.Access, 1)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]call{
			"check":      {method: "GET", path: "/api/v1/auth/check", token: ann.Access},
			"profile":    {method: "GET", path: "/api/v1/user/profile", token: ann.Access},
			"sign-up":    {method: "POST", path: "/api/v1/auth/signup", body: `{"email":"bob@example.com","password":"` + password + `"}`},
			"login":      {method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"` + password + `"}`},
			"refresh":    {method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"` + ann.Refresh + `"}`},
			"logout":     {method: "POST", path: "/api/v1/auth/logout", token: ann.Access},
			"chats":      {method: "GET", path: "/api/v1/chats", token: ann.Access},
			"a chat":     {method: "GET", path: "/api/v1/chats/1", token: ann.Access},
			"send":       {method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"hi"}`},
			"a message":  {method: "GET", path: "/api/v1/messages/1", token: ann.Access},
			"a stream":   {method: "GET", path: "/api/v1/messages/1/stream", token: ann.Access},
			"by ticket":  {method: "GET", path: "/api/v1/messages/1/stream?ticket=" + ticket},
			"a ticket":   {method: "POST", path: "/api/v1/messages/1/stream-ticket", token: ann.Access},
			"stop":       {method: "POST", path: "/api/v1/messages/1/stop", token: ann.Access},
			"again":      {method: "POST", path: "/api/v1/messages/1/regenerate", token: ann.Access},
			"devices":    {method: "GET", path: "/api/v1/auth/devices", token: ann.Access},
			"a device":   {method: "DELETE", path: "/api/v1/auth/devices/1", token: ann.Access},
			"all":        {method: "POST", path: "/api/v1/auth/logout-all", token: ann.Access},
			"a request":  {method: "POST", path: "/api/v1/auth/reset-password-request", body: `{"email":"ann@example.com"}`},
			"a nobody's": {method: "POST", path: "/api/v1/auth/reset-password-request", body: `{"email":"nobody@example.com"}`},
			"a link":     {method: "GET", path: "/api/v1/auth/reset-password/x"},
			"a reset":    {method: "POST", path: "/api/v1/auth/reset-password/x", body: `{"password":"` + password + `"}`},
			"a change":   {method: "POST", path: "/api/v1/auth/change-password", token: ann.Access, body: `{"current_password":"x","new_password":"` + newPassword + `"}`},
			"a name":     {method: "PATCH", path: "/api/v1/user/profile", token: ann.Access, body: `{"user_name":"Ann"}`},
			"delete":     {method: "DELETE", path: "/api/v1/user", token: ann.Access, body: `{"current_password":"x"}`},
			"export":     {method: "GET", path: "/api/v1/user/export", token: ann.Access},
			"figures":    {method: "GET", path: "/api/v1/admin/metrics/system", token: ann.Access},
			"a wipe":     {method: "POST", path: "/api/v1/admin/delete-all-users", token: ann.Access},
			"edit":       {method: "POST", path: "/api/v1/messages/1/edit", token: ann.Access, body: `{"message":"hi"}`},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, c, want) })
		}
		s.check(t, call{method: "GET", path: "/health"}, wanted{200, `{"status":"ok","service":"parley","version":"1.2.3"}`, nil})
	})
}
