package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"parley/auth"
)

const (
	goodHeader = `{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}`
	goodClaims = `{"iss":"https://parley.example","aud":"parley","sub":"7","iat":1795000000,"exp":1795000900,"jti":"j","sid":"S1","gen":3}`
)

// with replaces one piece of the good claims.
func with(tb testing.TB, old, replacement string) string {
	tb.Helper()
	if !strings.Contains(goodClaims, old) {
		tb.Fatalf("the claims do not hold %s", old)
	}
	return strings.Replace(goodClaims, old, replacement, 1)
}

func TestVerifyAccessTakesWhatTheProfileAllows(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	for name, claims := range map[string]string{
		"the claims of the contract alone":      with(t, `,"gen":3`, ``),
		"a claim it does not know":              with(t, `"gen":3`, `"gen":3,"scope":{"a":[1,null]}`),
		"the audience as one of a list":         with(t, `"aud":"parley"`, `"aud":["other","parley"]`),
		"an iat ahead within the clocks' skew":  with(t, `"iat":1795000000`, `"iat":1795000002`),
		"an nbf that has come":                  with(t, `"gen":3`, `"gen":3,"nbf":1795000000`),
		"white space between the claims":        " " + with(t, `,"gen"`, " ,\t\"gen\"") + "\n",
		"a claim's name written with an escape": with(t, `"sub"`, `"\u0073ub"`),
	} {
		if got, err := tokens.VerifyAccess(signed(goodHeader, claims)); err != nil || got.UserID != 7 || got.SID != "S1" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestVerifyAccessRefusesWhatIsOutOfTheProfile(t *testing.T) {
	t.Parallel()
	good := signed(goodHeader, goodClaims)
	parts := strings.Split(good, ".")
	header := func(h string) string { return signed(h, goodClaims) }
	claims := func(old, replacement string) string { return signed(goodHeader, with(t, old, replacement)) }
	hmacSigned := func(header string, secret []byte) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	public, _ := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")

	cases := map[string]struct{ token, want string }{
		"nothing":                    {"", "header: no valid JSON"},
		"two dots":                   {"..", "header: no valid JSON"},
		"one segment":                {parts[0], "malformed"},
		"two segments":               {parts[0] + "." + parts[1], "malformed"},
		"four segments":              {good + ".", "malformed"},
		"more than 8 KiB":            {claims(`"j"`, `"`+strings.Repeat("j", 8<<10)+`"`), "too long"},
		"a line end behind it":       {good + "\n", "line end"},
		"a line end inside":          {parts[0] + "." + parts[1][:8] + "\r\n" + parts[1][8:] + "." + parts[2], "line end"},
		"a space behind it":          {good + " ", "malformed"},
		"padding behind it":          {good + "=", "malformed"},
		"the header padded":          {parts[0] + "=." + parts[1] + "." + parts[2], "header encoding"},
		"slack bits in the header":   {slack(t, header(goodHeader+"  "), 0), "header encoding"},
		"slack bits in the claims":   {slack(t, signed(goodHeader, goodClaims+paddingFor(goodClaims)), 1), "malformed"},
		"slack bits in the end":      {slack(t, good, 2), "malformed"},
		"the other base64 alphabet":  {strings.Replace(good, "_", "/", 1), "malformed"},
		"no signature":               {parts[0] + "." + parts[1] + ".", "signature"},
		"another signature":          {parts[0] + "." + parts[1] + "." + strings.Split(claims(`"7"`, `"8"`), ".")[2], "signature"},
		"alg none":                   {header(`{"alg":"none","kid":"ed","typ":"at+jwt"}`), "an alg that is not the key's"},
		"alg of another key":         {header(`{"alg":"RS256","kid":"ed","typ":"at+jwt"}`), "an alg that is not the key's"},
		"a public key as a secret":   {hmacSigned(`{"alg":"HS256","kid":"ed","typ":"at+jwt"}`, public), "an alg that is not the key's"},
		"a kid of another algorithm": {header(`{"alg":"HS256","kid":"hs","typ":"at+jwt"}`), "signature"},
		"an unknown kid":             {header(`{"alg":"EdDSA","kid":"xx","typ":"at+jwt"}`), "unknown kid"},
		"no kid":                     {header(`{"alg":"EdDSA","typ":"at+jwt"}`), "header: kid is missing"},
		"a kid that is a number":     {header(`{"alg":"EdDSA","kid":1,"typ":"at+jwt"}`), "header: kid has a wrong type"},
		"no typ":                     {header(`{"alg":"EdDSA","kid":"ed"}`), "header: typ is missing"},
		"typ null":                   {header(`{"alg":"EdDSA","kid":"ed","typ":null}`), "header: typ has a wrong type"},
		"typ JWT":                    {header(`{"alg":"EdDSA","kid":"ed","typ":"JWT"}`), "another typ"},
		"typ of a refresh token":     {header(`{"alg":"EdDSA","kid":"ed","typ":"refresh+jwt"}`), "another typ"},
		"typ in another case":        {header(`{"alg":"EdDSA","kid":"ed","typ":"AT+JWT"}`), "another typ"},
		"crit":                       {header(`{"alg":"EdDSA","crit":["exp"],"kid":"ed","typ":"at+jwt"}`), "header: a member that is not in the profile"},
		"a key of its own":           {header(`{"alg":"EdDSA","jwk":{},"kid":"ed","typ":"at+jwt"}`), "header: a member that is not in the profile"},
		"a place to get keys":        {header(`{"alg":"EdDSA","jku":"https://x.example","kid":"ed","typ":"at+jwt"}`), "header: a member that is not in the profile"},
		"alg twice":                  {header(`{"alg":"none","alg":"EdDSA","kid":"ed","typ":"at+jwt"}`), "header: a member is given twice"},
		"alg in two cases":           {header(`{"ALG":"none","alg":"EdDSA","kid":"ed","typ":"at+jwt"}`), "header: a member that is not in the profile"},
		"a header that is a list":    {header(`[]`), "header: no JSON object"},
		"a header with more behind":  {header(goodHeader + `{}`), "header: no valid JSON"},
		"a header that is not UTF-8": {header("{\"alg\":\"EdDSA\",\"kid\":\"ed\xff\",\"typ\":\"at+jwt\"}"), "header: no valid JSON"},

		"claims that are a list":     {signed(goodHeader, `[]`), "malformed"},
		"claims that are null":       {signed(goodHeader, `null`), "a claim is missing"},
		"claims with more behind":    {signed(goodHeader, goodClaims+`{}`), "malformed"},
		"no exp":                     {claims(`,"exp":1795000900`, ``), "malformed"},
		"exp null":                   {claims(`1795000900`, `null`), "malformed"},
		"exp as a string":            {claims(`1795000900`, `"1795000900"`), "malformed"},
		"exp with a fraction":        {claims(`1795000900`, `1795000900.5`), "malformed"},
		"exp beyond all years":       {claims(`1795000900`, `253402300800`), "malformed"},
		"exp beyond all numbers":     {claims(`1795000900`, `1e400`), "malformed"},
		"exp past":                   {claims(`1795000900`, `1795000000`), "expired"},
		"exp past, and another iss":  {signed(goodHeader, strings.NewReplacer("1795000900", "5", "parley.example", "x.example").Replace(goodClaims)), "another iss"},
		"exp negative":               {claims(`1795000900`, `-1`), "malformed"},
		"exp in another case":        {claims(`"exp"`, `"EXP"`), "malformed"},
		"exp twice":                  {claims(`"exp":1795000900`, `"exp":1,"exp":1795000900`), "malformed"},
		"exp twice by an escape":     {claims(`"exp":1795000900`, `"e\u0078p":1,"exp":1795000900`), "malformed"},
		"no iat":                     {claims(`,"iat":1795000000`, ``), "malformed"},
		"iat negative":               {claims(`1795000000`, `-1`), "malformed"},
		"iat ahead":                  {claims(`1795000000`, `1795000003`), "iat ahead"},
		"iat ahead by its fraction":  {claims(`1795000000`, `1795000002,"iat_us":250001`), "iat ahead"},
		"a fraction of iat too long": {claims(`"gen":3`, `"iat_us":1000000`), "malformed"},
		"nbf ahead":                  {claims(`"gen":3`, `"nbf":1795000300`), "nbf ahead"},
		"nbf that is no time":        {claims(`"gen":3`, `"nbf":"x"`), "malformed"},
		"no iss":                     {claims(`"iss":"https://parley.example",`, ``), "malformed"},
		"another iss":                {claims(`parley.example`, `parley.example/`), "another iss"},
		"no aud":                     {claims(`"aud":"parley",`, ``), "malformed"},
		"another aud":                {claims(`"aud":"parley"`, `"aud":"Parley"`), "another aud"},
		"aud empty":                  {claims(`"aud":"parley"`, `"aud":[]`), "a claim is missing"},
		"aud a number in a list":     {claims(`"aud":"parley"`, `"aud":["parley",1]`), "malformed"},
		"no sub":                     {claims(`"sub":"7",`, ``), "malformed"},
		"sub a number":               {claims(`"7"`, `7`), "malformed"},
		"sub zero":                   {claims(`"7"`, `"0"`), "malformed"},
		"sub negative":               {claims(`"7"`, `"-7"`), "malformed"},
		"sub with a leading zero":    {claims(`"7"`, `"07"`), "malformed"},
		"sub with a sign":            {claims(`"7"`, `"+7"`), "malformed"},
		"sub beyond 64 bits":         {claims(`"7"`, `"9223372036854775808"`), "malformed"},
		"no jti":                     {claims(`"jti":"j",`, ``), "malformed"},
		"jti empty":                  {claims(`"j"`, `""`), "malformed"},
		"no sid":                     {claims(`"sid":"S1",`, ``), "malformed"},
		"sid empty":                  {claims(`"S1"`, `""`), "malformed"},
		"sid too long":               {claims(`"S1"`, `"`+strings.Repeat("s", 129)+`"`), "malformed"},
		"gen negative":               {claims(`"gen":3`, `"gen":-3`), "malformed"},
		"gen a string":               {claims(`"gen":3`, `"gen":"3"`), "malformed"},
	}
	tokens := tokens(t, "EdDSA")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tokens.VerifyAccess(c.token)
			if err == nil || err.Error() != "auth: invalid token: "+c.want || got != (auth.Identity{}) {
				t.Errorf("got %+v, %v; want %q", got, err, c.want)
			}
			if !errors.Is(err, auth.ErrInvalidToken) || errors.Is(err, auth.ErrExpiredToken) != (c.want == "expired") {
				t.Errorf("%v is of the wrong kind", err)
			}
		})
	}
}

