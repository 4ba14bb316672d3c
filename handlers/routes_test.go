package handlers_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/auth"
	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	none := problem(404, "not_found", "There is nothing at this path.", "")
	other := func(allow string) wanted {
		return problem(405, "method_not_allowed", "This path does not take that method; Allow names those it takes.", "").with("Allow", allow)
	}
	const get, post = "GET, HEAD, OPTIONS", "OPTIONS, POST"
	health := wanted{200, `{"status":"ok","service":"parley","version":"1.2.3"}`, map[string]string{"Content-Type": "application/json"}}
	for name, tt := range map[string]struct {
		method, path string
		want         wanted
	}{
		"the root":                           {"GET", "/", health},
		"health":                             {"GET", "/health", health},
		"health where Flask had it":          {"GET", "/api/health", health},
		"health under the API":               {"GET", "/api/v1/health", health},
		"the process":                        {"GET", "/livez", wanted{200, `{"status":"ok"}`, nil}},
		"HEAD of health":                     {"HEAD", "/health", wanted{200, "", map[string]string{"Content-Type": "application/json"}}},
		"HEAD of a route with a token":       {"HEAD", "/api/v1/chats", wanted{401, "", map[string]string{"WWW-Authenticate": challenge}}},
		"a path that is none":                {"GET", "/nothing", none},
		"a path that is none, posted to":     {"POST", "/api/v1/nothing", none},
		"a path that is none, asked about":   {"OPTIONS", "/nothing", none},
		"a path that is none, odd method":    {"BREW", "/nothing", none},
		"no redirect for a slash":            {"GET", "/api/v1/chats/", none},
		"no redirect without a slash":        {"GET", "/api", none},
		"no redirect for another case":       {"GET", "/API/V1/chats", none},
		"no redirect for a double slash":     {"GET", "/api/v1//chats", none},
		"no redirect for dots":               {"GET", "/api/v1/x/../chats", none},
		"an encoded slash in an id":          {"GET", "/api/v1/chats/1%2F2", none},
		"an encoded slash makes no route":    {"GET", "/api/v1/chats/1%2Fmessages", problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "")},
		"an unknown name under chat":         {"GET", "/api/v1/chat/7", none},
		"an unknown name, posted to":         {"POST", "/api/v1/chat/7", none},
		"an unknown name, asked about":       {"OPTIONS", "/api/v1/chat/7", none},
		"reading where one sends":            {"GET", "/api/v1/chat/send", other(post)},
		"reading where one creates":          {"HEAD", "/api/chat/create", wanted{405, "", map[string]string{"Allow": post}}},
		"posting to the old list":            {"POST", "/api/chat/list", other(get)},
		"another method":                     {"PUT", "/api/v1/chats/1", other("DELETE, GET, HEAD, OPTIONS, PATCH")},
		"an odd method":                      {"BREW", "/api/v1/chats", other("GET, HEAD, OPTIONS, POST")},
		"HEAD of a stream":                   {"HEAD", "/api/v1/messages/1/stream", wanted{405, "", map[string]string{"Allow": "GET, OPTIONS"}}},
		"reading where one logs in":          {"GET", "/api/v1/auth/login", other(post)},
		"posting to health":                  {"POST", "/health", other(get)},
		"which methods, without a preflight": {"OPTIONS", "/api/v1/messages", wanted{204, "", map[string]string{"Allow": post}}},
		"reading where one stops":            {"GET", "/api/v1/messages/1/stop", other(post)},
		"reading where one gets a ticket":    {"GET", "/api/v1/messages/1/stream-ticket?ticket=x", other(post)},
		"reading where one asks for a reset": {"GET", "/api/v1/auth/reset-password-request", other(post)},
		"a reset without a token":            {"GET", "/api/v1/auth/reset-password/", none},
		"deleting all devices":               {"DELETE", "/api/v1/auth/devices", other(get)},
		"reading a device":                   {"GET", "/api/v1/auth/devices/1", other("DELETE, OPTIONS")},
		"replacing a profile":                {"PUT", "/api/v1/user/profile", other("GET, HEAD, OPTIONS, PATCH")},
		"HEAD of an export":                  {"HEAD", "/api/v1/user/export", wanted{405, "", map[string]string{"Allow": "GET, OPTIONS"}}},
		"the page under the API":             {"GET", "/api/v1/reset-password", none},
		"putting to the page":                {"PUT", "/reset-password", other("GET, HEAD, OPTIONS, POST")},
		"posting to a stream with a ticket":  {"POST", "/api/v1/messages/1/stream?ticket=x", other("GET, OPTIONS")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := s.check(t, call{method: tt.method, path: tt.path}, tt.want)
			vary := "Origin"
			if tt.path == "/" {
				vary = "Origin, Accept" // a browser gets a page
			}
			for name, value := range map[string]string{
				"Vary": vary, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Location": "",
			} {
				if v := strings.Join(got.header.Values(name), ", "); v != value {
					t.Errorf("%s is %q, want %q", name, v, value)
				}
			}
		})
	}
}

