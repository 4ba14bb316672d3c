package handlers_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

// A forger makes tokens of a genuine one: the same claims under another header.
type forger struct {
	t      *testing.T
	header map[string]any // of the genuine token
	claims map[string]any
}

func forgerOf(t *testing.T, token string) forger {
	t.Helper()
	f := forger{t: t}
	parts := strings.Split(token, ".")
	for i, into := range []*map[string]any{&f.header, &f.claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		decodeInto(t, string(data), into)
	}
	return f
}

// token is signed by sign, with these members changed in the header.
func (f forger) token(sign func(input []byte) []byte, change map[string]any) string {
	f.t.Helper()
	header := make(map[string]any)
	for _, members := range []map[string]any{f.header, change} {
		for name, value := range members {
			header[name] = value
		}
	}
	var parts []string
	for _, part := range []any{header, f.claims} {
		data, err := json.Marshal(part)
		if err != nil {
			f.t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(data))
	}
	input := strings.Join(parts, ".")
	return input + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(input)))
}

// hs256 signs with HMAC-SHA256 (RFC 7518, section 3.2).
func hs256(key []byte) func([]byte) []byte {
	return func(input []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(input)
		return mac.Sum(nil)
	}
}

func unsigned([]byte) []byte { return nil }

// Whatever stands in the header of a token, its signature is checked with the
// key that the service has under its kid, by that key's algorithm, and a token
// is good for what it was made for alone.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Fine."))
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		ticket := s.ticket(ann.Access, 2)
		device := strings.TrimPrefix(strings.Split(s.login("ann@example.com", password, nil).header.Get("Set-Cookie"), ";")[0], "parley_device=")

		// The public key, in the forms in which others have taken it for a secret.
		var set struct {
			Keys []struct{ X string }
		}
		jwks := s.do(call{method: "GET", path: "/.well-known/jwks.json"}).body
		decodeInto(t, jwks, &set)
		public, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
		if err != nil {
			t.Fatal(err)
		}
		// An Ed25519 SubjectPublicKeyInfo is this prefix and the key (RFC 8410).
		spki := append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, public...)
		inPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})

		// A key of the forger's own, offered in the token and at a URL.
		mine, secret, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		bySecret := func(input []byte) []byte { return ed25519.Sign(secret, input) }
		jwk := map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(mine), "kid": "mine", "alg": "EdDSA", "use": "sig"}
		var fetched atomic.Int64
		elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fetched.Add(1)
			json.NewEncoder(w).Encode(map[string]any{"keys": []any{jwk}}) //nolint:errcheck // nobody should ask
		}))
		defer elsewhere.Close()

		for _, genuine := range []struct{ name, token string }{{"access", ann.Access}, {"refresh", ann.Refresh}, {"ticket", ticket}, {"device", device}} {
			f := forgerOf(t, genuine.token)
			forged := map[string]string{
				"no algorithm":                     f.token(unsigned, map[string]any{"alg": "none"}),
				"no algorithm, in capitals":        f.token(unsigned, map[string]any{"alg": "NONE"}),
				"no algorithm, and no kid":         f.token(unsigned, map[string]any{"alg": "none", "kid": nil}),
				"no signature":                     f.token(unsigned, nil),
				"HMAC with the public key":         f.token(hs256(public), map[string]any{"alg": "HS256"}),
				"HMAC with the public key in PEM":  f.token(hs256(inPEM), map[string]any{"alg": "HS256"}),
				"HMAC with the public key in DER":  f.token(hs256(spki), map[string]any{"alg": "HS256"}),
				"HMAC with the key's text":         f.token(hs256([]byte(set.Keys[0].X)), map[string]any{"alg": "HS256"}),
				"HMAC with the key set":            f.token(hs256([]byte(jwks)), map[string]any{"alg": "HS256"}),
				"HMAC with nothing":                f.token(hs256(nil), map[string]any{"alg": "HS256"}),
				"HMAC with a file that is empty":   f.token(hs256(nil), map[string]any{"alg": "HS256", "kid": "../../../../dev/null"}),
				"a kid that is SQL":                f.token(hs256([]byte("x")), map[string]any{"alg": "HS256", "kid": "' UNION SELECT 'x"}),
				"a kid that is a command":          f.token(bySecret, map[string]any{"kid": "x|cat /etc/passwd"}),
				"a kid that is a URL":              f.token(bySecret, map[string]any{"kid": elsewhere.URL}),
				"a kid that is a number":           f.token(bySecret, map[string]any{"kid": 0}),
				"another key under the kid":        f.token(bySecret, nil),
				"a key in the header":              f.token(bySecret, map[string]any{"jwk": jwk}),
				"a key in the header, by its kid":  f.token(bySecret, map[string]any{"jwk": jwk, "kid": "mine"}),
				"a key at a URL":                   f.token(bySecret, map[string]any{"jku": elsewhere.URL, "kid": "mine"}),
				"a certificate at a URL":           f.token(bySecret, map[string]any{"x5u": elsewhere.URL}),
				"a certificate":                    f.token(bySecret, map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(spki)}}),
				"an extension that is critical":    f.token(bySecret, map[string]any{"crit": []string{"b64"}, "b64": false}),
				"the genuine one with another end": genuine.token[:len(genuine.token)-4] + "AAAA",
			}
			for _, typ := range []string{"at+jwt", "refresh+jwt", "stream-ticket+jwt", "device+jwt", "JWT", ""} {
				forged["typ "+typ] = f.token(bySecret, map[string]any{"typ": typ})
			}
			for name, token := range forged {
				s.opensNothing(t, genuine.name+" token with "+name, token)
			}
		}
		// Genuine ones, where another kind is asked for.
		for _, tt := range []struct {
			name, token string
			but         string
		}{
			{"the access token", ann.Access, "access"},
			{"the refresh token", ann.Refresh, "refresh"},
			{"the ticket", ticket, "ticket"},
			{"the device token", device, ""},
		} {
			s.opensNothing(t, tt.name, tt.token, tt.but)
		}
		if n := fetched.Load(); n != 0 {
			t.Errorf("%d keys were fetched from where a token said", n)
		}
		if got := s.works(ann); got != works {
			t.Errorf("in the end her device gets %s, want %s", got, works)
		}
	})
}

