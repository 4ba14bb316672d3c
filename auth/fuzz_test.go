package auth_test

import (
	"encoding/json"
	"errors"
	"net/mail"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/auth"
)

// FuzzVerifyAccess throws strings at the parser: without the key nobody makes
// a token that was not issued.
func FuzzVerifyAccess(f *testing.F) {
	known := make(map[string]bool)
	for _, token := range madeElsewhere {
		known[token] = true
		f.Add(token)
	}
	f.Add(signed(goodHeader, `{`))
	f.Add("a.b.c")
	tokens := tokens(f, "EdDSA")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := tokens.VerifyAccess(token)
		if err != nil && (!errors.Is(err, auth.ErrInvalidToken) || got != (auth.Identity{})) {
			t.Errorf("got %+v, %v", got, err)
		}
		if err == nil && !known[token] {
			t.Errorf("took %q", token)
		}
	})
}

// FuzzSignedClaims signs any header and claims: what is taken says the same
// to encoding/json.
func FuzzSignedClaims(f *testing.F) {
	f.Add(goodHeader, goodClaims)
	f.Add(goodHeader, strings.Replace(goodClaims, `"sub"`, `"SUB":"8","sub"`, 1))
	f.Add(`{"typ":"at+jwt","alg":"EdDSA","kid":"ed","kid":"hs"}`, goodClaims)
	tokens := tokens(f, "EdDSA")
	f.Fuzz(func(t *testing.T, header, claims string) {
		got, err := tokens.VerifyAccess(signed(header, claims))
		if err != nil {
			return
		}
		var h, c map[string]any
		if json.Unmarshal([]byte(header), &h) != nil || json.Unmarshal([]byte(claims), &c) != nil {
			t.Fatalf("took %q and %q", header, claims)
		}
		if len(h) != 3 || h["alg"] != "EdDSA" || h["kid"] != "ed" || h["typ"] != "at+jwt" {
			t.Errorf("took the header %q", header)
		}
		if c["sub"] != strconv.FormatInt(got.UserID, 10) || got.UserID <= 0 || c["sid"] != got.SID || got.SID == "" ||
			c["exp"] != float64(got.ExpiresAt.Unix()) || c["iat"] != float64(got.IssuedAt.Unix()) ||
			c["iss"] != "https://parley.example" || c["jti"] == "" {
			t.Errorf("read %+v from %q", got, claims)
		}
	})
}

// FuzzVerifyOthers throws strings at the parsers of the other types: none takes
// what was not made as its own.
func FuzzVerifyOthers(f *testing.F) {
	tokens := tokens(f, "EdDSA")
	pair := issue(f, tokens, session())
	made := []string{pair.AccessToken, pair.RefreshToken, issueTicket(f, tokens, 42), issueDevice(f, tokens)}
	for _, token := range append(made, signed(goodHeader, `{`), "a.b.c") {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		_, refresh := tokens.VerifyRefresh(token)
		_, ticket := tokens.VerifyTicket(token)
		_, device := tokens.VerifyDevice(token)
		for typ, err := range map[string]error{"refresh+jwt": refresh, "stream-ticket+jwt": ticket, "device+jwt": device} {
			if err == nil && decoded(t, token, 0)["typ"] != typ {
				t.Errorf("took %q as %s", token, typ)
			}
			if err != nil && !errors.Is(err, auth.ErrInvalidToken) {
				t.Errorf("got %v for %q", err, token)
			}
		}
	})
}

func FuzzNewKeyRing(f *testing.F) {
	// Without an RSA key, whose primes take most of a fuzzer's time.
	all := jwks(f)
	f.Add([]byte(setOf(f, all["ed"], all["ec"], all["hs"])))
	f.Add([]byte(setOf(f, all["ec"])))
	f.Add([]byte(`{"keys":[{"kid":"a","alg":"HS256","kty":"oct","k":"AA"}]}`))
	f.Fuzz(func(t *testing.T, set []byte) {
		r, err := auth.NewKeyRing(set)
		if err != nil {
			return
		}
		var public struct {
			Keys []map[string]string `json:"keys"`
		}
		if err := json.Unmarshal(r.Public(), &public); err != nil {
			t.Fatal(err)
		}
		for _, k := range public.Keys {
			for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
				if _, given := k[private]; given {
					t.Errorf("%s is published", private)
				}
			}
		}
	})
}

func FuzzHash(f *testing.F) {
	for _, hash := range hashesOfGreeting {
		f.Add(hash)
	}
	f.Add("$argon2id$v=19$m=4294967295,t=4294967295,p=255$$")
	f.Add("scrypt:9223372036854775807:2:2$s$00")
	f.Fuzz(func(t *testing.T, hash string) {
		err := auth.ReadableHash(hash)
		if err != nil && !errors.Is(err, auth.ErrBadHash) {
			t.Errorf("got %v", err)
		}
		if err == nil && (len(hash) > 1024 || strings.ContainsAny(hash[len(hash)-1:], " \r\n")) {
			t.Errorf("took %q", hash)
		}
	})
}

// FuzzNormalizeEmail compares with net/mail: what we take is an address there
// too, and the same one.
func FuzzNormalizeEmail(f *testing.F) {
	for _, s := range []string{"Ana@Example.com", " a@b.c ", "a@b@c", "a@b.c\r\nBcc: d@e.f", `"a b"@c.de`, "a@[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := auth.NormalizeEmail(s)
		if err != nil {
			if got != "" || !errors.Is(err, auth.ErrInvalidEmail) {
				t.Errorf("got %q, %v", got, err)
			}
			return
		}
		parsed, err := mail.ParseAddress(got)
		if err != nil || parsed.Address != got || parsed.Name != "" {
			t.Errorf("net/mail reads %q as %v, %v", got, parsed, err)
		}
		if again, err := auth.NormalizeEmail(got); again != got || err != nil {
			t.Errorf("got %q, %v for its own result %q", again, err, got)
		}
		if strings.ContainsAny(got, "\r\n\x00 ") || got != strings.ToLower(got) {
			t.Errorf("got %q", got)
		}
	})
}

func FuzzCheckPassword(f *testing.F) {
	f.Add("password", "a@b.c")
	f.Add("ana.lopez1", "ana.lopez@mail.example.com")
	f.Add("\xff\x00", "@")
	f.Fuzz(func(t *testing.T, password, email string) {
		err := auth.CheckPassword(password, email)
		if err != nil && !errors.Is(err, auth.ErrWeakPassword) {
			t.Errorf("got %v", err)
		}
		if err == nil && (utf8.RuneCountInString(password) < 8 || len(password) > 1024) {
			t.Errorf("took %q", password)
		}
	})
}
