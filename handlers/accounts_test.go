package handlers_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/auth"
	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

const (
	tokensBody = `"access_token":"<token>","token_type":"Bearer","expires_in":900,"refresh_token":"<token>","refresh_expires_in":2592000`
	annBody    = `{"id":1,"email":"ann@example.com","user_name":"ann","is_admin":false,"created_at":"<time>"}`
	challenge  = `Bearer realm="parley"`
)

func TestSignup(t *testing.T) {
	t.Parallel()
	invalid := func(code, name, detail string) wanted {
		return problem(400, code, detail, field(name, code, detail))
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		s.check(t, call{
			method: "POST", path: "/api/v1/auth/signup",
			body: `{"email":" Ann@Example.com ","password":"` + password + `","is_admin":true,"role":"admin","id":77,` +
				`"created_at":"2000-01-01T00:00:00Z","disabled_at":"2000-01-01T00:00:00Z","password_hash":"x","user_id":77}`,
		}, wanted{201, `{"message":"Account created.","user":` + annBody + `,` + tokensBody + `}`, map[string]string{
			"Content-Type": "application/json", "Cache-Control": "no-store",
		}})
		for name, tt := range map[string]struct {
			body string
			want wanted
		}{
			"nothing given": {`{}`, problem(400, "missing_fields", "Fields are missing; errors names them.",
				field("email", "required", "email is required.")+","+field("password", "required", "password is required."))},
			"an empty password": {`{"email":"bob@example.com","password":""}`, problem(400, "missing_fields",
				"Fields are missing; errors names them.", field("password", "required", "password is required."))},
			"no address": {
				`{"email":"bob","password":"` + password + `"}`,
				invalid("invalid_email", "email", "The email address needs exactly one @."),
			},
			"an address with a header behind it": {
				`{"email":"bob@example.com\r\nBcc: eve@example.com","password":"` + password + `"}`,
				invalid("invalid_email", "email", "The email address may not hold spaces or control characters."),
			},
			"two addresses": {
				`{"email":"bob@example.com,eve@example.com","password":"` + password + `"}`,
				invalid("invalid_email", "email", "The email address needs exactly one @."),
			},
			"a name with a header behind it": {
				`{"email":"bob@example.com","password":"` + password + `","user_name":"Bob\r\nBcc: eve@example.com"}`,
				invalid("invalid_user_name", "user_name", "user_name must not hold control characters."),
			},
			"a weak password": {
				`{"email":"bob@example.com","password":"short"}`,
				invalid("weak_password", "password", "The password needs at least 8 characters."),
			},
			"an address that has an account": {
				`{"email":"ANN@example.com","password":"` + password + `"}`,
				problem(400, "user_exists", "There is an account with this email address.", ""),
			},
			"a blank name": {
				`{"email":"bob@example.com","password":"` + password + `","user_name":" "}`,
				invalid("invalid_user_name", "user_name", "user_name must not be empty."),
			},
			"a name too long": {
				`{"email":"bob@example.com","password":"` + password + `","user_name":"` + strings.Repeat("ä", 101) + `"}`,
				invalid("invalid_user_name", "user_name", "user_name is too long."),
			},
			"a name with a line break": {
				`{"email":"bob@example.com","password":"` + password + `","user_name":"a\nb"}`,
				invalid("invalid_user_name", "user_name", "user_name must not hold control characters."),
			},
			"a number for an address": {`{"email":7,"password":"` + password + `"}`, problem(400, "invalid_json",
				"email must be a string.", field("email", "invalid_type", "email must be a string."))},
			"null for a name": {`{"email":"bob@example.com","password":"` + password + `","user_name":null}`, problem(400, "invalid_json",
				"user_name must not be null.", field("user_name", "null", "user_name must not be null."))},
		} {
			t.Run(name, func(t *testing.T) {
				s.check(t, call{method: "POST", path: "/api/v1/auth/signup", body: tt.body}, tt.want)
			})
		}
		named := s.do(call{
			method: "POST", path: "/api/auth/signup",
			body: `{"email":"cy@example.com","password":"` + password + `","user_name":" ` + strings.Repeat("ä", 100) + `\u3000"}`,
		})
		if want := `"user_name":"` + strings.Repeat("ä", 100) + `"`; named.status != 201 || !strings.Contains(named.body, want) {
			t.Errorf("got %d %s, want 201 with %s", named.status, named.body, want)
		}
	})
}