// opensNothing offers a token in each place where one is asked for, but in that
// of its own kind, if it is named.
func (s *service) opensNothing(t *testing.T, name, token string, but ...string) {
	t.Helper()
	body := `{"refresh_token":"` + token + `"}`
	for _, tt := range []struct {
		kind string
		call call
		want int
	}{
		{"access", call{method: "GET", path: "/api/v1/user/profile", token: token}, 401},
		{"access", call{method: "GET", path: "/api/v1/user/export", token: token}, 401},
		{"access", call{method: "DELETE", path: "/api/v1/user", token: token, body: `{"current_password":"` + password + `"}`}, 401},
		{"access", call{method: "GET", path: "/api/v1/messages/2/stream", token: token}, 401},
		{"ticket", call{method: "GET", path: "/api/v1/messages/2/stream?ticket=" + token}, 401},
		{"refresh", call{method: "POST", path: "/api/v1/auth/refresh", body: body}, 401},
		{"reset", call{method: "GET", path: resetPath + token}, 400},
		{"logout", call{method: "POST", path: "/api/v1/auth/logout", token: token, body: body}, 200},
	} {
		if len(but) > 0 && (tt.kind == but[0] || tt.kind == "logout") {
			continue
		}
		if got := s.do(tt.call); got.status != tt.want {
			t.Errorf("%s at %s %s: %d %s, want %d", name, tt.call.method, strings.Split(tt.call.path, "?")[0], got.status, got.body, tt.want)
		}
	}
}
