package handlers_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
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

// limited gives a service these limits.
func limited(limits handlers.Limits) func(*handlers.Config) {
	return func(c *handlers.Config) { c.Limits = limits }
}

// from is what a proxy says of a client at that address.
func from(ip string) http.Header { return http.Header{"X-Forwarded-For": {ip}} }

func (s *service) login(email, password string, header http.Header) answer {
	s.t.Helper()
	return s.do(call{
		method: "POST", path: "/api/v1/auth/login", header: header,
		body: `{"email":"` + email + `","password":"` + password + `"}`,
	})
}

// told is what an answer says of a limit: its status, and RateLimit without the
// time, which depends on when the test runs.
func (a answer) told() string {
	limit := regexp.MustCompile(`;t=\d+$`).ReplaceAllString(strings.Join(a.header.Values("RateLimit"), ", "), "")
	return strings.TrimSpace(strconv.Itoa(a.status) + " " + limit)
}

// checkRefused compares an answer with a refusal that ends within a time.
func checkRefused(t *testing.T, got answer, code, detail, policy string, within time.Duration) {
	t.Helper()
	want := problem(429, code, detail, "")
	if got.status != want.status || stable(got.body) != want.body {
		t.Errorf("got %d %s, want %v", got.status, got.body, want)
	}
	wait, err := strconv.Atoi(got.header.Get("Retry-After"))
	if err != nil || wait < 1 || wait > int(within.Seconds()) {
		t.Errorf("Retry-After is %q, want 1 to %d", got.header.Get("Retry-After"), int(within.Seconds()))
	}
	if v, want := got.header.Get("RateLimit"), fmt.Sprintf(`%q;r=0;t=%d`, policy, wait); v != want {
		t.Errorf("RateLimit is %q, want %q", v, want)
	}
}

const (
	tooOften        = "That was tried too often. Try again later."
	tooManyMessages = "Those are too many messages in a short time. Try again soon."
)

var loginLimits = handlers.Limits{
	LoginAccount:        auth.Limit{Quota: 5, Window: time.Hour},
	LoginAccountNetwork: auth.Limit{Quota: 3, Window: 15 * time.Minute},
	LoginNetwork:        auth.Limit{Quota: 8, Window: 15 * time.Minute},
}

// What strangers get, who guess at the password of an account, is the same for
// an address that has none.
func TestWrongPasswordsAreThrottled(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(loginLimits))
		s.signup("ann@example.com")
		for _, email := range []string{"ann@example.com", "nobody@example.com"} {
			var got []string
			guess := func(ip string) answer {
				a := s.login(email, "a wrong one", from(ip))
				if v, want := a.header.Get("RateLimit-Policy"), `"login";q=3;w=900`; v != want {
					t.Errorf("RateLimit-Policy is %q, want %q", v, want)
				}
				got = append(got, ip+": "+a.told())
				return a
			}
			for range 3 {
				guess("2001:db8::1")
			}
			checkRefused(t, guess("2001:db8::2"), "too_many_attempts", tooOften, "login", 5*time.Minute)
			guess("2001:db8:0:1::1")
			guess("2001:db8:0:1::1")
			// The account is used up, by whoever it was.
			checkRefused(t, guess("198.51.100.7"), "too_many_attempts", tooOften, "login", 12*time.Minute)
			checkRefused(t, guess("2001:db8:0:1::1"), "too_many_attempts", tooOften, "login", 12*time.Minute)
			want := []string{
				`2001:db8::1: 401 "login";r=2`, `2001:db8::1: 401 "login";r=1`, `2001:db8::1: 401 "login";r=0`,
				`2001:db8::2: 429 "login";r=0`,
				`2001:db8:0:1::1: 401 "login";r=2`, `2001:db8:0:1::1: 401 "login";r=1`,
				`198.51.100.7: 429 "login";r=0`, `2001:db8:0:1::1: 429 "login";r=0`,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("guesses at %s (-want +got):\n%s", email, diff)
			}
		}
	})
}

// What is no address is counted too, and never under what another one is: the
// limits of an account and of its network are told apart whatever a stranger
// sends.
func TestNoAddressIsCountedAsAnother(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(loginLimits))
		s.signup("ann@example.com")
		for i := range 5 {
			// The account's address, and the network that its owner is in.
			s.login(`ann@example.com\n203.0.113.7/32`, "a wrong one", from(fmt.Sprintf("198.51.100.%d", i)))
		}
		if got, want := s.login("ann@example.com", password, from("203.0.113.7")).told(), `200 "login";r=3`; got != want {
			t.Errorf("the owner, from that network: %s, want %s", got, want)
		}
	})
}

