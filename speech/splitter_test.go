package speech_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"parley/speech"
)

// sentences returns the sentences of a text that comes in those pieces, and what
// is left of it.
func sentences(pieces ...string) (all []string, rest string) {
	var s speech.Splitter
	for _, piece := range pieces {
		all = append(all, s.Add(piece)...)
	}
	return all, s.Rest()
}

// texts are cut where a bar stands; what is behind the last one is the rest. A
// broken bar is a bar of the text.
var texts = map[string]string{
	"nothing":                               "",
	"white space":                           " \n ",
	"a sentence whose end is not sure":      "Hello there.",
	"a sentence with white space behind it": "Hello there.| ",
	"two sentences":                         "I hear you.| Go on!| What then?| Well",
	"several marks":                         "What?!| No!!!| Yes.",
	"white space of any kind":               "One.|  Two.|\tThree.|\nFour.| ",
	"a no-break space":                      "Dr.\u00a0No. 5.\u00a0Mai.| Then",
	"titles":                                "Dr. Smith met Mrs. Jones and Prof. Dr. Weber on St. James St. yesterday.| Then",
	"German abbreviations":                  "Das gilt z.B. für Äpfel, d.h. Obst, bzw. Birnen, vgl. S. 5 usw. und so fort.| Dann",
	"German abbreviations with spaces":      "Das gilt z. B. für Äpfel, d. h. für Obst, i. d. R. für alle.| Dann",
	"English abbreviations":                 "Eat fruit, e.g. apples, i.e. Golden ones, vs. pears, approx. ten.| Then",
	"an abbreviation that ends a sentence":  "Apples, pears, etc.| Then we left at 5 p.m.| We",
	"an abbreviation that does not":         "Apples, pears, etc. are at Smith Inc. on sale from 5 p.m. today.| We",
	"an abbreviation before a number":       "See No. 5, Fig. 3 and Abb. 2 of Jan. 3, Nr. 7.| No.| I said no.| And",
	"a word like an abbreviation":           "That is art.| I take a sec.| You see.| ",
	"initials":                              "J. R. R. Tolkien met George W. Bush and J.S. Bach in the U.S. Army.| Then",
	"a country at the end":                  "He lives in the U.S.| He likes it.| We",
	"I at the end":                          "So do you and I.| We know.| ",
	"a degree":                              "She has a Ph.D. in physics.| She has a Ph.D.| She is smart.| ",
	"decimals and versions":                 "Pi is 3.14 and Go is 1.26.1.| It costs 1.000.| So",
	"a year at the end":                     "Es war 1999.| Dann kam 2000.| So",
	"a small number at the end":             "I have 3.| You have 4.| So on",
	"German ordinals":                       "Am 3. Oktober, am 4. Tag und zum 2. Mal im 19. Jahrhundert.| Dann",
	"an ordinal before a small letter":      "Der 1. große Versuch.| Dann",
	"a numbered list":                       "Do this:|\n1. First it.|\n2. Then that.|\n\n3) And this|\n10. Last.| ",
	"a list":                                "Take:|\n- apples|\n- pears, etc.|\n* nuts|\n• more|\n+ all\nof it.| ",
	"a number that begins a sentence":       "1. first we go.| Then",
	"an ellipsis inside":                    "Well... perhaps … not.| Hm…maybe.| Yes",
	"an ellipsis at the end":                "I wonder...| She left…| Then",
	"a quotation":                           "“I know.”| She left.| \"Really?\" she asked.| »Ja.« sagte er.| ‘No!’| He",
	"brackets":                              "It is late (very late.)| Go home (now!) or stay.| Then",
	"emphasis":                              "**This matters.**| And *this too!*| _Good._| ~~No.~~ and on.| `f()`.| Then",
	"an address":                            "See https://example.com/a.b?c=d!e&f=1.5 for more.| Or www.example.org.| Then",
	"a file":                                "Open main.go and README.md, or .env.| Then config.yaml.| ",
	"Chinese":                               "你好。|你怎么样？！|很好！|“真的。”|他说「好。」|然后",
	"Chinese with marks of ASCII":           "真的吗?|好!|我来了。|他说3.5元",
	"Chinese with an ellipsis":              "我……我不知道。|好",
	"Japanese":                              "「はい。」と彼は言った。|そうですか？|ええ｡|次",
	"Arabic":                                "كيف حالك؟| أنا بخير.| شكرا",
	"Urdu":                                  "میں ٹھیک ہوں۔| شکریہ",
	"Hindi":                                 "मैं ठीक हूँ।| आप कैसे हैं?| धन्यवाद॥|और",
	"Greek and Cyrillic":                    "Όλα καλά.| Хорошо!| А",
	"emoji behind the end":                  "Great!😀👍🏽| Next.❤️| And 😀.| ",
	"emoji instead of an end":               "Great 😀 next",
	"an empty line":                         "No mark here|\n\nNext|\r\n\r\nLast",
	"a single line break":                   "One line\ngoes on here.| ",
	"a heading":                             "# Title|\nText\n#hash goes on.|\n## Two ##|\nMore",
	"a quoted line":                         "He said|\n> Yes, so.| ",
	"a rule":                                "Above|\n---|\n\nBelow",
	"a table":                               "Look|\n¦ a ¦ b ¦|\n¦---¦---¦|\n¦ 1. ¦ 2 ¦|\n",
	"a minus sign":                          "It is\n-5 degrees\n**cold** today.| ",
	"a fence":                               "Run:|\n```go\na. B! c\n\n```` no\nfmt.Println()\n```|\nDone.| ",
	"a fence of tildes":                     "~~~~\nA. B.\n~~~\n~~~~|  \nDone.| ",
	"a fence in a list":                     "- Run|\n  ```\n  x. Y\n  ```|\n- Next",
	"a fence that stays open":               "Run:|\n```\nA. B! C\n",
	"code in a line":                        "```a. b``` is code.| Then",
	"marks alone":                           ".| ..| !| ?",
	"a line to write on":                    "Name ................................ here",
	"a name with a mark in it":              "I use Yahoo!Mail and .NET, e.g.| \n\nThen",
	"no white space behind a full stop":     "One.Two.Three.| ",

	"a text without an end is cut at a pause": strings.Repeat("word ", 39) + "word,|" + strings.Repeat(" word", 40),
	"else between words":                      strings.Repeat("word ", 59) + "word|" + strings.Repeat(" word", 40),
	"else between characters":                 strings.Repeat("e\u0301", 149) + "|" + strings.Repeat("e\u0301", 10),
	"a long Chinese text is cut at a pause":   strings.Repeat("字", 200) + "，|" + strings.Repeat("字", 120),
}

