package handlers_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
	"parley/handlers"
	"parley/models"
	"parley/stream"
)

// A service is the whole API on a database of its own, behind a real server.
type service struct {
	t       *testing.T
	url     string
	db      *models.DB
	ring    *auth.KeyRing
	tokens  *auth.Tokens
	revoked *auth.Revoked
	hub     *stream.Hub
	log     *lines
}

var tokenConfig = auth.TokenConfig{
	Issuer: "https://parley.example", Audience: "parley",
	AccessTTL: 15 * time.Minute, RefreshIdleTTL: 720 * time.Hour, RefreshMaxTTL: 2160 * time.Hour,
}

// start runs the API until the test ends. change may adjust what it stands on.
func start(t *testing.T, db *models.DB, backend stream.Backend, change ...func(*handlers.Config)) *service {
	t.Helper()
	return startOn(t, db, backend, stream.Config{}, change...)
}

// startOn is start with a hub that has some settings of its own.
func startOn(t *testing.T, db *models.DB, backend stream.Backend, hub stream.Config, change ...func(*handlers.Config)) *service {
	t.Helper()
	s, api := buildOn(t, db, backend, hub, change...)
	server := httptest.NewServer(api)
	s.url = server.URL
	t.Cleanup(server.Close)
	return s
}

// sharedKeys are those of every service: they stand for replicas of one deployment.
var sharedKeys = sync.OnceValues(func() (*auth.KeyRing, error) {
	set, err := auth.GenerateKeySet()
	if err != nil {
		return nil, err
	}
	return auth.NewKeyRing(set)
})

// maxStreams is how many streams one user may have open.
const maxStreams = 30

// build makes the API, and a hub that runs until the test ends. The service
// takes itself to know at any time what was revoked.
func build(t *testing.T, db *models.DB, backend stream.Backend, change ...func(*handlers.Config)) (*service, http.Handler) {
	t.Helper()
	return buildOn(t, db, backend, stream.Config{}, change...)
}

// buildOn is build with a hub that has some settings of its own.
func buildOn(t *testing.T, db *models.DB, backend stream.Backend, hub stream.Config, change ...func(*handlers.Config)) (*service, http.Handler) {
	t.Helper()
	ring, err := sharedKeys()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s := &service{
		t: t, db: db, ring: ring, tokens: auth.NewTokens(ring, tokenConfig), log: new(lines),
		revoked: auth.NewRevoked(func() time.Time { return began }),
	}
	s.revoked.Fresh(began)
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	// Nothing that one replica does has to wait for a poll; nor does a machine
	// that is slow for a second make it doubt its lease.
	hub.Replica, hub.Lease, hub.MaxStreams = rand.Text(), time.Hour, maxStreams
	if hub.PollEvery == 0 {
		hub.PollEvery = time.Hour
	}
	hub.Revoked = func(v stream.Viewer) bool {
		return s.revoked.Has(auth.Identity{UserID: v.UserID, SID: v.SID, IssuedAt: v.IssuedAt})
	}
	s.hub = stream.NewHub(db, backend, hub, log)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.hub.Run(ctx) })
	config := handlers.Config{
		DB:             db,
		Tokens:         s.tokens,
		Passwords:      auth.NewPasswords(auth.Argon2Params{MemoryKiB: 8, Time: 1, Threads: 1}, 16),
		Revoked:        s.revoked,
		Hub:            s.hub,
		Ready:          func(context.Context) []handlers.Check { return []handlers.Check{{Name: "database", State: "ok"}} },
		CORSOrigins:    []string{"https://app.example"},
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		PublicURL:      "https://parley.example",
		RefusalTime:    time.Millisecond,
		Version:        "1.2.3",
		AccessTTL:      tokenConfig.AccessTTL,
		Log:            log,
	}
	for _, c := range change {
		c(&config)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		s.hub.Drain(ended)
		stop()
		running.Wait()
	})
	return s, handlers.New(config)
}

// neverFresh makes a service one that has never read what was revoked.
func neverFresh(c *handlers.Config) { c.Revoked = auth.NewRevoked(nil) }

// lines is a log that a test reads.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A backend is an AI service as one function.
type backend func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error

func (b backend) Reply(ctx context.Context, p *stream.Prompt, each func(stream.Chunk) error) error {
	return b(ctx, *p, each)
}

func (b backend) Admit() error { return nil }

// says is a backend that gives always the same answer.
func says(texts ...string) backend {
	return func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
		for _, text := range texts {
			if err := each(stream.Chunk{Text: text}); err != nil {
				return err
			}
		}
		return each(stream.Chunk{Done: true, FinishReason: "stop", Usage: &stream.Usage{InputTokens: 3, OutputTokens: 2}})
	}
}

// fewTokens is the usage of a short reply by hangs, which does not count.
const fewTokens = `,"usage":{"input_tokens":1,"output_tokens":2,"estimated":true}`

// hangs is a backend that says hello and then nothing, until release is closed.
func hangs(release <-chan struct{}) backend {
	return func(ctx context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
		if err := each(stream.Chunk{Text: "Hello"}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-release:
			return each(stream.Chunk{Done: true, FinishReason: "stop"})
		}
	}
}

// A call is one request. Its body, unless it is empty, is sent as JSON.
type call struct {
	method, path string
	token        string
	body         string
	header       http.Header
}

// An answer is what came back, whole.
type answer struct {
	status int
	header http.Header
	body   string
}

