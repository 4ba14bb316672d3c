package models_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"parley/models"
)

func TestTitleFrom(t *testing.T) {
	t.Parallel()
	words := strings.Repeat("abcd ", 7)
	for name, test := range map[string]struct{ message, want string }{
		"a short message is the title":              {"I need relationship advice", "I need relationship advice"},
		"white space is collapsed":                  {"\n I\tneed \u00a0\u2003 advice\r\n", "I need advice"},
		"white space alone is no title":             {" \n ", ""},
		"40 characters are not cut":                 {words + "vwxyz", words + "vwxyz"},
		"41 are, between words":                     {words + "uvwxyz", words[:34] + "…"},
		"a word that just fits stays":               {words + "wxyz and more", words + "wxyz…"},
		"collapsing comes before the cut":           {strings.Repeat("abcd    ", 7) + "vwxyz", words + "vwxyz"},
		"a word of 40 is not cut":                   {strings.Repeat("é", 40), strings.Repeat("é", 40)},
		"a longer one is cut inside":                {strings.Repeat("é", 41), strings.Repeat("é", 39) + "…"},
		"a long word after a short one is dropped":  {"Re: " + strings.Repeat("w", 50), "Re:…"},
		"an accent stays with its letter":           {strings.Repeat("a", 38) + "e\u0301\u0323" + "xyz", strings.Repeat("a", 38) + "…"},
		"a family stays together":                   {strings.Repeat("a", 36) + "👩\u200d👩\u200d👧\u200d👦", strings.Repeat("a", 36) + "…"},
		"a skin tone stays with its hand":           {strings.Repeat("a", 38) + "👍🏽👍🏽", strings.Repeat("a", 38) + "…"},
		"an emoji keeps its variation":              {strings.Repeat("a", 38) + "❤\ufe0f❤\ufe0f", strings.Repeat("a", 38) + "…"},
		"a flag is not halved":                      {strings.Repeat("a", 38) + "🇫🇷🇩🇪", strings.Repeat("a", 38) + "…"},
		"flags in a row are counted from the first": {strings.Repeat("a", 37) + "🇫🇷🇩🇪", strings.Repeat("a", 37) + "🇫🇷…"},
		"the flag of Wales is one":                  {strings.Repeat("a", 36) + "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f", strings.Repeat("a", 36) + "…"},
		"a syllable of Hangul letters is one":       {strings.Repeat("a", 37) + "\u1112\u1161\u11ab\u1112", strings.Repeat("a", 37) + "…"},
		"a text without spaces is cut anywhere":     {strings.Repeat("話", 60), strings.Repeat("話", 39) + "…"},
		"what has no whole character left is empty": {"e" + strings.Repeat("\u0301", 60), "…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := models.TitleFrom(test.message); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func FuzzTitleFrom(f *testing.F) {
	for _, seed := range []string{"", "I need advice", strings.Repeat("word ", 20), strings.Repeat("🇫🇷", 30), "\xff" + strings.Repeat("e\u0301", 40)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message string) {
		title := models.TitleFrom(message)
		if n := utf8.RuneCountInString(title); n > 40 || !utf8.ValidString(title) {
			t.Errorf("got %q, %d characters, want at most 40 valid ones", title, n)
		}
		whole := strings.Join(strings.Fields(string([]rune(message))), " ")
		kept, cut := strings.CutSuffix(title, "…")
		switch {
		case title == whole:
			return
		case !cut || !strings.HasPrefix(whole, kept):
			t.Fatalf("got %q, want the beginning of %q", title, whole)
		}
		next, _ := utf8.DecodeRuneInString(whole[len(kept):])
		if next != ' ' && strings.Contains(kept, " ") {
			t.Errorf("got %q, cut inside a word of %q", title, whole)
		}
		if unicode.Is(unicode.M, next) {
			t.Errorf("got %q, cut before a mark of %q", title, whole)
		}
	})
}