func TestSplitter(t *testing.T) {
	t.Parallel()
	for name, marked := range texts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := strings.Split(marked, "|")
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], "¦", "|")
			}
			got, rest := sentences(strings.Join(want, ""))
			if diff := cmp.Diff(append(got, rest), want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
			checkPieces(t, strings.Join(want, ""), 1)
		})
	}
}

// The end of a sentence is known with the white space behind it, unless the next
// word has a say in it.
func TestASentenceIsCompleteAsSoonAsItsEndIsSure(t *testing.T) {
	t.Parallel()
	var s speech.Splitter
	for _, step := range []struct {
		text string
		want []string
	}{
		{"I hear you", nil},
		{".", nil},
		{" ", []string{"I hear you."}},
		{"See e.g.", nil},
		{" Bach, etc.", nil},
		{" ", nil},
		{"T", []string{" See e.g. Bach, etc."}},
		{"hen ", nil},
		{"so。", nil},
		{"我", []string{" Then so。"}},
	} {
		if diff := cmp.Diff(s.Add(step.text), step.want); diff != "" {
			t.Errorf("after %q: got -, want +\n%s", step.text, diff)
		}
	}
	if got := s.Rest(); got != "我" {
		t.Errorf("the rest: got %q, want %q", got, "我")
	}
}

// checkPieces fails the test if the text comes out otherwise in pieces, or is
// not all of the text.
func checkPieces(t *testing.T, text string, seed uint64) {
	t.Helper()
	want, wantRest := sentences(text)
	if got := strings.Join(want, "") + wantRest; got != text {
		t.Fatalf("joined: got %q, want %q", got, text)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	for _, most := range []int{1, 3, 7, 40} {
		var pieces []string
		for left := text; left != ""; {
			n := min(1+random.IntN(most), len(left))
			pieces = append(pieces, left[:n])
			left = left[n:]
		}
		if got, rest := sentences(pieces...); !slices.Equal(got, want) || rest != wantRest {
			t.Fatalf("in the pieces %q:\ngot  %q, rest %q\nwant %q, rest %q", pieces, got, rest, want, wantRest)
		}
	}
}

func FuzzSplitter(f *testing.F) {
	for _, text := range texts {
		f.Add(text, uint64(1))
	}
	f.Add("é\xffa. \xc3", uint64(2))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		checkPieces(t, text, seed)
		if all, _ := sentences(text); !strings.Contains(text, "```") && !strings.Contains(text, "~~~") {
			for _, s := range all {
				if n := utf8.RuneCountInString(strings.TrimSpace(s)); n > 350 {
					t.Errorf("a sentence of %d characters: %q", n, s)
				}
			}
		}
	})
}

// A hostile text must not cost more than its length: token by token, what stays
// open for long is not read again from its beginning.
func BenchmarkSplitter(b *testing.B) {
	for name, unit := range map[string]string{
		"prose": "I hear you, and it is all right. ", "fence": "```\ncode. ", "spaces": "a\n        ", "dots": "....", "quotes": "\".\"\"", "hashes": "\n########",
	} {
		text := strings.Repeat(unit, 1<<20/len(unit))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for range b.N {
				var s speech.Splitter
				for i := 0; i < len(text); i += 4 {
					s.Add(text[i:min(i+4, len(text))])
				}
			}
		})
	}
}
