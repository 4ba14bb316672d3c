package auth_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
)

// jwks reads the JWKs of testdata/keys.json by their kid.
func jwks(tb testing.TB) map[string]map[string]string {
	tb.Helper()
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(keySet(tb, "EdDSA"), &set); err != nil {
		tb.Fatal(err)
	}
	byID := make(map[string]map[string]string)
	for _, k := range set.Keys {
		byID[k["kid"]] = k
	}
	return byID
}

func setOf(tb testing.TB, keys ...map[string]string) string {
	tb.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func TestNewKeyRingSaysWhichKeyIsWrong(t *testing.T) {
	t.Parallel()
	// one is the set of one key, changed; an empty value takes a member away.
	one := func(kid string, changes ...string) string {
		k := jwks(t)[kid]
		for i := 0; i < len(changes); i += 2 {
			k[changes[i]] = changes[i+1]
			if changes[i+1] == "" {
				delete(k, changes[i])
			}
		}
		return setOf(t, k)
	}
	all := jwks(t)
	public := map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "p", "x": all["ed"]["x"]}
	short := strings.Repeat("A", 42)
	otherX := "7" + all["ed"]["x"][1:]

	cases := map[string]struct{ set, want string }{
		"no JSON":                              {`{"keys":[`, `no valid JSON`},
		"more behind the set":                  {setOf(t, all["ed"]) + "x", `no valid JSON`},
		"no object":                            {`[]`, `no JSON object`},
		"no keys member":                       {`{"Keys":[]}`, `keys is missing`},
		"keys that are no list":                {`{"keys":{}}`, `keys has a wrong type`},
		"no key in it":                         {`{"keys":[]}`, `no keys`},
		"a key that is no object":              {`{"keys":["k"]}`, `key 1: no JSON object`},
		"a member twice":                       {`{"keys":[{"kid":"a","kid":"b"}]}`, `key 1: a member is given twice`},
		"no kid":                               {one("ed", "kid", ""), `key 1: kid is missing`},
		"a kid too long":                       {one("ed", "kid", strings.Repeat("k", 129)), `key 1: kid is not 1 to 128 bytes`},
		"a kid twice":                          {setOf(t, all["ed"], all["ed"]), `key 2 (kid "ed"): another key has the same kid`},
		"no alg":                               {one("ed", "alg", ""), `key 1 (kid "ed"): alg is missing`},
		"an unknown alg":                       {one("ed", "alg", "PS256"), `key 1 (kid "ed"): alg is none of EdDSA, ES256, RS256, HS256`},
		"an unknown kty":                       {one("ed", "kty", "AKP"), `key 1 (kid "ed"): kty is not "OKP", which alg "EdDSA" wants`},
		"a kty of another alg":                 {one("rs", "alg", "ES256"), `key 1 (kid "rs"): kty is not "EC", which alg "ES256" wants`},
		"a key to encrypt with":                {one("ed", "use", "enc"), `key 1 (kid "ed"): use is not "sig"`},
		"a public key first":                   {setOf(t, public), `key 1 (kid "p"): the first key signs and needs its private part`},
		"Ed25519 on another curve":             {one("ed", "crv", "Ed448"), `key 1 (kid "ed"): crv is not "Ed25519"`},
		"Ed25519 without x":                    {one("ed", "x", ""), `key 1 (kid "ed"): x is missing`},
		"Ed25519 with a short x":               {one("ed", "x", short), `key 1 (kid "ed"): x is not 32 bytes`},
		"Ed25519 with padding":                 {one("ed", "x", all["ed"]["x"]+"="), `key 1 (kid "ed"): x is not base64url`},
		"Ed25519 with slack bits":              {one("ed", "x", all["ed"]["x"][:42]+"p"), `key 1 (kid "ed"): x is not base64url`},
		"Ed25519 with a short d":               {one("ed", "d", short), `key 1 (kid "ed"): d is not 32 bytes`},
		"Ed25519 with the d of another key":    {one("ed", "x", otherX), `key 1 (kid "ed"): the private part does not belong to the public part`},
		"P-256 on another curve":               {one("ec", "crv", "P-384"), `key 1 (kid "ec"): crv is not "P-256"`},
		"P-256 off the curve":                  {one("ec", "y", all["ec"]["x"]), `key 1 (kid "ec"): x and y are no point of the curve`},
		"P-256 with a short y":                 {one("ec", "y", short), `key 1 (kid "ec"): y is not 32 bytes`},
		"P-256 with d zero":                    {one("ec", "d", short+"A"), `key 1 (kid "ec"): d is out of range`},
		"P-256 with the d of another key":      {one("ec", "d", all["ed"]["d"]), `key 1 (kid "ec"): the private part does not belong to the public part`},
		"RSA of 1,024 bits":                    {one("rs", "n", all["rs"]["p"]), `key 1 (kid "rs"): n is not 2048 to 8192 bits`},
		"RSA without e":                        {one("rs", "e", ""), `key 1 (kid "rs"): e is missing`},
		"RSA with e zero":                      {one("rs", "e", "AA"), `key 1 (kid "rs"): e is zero`},
		"RSA with e one":                       {one("rs", "e", "AQ"), `key 1 (kid "rs"): e is not an odd number from 3 to 2^31-1`},
		"RSA with e even":                      {one("rs", "e", "AQAA"), `key 1 (kid "rs"): e is not an odd number from 3 to 2^31-1`},
		"RSA with a long e":                    {one("rs", "e", "AQAAAAAAAAAB"), `key 1 (kid "rs"): e is not an odd number from 3 to 2^31-1`},
		"RSA without its primes":               {one("rs", "p", ""), `key 1 (kid "rs"): p is missing`},
		"RSA with three primes":                {one("rs", "oth", "x"), `key 1 (kid "rs"): more than two primes`},
		"RSA with the same prime twice":        {one("rs", "q", all["rs"]["p"]), `key 1 (kid "rs"): the private part does not belong to the public part`},
		"RSA with another d":                   {one("rs", "d", all["rs"]["dp"]), `key 1 (kid "rs"): the private part does not belong to the public part`},
		"RSA with d alone, as the second":      {setOf(t, all["ed"], map[string]string{"kid": "r", "kty": "RSA", "alg": "RS256", "n": all["rs"]["n"], "e": "AQAB", "d": "Aw"}), `key 2 (kid "r"): p is missing`},
		"a secret of 31 bytes":                 {one("hs", "k", short), `key 1 (kid "hs"): k is shorter than 32 bytes`},
		"no secret":                            {one("hs", "k", ""), `key 1 (kid "hs"): k is missing`},
		"an empty set of characters in base64": {one("hs", "k", "###"), `key 1 (kid "hs"): k is not base64url`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := auth.NewKeyRing([]byte(c.set))
			if err == nil || err.Error() != "auth: key set: "+c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestPublicHoldsNoPrivatePartAndNoSecret(t *testing.T) {
	t.Parallel()
	all := jwks(t)
	want := map[string]any{"keys": []any{}}
	for _, kid := range []string{"ed", "ec", "rs"} {
		k := map[string]any{"use": "sig"}
		for _, member := range []string{"kty", "alg", "kid", "crv", "x", "y", "n", "e"} {
			if v, given := all[kid][member]; given {
				k[member] = v
			}
		}
		want["keys"] = append(want["keys"].([]any), k)
	}
	r := ring(t, keySet(t, "EdDSA"))
	var got map[string]any
	if err := json.Unmarshal(r.Public(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("-got +want:\n%s", diff)
	}
	clear(r.Public())
	if err := json.Unmarshal(r.Public(), &got); err != nil {
		t.Errorf("a caller can change the ring: %v", err)
	}

	secret := ring(t, []byte(setOf(t, all["hs"])))
	if got, want := string(secret.Public()), `{"keys":[]}`; got != want {
		t.Errorf("got %s for a secret alone, want %s", got, want)
	}
}

func TestAPublicKeyVerifiesBesideAKeyThatSigns(t *testing.T) {
	t.Parallel()
	all := jwks(t)
	delete(all["rs"], "d")
	delete(all["ec"], "d")
	tokens := tokens(t, "EdDSA")
	tokens.SetKeys(ring(t, []byte(setOf(t, all["ed"], all["rs"], all["ec"]))))
	for _, alg := range []string{"EdDSA", "ES256", "RS256"} {
		if _, err := tokens.VerifyAccess(madeElsewhere[alg]); err != nil {
			t.Errorf("%s: got %v", alg, err)
		}
	}
}

func TestGenerateKeySetMakesARingOfItsOwn(t *testing.T) {
	t.Parallel()
	var rings [2]*auth.KeyRing
	for i := range rings {
		set, err := auth.GenerateKeySet()
		if err != nil {
			t.Fatal(err)
		}
		rings[i] = ring(t, set)
	}
	tokens := tokens(t, "EdDSA")
	tokens.SetKeys(rings[0])
	pair := issue(t, tokens, session())
	if _, err := tokens.VerifyAccess(pair.AccessToken); err != nil {
		t.Error(err)
	}
	tokens.SetKeys(rings[1])
	if _, err := tokens.VerifyAccess(pair.AccessToken); err == nil {
		t.Error("two generated sets are the same")
	}
}