// One network has only so many guesses, at however many accounts. Who is refused
// for that uses nothing up of the account.
func TestANetworkThatGuessesIsThrottled(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(loginLimits))
		s.signup("ann@example.com")
		for i := range 8 {
			if got := s.login(fmt.Sprintf("user%d@example.com", i), "a wrong one", from("198.51.100.7")); got.status != 401 {
				t.Fatalf("guess %d: %d %s, want 401", i, got.status, got.body)
			}
		}
		for range 10 {
			checkRefused(t, s.login("ann@example.com", "a wrong one", from("198.51.100.7")), "too_many_attempts", tooOften, "login", 2*time.Minute)
		}
		if got, want := s.login("ann@example.com", "a wrong one", from("198.51.100.8")).told(), `401 "login";r=2`; got != want {
			t.Errorf("from another network: %s, want %s", got, want)
		}
	})
}

func TestARightPasswordUsesNothingUp(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(loginLimits))
		s.signup("ann@example.com")
		for range 20 {
			if got, want := s.login("Ann@Example.com", password, from("198.51.100.7")).told(), `200 "login";r=3`; got != want {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		// Whoever comes from the address of a signed-in device is let in, though
		// the account is used up.
		for i := range 5 {
			s.login("ann@example.com", "a wrong one", from(fmt.Sprintf("203.0.113.%d", i)))
		}
		checkRefused(t, s.login("ann@example.com", password, from("192.0.2.1")), "too_many_attempts", tooOften, "login", 12*time.Minute)
		if got, want := s.login("ann@example.com", password, from("198.51.100.7")).told(), `200 "login";r=3`; got != want {
			t.Errorf("from the network of a device: %s, want %s", got, want)
		}
	})
}

// Everything that has no network counts together, per account: an operator's own
// machine, or all behind a proxy that nobody told the service of.
func TestGuessesFromLoopbackAreThrottledPerAccount(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		limits := loginLimits
		limits.LoginNetwork.Quota, limits.Signups.Quota, limits.Signups.Window = 1, 1, time.Hour
		s := start(t, db, says(), limited(limits))
		s.signup("ann@example.com")
		s.signup("bob@example.com")
		for _, email := range []string{"ann@example.com", "bob@example.com"} {
			for _, want := range []string{`401 "login";r=2`, `401 "login";r=1`, `401 "login";r=0`, `429 "login";r=0`} {
				if got := s.login(email, "a wrong one", nil).told(); got != want {
					t.Errorf("%s: %s, want %s", email, got, want)
				}
			}
		}
	})
}

