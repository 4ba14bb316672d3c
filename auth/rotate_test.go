package auth_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
)

var keyTimes = auth.KeyTimes{Known: 10 * time.Second, Needed: 90 * 24 * time.Hour}

func rotate(tb testing.TB, set []byte, now time.Time) ([]byte, auth.KeyRotation) {
	tb.Helper()
	next, done, err := auth.RotateKeySet(set, now, keyTimes)
	if err != nil {
		tb.Fatal(err)
	}
	return next, done
}

// keysOf reads the JWKs of a set in their order.
func keysOf(tb testing.TB, set []byte) []map[string]string {
	tb.Helper()
	var in struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(set, &in); err != nil {
		tb.Fatal(err)
	}
	return in.Keys
}

func kids(keys []map[string]string) (ids []string) {
	for _, k := range keys {
		ids = append(ids, k["kid"])
	}
	return ids
}

// The sets that follow one another, at any distance that replicas may have,
// take what the others have signed.
func TestRotationIsNoticedByNoToken(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"EdDSA", "ES256", "RS256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			kid := map[string]string{"EdDSA": "ed", "ES256": "ec", "RS256": "rs", "HS256": "hs"}[alg]
			set, now := []byte(setOf(t, jwks(t)[kid])), issued
			var sets [][]byte
			signs := make(map[string]bool)
			for range 5 {
				sets = append(sets, set)
				signs[keysOf(t, set)[0]["kid"]] = true
				set, _ = rotate(t, set, now)
				now = now.Add(10 * time.Second)
			}
			if len(signs) != 4 { // the first rotation adds a standby alone
				t.Errorf("%d keys have signed, want 4", len(signs))
			}
			replica := func(i int) *auth.Tokens {
				all := tokens(t, "EdDSA")
				all.SetKeys(ring(t, sets[i]))
				return all
			}
			for i := range sets {
				for j := range i + 1 {
					ahead, behind := replica(i), replica(j)
					if _, err := ahead.VerifyRefresh(issue(t, behind, session()).RefreshToken); err != nil {
						t.Errorf("set %d refuses what set %d has signed: %v", i, j, err)
					}
					if i > j+1 {
						continue // only neighbours are in use at a time
					}
					if _, err := behind.VerifyAccess(issue(t, ahead, session()).AccessToken); err != nil {
						t.Errorf("set %d refuses what set %d has signed: %v", j, i, err)
					}
				}
			}
		})
	}
}

