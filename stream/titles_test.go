package stream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// A titler answers messages with the same words, and says title when it is asked
// for one.
func titler(title backend) backend {
	return func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
		if p.MessageID == 0 {
			return title(ctx, p, each)
		}
		return says("An answer.")(ctx, p, each)
	}
}

func withTitles(c *stream.Config) { c.Titles, c.Model = true, "small" }

func titleOf(t *testing.T, db *models.DB, userID, chatID int64) string {
	t.Helper()
	c, err := db.Chat(t.Context(), userID, chatID)
	if err != nil {
		t.Fatal(err)
	}
	return c.Title
}

func TestAChatGetsATitleFromTheModel(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		prompts := make(chan stream.Prompt, 3)
		told := make(chan struct{}) // of the end; a title does not wait for all to hear of that
		r := start(t, db, titler(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			prompts <- p
			<-told
			return says("“Leaving ", "Home”\n")(ctx, p, each)
		}), withTitles)
		f := r.feed(t, user, "")
		if e, ok := f.next(); !ok || e.name != "ready" {
			t.Fatalf("the feed begins with %+v", e)
		}
		ex := r.send(t, user, chat, "I want to leave home")
		var got []string
		for range 6 {
			e, _ := f.next()
			got = append(got, e.name)
			if e.name == "message_complete" {
				close(told)
			}
		}
		want := []string{"chat_updated", "message_created", "message_start", "message_token", "message_complete", "chat_updated"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if got := titleOf(t, db, user, chat); got != "Leaving Home" {
			t.Errorf("the title is %q", got)
		}
		p := <-prompts
		if !strings.Contains(p.Message, "I want to leave home") || !strings.Contains(p.Message, "An answer.") {
			t.Errorf("asked with %q", p.Message)
		}
		p.Message = ""
		if diff := cmp.Diff(stream.Prompt{UserID: user, ChatID: chat, Model: "small"}, p); diff != "" {
			t.Errorf("prompt (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"owner 0: 3+2 estimated false small", "owner 1: 3+1 estimated false small"}, costs(t, db, user)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}

		// It is asked for once.
		again, err := r.Regenerate(t.Context(), models.Rewrite{UserID: user, MessageID: ex.Reply.ID})
		if err != nil {
			t.Fatal(err)
		}
		r.await(t, user, again.Reply.ID)
		r.await(t, user, r.send(t, user, chat, "and now").Reply.ID)
		r.Drain(t.Context())
		if len(prompts) > 0 {
			t.Errorf("asked again: %+v", <-prompts)
		}
	})
}

// What is no title leaves the user's words, and what is too much is cut.
func TestATitleIsCleaned(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	user, _ := newUser(t, db)
	title := make(chan string, 1)
	r := start(t, db, titler(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
		return says(<-title)(ctx, p, each)
	}), withTitles)
	counted := 0
	const words = "I want to leave home"
	for said, want := range map[string]string{
		"Leaving Home":                                 "Leaving Home",
		"  \"Leaving Home.\"  ":                        "Leaving Home",
		"**Title:** Leaving Home":                      "Leaving Home",
		"# Leaving   Home\n\nLet me know.":             "Leaving Home",
		"\n\nTITLE: 'Leaving Home'":                    "Leaving Home",
		"Leaving: Home":                                "Leaving: Home",
		"„Zuhause ausziehen“":                          "Zuhause ausziehen",
		"家を出る。":                                        "家を出る",
		"Leav\x07ing \u202eHome":                       "Leaving Home",
		"One two three four five six seven eight nine": "One two three four five six seven eight…",
		"":                  words,
		" \n\t":             words,
		"\"\"":              words,
		"Title:":            words,
		words:               words,
		"\u200b\ufeff\n---": words,
		"Title\nby line":    "Title",
		"…\nLeaving Home":   "Leaving Home",
		"<think>\nA title, they say.\n</think>\n\nLeaving Home": "Leaving Home",
		"\n<think></think>Leaving Home":                         "Leaving Home",
		"<think>\nA title, they say.":                           words,
		"Leaving Home\n" + strings.Repeat("and so on, ", 100):   "Leaving Home",
	} {
		title <- said
		ex := r.send(t, user, 0, words)
		counted += 2
		until(t, "the title is counted", func() bool { return len(costs(t, db, user)) == counted })
		if got := titleOf(t, db, user, ex.Chat.ID); got != want {
			t.Errorf("of %q: got %q, want %q", said, got, want)
		}
	}
}

