package local_test

import (
	"strings"
	"testing"

	"parley/aigrpc/local"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ sentence, want string }{
		"plain words":      {"I hear you. ", "I hear you."},
		"typography":       {"“Well…” — it’s ‘so’", `"Well..." , it's 'so'`},
		"accents":          {"Zoë naïve Škoda Straße Łódź ﬁne", "Zoe naive Skoda Strasse Lodz fine"},
		"signs":            {"5 € at 20° ½", "5 euros at 20 degrees 1 2"},
		"other scripts":    {"你好 hello мир", "hello"},
		"nothing to say":   {"你好。", ""},
		"marks alone":      {" … — “”", ""},
		"control":          {"a\x00b\x1b[0m c\nd", "a b [0m c d"},
		"Markdown":         {"**So** [it](https://x.example) `is`", "So it is"},
		"full-width forms": {"ＡＢＣ １２３", "ABC 123"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := local.Plain(tt.sentence); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("“Café” — 你好\x00")
	f.Fuzz(func(t *testing.T, sentence string) {
		got := local.Plain(sentence)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(got) != got {
			t.Errorf("got %q, want one line of ASCII", got)
		}
	})
}
