package handlers_test

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// dayOf is a day that lies so many days before this one, as the API writes it.
func dayOf(ago int) string { return time.Now().UTC().AddDate(0, 0, -ago).Format("2006-01-02") }

func TestUsageIsToldByDay(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello"))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		usage := func(query string, a account) call {
			return call{method: "GET", path: "/api/v1/user/usage" + query, token: a.Access}
		}
		s.check(t, usage("", ann), wanted{200, `{"days":[]}`, nil})
		for range 2 {
			s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		}
		for ago, tokens := range map[int]int{30: 30, 31: 31, 91: 91, 92: 92} {
			_, err := db.Bun().NewRaw(`INSERT INTO usage_days (user_id, day, input_tokens, output_tokens, estimated_tokens, replies)
				VALUES (?, ?, ?, 2, 1, 1)`, ann.ID, dayOf(ago), tokens).Exec(t.Context())
			if err != nil {
				t.Fatal(err)
			}
		}
		day := func(ago int) string {
			return fmt.Sprintf(`{"day":%q,"input_tokens":%d,"output_tokens":2,"estimated_tokens":1,"replies":1}`, dayOf(ago), ago)
		}
		today := fmt.Sprintf(`{"day":%q,"input_tokens":6,"output_tokens":4,"estimated_tokens":0,"replies":2}`, dayOf(0))
		s.check(t, usage("", ann), wanted{200, `{"days":[` + day(30) + "," + today + `]}`, nil})
		s.check(t, usage("?days=92", ann), wanted{200, `{"days":[` + strings.Join([]string{day(91), day(31), day(30), today}, ",") + `]}`, nil})
		s.check(t, usage("?days=1", ann), wanted{200, `{"days":[` + today + `]}`, nil})
		s.check(t, usage("", bob), wanted{200, `{"days":[]}`, nil})
		for _, bad := range []string{"0", "93", "-1", "x", "", "1e1", "99999999999999999999"} {
			const detail = "days must be a number from 1 to 92."
			s.check(t, usage("?days="+bad, ann), problem(400, "invalid_parameter", detail, field("days", "invalid_parameter", detail)))
		}
		s.check(t, call{method: "GET", path: "/api/user/usage"}, problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", ""))
	})
}

func TestADailyLimitIsTold(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		backend := says("Hello") // 3 and 2 tokens, as it says
		s := start(t, db, backend, func(c *handlers.Config) {
			c.Limits.DailyTokens = 107
			c.Hub = stream.NewHub(db, backend, stream.Config{
				Replica: rand.Text(), DailyTokenLimit: 107, ReserveTokens: 100,
			}, slog.New(slog.DiscardHandler))
		})
		ann := s.signup("ann@example.com")
		limit := regexp.MustCompile(`"limit":.*`)
		checkLimit := func(want string) {
			t.Helper()
			got := s.do(call{method: "GET", path: "/api/v1/user/usage", token: ann.Access})
			if l := limit.FindString(stable(got.body)); l != want {
				t.Errorf("got %s, want %s", l, want)
			}
			midnight := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).Format(time.RFC3339)
			if !strings.Contains(got.body, `"resets_at":"`+midnight+`"`) {
				t.Errorf("got %s, want the next midnight, %s", got.body, midnight)
			}
		}
		send := call{
			method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`,
			header: http.Header{"Accept": {"application/json"}, "Idempotency-Key": {"k"}},
		}
		checkLimit(`"limit":{"daily_tokens":107,"used":0,"reserved":0,"resets_at":"<time>"}}`)
		first := s.do(send)
		if first.status != 200 {
			t.Fatalf("got %d %s", first.status, first.body)
		}
		checkLimit(`"limit":{"daily_tokens":107,"used":5,"reserved":0,"resets_at":"<time>"}}`)

		const detail = "This might take more tokens than you have left today. Try again tomorrow (UTC), or in a shorter chat."
		for path, body := range map[string]string{
			"/api/v1/messages":         `{"message":"Hello again"}`, // 3 more than the 102 that are left hold
			"/api/v1/chats/1/messages": `{"message":"xx"}`,          // and so do the 7 bytes that were said, with these
			"/api/v1/messages/1/edit":  `{"message":"Hello again"}`,
		} {
			got := s.check(t, call{method: "POST", path: path, token: ann.Access, body: body}, problem(429, "daily_limit_reached", detail, ""))
			wait, err := strconv.Atoi(got.header.Get("Retry-After"))
			if err != nil || wait < 1 || wait > 86400 {
				t.Errorf("%s: Retry-After is %q", path, got.header.Get("Retry-After"))
			}
			if v, want := strings.Join(got.header.Values("RateLimit"), ", "), fmt.Sprintf(`"tokens";r=0;t=%d`, wait); v != want {
				t.Errorf("%s: RateLimit is %q, want %q", path, v, want)
			}
			if v, want := strings.Join(got.header.Values("RateLimit-Policy"), ", "), `"tokens";q=107;w=86400`; v != want {
				t.Errorf("%s: RateLimit-Policy is %q, want %q", path, v, want)
			}
		}
		// Who only asks for the first answer again gets it.
		if again := s.do(send); again.status != 200 || again.body != first.body {
			t.Errorf("got %d %s, want %s", again.status, again.body, first.body)
		}
		checkLimit(`"limit":{"daily_tokens":107,"used":5,"reserved":0,"resets_at":"<time>"}}`)
	})
}

// A limit that only replies which run have reached is no reason to wait for the
// next day.
func TestADailyLimitMayBeReachedForAMoment(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		going := make(chan struct{})
		release := sync.OnceFunc(func() { close(going) })
		s := startOn(t, db, hangs(going), stream.Config{DailyTokenLimit: 107, ReserveTokens: 100}) // 1 and 2 tokens, by estimate
		t.Cleanup(release)
		ann := s.signup("ann@example.com")
		first := s.do(call{
			method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`,
			header: http.Header{"Accept": {"application/json"}, "Prefer": {"respond-async"}},
		})
		if first.status != 202 {
			t.Fatalf("got %d %s", first.status, first.body)
		}
		again := call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: http.Header{"Accept": {"application/json"}}}
		got := s.check(t, again, problem(429, "daily_limit_reached", "Together with your replies that are still being written, "+
			"this might take more tokens than you have left today. Try again when they have ended.", ""))
		for name, want := range map[string]string{"Retry-After": "5", "RateLimit": `"tokens";r=0;t=5`, "RateLimit-Policy": `"tokens";q=107;w=86400`} {
			if v := strings.Join(got.header.Values(name), ", "); v != want {
				t.Errorf("%s is %q, want %q", name, v, want)
			}
		}
		release()
		s.do(call{method: "POST", path: "/api/v1/messages/2/stop", token: ann.Access}) // which waits for its end
		if later := s.do(again); later.status != 200 {
			t.Errorf("got %d %s", later.status, later.body)
		}
	})
}

func TestAnEstimateIsMarked(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		close(release)
		s := start(t, db, hangs(release)) // it does not count
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		s.check(t, call{method: "GET", path: "/api/v1/messages/2", token: ann.Access}, wanted{
			200,
			`{"id":2,"chat_id":1,"role":"assistant","content":"Hello","timestamp":"<time>","status":"complete","finish_reason":"stop"` + fewTokens + `}`, nil,
		})
		s.check(t, call{method: "GET", path: "/api/v1/user/usage", token: ann.Access}, wanted{
			200,
			`{"days":[{"day":"` + dayOf(0) + `","input_tokens":1,"output_tokens":2,"estimated_tokens":3,"replies":1}]}`, nil,
		})
	})
}
