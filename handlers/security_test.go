package handlers_test

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

// protected are the fields that every answer has, spelled as their standards do:
// Fetch (nosniff, Cross-Origin-Resource-Policy), Referrer Policy (section 4.1,
// where the field is not spelled as RFC 9110's Referer is), RFC 7034, Content
// Security Policy Level 3, RFC 6797.
var protected = map[string]string{
	"X-Content-Type-Options":       "nosniff",
	"Referrer-Policy":              "no-referrer",
	"X-Frame-Options":              "DENY",
	"Content-Security-Policy":      "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Strict-Transport-Security":    "max-age=31536000",
}

// fieldsOf are the fields of h that protected names.
func fieldsOf(h http.Header) map[string]string {
	fields := make(map[string]string)
	for name := range protected {
		if values := h.Values(name); values != nil {
			fields[name] = strings.Join(values, " AND ")
		}
	}
	return fields
}

func TestEveryAnswerProtectsItsReader(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says("Hello"))
	you := s.signup("ann@example.com")
	for name, c := range map[string]call{
		"a good answer":     {method: "GET", path: "/api/v1/user/profile", token: you.Access},
		"a health check":    {method: "GET", path: "/readyz"},
		"a problem":         {method: "GET", path: "/api/v1/user/profile"},
		"no such path":      {method: "GET", path: "/nothing/here"},
		"no such method":    {method: "BREW", path: "/api/v1/chats"},
		"a preflight":       {method: "OPTIONS", path: "/api/v1/chats", header: http.Header{"Origin": {"https://app.example"}, "Access-Control-Request-Method": {"GET"}}},
		"public keys":       {method: "GET", path: "/.well-known/jwks.json"},
		"a stream":          {method: "POST", path: "/api/v1/messages", token: you.Access, body: `{"message":"Hi"}`},
		"an exported file":  {method: "GET", path: "/api/v1/user/export", token: you.Access},
		"nothing to answer": {method: "OPTIONS", path: "/api/v1/chats"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(fieldsOf(s.do(c).header), protected); diff != "" {
				t.Errorf("%s %s (-got +want):\n%s", c.method, c.path, diff)
			}
		})
	}
}

// A page has a policy of its own, which checkPage knows, and no use of devices.
func TestAPageProtectsItsReader(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	got := s.do(call{method: "GET", path: "/reset-password?token=x"})
	want := map[string]string{
		"Permissions-Policy":         "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Strict-Transport-Security":  "max-age=31536000",
		"X-Frame-Options":            "DENY",
		"Referrer-Policy":            "no-referrer",
	}
	for name, value := range want {
		if v := strings.Join(got.header.Values(name), " AND "); v != value {
			t.Errorf("%s is %q, want %q", name, v, value)
		}
	}
}

// RFC 6797, section 7.2: a host that is reached without TLS says nothing of it.
func TestNoPromiseOfTLSWithoutIt(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says(), func(c *handlers.Config) { c.PublicURL = "http://localhost:8080" })
	if got := s.do(call{method: "GET", path: "/livez"}).header.Values("Strict-Transport-Security"); got != nil {
		t.Errorf("got %q, want none", got)
	}
}

// Who asks and does not read the answer is let go.
func TestAnAnswerThatNobodyReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn := connect(t, handlers.New(handlers.Config{Log: slog.New(slog.DiscardHandler)}))
		if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
			t.Errorf("got %q, %v after a minute, want the connection closed", rest, err)
		}
	})
}

// Many requests on one connection each have the time that one has.
func TestAConnectionThatIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn := connect(t, handlers.New(handlers.Config{Log: slog.New(slog.DiscardHandler)}))
		for range 4 {
			got := exchange(t, conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
			if got.status != http.StatusContinue {
				t.Fatalf("got %d %s, want 100", got.status, got.body)
			}
			if got := exchange(t, conn, "{}"); got.status != http.StatusBadRequest {
				t.Fatalf("got %d %s, want 400", got.status, got.body)
			}
			time.Sleep(50 * time.Second)
		}
	})
}
