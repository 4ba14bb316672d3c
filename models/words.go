package models

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// What is searched for are words: runs of letters, marks and digits, of whatever
// script, in compatibility form (NFKC) and lower case. Scripts that write no
// spaces between words have no such runs; of theirs each character is taken with
// the one after it, and the last one alone. So a text that holds all characters
// of a run, next to one another as there, is found by that run, and a text that
// holds the same pairs in other places too.

// unspaced are those scripts.
var unspaced = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Bopomofo, unicode.Yi,
	unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

const (
	// maxWord is how much of a word counts, in bytes.
	maxWord = 100
	// maxWords is how much of a text is found, in bytes of different words:
	// PostgreSQL takes no more than 1 MiB. Few books have as many.
	maxWords = 512 << 10
)

// words returns the different words of a text in the order in which they come.
func words(text string) []string {
	text = strings.ToLower(norm.NFKC.String(text))
	var found []string
	known := make(map[string]struct{})
	size := 0
	add := func(word string) {
		if len(word) > maxWord {
			word = word[:maxWord]
			for !utf8.ValidString(word) {
				word = word[:len(word)-1]
			}
		}
		if _, is := known[word]; !is && size+len(word) <= maxWords {
			known[word] = struct{}{}
			found = append(found, word)
			size += len(word) + maxPrefix
		}
	}
	for run := range strings.FieldsFuncSeq(text, func(c rune) bool { return !inWord(c) }) {
		for run != "" {
			word, pairs := leading(run)
			run = run[len(word):]
			if !pairs {
				add(word)
				continue
			}
			for word != "" {
				_, first := utf8.DecodeRuneInString(word)
				_, second := utf8.DecodeRuneInString(word[first:])
				add(word[:first+second])
				word = word[first:]
			}
		}
	}
	return found
}

// inWord reports whether a word may hold a character.
func inWord(c rune) bool {
	if c < utf8.RuneSelf { // most are; the tables are slow
		return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z'
	}
	return unicode.In(c, unicode.L, unicode.M, unicode.N)
}

// leading returns the part at the beginning of a run that is of scripts with
// spaces, or of those without.
func leading(run string) (part string, pairs bool) {
	for i, c := range run {
		// A mark, or the sign that lengthens a vowel, goes with what it follows.
		is := c >= utf8.RuneSelf && unicode.In(c, unspaced...)
		if i == 0 {
			pairs = is
		} else if is != pairs && !unicode.In(c, unicode.M, unicode.Lm) {
			return run[:i], pairs
		}
	}
	return run, pairs
}

// maxPrefix is the length of the longest prefix that ofUser makes.
const maxPrefix = 20

// ofUser puts a user's id before each word, so that one lookup in an index of
// everybody's words is of this user's alone.
func ofUser(userID int64, words []string) []string {
	prefix := strconv.FormatInt(userID, 10) + "_"
	of := make([]string, len(words))
	for i, word := range words {
		of[i] = prefix + word
	}
	return of
}