func (s *service) do(c call) answer {
	s.t.Helper()
	a, err := s.send(c)
	if err != nil {
		s.t.Errorf("%s %s: %v", c.method, c.path, err)
	}
	// A stream may be read to its end before its line is in the access log, which
	// would then stand behind those of later requests.
	line := `"request_id":"` + a.header.Get("X-Request-Id") + `"`
	for late := time.Now().Add(10 * time.Second); err == nil && !strings.Contains(s.log.String(), line); {
		if time.Now().After(late) {
			s.t.Errorf("%s %s is not in the access log", c.method, c.path)
			break
		}
		time.Sleep(time.Millisecond)
	}
	return a
}

func (s *service) send(c call) (answer, error) {
	r, err := s.request(c)
	if err != nil {
		return answer{}, err
	}
	res, err := s.fetch(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(body)}, err
}

// open sends a request and leaves the answer's body to be read.
func (s *service) open(c call) *http.Response {
	s.t.Helper()
	r, err := s.request(c)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := s.fetch(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	return res
}

// fetch sends r. What comes back is held against openapi.yaml as it is read.
func (s *service) fetch(r *http.Request) (*http.Response, error) {
	s.t.Helper()
	res, err := client.Do(r)
	if err == nil {
		watch(s.t, r, res)
	}
	return res, err
}

func (s *service) request(c call) (*http.Request, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), c.method, s.url+c.path, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for name, values := range c.header {
		r.Header[name] = values
	}
	if host := c.header.Get("Host"); host != "" {
		r.Host = host
	}
	return r, nil
}

// client follows no redirects: the API has none.
var client = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// An account is somebody who has signed up.
type account struct {
	ID      int64
	Access  string
	Refresh string
}

const password = "correct horse 7 staple"

func (s *service) signup(email string) account {
	s.t.Helper()
	a := s.do(call{method: "POST", path: "/api/v1/auth/signup", body: `{"email":"` + email + `","password":"` + password + `"}`})
	if a.status != http.StatusCreated {
		s.t.Fatalf("sign-up: %d %s", a.status, a.body)
	}
	return s.accountOf(a)
}

// accountOf reads what a sign-up or a login answered.
func (s *service) accountOf(a answer) account {
	s.t.Helper()
	var out struct {
		User struct {
			ID int64 `json:"id"`
		} `json:"user"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	decodeInto(s.t, a.body, &out)
	return account{out.User.ID, out.Access, out.Refresh}
}

func decodeInto(t *testing.T, body string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
}

// wanted is an answer as a table writes it: the body with what differs from
// run to run in angle brackets, and those header fields that matter.
type wanted struct {
	status int
	body   string
	header map[string]string
}

// check compares the answer to a call, whole.
func (s *service) check(t *testing.T, c call, want wanted) answer {
	t.Helper()
	got := s.do(c)
	if got.status != want.status {
		t.Errorf("%s %s: status %d, want %d", c.method, c.path, got.status, want.status)
	}
	if diff := cmp.Diff(want.body, stable(got.body)); diff != "" {
		t.Errorf("%s %s: body (-want +got):\n%s", c.method, c.path, diff)
	}
	for name, value := range want.header {
		if v := strings.Join(got.header.Values(name), ", "); v != value {
			t.Errorf("%s %s: %s is %q, want %q", c.method, c.path, name, v, value)
		}
	}
	return got
}

var changing = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`), `"<time>"`},
	{regexp.MustCompile(`"eyJ[\w-]+\.[\w-]+\.[\w-]+"`), `"<token>"`},
	{regexp.MustCompile(`"request_id":"[A-Z2-7]{26}"`), `"request_id":"<id>"`},
	{regexp.MustCompile(`"refresh_expires_in":259199\d`), `"refresh_expires_in":2592000`}, // counted from the rotation
	{regexp.MustCompile(`"next_cursor":"[\w-]+"`), `"next_cursor":"<cursor>"`},
}

// stable replaces what differs from run to run.
func stable(body string) string {
	for _, c := range changing {
		body = c.pattern.ReplaceAllString(body, c.name)
	}
	return strings.TrimSuffix(body, "\n")
}

// problem is the document of RFC 9457 that is wanted. errors is what stands in
// errors, without the brackets.
func problem(status int, code, detail, errors string) wanted {
	body := map[string]any{"status": status, "title": titles[status], "code": code, "detail": detail}
	text := func(name string) string {
		b, _ := json.Marshal(body[name])
		return string(b)
	}
	doc := `{"type":"about:blank","title":` + text("title") + `,"status":` + text("status") + `,"detail":` + text("detail") +
		`,"code":` + text("code") + `,"message":` + text("detail") + `,"request_id":"<id>"`
	if errors != "" {
		doc += `,"errors":[` + errors + `]`
	}
	return wanted{status, doc + `}`, map[string]string{"Content-Type": "application/problem+json"}}
}

// titles are the reason phrases of RFC 9110, section 15.
var titles = map[int]string{
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
	406: "Not Acceptable", 409: "Conflict", 413: "Request Entity Too Large", 415: "Unsupported Media Type",
	422: "Unprocessable Entity", 429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
}

// with adds a header field to what is wanted.
func (w wanted) with(name, value string) wanted {
	header := map[string]string{name: value}
	for n, v := range w.header {
		header[n] = v
	}
	w.header = header
	return w
}

// field is one element of errors.
func field(name, code, detail string) string {
	b, _ := json.Marshal(struct {
		Field  string `json:"field"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}{name, code, detail})
	return string(b)
}
