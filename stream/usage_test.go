package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// costs is every attempt that was counted for a user, in order.
func costs(t *testing.T, db *models.DB, userID int64) []string {
	t.Helper()
	rows, err := db.ExportUsage(t.Context(), userID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, r := range rows {
		all = append(all, fmt.Sprintf("owner %d: %d+%d estimated %v %s", r.Fence, r.InputTokens, r.OutputTokens, r.Estimated, r.Model))
	}
	return all
}

// Every ending says what the reply has cost. The message has 40 bytes, which may
// be 10 tokens.
func TestEveryEndingIsCounted(t *testing.T) {
	t.Parallel()
	broken := &stream.BackendError{Code: stream.CodeBackendError, Err: errors.New("broken")}
	for name, test := range map[string]struct {
		chunks []stream.Chunk
		err    error // after them; nil: the backend waits to be stopped, unless the last chunk is done
		want   string
		event  string // usage in the last event
	}{
		"as the backend says": {
			[]stream.Chunk{{Text: "four"}, {Done: true, Usage: &stream.Usage{InputTokens: 311, OutputTokens: 58}}},
			nil,
			"311+58 estimated false", `{"input_tokens":311,"output_tokens":58}`,
		},
		"by the text, where the backend does not count": {
			[]stream.Chunk{{Text: "four"}, {Text: "five."}, {Done: true}},
			nil,
			"10+3 estimated true", `{"input_tokens":10,"output_tokens":3,"estimated":true}`,
		},
		"by the text, where it counts nothing": {
			[]stream.Chunk{{Text: "four"}, {Done: true, Usage: &stream.Usage{}}},
			nil,
			"10+1 estimated true", `{"input_tokens":10,"output_tokens":1,"estimated":true}`,
		},
		"by the text, where the count makes no sense": {
			[]stream.Chunk{{Text: "four"}, {Done: true, Usage: &stream.Usage{InputTokens: 1 << 62, OutputTokens: 1}}},
			nil,
			"10+1 estimated true", `{"input_tokens":10,"output_tokens":1,"estimated":true}`,
		},
		"by the text, where the count is below nothing": {
			[]stream.Chunk{{Text: "four"}, {Done: true, Usage: &stream.Usage{InputTokens: 10, OutputTokens: -5}}},
			nil,
			"10+1 estimated true", `{"input_tokens":10,"output_tokens":1,"estimated":true}`,
		},
		"by the text, of one that is stopped": {
			[]stream.Chunk{{Text: "four"}, {Text: "five."}},
			nil,
			"10+3 estimated true", `{"input_tokens":10,"output_tokens":3,"estimated":true}`,
		},
		"by the message, of one that is stopped before it begins": {
			nil, nil,
			"10+0 estimated true", `{"input_tokens":10,"output_tokens":0,"estimated":true}`,
		},
		"by the text, of one that breaks off":  {[]stream.Chunk{{Text: "four"}, {Text: "five."}}, broken, "10+3 estimated true", ""},
		"as nothing, of one that never begins": {nil, broken, "0+0 estimated true", ""},
		"by the text, of one that is cut off": {
			[]stream.Chunk{{Text: strings.Repeat("x", 2000)}, {Done: true}},
			nil,
			"10+250 estimated true", `{"input_tokens":10,"output_tokens":250,"estimated":true}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			user, chat := newUser(t, db)
			said := make(chan struct{})
			r := start(t, db, backend(func(ctx context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
				done := false
				for _, c := range test.chunks {
					if err := each(c); err != nil {
						return err
					}
					done = c.Done
				}
				close(said)
				if done || test.err != nil {
					return test.err
				}
				<-ctx.Done()
				return ctx.Err()
			}), func(c *stream.Config) { c.Model, c.MaxReplyBytes = "small", 1000 })
			ex := r.send(t, user, chat, strings.Repeat("m", 40))
			f := r.open(t, user, ex.Reply.ID, "")
			if n := len(test.chunks); test.err == nil && (n == 0 || !test.chunks[n-1].Done) {
				<-said
				if _, err := r.Stop(t.Context(), user, ex.Reply.ID); err != nil {
					t.Fatal(err)
				}
			}
			events := f.all()
			if last := events[len(events)-1]; test.event != "" && !strings.HasSuffix(last.data, `"usage":`+test.event+"}") {
				t.Errorf("the last event is %+v, want the usage %s", last, test.event)
			}
			if diff := cmp.Diff([]string{"owner 1: " + test.want + " small"}, costs(t, db, user)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			m := r.await(t, user, ex.Reply.ID)
			if got := fmt.Sprintf("%d+%d estimated %v", *m.InputTokens, *m.OutputTokens, m.Estimated); got != test.want {
				t.Errorf("the message has %s, want %s", got, test.want)
			}
		})
	}
}

// A follower elsewhere, and who comes later, is told the same.
func TestAnEstimateIsToldAsOne(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r, other := start(t, db, steps(words)), start(t, db, says())
		ex := r.send(t, user, chat, "hello")
		follows := []*follow{r.open(t, user, ex.Reply.ID, ""), other.open(t, user, ex.Reply.ID, "")}
		words <- "as far as this"
		close(words)
		r.await(t, user, ex.Reply.ID)
		follows = append(follows, other.open(t, user, ex.Reply.ID, ""))
		for i, f := range follows {
			events := f.all()
			const want = `"usage":{"input_tokens":2,"output_tokens":4,"estimated":true}}`
			if last := events[len(events)-1].data; !strings.HasSuffix(last, want) {
				t.Errorf("follower %d is told %s, want %s", i, last, want)
			}
		}
	})
}

// leaveBehind has a replica begin a reply to 40 bytes, save 400 of it, and die.
func leaveBehind(t *testing.T, db *models.DB, user, chat int64, with ...func(*stream.Config)) models.Exchange {
	t.Helper()
	words := make(chan string)
	first := start(t, db, steps(words), with...)
	ex := first.send(t, user, chat, strings.Repeat("m", 40))
	words <- strings.Repeat("x", 400)
	until(t, "text is saved", func() bool {
		m, err := db.Message(t.Context(), user, ex.Reply.ID)
		return err == nil && len(m.Content) == 400
	})
	first.kill()
	return ex
}

func TestEachReplicaCountsItsPart(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		ex := leaveBehind(t, db, user, chat, func(c *stream.Config) { c.DailyTokenLimit = 5000 })
		// The second one goes on, is stopped, and knows only what it has added.
		going := make(chan struct{})
		second := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			if err := each(stream.Chunk{Text: strings.Repeat("x", 400)[len(p.ContinueFrom):] + "and eight bytes", Continued: true}); err != nil {
				return err
			}
			close(going)
			<-ctx.Done()
			return ctx.Err()
		}))
		<-going
		if _, err := second.Stop(t.Context(), user, ex.Reply.ID); err != nil {
			t.Fatal(err)
		}
		// 400 bytes less those that it is asked to repeat, and the message.
		want := []string{"owner 1: 10+100 estimated true ", "owner 2: 94+4 estimated true "}
		if diff := cmp.Diff(want, costs(t, db, user)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		days, err := db.Usage(t.Context(), user, "", "9")
		if err != nil || len(days) != 1 {
			t.Fatalf("got the days %v, %v, want one", days, err)
		}
		wantDay := models.UsageDay{Day: days[0].Day, InputTokens: 104, OutputTokens: 104, EstimatedTokens: 208, Replies: 1}
		if diff := cmp.Diff(wantDay, days[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A backend that is asked to repeat the end of a text, and says something else, is
// asked once more: both calls have cost something.
func TestACallThatLeadsNowhereIsCounted(t *testing.T) {
	for name, test := range map[string]struct {
		probe, second *stream.Usage
		want          string
	}{
		"both are counted":          {&stream.Usage{InputTokens: 1000, OutputTokens: 5}, &stream.Usage{InputTokens: 2000, OutputTokens: 7}, "owner 2: 3000+12 estimated false "},
		"the second one is counted": {nil, &stream.Usage{InputTokens: 2000, OutputTokens: 7}, "owner 2: 2094+7 estimated true "},
		"the second one breaks off": {&stream.Usage{InputTokens: 1000, OutputTokens: 5}, nil, "owner 2: 204+4 estimated true "},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				ex := leaveBehind(t, db, user, chat)
				second := start(t, db, backend(func(_ context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
					if len(p.ContinueFrom) < 400 { // all that it says differs, and is not taken
						return each(stream.Chunk{Text: "", Continued: true, Done: true, Usage: test.probe})
					}
					if test.second == nil {
						return errors.Join(each(stream.Chunk{Text: "and eight bytes.", Continued: true}), errors.New("broken off"))
					}
					return each(stream.Chunk{Text: "and eight bytes.", Continued: true, Done: true, Usage: test.second})
				}))
				second.await(t, user, ex.Reply.ID)
				if got := costs(t, db, user); len(got) != 2 || got[1] != test.want {
					t.Errorf("got %q, want the second to be %q", got, test.want)
				}
			})
		})
	}
}

func TestADayHasItsLimit(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		asked := make(chan stream.Prompt, 10)
		r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			asked <- p
			return says("three ", "words ", "more")(ctx, p, each) // 3 and 3 tokens, as it says
		}), func(c *stream.Config) { c.DailyTokenLimit, c.MaxReplies = 1100, 2 })
		want := func(sent error, used int64) {
			t.Helper()
			var reached *models.DailyLimit
			if !errors.As(sent, &reached) {
				t.Fatalf("got %v, want a daily limit", sent)
			}
			if diff := cmp.Diff(models.DailyLimit{Limit: 1100, Used: used, Resets: models.NextDay(time.Now())}, *reached); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		turn := models.NewTurn{UserID: user, ChatID: chat, Content: strings.Repeat("m", 4*77)} // 1,024 are for the answer
		_, err := r.Send(t.Context(), turn)
		want(err, 0)
		turn.Content = strings.Repeat("m", 4*76)
		ex, err := r.Send(t.Context(), turn)
		if err != nil {
			t.Fatal(err)
		}
		r.await(t, user, ex.Reply.ID)
		<-asked
		// What is left is 70 less than the answer may take, whatever is sent, and
		// every place is given back.
		for range 3 {
			_, err = r.Regenerate(t.Context(), models.Rewrite{UserID: user, MessageID: ex.Reply.ID})
			want(err, 6)
			_, err = r.Edit(t.Context(), models.Rewrite{UserID: user, MessageID: ex.User.ID, Content: turn.Content})
			want(err, 6)
		}
		edited, err := r.Edit(t.Context(), models.Rewrite{UserID: user, MessageID: ex.User.ID, Content: "short"})
		if err != nil {
			t.Fatal(err)
		}
		r.await(t, user, edited.Reply.ID)
		if p := <-asked; p.Message != "short" || len(asked) != 0 {
			t.Errorf("the backend was asked %q, and %d times more", p.Message, len(asked))
		}
	})
}
