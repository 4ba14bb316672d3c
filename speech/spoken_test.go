package speech_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"parley/speech"
)

func TestSpoken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"plain words":                     {" I hear you.  Go on!\n", "I hear you. Go on!"},
		"emphasis":                        {"**This** is *really* __very__ _good_, ~~not~~ ***bad***.", "This is really very good, not bad."},
		"marks that are meant":            {"2 * 3, snake_case, ~5 minutes, \\*so\\* and a\\b", "2 * 3, snake_case, ~5 minutes, *so* and a\\b"},
		"code in a line":                  {"Call `f(x)` or ``g`` now.", "Call f(x) or g now."},
		"a heading":                       {"## What to do ##\nRest.", "What to do Rest."},
		"a list":                          {"- [ ] apples\n* pears\n1. nuts", "apples pears 1. nuts"},
		"a quotation":                     {"> > He said\n> yes.", "He said yes."},
		"a link":                          {"See [the **docs**](https://example.com/a_(b) \"Title\") and [this][1].", "See the docs and this."},
		"an image in a link":              {"[![a tree](t.png)](https://example.com)", "a tree"},
		"a footnote":                      {"So it is.[^1]", "So it is."},
		"an address":                      {"See <https://user:pw@example.com:80/a?b#c> or http://example.org/x.", "See example.com or example.org."},
		"tags and comments":               {"One<br/>two <b>three</b><!-- four --> 1 < 2.", "One two three 1 < 2."},
		"a table":                         {"| a | b |\n|---|:-:|\n| 1 | 2 |", "a , b 1 , 2"},
		"a rule":                          {"Above\n***\n- - -\n===\nBelow", "Above Below"},
		"a fence":                         {"\n```go\nx := 1\n```", ""},
		"a fence between words":           {"Run:\n~~~\nx\n~~~\nDone.", "Run: Done."},
		"a fence that stays open":         {"```\nx", ""},
		"a longer fence around a shorter": {"````\n```\nx\n```\n````\nDone.", "Done."},
		"code that only looks like one":   {"```x``` is code.", "x is code."},
		"nothing to say":                  {" *** — ... 😀\n", ""},
		"other scripts":                   {"**你好。** ठीक", "你好。 ठीक"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := speech.Spoken(tt.text); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzSpoken(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	f.Add("[[a](b)](c) \\")
	f.Fuzz(func(t *testing.T, text string) {
		got := speech.Spoken(text)
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("got %q of %q, which is no UTF-8", got, text)
		}
		if strings.TrimSpace(got) != got || strings.Contains(got, "\n") {
			t.Errorf("got %q: want no white space around it, and one line", got)
		}
	})
}
