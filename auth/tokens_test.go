package auth_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
)

// issued is a moment a quarter of a second after 2026-11-18 11:06:40 UTC.
var issued = time.UnixMicro(1795000000_250000).UTC()

// madeElsewhere are access tokens of one session, made by joserfc 1.6.5 with
// the keys of testdata/keys.json.
var madeElsewhere = map[string]string{
	"EdDSA": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6ImVkIn0.eyJpc3MiOiJodHRwczovL3BhcmxleS5leGFtcGxlIiwiYXVkIjoicGFybGV5Iiwic3ViIjoiNyIsImlhdCI6MTc5NTAwMDAwMCwiZXhwIjoxNzk1MDAwOTAwLCJqdGkiOiJtYWRlLWVsc2V3aGVyZSIsInNpZCI6IlMxIiwiZ2VuIjozLCJpYXRfdXMiOjI1MDAwMH0.G0SQBmOd4OCvIMaJWkqkXeF9hIzCeqQ0gSAHhFzEoSTdkCaTZ9J-bdpTCQ-ajmpihrs3-tX0B8rQidEw2fNEBA",
	"ES256": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.eyJpc3MiOiJodHRwczovL3BhcmxleS5leGFtcGxlIiwiYXVkIjoicGFybGV5Iiwic3ViIjoiNyIsImlhdCI6MTc5NTAwMDAwMCwiZXhwIjoxNzk1MDAwOTAwLCJqdGkiOiJtYWRlLWVsc2V3aGVyZSIsInNpZCI6IlMxIiwiZ2VuIjozLCJpYXRfdXMiOjI1MDAwMH0.cJCCnR9z_k8z_0IMJHX5cg_q8d2flOXb-Ora0ipp2ZCL4TPKcbtK4k4galaozpXywlK2LDCqQNXSnYODwrnl1w",
	"RS256": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJSUzI1NiIsImtpZCI6InJzIn0.eyJpc3MiOiJodHRwczovL3BhcmxleS5leGFtcGxlIiwiYXVkIjoicGFybGV5Iiwic3ViIjoiNyIsImlhdCI6MTc5NTAwMDAwMCwiZXhwIjoxNzk1MDAwOTAwLCJqdGkiOiJtYWRlLWVsc2V3aGVyZSIsInNpZCI6IlMxIiwiZ2VuIjozLCJpYXRfdXMiOjI1MDAwMH0.W52q4ERY0N0khtaa6rMzP0d0dBwuI22jczqzJH2AwoRRv7HI2vv_4JESkEalDMgcNEBPD-WYc02d4l-fq9_hpdFS51WpYizhHDNy4Q1t9Si3ivOsyj-Ah5XnTwX2XScYlRgM0On03mBcjZ9-B1-nmWCVg6Z3GFLNiqAw7owpZ1UMYiyWVkpNYruHNB9Uo32-LNFpH6QDEQxP_-6xh4qyUwrkM3Rgzlc46wR3qMUONI3vHUVa4b5YZ8L184TT-mAutK5i339Psl52jiCS569Ck1fbbEcXxkCn6E0sKluUsAycpebM4fOld0WZcyCOKVIEugoTUmnislugSn5HWkAHSw",
	"HS256": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiIsImtpZCI6ImhzIn0.eyJpc3MiOiJodHRwczovL3BhcmxleS5leGFtcGxlIiwiYXVkIjoicGFybGV5Iiwic3ViIjoiNyIsImlhdCI6MTc5NTAwMDAwMCwiZXhwIjoxNzk1MDAwOTAwLCJqdGkiOiJtYWRlLWVsc2V3aGVyZSIsInNpZCI6IlMxIiwiZ2VuIjozLCJpYXRfdXMiOjI1MDAwMH0.jNgPCjNh3QuLWWJGDQX2YuShUz7ZGBrbgmZpqMcIOO0",
}