func TestRotationMakesTheStandbySign(t *testing.T) {
	t.Parallel()
	all := jwks(t)
	next, done := rotate(t, []byte(setOf(t, all["ed"], all["rs"])), issued)
	got := keysOf(t, next)
	if len(got) != 3 {
		t.Fatalf("got %d keys, want 3: %s", len(got), next)
	}
	fresh := got[1]
	want := []map[string]string{
		all["rs"],
		{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "added_at": "2026-11-18T11:06:40Z", "kid": fresh["kid"], "x": fresh["x"], "d": fresh["d"]},
		{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "ed", "x": all["ed"]["x"], "needed_until": "2027-02-16T11:06:40Z"},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if want := (auth.KeyRotation{Signs: "rs", StandsBy: fresh["kid"], Retired: "ed"}); !cmp.Equal(done, want) {
		t.Errorf("got %+v, want %+v", done, want)
	}
}

func TestRotationOfOtherSets(t *testing.T) {
	t.Parallel()
	all := jwks(t)
	// changed is a key, public where its private members are taken away.
	changed := func(kid string, members ...string) map[string]string {
		k := make(map[string]string)
		for name, v := range all[kid] {
			if !slices.Contains(members, name) {
				k[name] = v
			}
		}
		for _, m := range members {
			if name, v, given := strings.Cut(m, "="); given {
				k[name] = v
			}
		}
		return k
	}
	const past, later = "needed_until=2026-11-18T11:06:39Z", "needed_until=2026-11-18T11:06:41Z"
	for name, tt := range map[string]struct {
		keys []map[string]string
		want []string // kids; a star is a fresh one
		done auth.KeyRotation
	}{
		"no standby": {
			[]map[string]string{all["ed"]},
			[]string{"ed", "*"},
			auth.KeyRotation{Signs: "ed", StandsBy: "*"},
		},
		"no standby, but a retired key": {
			[]map[string]string{all["ed"], changed("ec", "d")},
			[]string{"ed", "*", "ec"},
			auth.KeyRotation{Signs: "ed", StandsBy: "*"},
		},
		"a secret stands by for nobody": {
			[]map[string]string{all["ed"], all["hs"]},
			[]string{"ed", "*", "hs"},
			auth.KeyRotation{Signs: "ed", StandsBy: "*"},
		},
		"a secret retires whole": {
			[]map[string]string{all["hs"], all["ed"]},
			[]string{"ed", "*", "hs"},
			auth.KeyRotation{Signs: "ed", StandsBy: "*", Retired: "hs", Whole: true},
		},
		"a standby behind a retired key": {
			[]map[string]string{all["ed"], changed("ec", "d"), all["rs"]},
			[]string{"rs", "*", "ec", "ed"},
			auth.KeyRotation{Signs: "rs", StandsBy: "*", Retired: "ed"},
		},
		"two standbys": {
			[]map[string]string{all["ed"], all["ec"], all["hs"], all["rs"]},
			[]string{"ec", "rs", "hs", "ed"},
			auth.KeyRotation{Signs: "ec", StandsBy: "rs", Retired: "ed"},
		},
		"a retired key that is past": {
			[]map[string]string{all["ed"], all["ec"], changed("rs", "d", past), changed("hs", past)},
			[]string{"ec", "*", "ed"},
			auth.KeyRotation{Signs: "ec", StandsBy: "*", Retired: "ed", Dropped: []string{"rs", "hs"}},
		},
		"a retired key that is needed": {
			[]map[string]string{all["ed"], all["ec"], changed("rs", "d", later)},
			[]string{"ec", "*", "rs", "ed"},
			auth.KeyRotation{Signs: "ec", StandsBy: "*", Retired: "ed"},
		},
		"a standby that is known": {
			[]map[string]string{all["ed"], changed("ec", "added_at=2026-11-18T11:06:30Z")},
			[]string{"ec", "*", "ed"},
			auth.KeyRotation{Signs: "ec", StandsBy: "*", Retired: "ed"},
		},
		"a standby by a clock ahead": {
			[]map[string]string{all["ed"], changed("ec", "added_at=2026-11-18T11:07:00Z")},
			[]string{"ec", "*", "ed"},
			auth.KeyRotation{Signs: "ec", StandsBy: "*", Retired: "ed"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next, done := rotate(t, []byte(setOf(t, tt.keys...)), issued)
			got := keysOf(t, next)
			for i, k := range got {
				if all[k["kid"]] == nil {
					if done.StandsBy != k["kid"] {
						t.Errorf("the fresh key %q is not the one that stands by, %q", k["kid"], done.StandsBy)
					}
					k["kid"], done.StandsBy = "*", "*"
				}
				_, private := k["d"]
				if stands := i <= 1; private != stands && k["kty"] != "oct" {
					t.Errorf("key %q has its private part: %v, want %v", k["kid"], private, stands)
				}
				if retired := i > 1; retired != (k["needed_until"] != "") {
					t.Errorf("key %q is needed until %q", k["kid"], k["needed_until"])
				}
			}
			if !cmp.Equal(kids(got), tt.want) || !cmp.Equal(done, tt.done) {
				t.Errorf("got %v, %+v; want %v, %+v", kids(got), done, tt.want, tt.done)
			}
		})
	}
}

func TestRotationRefuses(t *testing.T) {
	t.Parallel()
	all := jwks(t)
	plus := func(kid, name, value string) map[string]string {
		k := jwks(t)[kid]
		k[name] = value
		return k
	}
	for name, tt := range map[string]struct{ set, want string }{
		"what is no set":           {`{}`, `auth: key set: keys is missing`},
		"a standby just added":     {setOf(t, all["ed"], plus("ec", "added_at", "2026-11-18T11:06:31Z")), `auth: the standby key is too fresh to sign: "ec" was added 9s ago, and is known everywhere after 10s`},
		"a time that is none":      {setOf(t, all["ed"], plus("ec", "added_at", "today")), `auth: key set: key "ec": added_at is no time by RFC 3339`},
		"an end that is no time":   {setOf(t, all["ed"], plus("hs", "needed_until", "1")), `auth: key set: key "hs": needed_until is no time by RFC 3339`},
		"a time that is no string": {strings.Replace(setOf(t, all["ed"], plus("hs", "needed_until", "soon")), `"soon"`, `1`, 1), `auth: key set: key "hs": needed_until is no time by RFC 3339`},
	} {
		next, done, err := auth.RotateKeySet([]byte(tt.set), issued.Truncate(time.Second), keyTimes)
		if err == nil || err.Error() != tt.want || next != nil || !cmp.Equal(done, auth.KeyRotation{}) {
			t.Errorf("%s: got %s, %+v, %v; want %s", name, next, done, err, tt.want)
		}
		if errors.Is(err, auth.ErrKeyTooFresh) != strings.Contains(tt.want, "too fresh") {
			t.Errorf("%s: %v is of the wrong kind", name, err)
		}
	}
}

func TestRotationKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	standby := jwks(t)["ec"]
	standby["x5t"] = "of somebody"
	set := strings.Replace(setOf(t, jwks(t)["ed"], standby), `{"keys"`, `{"note":[1],"keys"`, 1)
	next, _ := rotate(t, []byte(set), issued)
	if !strings.Contains(string(next), `"note"`) || keysOf(t, next)[0]["x5t"] != "of somebody" {
		t.Errorf("got %s", next)
	}
}

// FuzzRotateKeySet: what follows a set is one, and takes its tokens.
func FuzzRotateKeySet(f *testing.F) {
	all := jwks(f)
	f.Add(setOf(f, all["ed"]))
	f.Add(setOf(f, all["ed"], all["ec"], all["hs"]))
	f.Add(setOf(f, all["hs"], map[string]string{"kid": "a\"\\u00e9", "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": all["ed"]["x"]}))
	f.Fuzz(func(t *testing.T, set string) {
		next, _, err := auth.RotateKeySet([]byte(set), issued, keyTimes)
		if err != nil {
			return
		}
		before, after := tokens(t, "EdDSA"), tokens(t, "EdDSA")
		before.SetKeys(ring(t, []byte(set)))
		after.SetKeys(ring(t, next))
		if _, err := after.VerifyAccess(issue(t, before, session()).AccessToken); err != nil {
			t.Errorf("after: %v", err)
		}
		if _, err := before.VerifyAccess(issue(t, after, session()).AccessToken); err != nil {
			t.Errorf("before: %v", err)
		}
	})
}
