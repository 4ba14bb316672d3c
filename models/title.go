package models

import (
	"strings"
	"unicode"
)

const (
	maxTitle = 40 // code points, so characters are never more
	ellipsis = "…"
)

// TitleFrom makes the title of a chat from its first message: white space
// collapsed, at most 40 characters with the ellipsis that marks a cut. It is
// cut between words, or inside a first word that is too long; never inside a
// character that several code points make up (Unicode annex 29, without its
// rarer rules).
func TitleFrom(message string) string {
	title := []rune(strings.Join(strings.Fields(message), " "))
	if len(title) <= maxTitle {
		return string(title)
	}
	end := maxTitle - 1
	for i := end; i > 0; i-- {
		if title[i] == ' ' {
			return string(title[:i]) + ellipsis
		}
	}
	for end > 0 && joined(title, end) {
		end--
	}
	return string(title[:end]) + ellipsis
}

const zeroWidthJoiner = '\u200d'

// joined says that the code points before and at i belong to one character.
func joined(text []rune, i int) bool {
	switch before, at := text[i-1], text[i]; {
	case before == zeroWidthJoiner, extends(at):
		return true
	case unicode.Is(unicode.Regional_Indicator, at):
		// Flags are pairs, counted from the first of an unbroken row.
		n := 0
		for i > n && unicode.Is(unicode.Regional_Indicator, text[i-1-n]) {
			n++
		}
		return n%2 == 1
	default:
		return false
	}
}

// extends says that r never begins a character.
func extends(r rune) bool {
	return unicode.Is(unicode.M, r) || // accents, variation selectors
		r == zeroWidthJoiner || r == '\u200c' ||
		r >= 0x1f3fb && r <= 0x1f3ff || // skin tones
		r >= 0xe0020 && r <= 0xe007f || // tags, as in the flag of Wales
		r >= 0x1160 && r <= 0x11ff || r >= 0xd7b0 && r <= 0xd7fb // Hangul vowels and finals
}
