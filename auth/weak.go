package auth

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	minPasswordRunes = 8
	maxPasswordBytes = 1024
	// minAddressPart is the shortest piece of an address that is looked for
	// in a password: shorter ones are in words by chance.
	minAddressPart = 3
	// maxUnit is the longest piece whose mere repetition is refused.
	maxUnit = 4
)

//go:embed common_passwords.txt
var commonPasswordLines string

// commonPasswords is the embedded list: passwords of eight characters or more
// that are tried first by whoever guesses, in lower case, one a line.
var commonPasswords = sync.OnceValue(func() map[string]bool {
	set := make(map[string]bool)
	for line := range strings.Lines(commonPasswordLines) {
		if p := strings.TrimSpace(line); p != "" {
			set[p] = true
		}
	}
	return set
})

// keyRows are rows of keyboards; a password that only walks along one is as
// common as a word.
var keyRows = []string{
	"`1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./",
	"qwertzuiop", "azertyuiop", "qsdfghjklm", "wxcvbn",
	"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.", "qazwsxedcrfvtgbyhnujmikolp",
	"1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5y6u7i8o9p0",
}

// CheckPassword returns nil if password may be chosen by the owner of an
// address (normalized, or empty if there is none). Otherwise the error is a
// *Refusal that wraps ErrWeakPassword.
//
// A password has 8 characters (Unicode code points) or more, 1,024 bytes or
// fewer, in valid UTF-8 without NUL; it is none of the common ones, no plain
// sequence or repetition, and the address is not the bulk of it. Nothing else
// is asked of it (NIST SP 800-63B §3.1.1.2).
func CheckPassword(password, email string) error {
	switch {
	case !utf8.ValidString(password) || strings.Contains(password, "\x00"):
		return weak("The password holds characters that cannot be used.")
	case utf8.RuneCountInString(password) < minPasswordRunes:
		return weak(fmt.Sprintf("The password needs at least %d characters.", minPasswordRunes))
	case len(password) > maxPasswordBytes:
		return weak(fmt.Sprintf("The password is longer than %d bytes.", maxPasswordBytes))
	}
	lower := strings.ToLower(password)
	switch {
	case isCommon(lower):
		return weak("The password is among the most common ones.")
	case isPattern([]rune(lower)):
		return weak("The password is a plain sequence or repetition.")
	case isFromAddress(lower, strings.ToLower(email)):
		return weak("The password is too close to the email address.")
	}
	return nil
}

func weak(reason string) error {
	return &Refusal{Reason: reason, kind: ErrWeakPassword}
}

// isCommon looks a password up as it is and without punctuation around it.
func isCommon(lower string) bool {
	bare := strings.TrimFunc(lower, func(r rune) bool {
		return unicode.IsPunct(r) || unicode.IsSymbol(r) || unicode.IsSpace(r)
	})
	return commonPasswords()[lower] || commonPasswords()[bare]
}

// isPattern reports whether a password is made by a rule rather than chosen:
// two characters at the most, a short piece again and again, a run of code
// points up or down, or a walk along a row of keys.
func isPattern(p []rune) bool {
	distinct := slices.Compact(slices.Sorted(slices.Values(p)))
	if len(distinct) <= 2 {
		return true
	}
	for unit := 1; unit <= maxUnit; unit++ {
		if slices.Equal(p[unit:], p[:len(p)-unit]) {
			return true
		}
	}
	return isRun(p, 1) || isRun(p, -1) || isKeyWalk(p)
}

// isRun reports whether every code point follows the one before it by step.
// After 9 comes 0.
func isRun(p []rune, step rune) bool {
	for i := 1; i < len(p); i++ {
		wraps := p[i-1] == '9' && p[i] == '0' && step == 1 || p[i-1] == '0' && p[i] == '9' && step == -1
		if p[i]-p[i-1] != step && !wraps {
			return false
		}
	}
	return true
}

func isKeyWalk(p []rune) bool {
	forward := string(p)
	slices.Reverse(p)
	backward := string(p)
	return slices.ContainsFunc(keyRows, func(row string) bool {
		return strings.Contains(row, forward) || strings.Contains(row, backward)
	})
}

// isFromAddress reports whether more than half of a password is pieces of the
// address. The top-level domain is none of them.
func isFromAddress(lower, email string) bool {
	local, domain, _ := strings.Cut(email, "@")
	separator := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	labels := strings.Split(domain, ".")
	pieces := []string{email, domain, local, strings.Join(strings.FieldsFunc(local, separator), "")}
	pieces = append(pieces, strings.FieldsFunc(local, separator)...)
	pieces = append(pieces, labels[:len(labels)-1]...)
	slices.SortFunc(pieces, func(a, b string) int { return len(b) - len(a) })

	rest := lower
	for _, piece := range pieces {
		if len(piece) >= minAddressPart {
			rest = strings.ReplaceAll(rest, piece, "\x00")
		}
	}
	rest = strings.ReplaceAll(rest, "\x00", "")
	return utf8.RuneCountInString(rest)*2 < utf8.RuneCountInString(lower)
}