func TestPublicKeys(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	s.check(t, call{method: "GET", path: "/.well-known/jwks.json"}, wanted{200, string(s.ring.Public()), map[string]string{
		"Content-Type": "application/jwk-set+json", "Cache-Control": "public, max-age=300",
	}})
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	for name, tt := range map[string]struct {
		sent []string
		kept bool
	}{
		"none":                   {nil, false},
		"an ordinary one":        {[]string{"Az09._-"}, true},
		"the longest":            {[]string{strings.Repeat("x", 128)}, true},
		"an empty one":           {[]string{""}, false},
		"a character too long":   {[]string{strings.Repeat("x", 129)}, false},
		"with a space":           {[]string{"a b"}, false},
		"with a quote":           {[]string{`a"b`}, false},
		"with another letter":    {[]string{"ä"}, false},
		"with a backtick and {":  {[]string{"`{"}, false},
		"two":                    {[]string{"a", "b"}, false},
		"what looks like a JSON": {[]string{`{"a":1}`}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := s.do(call{method: "GET", path: "/nothing", header: http.Header{"X-Request-Id": tt.sent}})
			id := got.header.Values("X-Request-Id")
			if len(id) != 1 || id[0] == "" || !strings.Contains(got.body, `"request_id":"`+id[0]+`"`) {
				t.Fatalf("the answer has ids %q and says %s, want one, and the same", id, got.body)
			}
			if kept := len(tt.sent) == 1 && id[0] == tt.sent[0]; kept != tt.kept {
				t.Errorf("sent %q, got %q", tt.sent, id)
			}
		})
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	preflight := func(origin, method, headers string) call {
		return call{method: "OPTIONS", path: "/api/v1/chats", header: http.Header{
			"Origin": {origin}, "Access-Control-Request-Method": {method}, "Access-Control-Request-Headers": {headers},
		}}
	}
	get := func(origin string) call {
		return call{method: "GET", path: "/health", header: http.Header{"Origin": {origin}}}
	}
	const preflightVary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	all := "authorization,content-type,digest,idempotency-key,last-event-id,prefer,upload-offset,x-request-id"
	for name, tt := range map[string]struct {
		origins                           []string
		call                              call
		status                            int
		vary, origin, headers, age, shown string
	}{
		"no origins: nobody": {nil, get("https://app.example"), 200, "Origin", "", "", "", ""},
		"no origins: no preflight": {
			nil, preflight("https://app.example", "POST", "authorization"), 204,
			preflightVary, "", "", "", "",
		},
		"an origin in the list": {
			[]string{"https://app.example"},
			get("https://app.example"), 200, "Origin",
			"https://app.example", "", "", "X-Request-Id, Location, Preference-Applied, Retry-After, Ratelimit, Ratelimit-Policy, Www-Authenticate, Upload-Offset, Content-Disposition",
		},
		"another origin": {[]string{"https://app.example"}, get("https://evil.example"), 200, "Origin", "", "", "", ""},
		"a longer one":   {[]string{"https://app.example"}, get("https://app.example.evil.example"), 200, "Origin", "", "", "", ""},
		"null":           {[]string{"https://app.example"}, get("null"), 200, "Origin", "", "", "", ""},
		"a preflight": {
			[]string{"https://app.example"},
			preflight("https://app.example", "PATCH", all), 204,
			preflightVary, "https://app.example", all, "600", "",
		},
		"a preflight of a method that is not there": {
			[]string{"https://app.example"},
			preflight("https://app.example", "PUT", all), 204,
			preflightVary, "", "", "", "",
		},
		"a preflight of a header that is not known": {
			[]string{"https://app.example"},
			preflight("https://app.example", "GET", "x-secret"), 204,
			preflightVary, "", "", "", "",
		},
		"any origin, where that is what is asked for": {
			[]string{"*"},
			get("https://evil.example"), 200, "Origin", "*", "", "",
			"X-Request-Id, Location, Preference-Applied, Retry-After, Ratelimit, Ratelimit-Policy, Www-Authenticate, Upload-Offset, Content-Disposition",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) { c.CORSOrigins = tt.origins })
			got := s.do(tt.call)
			if got.status != tt.status {
				t.Errorf("status %d, want %d", got.status, tt.status)
			}
			for header, want := range map[string]string{
				"Vary": tt.vary, "Access-Control-Allow-Origin": tt.origin, "Access-Control-Allow-Headers": tt.headers,
				"Access-Control-Max-Age": tt.age, "Access-Control-Expose-Headers": tt.shown, "Access-Control-Allow-Credentials": "",
			} {
				if v := strings.Join(got.header.Values(header), ", "); v != want {
					t.Errorf("%s is %q, want %q", header, v, want)
				}
			}
		})
	}
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	ann := s.signup("ann@example.com")
	past := tokenConfig
	past.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	old := auth.NewTokens(s.ring, past)
	expired, err := old.Issue(old.NewSession(ann.ID))
	if err != nil {
		t.Fatal(err)
	}
	missing := problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "").with("WWW-Authenticate", challenge)
	invalid := signedOut("The access token is not valid.")
	yes := wanted{200, annBody, nil}
	for name, tt := range map[string]struct {
		header []string
		want   wanted
	}{
		"a token":                  {[]string{"Bearer " + ann.Access}, yes},
		"the scheme in lower case": {[]string{"bearer " + ann.Access}, yes},
		"the scheme in capitals":   {[]string{"BEARER " + ann.Access}, yes},
		"two spaces":               {[]string{"Bearer  " + ann.Access}, yes},
		"no header":                {nil, missing},
		"an empty header":          {[]string{""}, missing},
		"another scheme":           {[]string{"Basic YW5uOnB3"}, missing},
		"no scheme":                {[]string{ann.Access}, missing},
		"a scheme alone":           {[]string{"Bearer"}, invalid},
		"two headers":              {[]string{"Bearer " + ann.Access, "Bearer " + ann.Access}, invalid},
		"two tokens":               {[]string{"Bearer " + ann.Access + "," + ann.Access}, invalid},
		"a token and more":         {[]string{"Bearer " + ann.Access + " x"}, invalid},
		"a refresh token":          {[]string{"Bearer " + ann.Refresh}, invalid},
		"a token cut short":        {[]string{"Bearer " + ann.Access[:len(ann.Access)-1]}, invalid},
		"a very long token":        {[]string{"Bearer " + strings.Repeat("a", 100_000)}, invalid},
		"an expired token":         {[]string{"Bearer " + expired.AccessToken}, signedOut("The access token has expired.")},
		"a token of nobody":        {[]string{"Bearer " + s.tokenOf(99)}, invalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.check(t, call{method: "GET", path: "/api/v1/user/profile", header: http.Header{"Authorization": tt.header}}, tt.want)
		})
	}
}

