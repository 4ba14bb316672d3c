package local

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"parley/speech"
)

// written is how marks are written in ASCII, which is all that flite reads.
var written = strings.NewReplacer(
	"‘", "'", "’", "'", "‚", "'", "“", `"`, "”", `"`, "„", `"`, "«", `"`, "»", `"`,
	"–", ", ", "—", ", ", "…", "...", "ß", "ss", "æ", "ae", "Æ", "Ae", "œ", "oe", "Œ", "Oe", "ø", "o", "Ø", "O",
	"ł", "l", "Ł", "L", "đ", "d", "Đ", "D", "€", " euros ", "£", " pounds ", "°", " degrees ", "×", " times ",
)

// plain returns what flite can say of a sentence: letters without their accents,
// digits and the marks of ASCII, in one line; "" if no word is left.
func plain(sentence string) string {
	text := norm.NFKD.String(written.Replace(speech.Spoken(sentence)))
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Mn, r):
			return -1
		case r < ' ' || r > '~':
			return ' '
		}
		return r
	}, text)
	if !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
		return ""
	}
	return strings.Join(strings.Fields(text), " ")
}