// keySet reads testdata/keys.json and puts the key of an algorithm first.
func keySet(tb testing.TB, first string) []byte {
	tb.Helper()
	b, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		tb.Fatal(err)
	}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		tb.Fatal(err)
	}
	for i, k := range set.Keys {
		if k["alg"] == first {
			set.Keys[0], set.Keys[i] = set.Keys[i], set.Keys[0]
		}
	}
	b, err = json.Marshal(set)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func ring(tb testing.TB, set []byte) *auth.KeyRing {
	tb.Helper()
	r, err := auth.NewKeyRing(set)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// tokens signs with the key of an algorithm at the moment issued.
func tokens(tb testing.TB, alg string) *auth.Tokens {
	tb.Helper()
	return tokensAt(tb, alg, func() time.Time { return issued })
}

func tokensAt(tb testing.TB, alg string, now func() time.Time) *auth.Tokens {
	tb.Helper()
	return auth.NewTokens(ring(tb, keySet(tb, alg)), auth.TokenConfig{
		Issuer:         "https://parley.example",
		Audience:       "parley",
		AccessTTL:      15 * time.Minute,
		RefreshIdleTTL: 720 * time.Hour,
		RefreshMaxTTL:  2160 * time.Hour,
		Now:            now,
	})
}

func session() auth.Session {
	return auth.Session{UserID: 7, SID: "S1", Generation: 3, RotatedAt: issued, ExpiresAt: issued.Add(2160 * time.Hour)}
}

func issue(tb testing.TB, t *auth.Tokens, s auth.Session) auth.Pair {
	tb.Helper()
	p, err := t.Issue(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// decoded reads the header or the claims of a token without our code.
func decoded(tb testing.TB, token string, segment int) map[string]any {
	tb.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[segment])
	if err != nil {
		tb.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestVerifyAccessTakesTokensOfAnotherImplementation(t *testing.T) {
	t.Parallel()
	want := auth.Identity{
		UserID: 7, SID: "S1", Generation: 3,
		IssuedAt: issued, ExpiresAt: time.Unix(1795000900, 0).UTC(),
	}
	for alg, token := range madeElsewhere {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			tokens := tokens(t, "EdDSA")
			for _, time := range []string{"first", "second"} {
				got, err := tokens.VerifyAccess(token)
				if err != nil || got != want {
					t.Errorf("%s time: got %+v, %v; want %+v", time, got, err, want)
				}
			}
		})
	}
}

func TestIssueMakesBothTokensOfTheProfile(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"EdDSA", "ES256", "RS256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			tokens := tokens(t, alg)
			s := session()
			s.RotatedAt = issued.Add(-time.Hour)
			got := issue(t, tokens, s)

			kid := map[string]string{"EdDSA": "ed", "ES256": "ec", "RS256": "rs", "HS256": "hs"}[alg]
			for typ, token := range map[string]string{"at+jwt": got.AccessToken, "refresh+jwt": got.RefreshToken} {
				want := map[string]any{"alg": alg, "kid": kid, "typ": typ}
				if diff := cmp.Diff(decoded(t, token, 0), want); diff != "" {
					t.Errorf("%s header (-got +want):\n%s", typ, diff)
				}
			}
			access, refresh := decoded(t, got.AccessToken, 1), decoded(t, got.RefreshToken, 1)
			if a, b := access["jti"].(string), refresh["jti"].(string); len(a) < 20 || len(b) < 20 || a == b {
				t.Errorf("jti are %q and %q", a, b)
			}
			wantAccess := map[string]any{
				"iss": "https://parley.example", "aud": "parley", "sub": "7", "sid": "S1", "gen": 3.0,
				"iat": 1795000000.0, "iat_us": 250000.0, "exp": 1795000900.0, "jti": access["jti"],
			}
			wantRefresh := map[string]any{
				"iss": "https://parley.example", "aud": "parley", "sub": "7", "sid": "S1", "gen": 3.0,
				"iat": 1794996400.0, "iat_us": 250000.0, "exp": 1794996400.0 + 720*3600, "jti": refresh["jti"],
			}
			if diff := cmp.Diff([]any{access, refresh}, []any{wantAccess, wantRefresh}); diff != "" {
				t.Errorf("claims (-got +want):\n%s", diff)
			}
			if got.ExpiresIn != 900 || got.RefreshExpiresIn != 720*3600-3600 {
				t.Errorf("got lifetimes %d and %d", got.ExpiresIn, got.RefreshExpiresIn)
			}
			again, err := tokens.VerifyRefresh(got.RefreshToken)
			if want := (auth.Refresh{UserID: 7, SID: "S1", Generation: 3}); err != nil || again != want {
				t.Errorf("got %+v, %v; want %+v", again, err, want)
			}
			if _, err := tokens.VerifyAccess(got.AccessToken); err != nil {
				t.Errorf("got %v for the access token", err)
			}
		})
	}
}