func TestContentTypesAndSizes(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	taken := problem(401, "invalid_refresh_token", "The refresh token is not valid; sign in again.", "")
	not := problem(415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a content coding.", "")
	for name, tt := range map[string]struct {
		header http.Header
		want   wanted
	}{
		"JSON":                  {http.Header{"Content-Type": {"application/json"}}, taken},
		"JSON in UTF-8":         {http.Header{"Content-Type": {`Application/JSON;charset="UTF-8"`}}, taken},
		"no coding":             {http.Header{"Content-Encoding": {"identity"}}, taken},
		"JSON in Latin-1":       {http.Header{"Content-Type": {"application/json; charset=iso-8859-1"}}, not},
		"a kind of JSON":        {http.Header{"Content-Type": {"application/merge-patch+json"}}, not},
		"JSON as text":          {http.Header{"Content-Type": {"text/json"}}, not},
		"a form":                {http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, not},
		"two types":             {http.Header{"Content-Type": {"application/json", "application/json"}}, not},
		"two types in one":      {http.Header{"Content-Type": {"application/json, text/plain"}}, not},
		"no type":               {http.Header{"Content-Type": nil}, not},
		"an empty type":         {http.Header{"Content-Type": {""}}, not},
		"compressed":            {http.Header{"Content-Encoding": {"gzip"}}, not},
		"a parameter cut short": {http.Header{"Content-Type": {"application/json; charset"}}, not},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.check(t, call{method: "POST", path: "/api/v1/auth/refresh", body: `{"refresh_token":"x"}`, header: tt.header}, tt.want)
		})
	}
	large := problem(413, "body_too_large", "The body may have 1 MiB at most.", "")
	of := func(size int) string {
		return `{"refresh_token":"` + strings.Repeat("x", size-len(`{"refresh_token":""}`)) + `"}`
	}
	for name, tt := range map[string]struct {
		body string
		want wanted
	}{
		"a MiB":            {of(1 << 20), taken},
		"a byte more":      {of(1<<20 + 1), large},
		"sixteen times it": {of(16 << 20), large},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := call{method: "POST", path: "/api/v1/auth/refresh", body: tt.body}
			s.check(t, c, tt.want)
			got := s.raw("POST /api/v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" +
				fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(tt.body), tt.body))
			if got != tt.want.status {
				t.Errorf("in chunks: status %d, want %d", got, tt.want.status)
			}
		})
	}
}

// raw sends bytes as they are and returns the status of the answer.
func (s *service) raw(request string) int {
	s.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	// The server may close before it has read all.
	go conn.Write([]byte(request)) //nolint:errcheck // see above
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func TestBodiesThatBreakOff(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	const head = "POST /api/v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, body := range map[string]string{
		"a chunk whose size is none": "zz\r\n{}\r\n0\r\n\r\n",
		"a chunk without its end":    "2\r\n{}xx0\r\n\r\n",
		"an empty body":              "0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := s.raw(head + body); got != 400 {
				t.Errorf("status %d, want 400", got)
			}
		})
	}
}
