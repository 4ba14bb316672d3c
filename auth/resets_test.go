package auth_test

import (
	"regexp"
	"testing"

	"parley/auth"
)

// The digests are those of coreutils' sha256sum.
func TestResetTokensAreStoredAsSHA256(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"":    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
	} {
		if got := auth.HashResetToken(token); got != want {
			t.Errorf("the hash of %q is %s, want %s", token, got, want)
		}
	}
}

func TestResetTokensAreLongAndNeverTheSame(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	seen := make(map[string]bool)
	for range 1000 {
		token := auth.NewResetToken()
		if !form.MatchString(token) || seen[token] {
			t.Fatalf("token %q, want 43 characters that a URL takes, and never the same twice", token)
		}
		seen[token] = true
	}
}
