package demo_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"parley/aigrpc"
	"parley/aigrpc/demo"
	"parley/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func companion(tb testing.TB, delay time.Duration) *aigrpc.Client {
	tb.Helper()
	client, err := aigrpc.InProcess(demo.New(demo.Config{TokenDelay: delay}), aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := client.Close(); err != nil {
			tb.Error(err)
		}
	})
	return client
}

func ask(tb testing.TB, c *aigrpc.Client, p stream.Prompt) []stream.Chunk {
	tb.Helper()
	var chunks []stream.Chunk
	err := c.Reply(tb.Context(), &p, func(c stream.Chunk) error {
		chunks = append(chunks, c)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return chunks
}

func textOf(chunks []stream.Chunk) string {
	var text strings.Builder
	for _, c := range chunks {
		text.WriteString(c.Text)
	}
	return text.String()
}

// A line is a message and what the companion answers.
type line struct{ Said, Answered string }

func TestAConversation(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]line{
		"reflects, remembers the name, topics and feelings, and says once what it is": {
			{
				"Hi, my name is anna and I'm worried about my exam next week.",
				"Hello, Anna. Before we begin: I am a small program that follows simple rules, no language model and no person, and I listen as well as I can. What I hear is that you're worried about your exam next week. Worry can be loud, all the more at night or when one carries it alone. What depends on it for you, beyond the marks?",
			},
			{
				"I can't sleep because I keep thinking about it. My mother doesn't understand me.",
				"You write that you can't sleep because you keep thinking about it. I still have in mind what you told me earlier of your studies. Who in your family sees how this is for you?",
			},
			{
				"I feel so alone with this",
				"You tell me that you feel so alone with this. Between the lines I notice loneliness. I am glad that you said it, for it is not easy to say that one is lonely. Thank you for telling me this, Anna. What would make it a little easier, even for today?",
			},
			{
				"Do you remember my name?",
				"Yes, I have what you wrote in this chat before my eyes. Your name is Anna. You spoke of your sleep, your family and your studies. There was loneliness in what you told me. Is there something important that I have missed?",
			},
			{
				"what should I do?",
				"I am here, and I am reading along. That is a real question, and the answer that holds will be one of your own. Who else knows how this is for you?",
			},
			{
				"are you a real person?",
				"No person sits here, as I said at our beginning, and what I offer is a place to think aloud. One step after the other is fast enough. What made you wonder about that just now?",
			},
			{
				"bye",
				"Take good care of yourself until we write again. What you have written stays in this chat, and you can come back to it whenever you like. What small thing could be kind to you before you sleep?",
			},
		},
		"answers in danger with care, and looks back on it later": {
			{
				"i want to kill myself",
				"I am glad that you told me this, and it matters what happens to you. I am a small program, no language model and no person, so please do not stay alone with it. If you might act on it, call your emergency number now, such as 112, 911 or 999. A crisis line listens day and night: 988 in the United States and Canada, 116 123 in Britain and Ireland. Who could be with you now?",
			},
			{
				"I still don’t want to live",
				"I am still here, and I am worried about you. Please put away what you could hurt yourself with, go to where other people are, and tell one of them how bad it is. Your emergency number, such as 112, 911 or 999, and the crisis lines, 988 or 116 123, answer at any hour. Whom can you call right now?",
			},
			{
				"sorry, i'm calmer now",
				"Earlier you told me that your life had become hard to bear; if that comes back, please call your emergency number or someone you trust at once. What I hear is that you're calmer now. There seems to be relief in it. What a relief it must be to have some ground under your feet. What was the best moment of it?",
			},
		},
		"knows what it does not understand": {
			{
				"hello",
				"Hello. Before we begin: I am a small program that follows simple rules, no language model and no person, and I listen as well as I can. How nice to hear from you. What has been going through your mind today?",
			},
			{
				"我很难过",
				"I am sorry, I know no other words than English ones, so I may have missed what you said. What about it is on your mind most at the moment?",
			},
			{
				"I'm not happy",
				"So you're not happy. There is no wrong way to tell it, and it need not be in order. You may leave out whatever you do not want to speak of. How was it for you when that happened?",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := companion(t, 0)
			var got []line
			var history []stream.Turn
			for _, l := range want {
				a := textOf(ask(t, client, stream.Prompt{Message: l.Said, History: history}))
				got = append(got, line{l.Said, a})
				history = append(history, stream.Turn{Role: "user", Content: l.Said}, stream.Turn{Role: "assistant", Content: a})
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestDangerIsHeardInManyWords(t *testing.T) {
	t.Parallel()
	client := companion(t, 0)
	for message, want := range map[string]bool{
		"I don't want to be here anymore.":         true,
		"i dont wanna live":                        true,
		"Sometimes I think of suicide":             true,
		"They would be BETTER OFF WITHOUT ME!!":    true,
		"I keep harming myself":                    true,
		"self-harm again":                          true,
		"I’m going to take my own life":            true,
		"I killed it at work today":                false,
		"This deadline kills me":                   false,
		"I want to live in another town":           false,
		"My neighbour talks to himself":            false,
		"I want to die" + strings.Repeat(" x", 99): true,
	} {
		got := textOf(ask(t, client, stream.Prompt{Message: message}))
		if strings.Contains(got, "112, 911") != want {
			t.Errorf("%q: got %q, want danger %v", message, got, want)
		}
	}
}

func TestWordsComeOneByOneWithUsageLast(t *testing.T) {
	t.Parallel()
	p := stream.Prompt{
		Message: "bye",
		History: []stream.Turn{{Role: "user", Content: "My name is Anna."}, {Role: "assistant", Content: "Hello, Anna."}},
	}
	chunks := ask(t, companion(t, 0), p)
	var want []stream.Chunk
	for i, w := range strings.Fields(textOf(chunks)) {
		if i > 0 {
			w = " " + w
		}
		want = append(want, stream.Chunk{Text: w})
	}
	want = append(want, stream.Chunk{
		Done: true, FinishReason: "stop",
		Usage: &stream.Usage{InputTokens: 7, OutputTokens: int64(len(want))},
	})
	if diff := cmp.Diff(chunks, want); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
}

func TestAnAnswerGoesOnFromAnyPlaceInIt(t *testing.T) {
	t.Parallel()
	client := companion(t, 0)
	p := stream.Prompt{Message: "I'm worried about Zoë’s exam."}
	whole := ask(t, client, p)
	text, last := textOf(whole), whole[len(whole)-1]
	for i := range text {
		p.ContinueFrom = text[:i]
		rest := ask(t, client, p)
		if got := p.ContinueFrom + textOf(rest); got != text {
			t.Fatalf("from %d: got %q, want %q", i, got, text)
		}
		if got, want := rest[0].Continued, i > 0; got != want {
			t.Fatalf("from %d: got continued %v, want %v", i, got, want)
		}
		if diff := cmp.Diff(rest[len(rest)-1], last); diff != "" {
			t.Fatalf("from %d: got -, want +\n%s", i, diff)
		}
	}

	p.ContinueFrom = text
	last.Continued = true
	if diff := cmp.Diff(ask(t, client, p), []stream.Chunk{last}); diff != "" {
		t.Errorf("from its end: got -, want +\n%s", diff)
	}
	for name, given := range map[string]string{
		"another text":        "Good evening.",
		"more than it says":   text + " ",
		"a change at its end": text[:20] + "#",
	} {
		p.ContinueFrom = given
		if diff := cmp.Diff(ask(t, client, p), whole); diff != "" {
			t.Errorf("from %s: got -, want +\n%s", name, diff)
		}
	}
}

func TestThePaceIsThatOfTheConfig(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{0, demo.DefaultTokenDelay, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			client := companion(t, delay)
			start := time.Now()
			words := len(strings.Fields(textOf(ask(t, client, stream.Prompt{Message: "hello"}))))
			if got, want := time.Since(start), delay*time.Duration(words-1); got != want {
				t.Errorf("%d words, %v apart: got %v, want %v", words, delay, got, want)
			}
		})
	}
}

func TestNothingIsSaidToOneWhoLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := aigrpc.InProcess(demo.New(demo.Config{TokenDelay: time.Hour}), aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		err = client.Reply(ctx, &stream.Prompt{Message: "hello"}, func(stream.Chunk) error {
			cancel()
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		if err := client.Close(); err != nil { // waits for the companion
			t.Error(err)
		}
		if got := time.Since(start); got != 0 {
			t.Errorf("it ended after %v, want 0", got)
		}
	})
}