// A device that has signed in before is let in while strangers guess, and has
// tries of its own.
func TestAKnownDeviceIsLetIn(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(loginLimits))
		former, err := s.tokens.IssueDevice(1)
		if err != nil {
			t.Fatal(err)
		}
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		cookie := func(email string) string {
			return strings.Split(s.login(email, password, from("192.0.2.1")).header.Get("Set-Cookie"), ";")[0]
		}
		anns, another, bobs := cookie("ann@example.com"), cookie("ann@example.com"), cookie("bob@example.com")
		// Her devices are forgotten but for what they hold themselves.
		if got := s.do(call{method: "POST", path: "/api/v1/auth/logout-all", token: ann.Access}); got.status != 200 {
			t.Fatalf("logout-all: %d %s", got.status, got.body)
		}
		held := s.tokenOf(ann.ID)
		for i := range 8 {
			s.login("ann@example.com", "a wrong one", from(fmt.Sprintf("203.0.113.%d", i)))
		}
		// Each comes from an address of its own: where one has signed in, the
		// next is known for that.
		clients := 0
		with := func(name, value string) http.Header {
			clients++
			h := from(fmt.Sprintf("192.0.2.%d", clients+1))
			h.Set(name, value)
			return h
		}
		for name, tt := range map[string]struct {
			header http.Header
			want   string
		}{
			"nothing":                        {with("Accept", "*/*"), `429 "login";r=0`},
			"its cookie":                     {with("Cookie", anns), `200 "login";r=3`},
			"its cookie among others":        {with("Cookie", "a=b; "+anns+"; c=d"), `200 "login";r=3`},
			"an access token":                {with("Authorization", "Bearer "+held), `200 "login";r=3`},
			"an access token that was ended": {with("Authorization", "Bearer "+ann.Access), `429 "login";r=0`},
			"somebody else's cookie":         {with("Cookie", bobs), `429 "login";r=0`},
			"somebody else's access token":   {with("Authorization", "Bearer "+bob.Access), `429 "login";r=0`},
			"an access token as its cookie":  {with("Cookie", "parley_device="+held), `429 "login";r=0`},
			"a refresh token":                {with("Authorization", "Bearer "+bob.Refresh), `429 "login";r=0`},
			"its cookie as an access token":  {with("Authorization", "Bearer "+strings.TrimPrefix(anns, "parley_device=")), `429 "login";r=0`},
			"a cookie of who had the id":     {with("Cookie", "parley_device="+former), `429 "login";r=0`},
			"a cookie that is none":          {with("Cookie", "parley_device=x.y.z"), `429 "login";r=0`},
		} {
			if got := s.login("ann@example.com", password, tt.header).told(); got != tt.want {
				t.Errorf("with %s: %s, want %s", name, got, tt.want)
			}
		}
		// A thief of the cookie has these tries and no more, from anywhere, and
		// takes none from another device.
		for i, want := range []string{`401 "login";r=2`, `401 "login";r=1`, `401 "login";r=0`, `429 "login";r=0`} {
			if got := s.login("ann@example.com", "a wrong one", with("Cookie", anns)).told(); got != want {
				t.Errorf("guess %d with the cookie: %s, want %s", i, got, want)
			}
		}
		if got, want := s.login("ann@example.com", password, with("Cookie", another)).told(), `200 "login";r=3`; got != want {
			t.Errorf("another device: %s, want %s", got, want)
		}
	})
}

func TestTheDeviceCookie(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ publicURL, attributes string }{
		"over https": {"https://parley.example", "; Path=/api; Max-Age=31536000; HttpOnly; Secure; SameSite=Strict"},
		"over http":  {"http://localhost:8080", "; Path=/api; Max-Age=31536000; HttpOnly; SameSite=Strict"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) { c.PublicURL = tt.publicURL })
			body := `{"email":"ann@example.com","password":"` + password + `"}`
			for _, path := range []string{"/api/v1/auth/signup", "/api/auth/login"} {
				got := s.do(call{method: "POST", path: path, body: body})
				cookies := got.header.Values("Set-Cookie")
				if len(cookies) != 1 {
					t.Fatalf("%s: cookies %q, want one", path, cookies)
				}
				value := strings.TrimSuffix(strings.TrimPrefix(cookies[0], "parley_device="), tt.attributes)
				device, err := s.tokens.VerifyDevice(value)
				if err != nil || device.UserID != 1 {
					t.Errorf("%s: cookie %q, want a device token of user 1 and %q", path, cookies[0], tt.attributes)
				}
			}
			wrong := s.login("ann@example.com", "a wrong one", nil)
			if cookies := wrong.header.Values("Set-Cookie"); len(cookies) != 0 {
				t.Errorf("a wrong password gets cookies %q", cookies)
			}
		})
	}
}

// Of many guesses at once, at several replicas, as many are looked at as the
// limit allows.
func TestParallelGuessesAtOnePassword(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		limits := handlers.Limits{LoginAccount: auth.Limit{Quota: 7, Window: time.Hour}}
		var replicas []*service
		for range 3 {
			replicas = append(replicas, start(t, db, says(), limited(limits)))
		}
		replicas[0].signup("ann@example.com")
		const n = 60
		got := make([]int, n)
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				got[i] = replicas[i%3].login("ann@example.com", "a wrong one", from(fmt.Sprintf("203.0.113.%d", i))).status
			})
		}
		all.Wait()
		count := map[int]int{}
		for _, status := range got {
			count[status]++
		}
		if diff := cmp.Diff(map[int]int{401: 7, 429: n - 7}, count); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	})
}