func TestLogin(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		s.signup("ann@example.com")
		off := time.Now()
		disabled := models.User{Email: "off@example.com", UserName: "off", PasswordHash: oldHash(t), DisabledAt: &off}
		if err := db.CreateUser(t.Context(), &disabled, &models.DeviceSession{SID: "x", ExpiresAt: off.Add(time.Hour)}, models.By{}); err != nil {
			t.Fatal(err)
		}
		wrong := problem(401, "invalid_credentials", "The email address or the password is wrong.", "").with("WWW-Authenticate", challenge)
		for name, tt := range map[string]struct {
			body string
			want wanted
		}{
			"right": {
				`{"email":"ANN@example.com","password":"` + password + `"}`,
				wanted{200, `{"message":"Signed in.","user":` + annBody + `,` + tokensBody + `}`, nil},
			},
			"nothing given": {`{}`, problem(400, "missing_fields", "Fields are missing; errors names them.",
				field("email", "required", "email is required.")+","+field("password", "required", "password is required."))},
			"the wrong password":                   {`{"email":"ann@example.com","password":"wrong"}`, wrong},
			"an unknown address":                   {`{"email":"nobody@example.com","password":"wrong"}`, wrong},
			"no address at all":                    {`{"email":"'; DROP TABLE users","password":"wrong"}`, wrong},
			"a password of a MiB, almost":          {`{"email":"ann@example.com","password":"` + strings.Repeat("x", 1<<20-100) + `"}`, wrong},
			"a disabled user and a wrong password": {`{"email":"off@example.com","password":"wrong"}`, wrong},
			"a disabled user": {
				`{"email":"off@example.com","password":"` + oldPassword + `"}`,
				problem(403, "account_disabled", "This account is disabled.", ""),
			},
		} {
			t.Run(name, func(t *testing.T) {
				s.check(t, call{method: "POST", path: "/api/v1/auth/login", body: tt.body}, tt.want)
			})
		}
	})
}

// oldPassword is behind oldHash, which is a hash of a cost that is not in use.
const oldPassword = "an old password 1"