// Nothing that goes wrong with a title is told to anybody, and it is counted if
// something was said.
func TestATitleMayFail(t *testing.T) {
	t.Parallel()
	broken := &stream.BackendError{Code: stream.CodeBackendBusy, Err: errors.New("busy")}
	for name, test := range map[string]struct {
		title backend
		want  string // what is counted; "": nothing
	}{
		"before a word": {func(context.Context, stream.Prompt, func(stream.Chunk) error) error { return broken }, ""},
		"in the middle": {
			func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
				return errors.Join(each(stream.Chunk{Text: "Half a t"}), broken)
			}, "+2 estimated true ",
		},
		"by a fault of ours": {func(context.Context, stream.Prompt, func(stream.Chunk) error) error { panic("a fault") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			user, chat := newUser(t, db)
			asked := make(chan struct{})
			r := start(t, db, titler(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
				close(asked)
				return test.title(ctx, p, each)
			}), withTitles)
			ex := r.send(t, user, chat, "hello")
			if m := r.await(t, user, ex.Reply.ID); m.Content != "An answer." || m.Status != models.StatusComplete {
				t.Errorf("the reply is %q, %s", m.Content, m.Status)
			}
			<-asked
			r.Drain(t.Context())
			counted := costs(t, db, user)
			if test.want == "" && len(counted) != 1 || test.want != "" && (len(counted) != 2 || !strings.HasSuffix(strings.TrimSuffix(counted[0], "small"), test.want)) {
				t.Errorf("counted %q, want %q", counted, test.want)
			}
			if got := titleOf(t, db, user, chat); got != "hello" {
				t.Errorf("the title is %q", got)
			}
		})
	}
}

func TestATitleThatIsGivenStays(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		named, _, err := db.CreateChat(t.Context(), user, "Mine", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		var renamed int64
		asked := make(chan int64, 3)
		r := start(t, db, titler(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			asked <- p.ChatID
			if _, err := db.RenameChat(ctx, user, p.ChatID, "Given meanwhile"); err != nil {
				return err
			}
			return says("From the model")(ctx, p, each)
		}), withTitles)
		r.await(t, user, r.send(t, user, named.ID, "hello").Reply.ID)
		ex := r.send(t, user, 0, "hello")
		renamed = ex.Chat.ID
		until(t, "the title is counted", func() bool { return len(costs(t, db, user)) == 3 })
		if id := <-asked; id != renamed || len(asked) > 0 {
			t.Errorf("a title was asked for the chat %d, and %d more", id, len(asked))
		}
		for id, want := range map[int64]string{named.ID: "Mine", renamed: "Given meanwhile"} {
			if got := titleOf(t, db, user, id); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// A reply does not wait for its chat's title, nor does the end of the replica.
func TestNothingWaitsForATitle(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		asked := make(chan context.Context, 1)
		r := start(t, db, titler(func(ctx context.Context, _ stream.Prompt, _ func(stream.Chunk) error) error {
			asked <- ctx
			<-ctx.Done()
			return ctx.Err()
		}), withTitles)
		ex := r.send(t, user, chat, "hello")
		r.await(t, user, ex.Reply.ID)
		ctx := <-asked
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 20*time.Second {
			t.Errorf("the backend has until %v, %v", deadline, ok)
		}
		r.await(t, user, r.send(t, user, chat, "and now").Reply.ID)
		r.Drain(t.Context())
		if ctx.Err() == nil {
			t.Error("the call goes on after the drain")
		}
	})
}