func TestVerifyRefreshNeedsAGeneration(t *testing.T) {
	t.Parallel()
	header := `{"alg":"EdDSA","kid":"ed","typ":"refresh+jwt"}`
	tokens := tokens(t, "EdDSA")
	if _, err := tokens.VerifyRefresh(signed(header, goodClaims)); err != nil {
		t.Fatal(err)
	}
	for _, replacement := range []string{``, `,"gen":0`} {
		if _, err := tokens.VerifyRefresh(signed(header, with(t, `,"gen":3`, replacement))); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("got %v for %q", err, replacement)
		}
	}
}

// paddingFor is white space that makes claims end in a segment with unused
// bits in its last character.
func paddingFor(claims string) string {
	return strings.Repeat(" ", (3-len(claims)%3)%3+1)
}

// slack sets an unused bit in the last character of a segment: most decoders
// read the same bytes from it.
func slack(tb testing.TB, token string, segment int) string {
	tb.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	parts := strings.Split(token, ".")
	s := parts[segment]
	if len(s)%4 == 0 {
		tb.Fatal("the segment has no unused bits")
	}
	last := strings.IndexByte(alphabet, s[len(s)-1])
	parts[segment] = s[:len(s)-1] + alphabet[last|1:last|1+1]
	before, _ := base64.RawURLEncoding.DecodeString(s)
	after, err := base64.RawURLEncoding.DecodeString(parts[segment])
	if err != nil || string(before) != string(after) || parts[segment] == s {
		tb.Fatal("the change is not in unused bits")
	}
	return strings.Join(parts, ".")
}