func TestSignupsAreThrottledPerNetwork(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(), limited(handlers.Limits{Signups: auth.Limit{Quota: 2, Window: time.Hour}}))
		signup := func(email, ip string) answer {
			a := s.do(call{
				method: "POST", path: "/api/v1/auth/signup", header: from(ip),
				body: `{"email":"` + email + `","password":"` + password + `"}`,
			})
			if v, want := a.header.Get("RateLimit-Policy"), `"signup";q=2;w=3600`; v != want {
				t.Errorf("RateLimit-Policy is %q, want %q", v, want)
			}
			return a
		}
		var got []string
		got = append(got,
			signup("no address", "198.51.100.7").told(),
			signup("ann@example.com", "198.51.100.7").told(),
			signup("ann@example.com", "198.51.100.7").told())
		checkRefused(t, signup("bob@example.com", "198.51.100.7"), "too_many_attempts", tooOften, "signup", 30*time.Minute)
		checkRefused(t, signup("ann@example.com", "198.51.100.7"), "too_many_attempts", tooOften, "signup", 30*time.Minute)
		got = append(got, signup("bob@example.com", "198.51.100.8").told())
		want := []string{"400", `201 "signup";r=1`, `400 "signup";r=0`, `201 "signup";r=1`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	})
}

func TestMessagesAreThrottledPerUser(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Fine."), limited(handlers.Limits{Messages: auth.Limit{Quota: 4, Window: time.Minute}}))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		json := http.Header{"Accept": {"application/json"}}
		keyed := http.Header{"Accept": {"application/json"}, "Idempotency-Key": {"k"}}
		post := func(path, token, body string, header http.Header) answer {
			a := s.do(call{method: "POST", path: "/api/v1" + path, token: token, body: body, header: header})
			if v, want := a.header.Get("RateLimit-Policy"), `"messages";q=4;w=60`; v != want {
				t.Errorf("RateLimit-Policy is %q, want %q", v, want)
			}
			return a
		}
		got := []string{
			post("/messages", ann.Access, `{"message":"Hi"}`, keyed).told(),
			post("/messages", ann.Access, `{"message":"Hi"}`, keyed).told(), // the same again
			post("/messages/2/regenerate", ann.Access, "", json).told(),
			post("/messages/1/edit", ann.Access, `{"message":"Hey"}`, json).told(),
			post("/chats/1/messages", ann.Access, `{"message":" "}`, json).told(), // no message
			post("/chats/1/messages", ann.Access, `{"message":"Ho"}`, nil).told(),
		}
		want := []string{
			`200 "messages";r=3`, `200 "messages";r=3`, `200 "messages";r=2`, `200 "messages";r=1`, `400`, `200 "messages";r=0`,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		for _, path := range []string{"/messages", "/chat/send", "/chats/1/messages", "/messages/1/edit", "/messages/2/regenerate"} {
			checkRefused(t, post(path, ann.Access, `{"message":"Hi"}`, nil), "too_many_messages", tooManyMessages, "messages", 15*time.Second)
		}
		if got, want := post("/messages", ann.Access, `{"message":"Hi"}`, keyed).told(), `200 "messages";r=0`; got != want {
			t.Errorf("what was sent before: %s, want %s", got, want)
		}
		got = []string{
			post("/messages", bob.Access, `{"message":"Hi"}`, json).told(),
			post("/chats/1/messages", bob.Access, `{"message":"Hi"}`, json).told(), // not of his
			post("/messages/99/edit", bob.Access, `{"message":"Hi"}`, json).told(),
			post("/messages/1/regenerate", bob.Access, "", json).told(),
		}
		want = []string{`200 "messages";r=3`, `403 "messages";r=2`, `404 "messages";r=1`, `403 "messages";r=0`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers to somebody else (-want +got):\n%s", diff)
		}
	})
}

// Without limits nothing is counted, and nothing said.
func TestNoLimitsCostNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Fine."))
		ann := s.signup("ann@example.com")
		reset := `{"email":"ann@example.com"}`
		for _, a := range []answer{
			s.login("ann@example.com", password, from("198.51.100.7")),
			s.login("ann@example.com", "a wrong one", from("198.51.100.7")),
			s.do(call{method: "POST", path: "/api/v1/auth/reset-password-request", body: reset, header: from("198.51.100.7")}),
			s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`}),
		} {
			if a.header.Values("RateLimit") != nil || a.header.Values("RateLimit-Policy") != nil {
				t.Errorf("%d with %v, want no word of limits", a.status, a.header)
			}
		}
		if n := s.rows("throttles"); n != 0 {
			t.Errorf("%d rows were counted in, want none", n)
		}
	})
}

// rows is how many a table has.
func (s *service) rows(table string) int {
	s.t.Helper()
	var n int
	if err := s.db.Bun().QueryRowContext(s.t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}
