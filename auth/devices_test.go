package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
)

func issueDevice(tb testing.TB, t *auth.Tokens) string {
	tb.Helper()
	token, err := t.IssueDevice(7)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func TestADeviceTokenIsATokenOfTheProfile(t *testing.T) {
	t.Parallel()
	for alg, kid := range map[string]string{"EdDSA": "ed", "ES256": "ec", "RS256": "rs", "HS256": "hs"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			tokens := tokens(t, alg)
			token := issueDevice(t, tokens)
			header, claims := decoded(t, token, 0), decoded(t, token, 1)
			if diff := cmp.Diff(header, map[string]any{"alg": alg, "kid": kid, "typ": "device+jwt"}); diff != "" {
				t.Errorf("header (-got +want):\n%s", diff)
			}
			want := map[string]any{
				"iss": "https://parley.example", "aud": "parley", "sub": "7",
				"iat": 1795000000.0, "iat_us": 250000.0, "exp": 1795000000.0 + 365*24*3600, "jti": claims["jti"],
			}
			if diff := cmp.Diff(claims, want); diff != "" {
				t.Errorf("claims (-got +want):\n%s", diff)
			}
			got, err := tokens.VerifyDevice(token)
			if tells := (auth.Device{UserID: 7, IssuedAt: issued}); err != nil || got != tells {
				t.Errorf("got %+v, %v; want %+v", got, err, tells)
			}
			if jti, _ := claims["jti"].(string); len(jti) < 20 || issueDevice(t, tokens) == token {
				t.Errorf("jti is %q, want a random one", jti)
			}
		})
	}
}

func TestADeviceIsKnownForAYear(t *testing.T) {
	t.Parallel()
	now := issued
	tokens := tokensAt(t, "EdDSA", func() time.Time { return now })
	token := issueDevice(t, tokens)
	now = time.Unix(1795000000+365*24*3600-1, 0)
	if _, err := tokens.VerifyDevice(token); err != nil {
		t.Errorf("a second before: got %v", err)
	}
	now = now.Add(time.Second)
	if _, err := tokens.VerifyDevice(token); !errors.Is(err, auth.ErrExpiredToken) {
		t.Errorf("a year later: got %v, want an expired token", err)
	}
}

func TestVerifyDeviceRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	const header = `{"alg":"EdDSA","kid":"ed","typ":"device+jwt"}`
	device := func(from, to string) string {
		return signed(header, strings.Replace(with(t, `"sid":"S1",`, ``), from, to, 1))
	}
	good := device(``, ``)
	tokens := tokens(t, "EdDSA")
	if got, err := tokens.VerifyDevice(good); err != nil || got != (auth.Device{UserID: 7, IssuedAt: issued.Truncate(time.Second)}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, tt := range map[string]struct{ token, want string }{
		"nothing":                    {"", "header: no valid JSON"},
		"a token of a session":       {signed(header, goodClaims), "malformed"},
		"an access token without it": {signed(goodHeader, with(t, `"sid":"S1",`, ``)), "another typ"},
		"typ in another case":        {signed(strings.Replace(header, "device", "Device", 1), goodClaims), "another typ"},
		"no typ":                     {signed(`{"alg":"EdDSA","kid":"ed"}`, goodClaims), "header: typ is missing"},
		"no algorithm":               {signed(strings.Replace(header, "EdDSA", "none", 1), goodClaims), "an alg that is not the key's"},
		"a key in the header":        {signed(strings.Replace(header, `{`, `{"jwk":{},`, 1), goodClaims), "header: a member that is not in the profile"},
		"no user":                    {device(`"sub":"7",`, ``), "malformed"},
		"user 0":                     {device(`"sub":"7"`, `"sub":"0"`), "malformed"},
		"no jti":                     {device(`"jti"`, `"JTI"`), "malformed"},
		"no end":                     {device(`"exp"`, `"EXP"`), "malformed"},
		"another issuer":             {device(`https://parley.example`, `https://other.example`), "another iss"},
		"another audience":           {device(`"aud":"parley"`, `"aud":"other"`), "another aud"},
		"iat ahead":                  {device(`"iat":1795000000`, `"iat":1795000003`), "iat ahead"},
		"past":                       {device(`1795000900`, `1795000000`), "expired"},
		"a signature of another key": {good[:len(good)-4] + "AAAA", "signature"},
		"too long":                   {good + strings.Repeat("A", 8<<10), "too long"},
	} {
		got, err := tokens.VerifyDevice(tt.token)
		if err == nil || err.Error() != "auth: invalid token: "+tt.want || got != (auth.Device{}) {
			t.Errorf("%s: got %+v, %v; want %q", name, got, err, tt.want)
		}
	}
}

func TestIssueDeviceAsksForAUser(t *testing.T) {
	t.Parallel()
	for _, userID := range []int64{0, -1} {
		if got, err := tokens(t, "EdDSA").IssueDevice(userID); got != "" || err == nil {
			t.Errorf("user %d: got %q, %v", userID, got, err)
		}
	}
}

func TestNoTokenPassesForAnother(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	pair := issue(t, tokens, session())
	made := map[string]string{"access": pair.AccessToken, "refresh": pair.RefreshToken, "ticket": issueTicket(t, tokens, 42), "device": issueDevice(t, tokens)}
	verify := map[string]func(string) error{
		"access":  func(s string) error { _, err := tokens.VerifyAccess(s); return err },
		"refresh": func(s string) error { _, err := tokens.VerifyRefresh(s); return err },
		"ticket":  func(s string) error { _, err := tokens.VerifyTicket(s); return err },
		"device":  func(s string) error { _, err := tokens.VerifyDevice(s); return err },
	}
	for range 2 { // what was verified once is remembered
		for is, token := range made {
			for as, verify := range verify {
				switch err := verify(token); {
				case is == as && err != nil:
					t.Errorf("%s: %v", is, err)
				case is != as && !errors.Is(err, auth.ErrInvalidToken):
					t.Errorf("%s as %s: got %v", is, as, err)
				}
			}
		}
	}
}
