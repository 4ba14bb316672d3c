package demo_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/demo"
)

// FuzzAnswer checks what holds of every answer, and of every chat.
func FuzzAnswer(f *testing.F) {
	f.Add("Hi, my name is Anna and I'm worried about my exam.", "I can't sleep", "who are you")
	f.Add("I want to die", "it is all too much", "what do you know about me?")
	f.Add("hello", "how are you", "thanks")
	f.Add("call me Ö'", "my name is", "I'm called x-y")
	f.Add("I am happy, my dog, my boss and my mother are happy", "%s %d 100%", "I, my, I'm, i am")
	f.Add("\x00", "\xff\xfe", strings.Repeat("i am sad, ", 40))
	f.Fuzz(func(t *testing.T, first, second, third string) {
		var history []*amandaai.Turn
		for i, message := range []string{first, second, third} {
			got := demo.Answer(message, history)
			if again := demo.Answer(message, history); again != got {
				t.Fatalf("got %q, then %q", got, again)
			}
			if n := len(strings.Fields(got)); n < 30 || n > 80 {
				t.Errorf("%q: got %d words, want 30 to 80: %q", message, n, got)
			}
			if !utf8.ValidString(got) || strings.Contains(got, "\x00") || strings.Contains(got, "%!") {
				t.Errorf("%q: got %q, want clean text", message, got)
			}
			if !strings.HasSuffix(got, "?") || strings.Contains(got, "  ") {
				t.Errorf("%q: got %q, want whole sentences and a question", message, got)
			}
			said := strings.Count(got, "I am a small program")
			if want := map[bool]int{true: 1}[i == 0]; said != want {
				t.Errorf("%q: says %d times what it is, want %d: %q", message, said, want, got)
			}
			history = append(
				history,
				&amandaai.Turn{Role: "user", Content: message},
				&amandaai.Turn{Role: "assistant", Content: got},
			)
		}
	})
}
