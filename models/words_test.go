package models_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"parley/models"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                            "",
		" \"'* \n":                    "",
		"Hello, hello WORLD":          "hello world",
		"x_y-z 1.5²":                  "x y z 1 52",
		"ﬁne ＡＢ":                      "fine ab",
		"東京都":                         "東京 京都 都",
		"東":                           "東",
		"go言語2":                       "go 言語 語 2",
		"コーヒー":                        "コー ーヒ ヒー ー",
		"cafe\u0301":                  "café",
		"नमस्ते":                      "नमस्ते",
		strings.Repeat("ab", 80):      strings.Repeat("ab", 50),
		strings.Repeat("abж", 80):     strings.Repeat("abж", 25),
		"a" + strings.Repeat("ж", 80): "a" + strings.Repeat("ж", 49),
	} {
		wantEqual(t, []string{text, strings.Join(models.Words(text), " ")}, []string{text, want})
	}
}

// Whatever a text is made of, its words can stand in a query, and are found by
// themselves.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{"Hello, world", "東京 go言語", "' OR \"x\"* \\ :* & | ! <->", "e\u0301\u200d\u0e33ﷺ", "\xff\x00a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found := models.Words(text)
		for _, word := range found {
			if word == "" || len(word) > 100 || !utf8.ValidString(word) ||
				strings.ContainsFunc(word, func(c rune) bool { return !unicode.In(c, unicode.L, unicode.M, unicode.N) }) {
				t.Errorf("%q has the word %q", text, word)
			}
		}
		for i, word := range models.OfUser(12, found) {
			if word != "12_"+found[i] {
				t.Errorf("%q became %q", found[i], word)
			}
		}
	})
}
