package demo

import (
	"strings"
	"unicode"
)

const (
	mirrorLeast = 3  // words of a clause that says something
	mirrorMost  = 14 // words of one that can be repeated
	wordMost    = 24 // bytes of a word
)

var (
	// leadIns are left out at the beginning of a clause.
	leadIns = set("hi", "hello", "hey", "well", "so", "and", "but", "ok", "okay", "yes", "yeah", "no", "oh", "honestly", "also", "because", "sorry", "today", "lately", "now", "then")
	// subjects begin clauses that can be told back.
	subjects = set("i", "i'm", "i've", "i'd", "i'll", "my", "it", "it's", "there", "there's", "everything", "nothing", "nobody", "everyone")
	// joints are where a long clause can be cut.
	joints = set("because", "but", "and", "so", "since", "which", "although", "while")
	// unclear are words whose other side is not clear.
	unclear = set("you", "your", "you're", "yours", "yourself", "we", "we're", "us", "our", "ours", "called")

	// separate parts a sentence where it begins to speak of "I" again.
	separate = strings.NewReplacer(
		" and I ", ". I ", " and i ", ". I ", " and I'", ". I'", " and i'", ". I'",
		" but I ", ". I ", " but i ", ". I ", " but I'", ". I'", " but i'", ". I'",
	)

	others = map[string]string{
		"i": "you", "i'm": "you're", "i've": "you've", "i'd": "you'd", "i'll": "you'll",
		"me": "you", "my": "your", "mine": "yours", "myself": "yourself",
	}
	afterI = map[string]string{"am": "are", "was": "were", "wasn't": "weren't"}
)

// mirror tells a clause of message back, from the other side: "I'm worried
// about my exam" is "you're worried about your exam". It prefers a clause with
// a feeling, and returns "" where none can be told back.
func mirror(message string) string {
	sentences := strings.FieldsFunc(separate.Replace(straight(message)), func(r rune) bool {
		return strings.ContainsRune(".!?;:\n\r…", r)
	})
	var first string
	for _, s := range sentences[:min(len(sentences), 40)] {
		told := mirrorClause(s)
		if told == "" {
			continue
		}
		if len(hear(s).feelings) > 0 {
			return told
		}
		if first == "" {
			first = told
		}
	}
	return first
}

func mirrorClause(sentence string) string {
	words := strings.Fields(sentence)
	for len(words) > 0 && leadIns[bare(words[0])] {
		words = words[1:]
	}
	words = clause(words)
	if len(words) < mirrorLeast || !subjects[bare(words[0])] || nameIn(sentence) != "" {
		return ""
	}
	told := make([]string, len(words))
	for i, w := range words {
		lower := bare(w)
		if unclear[lower] || len(w) > wordMost || !plain(w) {
			return ""
		}
		switch {
		case others[lower] != "":
			told[i] = strings.Replace(strings.ToLower(w), lower, others[lower], 1)
		case i > 0 && bare(words[i-1]) == "i" && afterI[lower] != "":
			told[i] = strings.Replace(strings.ToLower(w), lower, afterI[lower], 1)
		case i == 0:
			told[i] = strings.ToLower(w)
		default:
			told[i] = w
		}
	}
	return strings.TrimRight(strings.Join(told, " "), ",'-")
}

// clause returns words up to the first joint, where there are too many, or
// nothing.
func clause(words []string) []string {
	if len(words) <= mirrorMost {
		return words
	}
	for i := mirrorLeast; i <= mirrorMost; i++ {
		if joints[bare(words[i])] || strings.HasSuffix(words[i-1], ",") {
			return words[:i]
		}
	}
	return nil
}

// bare is a word without the commas around it, in lower case.
func bare(word string) string { return strings.ToLower(strings.Trim(word, ",")) }

// plain reports whether a word can be repeated as it is.
func plain(word string) bool {
	for _, r := range word {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(",'-", r) {
			return false
		}
	}
	return true
}