func TestATokenOfOneTypeDoesNotPassForTheOther(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	p := issue(t, tokens, session())
	if _, err := tokens.VerifyAccess(p.RefreshToken); !errors.Is(err, auth.ErrInvalidToken) {
		t.Errorf("got %v for a refresh token as access token", err)
	}
	if _, err := tokens.VerifyAccess(p.AccessToken); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.VerifyRefresh(p.AccessToken); !errors.Is(err, auth.ErrInvalidToken) {
		t.Errorf("got %v for a remembered access token as refresh token", err)
	}
}

func TestTheRefreshTokenOfAGenerationIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"EdDSA", "RS256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			here := tokens(t, alg)
			later := tokensAt(t, alg, func() time.Time { return issued.Add(9 * time.Second) })
			a, b := issue(t, here, session()), issue(t, later, session())
			if a.RefreshToken != b.RefreshToken {
				t.Errorf("got two refresh tokens:\n%s\n%s", a.RefreshToken, b.RefreshToken)
			}
			if a.AccessToken == b.AccessToken {
				t.Error("got one access token twice")
			}
			next := session()
			next.Generation++
			if c := issue(t, here, next); c.RefreshToken == a.RefreshToken {
				t.Error("two generations have one refresh token")
			}
		})
	}
}

func TestNoTokenOutlivesItsSession(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	s := session()
	s.ExpiresAt = issued.Add(time.Minute)
	p := issue(t, tokens, s)
	if p.ExpiresIn != 60 || p.RefreshExpiresIn != 60 {
		t.Errorf("got lifetimes %d and %d, want 60 and 60", p.ExpiresIn, p.RefreshExpiresIn)
	}
	for name, change := range map[string]func(*auth.Session){
		"the session has ended":     func(s *auth.Session) { s.ExpiresAt = issued },
		"the session has no end":    func(s *auth.Session) { s.ExpiresAt = time.Time{} },
		"the session rested 30 day": func(s *auth.Session) { s.RotatedAt = issued.Add(-720 * time.Hour) },
	} {
		s := session()
		change(&s)
		if got, err := tokens.Issue(s); got != (auth.Pair{}) || !errors.Is(err, auth.ErrExpiredToken) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	for name, change := range map[string]func(*auth.Session){
		"no user":       func(s *auth.Session) { s.UserID = 0 },
		"no sid":        func(s *auth.Session) { s.SID = "" },
		"no generation": func(s *auth.Session) { s.Generation = 0 },
	} {
		s := session()
		change(&s)
		if got, err := tokens.Issue(s); got != (auth.Pair{}) || err == nil {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestNewSessionBeginsAtGenerationOne(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(t, "EdDSA", func() time.Time { return issued.Add(999) })
	a, b := tokens.NewSession(7), tokens.NewSession(7)
	if len(a.SID) < 22 || a.SID == b.SID {
		t.Errorf("got SIDs %q and %q", a.SID, b.SID)
	}
	want := auth.Session{UserID: 7, SID: a.SID, Generation: 1, RotatedAt: issued, ExpiresAt: issued.Add(2160 * time.Hour)}
	if a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
}

func TestATokenEndsWithItsSecond(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[time.Time]
	now.Store(&issued)
	tokens := tokensAt(t, "EdDSA", func() time.Time { return *now.Load() })
	token := madeElsewhere["EdDSA"]
	if _, err := tokens.VerifyAccess(token); err != nil {
		t.Fatal(err)
	}
	last := time.Unix(1795000900, -1)
	now.Store(&last)
	if _, err := tokens.VerifyAccess(token); err != nil {
		t.Errorf("got %v in its last nanosecond", err)
	}
	end := time.Unix(1795000900, 0)
	now.Store(&end)
	for range 2 {
		_, err := tokens.VerifyAccess(token)
		if !errors.Is(err, auth.ErrExpiredToken) || !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("got %v at its end", err)
		}
	}
}

func TestSetKeysForgetsTokensOfKeysThatAreGone(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	old := issue(t, tokens, session())
	if _, err := tokens.VerifyAccess(old.AccessToken); err != nil {
		t.Fatal(err)
	}
	tokens.SetKeys(ring(t, keySet(t, "HS256")))
	if _, err := tokens.VerifyAccess(old.AccessToken); err != nil {
		t.Errorf("got %v while the old key verifies", err)
	}
	fresh, err := auth.GenerateKeySet()
	if err != nil {
		t.Fatal(err)
	}
	other := ring(t, fresh)
	tokens.SetKeys(other)
	if _, err := tokens.VerifyAccess(old.AccessToken); !errors.Is(err, auth.ErrInvalidToken) {
		t.Errorf("got %v after the old key went", err)
	}
	if diff := cmp.Diff(string(tokens.PublicKeys()), string(other.Public())); diff != "" {
		t.Errorf("public keys (-got +want):\n%s", diff)
	}
}

func TestASessionHasRestedWhenItsTokensHaveExpired(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		after time.Duration
		want  bool
	}{
		"at once":                        {0, false},
		"when its refresh token expires": {720 * time.Hour, false},
		"just before the last access token expires": {720*time.Hour + 15*time.Minute - time.Microsecond, false},
		"when the last access token expires":        {720*time.Hour + 15*time.Minute, true},
	} {
		at := tokensAt(t, "EdDSA", func() time.Time { return session().RotatedAt.Truncate(time.Second).Add(test.after) })
		if got := at.Rested(session()); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestTokensVerifyWhileKeysChange(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	pair := issue(t, tokens, session())
	rings := []*auth.KeyRing{ring(t, keySet(t, "EdDSA")), ring(t, keySet(t, "HS256"))}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 100 {
				if i == 0 {
					tokens.SetKeys(rings[j%2])
				}
				if _, err := tokens.VerifyAccess(pair.AccessToken); err != nil {
					t.Errorf("got %v", err)
				}
				if _, err := tokens.VerifyRefresh(pair.RefreshToken); err != nil {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	all.Wait()
}

func TestNoMoreTokensAreRememberedThanTheLimit(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "HS256")
	kept := issue(t, tokens, session()).AccessToken
	for range auth.RememberedLimit + 100 {
		if _, err := tokens.VerifyAccess(issue(t, tokens, session()).AccessToken); err != nil {
			t.Fatal(err)
		}
		if _, err := tokens.VerifyAccess(kept); err != nil {
			t.Fatal(err)
		}
	}
	if got := tokens.Remembered(); got > auth.RememberedLimit || got < auth.RememberedLimit/2 {
		t.Errorf("got %d tokens remembered, want at most %d", got, auth.RememberedLimit)
	}
}

func BenchmarkVerifyAccess(b *testing.B) {
	for _, alg := range []string{"EdDSA", "ES256", "RS256", "HS256"} {
		t := tokens(b, alg)
		pair := issue(b, t, session())
		b.Run(alg+"/remembered", func(b *testing.B) {
			for b.Loop() {
				if _, err := t.VerifyAccess(pair.AccessToken); err != nil {
					b.Fatal(err)
				}
			}
		})
		// A refresh token takes the same way and is never remembered.
		b.Run(alg+"/verified", func(b *testing.B) {
			for b.Loop() {
				if _, err := t.VerifyRefresh(pair.RefreshToken); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// signed makes a token of any header and claims with the Ed25519 key of
// RFC 8037 appendix A, which is "ed" in testdata/keys.json.
func signed(header, claims string) string {
	seed, _ := base64.RawURLEncoding.DecodeString("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(header)) + "." + encode([]byte(claims))
	return text + "." + encode(ed25519.Sign(ed25519.NewKeyFromSeed(seed), []byte(text)))
}