func oldHash(t *testing.T) string {
	t.Helper()
	hash, err := auth.NewPasswords(auth.Argon2Params{MemoryKiB: 16, Time: 1, Threads: 1}, 1).Hash(t.Context(), oldPassword)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func TestLoginReplacesAnOldHash(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		user := models.User{Email: "old@example.com", UserName: "old", PasswordHash: oldHash(t)}
		broken := models.User{Email: "broken@example.com", UserName: "broken", PasswordHash: "md5$abc$def"}
		for i, u := range []*models.User{&user, &broken} {
			session := models.DeviceSession{SID: []string{"a", "b"}[i], ExpiresAt: time.Now().Add(time.Hour)}
			if err := db.CreateUser(t.Context(), u, &session, models.By{}); err != nil {
				t.Fatal(err)
			}
		}
		login := func(email string) int {
			return s.do(call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"` + email + `","password":"` + oldPassword + `"}`}).status
		}
		if got := login("old@example.com"); got != 200 {
			t.Fatalf("login: %d, want 200", got)
		}
		stored, err := db.UserByEmail(t.Context(), "old@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(stored.PasswordHash, "$argon2id$v=19$m=8,t=1,p=1$") {
			t.Errorf("hash is %s, want one of the current cost", stored.PasswordHash)
		}
		if got := login("old@example.com"); got != 200 {
			t.Errorf("login with the replaced hash: %d, want 200", got)
		}
		if got := login("broken@example.com"); got != 401 {
			t.Errorf("login with a hash that nothing reads: %d, want 401", got)
		}
	})
}

// Of more logins than are done in ten seconds some wait, and the others are told
// within a second when to come back.
func TestAFloodOfLogins(t *testing.T) {
	t.Parallel()
	// A hash is taken to last 50 ms until one has been made.
	goOn := make(chan struct{})
	slow := auth.NewPasswordPool(auth.Argon2Params{MemoryKiB: 8, Time: 1, Threads: 1}, []auth.Hasher{func(j auth.HashJob) auth.HashResult {
		<-goOn
		return j.Do()
	}})
	db := modelstest.New(t, models.SQLite)
	s := start(t, db, says(), func(c *handlers.Config) { c.Passwords = slow })
	const n, away = 260, 50
	got := make(chan answer, n)
	for range n {
		go func() {
			got <- s.do(call{method: "POST", path: "/api/v1/auth/login", body: `{"email":"ann@example.com","password":"wrong"}`})
		}()
	}
	want := problem(503, "busy", "Too many sign-ins at the moment. Try again soon.", "")
	turns := make(map[string]int)
	for i := range n {
		if i == away {
			close(goOn)
		}
		a := <-got
		switch {
		case a.status == 503 && stable(a.body) == want.body:
			turns[a.header.Get("Retry-After")]++
		case a.status != 401 || i < away:
			t.Errorf("answer %d is %d %s, want 401, or before any %v", i, a.status, a.body, want)
		}
	}
	all := 0
	for turn, times := range turns {
		all += times
		if seconds, err := strconv.Atoi(turn); err != nil || seconds < 1 || seconds > 10 {
			t.Errorf("some are told to come back after %q seconds, want 1 to 10", turn)
		}
	}
	if len(turns) < 2 {
		t.Errorf("they are told to come back at %v, want each in its turn", turns)
	}
	if all > 2*away {
		t.Errorf("%d of %d were turned away, want those that would wait for more than ten seconds", all, n)
	}
}

// While there is no place for another password nothing is done for it: the
// database, which is away here, is not asked.
func TestAFloodOfLoginsWaitsInFrontOfTheDatabase(t *testing.T) {
	t.Parallel()
	passwords := auth.NewPasswords(auth.Argon2Params{MemoryKiB: 8, Time: 1, Threads: 1}, 1)
	db := modelstest.New(t, models.SQLite)
	s := start(t, db, says(), func(c *handlers.Config) { c.Passwords = passwords })
	for range 4 {
		leave, err := passwords.Enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(leave)
	}
	// A hash is taken to last 50 ms: so many wait that the next one would for too long.
	for range 200 {
		go passwords.Enter(t.Context()) //nolint:errcheck // ends with the test
	}
	eventually(t, func() bool { return passwords.Load().Waiting >= 200 })
	db.Close()
	want := problem(503, "busy", "Too many sign-ins at the moment. Try again soon.", "")
	for path, body := range map[string]string{
		"/api/v1/auth/login":                `{"email":"ann@example.com","password":"` + password + `"}`,
		"/api/v1/auth/signup":               `{"email":"ann@example.com","password":"` + password + `"}`,
		"/api/v1/auth/reset-password/token": `{"password":"` + password + `"}`,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s.check(t, call{method: "POST", path: path, body: body}, want)
		})
	}
}

func TestTheDeviceOfASession(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	s := start(t, db, says())
	s.signup("ann@example.com")
	for name, tt := range map[string]struct {
		agent, forwarded string
		name, ip         string
	}{
		"a browser":             {"Mozilla/5.0 (X11; Linux x86_64)", "198.51.100.7", "Mozilla/5.0 (X11; Linux x86_64)", "198.51.100.7"},
		"no name":               {"", "198.51.100.7", "Unknown device", "198.51.100.7"},
		"a name for a terminal": {"a\tb \xff\u202e", "198.51.100.7", "ab", "198.51.100.7"},
		"a long name":           {strings.Repeat("é", 300), "1.1.1.1, 2001:db8::7", strings.Repeat("é", 200), "2001:db8::7"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.do(call{
				method: "POST", path: "/api/v1/auth/login",
				body:   `{"email":"ann@example.com","password":"` + password + `"}`,
				header: http.Header{"User-Agent": {tt.agent}, "X-Forwarded-For": {tt.forwarded}},
			})
			var out tokens
			decodeInto(t, a.body, &out)
			caller, err := s.tokens.VerifyAccess(out.Access)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := db.RotateSession(t.Context(), caller.SID, 1, time.Now(), time.Minute, models.By{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != tt.name || got.IP != tt.ip {
				t.Errorf("device is %q at %q, want %q at %q", got.Name, got.IP, tt.name, tt.ip)
			}
		})
	}
}
