package provider_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
	"parley/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func user(text string) *amandaai.Turn { return &amandaai.Turn{Role: "user", Content: text} }
func assistant(text string) *amandaai.Turn {
	return &amandaai.Turn{Role: "assistant", Content: text}
}

func TestConversation(t *testing.T) {
	t.Parallel()
	type turns = []provider.Turn
	for name, tt := range map[string]struct {
		history []*amandaai.Turn
		want    turns
	}{
		"of a chat that begins":             {nil, turns{{Text: "And now?"}}},
		"of a chat that goes on":            {[]*amandaai.Turn{user("Hello."), assistant("Hello, you.")}, turns{{Text: "Hello."}, {true, "Hello, you."}, {Text: "And now?"}}},
		"after a reply without a word":      {[]*amandaai.Turn{user("Hello."), assistant("")}, turns{{Text: "Hello.\n\nAnd now?"}}},
		"that the assistant began":          {[]*amandaai.Turn{assistant("Welcome.")}, turns{{true, "Welcome."}, {Text: "And now?"}}},
		"in which one side speaks in a row": {[]*amandaai.Turn{user("One."), user("Two."), assistant("Three."), assistant("Four.")}, turns{{Text: "One.\n\nTwo."}, {true, "Three.\n\nFour."}, {Text: "And now?"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := provider.Conversation(tt.history, "And now?")
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestRecentIsTheLaterHalfFromAUsersWordOn(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	for name, tt := range map[string]struct{ history, want []*amandaai.Turn }{
		"nothing":                         {nil, []*amandaai.Turn{}},
		"one turn":                        {[]*amandaai.Turn{user("a"), assistant("b")}, []*amandaai.Turn{}},
		"two turns of one length":         {[]*amandaai.Turn{user("a"), assistant("b"), user("c"), assistant("d")}, []*amandaai.Turn{user("c"), assistant("d")}},
		"a long turn first":               {[]*amandaai.Turn{user(long), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")}, []*amandaai.Turn{user("c"), assistant("d"), user("e"), assistant("f")}},
		"a long turn last":                {[]*amandaai.Turn{user("a"), assistant("b"), user("c"), assistant(long)}, []*amandaai.Turn{}},
		"a half in the midst of a turn":   {[]*amandaai.Turn{user("a"), assistant("bbbb"), user("c"), assistant("d"), user("e"), assistant("f")}, []*amandaai.Turn{user("c"), assistant("d"), user("e"), assistant("f")}},
		"a half that begins with a reply": {[]*amandaai.Turn{user("aaa"), assistant("b"), user("cc"), assistant("d")}, []*amandaai.Turn{user("cc"), assistant("d")}},
		"only replies":                    {[]*amandaai.Turn{assistant("a"), assistant("b"), assistant("c")}, []*amandaai.Turn{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			texts := func(turns []*amandaai.Turn) []string {
				all := make([]string, len(turns))
				for i, turn := range turns {
					all[i] = turn.GetRole() + ": " + turn.GetContent()
				}
				return all
			}
			if diff := cmp.Diff(texts(provider.Recent(tt.history)), texts(tt.want)); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestSystemPrompt(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"":              provider.DefaultSystemPrompt,
		" ":             "",
		"\nBe brief.\n": "Be brief.",
	} {
		if got := provider.SystemPrompt(setting); got != want {
			t.Errorf("%q: got %q, want %q", setting, got, want)
		}
	}
}

// A composer is a backend that writes its answer as a test says.
type composer struct {
	amandaai.UnimplementedAIServiceServer
	write func(*provider.Answer) error
	bytes int
}

func (c composer) StreamChat(_ *amandaai.ChatMessage, out grpc.ServerStreamingServer[amandaai.ChatChunk]) error {
	return c.write(provider.NewAnswer(out, c.bytes))
}

// hear returns what a client hears of an answer of at most so many bytes.
func hear(t *testing.T, bytes int, write func(*provider.Answer) error) []stream.Chunk {
	t.Helper()
	client, err := aigrpc.InProcess(composer{write: write, bytes: bytes}, aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var chunks []stream.Chunk
	err = client.Reply(t.Context(), &stream.Prompt{}, func(c stream.Chunk) error {
		chunks = append(chunks, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks
}

func TestAnAnswerOnItsWayOut(t *testing.T) {
	t.Parallel()
	const from = "It is raining, and has been" // long enough to be known again
	stop := stream.Chunk{Done: true, FinishReason: "stop"}
	for name, tt := range map[string]struct {
		goOnFrom string
		pieces   []string
		want     []stream.Chunk
	}{
		"piece by piece":                        {"", []string{"Yes", ", ", "we can."}, []stream.Chunk{{Text: "Yes"}, {Text: ", "}, {Text: "we can."}, stop}},
		"without empty pieces":                  {"", []string{"", "Yes.", ""}, []stream.Chunk{{Text: "Yes."}, stop}},
		"without any":                           {"", nil, []stream.Chunk{stop}},
		"with a rune in two pieces":             {"", []string{"5 \xe2\x82", "\xac."}, []stream.Chunk{{Text: "5 "}, {Text: "€."}, stop}},
		"with a rune in four pieces":            {"", []string{"\xf0", "\x9f", "\x98", "\x80!"}, []stream.Chunk{{Text: "😀!"}, stop}},
		"with a rune that is never whole":       {"", []string{"a\xe2\x82", "b"}, []stream.Chunk{{Text: "a"}, {Text: "\ufffdb"}, stop}},
		"with half a rune at its end":           {"", []string{"a\xe2\x82"}, []stream.Chunk{{Text: "a"}, {Text: "\ufffd\ufffd"}, stop}},
		"with bytes that are no UTF-8":          {"", []string{"a\xff\x80b"}, []stream.Chunk{{Text: "a\ufffdb"}, stop}},
		"with NUL":                              {"", []string{"a\x00b"}, []stream.Chunk{{Text: "a\ufffdb"}, stop}},
		"going on":                              {from, []string{" for", " days."}, []stream.Chunk{{Text: " for", Continued: true}, {Text: " days."}, stop}},
		"going on after what went before again": {from, []string{from + " for", " days."}, []stream.Chunk{{Text: " for", Continued: true}, {Text: " days."}, stop}},
		"going on after it in pieces":           {from, []string{from[:4], from[4:], " for days."}, []stream.Chunk{{Text: " for days.", Continued: true}, stop}},
		"going on with what it begins like":     {from, []string{from[:4], "pouring."}, []stream.Chunk{{Text: from[:4] + "pouring.", Continued: true}, stop}},
		"going on with only its beginning":      {from, []string{from[:4]}, []stream.Chunk{{Text: from[:4], Continued: true}, stop}},
		"going on with the same word":           {"ha", []string{"ha"}, []stream.Chunk{{Text: "ha", Continued: true}, stop}},
		"going on with nothing":                 {from, nil, []stream.Chunk{{Done: true, FinishReason: "stop", Continued: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := hear(t, 0, func(a *provider.Answer) error {
				a.GoOn(tt.goOnFrom)
				for _, p := range tt.pieces {
					if err := a.Write(p); err != nil {
						return err
					}
				}
				return a.End(provider.FinishStop, nil)
			})
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestAnAnswerHasItsBound(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bytes  int
		pieces []string
		full   bool
		want   string
	}{
		"that it keeps to":                {5, []string{"12", "345"}, false, "12345"},
		"that it would exceed":            {5, []string{"12", "345", "6"}, true, "12345"},
		"that one piece exceeds":          {5, []string{strings.Repeat("1", 3<<20)}, true, "11111"},
		"in the midst of a rune":          {5, []string{"123€"}, true, "123"},
		"of 1 MiB, where none is given":   {0, []string{strings.Repeat("1", 1<<20), "2"}, true, strings.Repeat("1", 1<<20)},
		"that a mended text would exceed": {5, []string{"1\x002\x00"}, true, "1\ufffd2"[:5]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full := false
			chunks := hear(t, tt.bytes, func(a *provider.Answer) error {
				for _, p := range tt.pieces {
					err := a.Write(p)
					if full = errors.Is(err, provider.ErrFull); full {
						return a.End(provider.FinishLength, nil)
					} else if err != nil {
						return err
					}
				}
				return a.End(provider.FinishStop, nil)
			})
			var got strings.Builder
			for _, c := range chunks {
				got.WriteString(c.Text)
			}
			if got.String() != tt.want || full != tt.full {
				t.Errorf("got %.20q of %d bytes, full %v; want %.20q of %d, full %v", got.String(), got.Len(), full, tt.want, len(tt.want), tt.full)
			}
		})
	}
}

func TestAThinkingModelIsAliveNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := hear(t, 0, func(a *provider.Answer) error {
			a.GoOn("Well")
			for range 33 { // 3.2 s from the first to the last
				if err := a.Alive(); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err := a.Write(", yes."); err != nil {
				return err
			}
			if err := a.Alive(); err != nil {
				return err
			}
			return a.End(provider.FinishStop, nil)
		})
		want := []stream.Chunk{{Continued: true}, {}, {}, {}, {Text: ", yes."}, {Done: true, FinishReason: "stop"}}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("got -, want +\n%s", diff)
		}
	})
}

// The client waits 30 s for a chunk, and a thought may take longer than a word.
func TestAModelThatThinksSlowlyIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := hear(t, 0, func(a *provider.Answer) error {
			for range 20 {
				if err := a.Alive(); err != nil {
					return err
				}
				time.Sleep(20 * time.Second)
			}
			return a.End(provider.FinishStop, nil)
		})
		want := append(make([]stream.Chunk, 20), stream.Chunk{Done: true, FinishReason: "stop"})
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("got -, want +\n%s", diff)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add("", []byte("5 \xe2\x82\xac"), uint8(3))
	f.Add("It is raining, and", []byte("It is raining, and pouring"), uint8(1))
	f.Add("", []byte("a\x00\xff"), uint8(0))
	f.Fuzz(func(t *testing.T, from string, text []byte, size uint8) {
		chunks := hear(t, 0, func(a *provider.Answer) error {
			a.GoOn(from)
			for rest := text; len(rest) > 0; {
				n := min(len(rest), 1+int(size))
				if err := a.Write(string(rest[:n])); err != nil {
					return err
				}
				rest = rest[n:]
			}
			return a.End(provider.FinishStop, nil)
		})
		var got strings.Builder
		for _, c := range chunks {
			got.WriteString(c.Text)
		}
		heard := strings.TrimPrefix(string(text), from)
		if len(from) < 16 || !strings.HasPrefix(string(text), from) {
			heard = string(text)
		}
		// Valid text comes through as it is; of what is mended only how much of
		// it was right is known here.
		if strings.ToValidUTF8(heard, "") == heard && !strings.Contains(heard, "\x00") {
			if got.String() != heard {
				t.Errorf("got %q, want %q", got.String(), heard)
			}
		} else if strings.ContainsRune(got.String(), 0) || strings.ToValidUTF8(got.String(), "") != got.String() {
			t.Errorf("got %q", got.String())
		}
	})
}
