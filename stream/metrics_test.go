package stream_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/metrics"
	"parley/metrics/metricstest"
	"parley/models"
	"parley/stream"
)

// counting makes a replica one that is counted, apart from the others.
func counting() (*metrics.Set, func(*stream.Config)) {
	set := metrics.New("test")
	return set, func(c *stream.Config) { c.Metrics = set.Replies }
}

// counted are the values that are not 0, but for those of the flushes, whose number
// goes by the time.
func counted(t *testing.T, set *metrics.Set) map[string]float64 {
	t.Helper()
	values := metricstest.Changed(t, set, "parley_", nil)
	for name := range values {
		if strings.HasPrefix(name, "parley_flush_") || strings.HasPrefix(name, "parley_build_") {
			delete(values, name)
		}
	}
	return values
}

// wantCounted waits for these counts and no others: what is counted at an end is,
// a moment after clients have seen it.
func wantCounted(t *testing.T, set *metrics.Set, want map[string]float64) {
	t.Helper()
	for end := time.Now().Add(patience); !cmp.Equal(want, counted(t, set)) && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if diff := cmp.Diff(want, counted(t, set)); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

func TestAReplyIsCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		set, count := counting()
		words := make(chan string)
		r := start(t, db, steps(words), count)
		feed := r.feed(t, user, "")
		told(t, feed, 1)
		if got := r.Feeds(); got != 1 {
			t.Errorf("%d feeds are open, want 1", got)
		}
		ex := r.send(t, user, chat, "hello")
		f := r.open(t, user, ex.Reply.ID, "")
		for _, word := range []string{"one ", "two ", "", "three"} {
			words <- word
		}
		until(t, "the text is saved", func() bool {
			m, err := db.Message(t.Context(), user, ex.Reply.ID)
			return err == nil && m.Content == "one two three"
		})
		close(words)
		f.all()
		r.open(t, user, ex.Reply.ID, "1-4").all()
		wantCounted(t, set, map[string]float64{
			"parley_reply_tokens_total":                     3,
			"parley_reply_first_token_seconds_count":        1,
			"parley_reply_token_gap_seconds_count":          2,
			`parley_replies_ended_total{status="complete"}`: 1,
			"parley_reply_duration_seconds_count":           1,
			`parley_model_tokens_total{direction="input"}`:  2,
			`parley_model_tokens_total{direction="output"}`: 4,
			`parley_streams_opened_total{kind="feed"}`:      1,
			`parley_streams_opened_total{kind="reply"}`:     2,
			`parley_stream_resumes_total{kind="reply"}`:     1,
		})
		flushes := metricstest.Values(t, set, "parley_flush_")
		if flushes["parley_flush_duration_seconds_count"] < 1 || flushes["parley_flush_rows_total"] < 1 || flushes["parley_flush_failures_total"] != 0 {
			t.Errorf("flushes are %v, want some with rows and no failure", flushes)
		}
	})
}

func TestWhatGoesWrongIsCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		set, count := counting()
		asked := make(chan struct{})
		hangs := backend(func(ctx context.Context, p stream.Prompt, _ func(stream.Chunk) error) error {
			if p.Message == "fail" {
				return &stream.BackendError{Code: stream.CodeBackendBusy, Retryable: true, Err: errors.New("full")}
			}
			asked <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		r := start(t, db, hangs, count)
		ex := r.send(t, user, chat, "fail")
		r.await(t, user, ex.Reply.ID)
		ex = r.send(t, user, chat, "hang")
		<-asked
		if _, err := r.Stop(t.Context(), user, ex.Reply.ID); err != nil {
			t.Fatal(err)
		}
		wantCounted(t, set, map[string]float64{
			`parley_replies_ended_total{status="failed"}`:      1,
			`parley_replies_ended_total{status="stopped"}`:     1,
			"parley_reply_duration_seconds_count":              2,
			`parley_backend_errors_total{code="backend_busy"}`: 1,
			`parley_model_tokens_total{direction="input"}`:     2,
		})
	})
}

// A replica dies, and another one begins its reply again; a third gets it from
// that one in order.
func TestATakeoverIsCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		first := start(t, db, teller(give(20), script, true), hasty)
		ex := first.send(t, user, chat, "tell me")
		until(t, "text is saved", func() bool {
			m, err := db.Message(t.Context(), user, ex.Reply.ID)
			return err == nil && m.Content != ""
		})
		first.kill()

		set, count := counting()
		second := start(t, db, teller(give(1), "Another story.", false), hasty, count)
		until(t, "the reply is taken over and begun again", func() bool { return counted(t, set)["parley_reply_resets_total"] == 1 })
		heir, countHeir := counting()
		third := start(t, db, teller(give(1000), "Another story.", true), countHeir)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		second.Drain(ended)
		third.await(t, user, ex.Reply.ID)

		got := counted(t, set)
		want := map[string]float64{
			`parley_reply_takeovers_total{from="dead"}`: 1, "parley_reply_resets_total": 1, "parley_replies_released_total": 1,
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("of the second replica %s is %v, want %v", name, got[name], value)
			}
		}
		if name := `parley_reply_takeovers_total{from="ending"}`; counted(t, heir)[name] != 1 {
			t.Errorf("of the third replica %s is %v, want 1", name, counted(t, heir)[name])
		}
	})
}

func TestAStuckReaderIsCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		set, count := counting()
		words := make(chan string)
		r := start(t, db, steps(words), count, func(c *stream.Config) { c.Stall, c.MaxReplyBytes = 200*time.Millisecond, 64<<20 })
		ex := r.send(t, user, chat, "hello")
		r.open(t, user, ex.Reply.ID, "").next()
		leaves := r.open(t, user, ex.Reply.ID, "")
		leaves.next()
		leaves.response.Body.Close()
		word := strings.Repeat("more than the system keeps for a client ", 1<<13)
		for range 24 {
			words <- word
		}
		until(t, "both readers are let go", func() bool { return r.Streams() == 0 })
		close(words)
		r.await(t, user, ex.Reply.ID)
		if got := counted(t, set)["parley_stuck_readers_total"]; got != 1 {
			t.Errorf("%v stuck readers are counted, want 1: the other one has left", got)
		}
	})
}

func TestFlushesThatFailAreCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		set, count := counting()
		words := make(chan string)
		r := start(t, db, steps(words), count)
		r.send(t, user, chat, "hello")
		words <- "saved, perhaps"
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		words <- "never saved"
		until(t, "a flush fails", func() bool { return metricstest.Values(t, set, "parley_flush_")["parley_flush_failures_total"] > 0 })
	})
}

// While the database is away it is tried a few times a second, also for replies whose
// text is else saved as it comes, and nobody's log is filled with it.
func TestAnOutageIsNotKnockedAt(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		set, count := counting()
		const flush = 20 * time.Millisecond
		words := make(chan string)
		r := start(t, db, steps(words), count, func(c *stream.Config) { c.FlushEvery, c.SaveEvery = flush, flush })
		r.send(t, user, chat, "hello")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		words <- "young"
		failed := func() float64 { return metricstest.Values(t, set, "parley_flush_")["parley_flush_failures_total"] }
		until(t, "a flush fails", func() bool { return failed() > 0 })
		before, began := failed(), time.Now()
		until(t, "it is tried again", func() bool { return failed() > before+3 })
		if all := time.Since(began); all < 10*flush {
			t.Errorf("four more tries took %v, want at least ten flushes: %v", all, 10*flush)
		}
	})
}

// A reply that has all of its text and waits for the database is not saved either.
func TestAnEndThatIsNotStoredIsCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		set, count := counting()
		words := make(chan string)
		r := start(t, db, steps(words), count)
		r.send(t, user, chat, "hello")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		close(words)
		until(t, "each try is counted", func() bool { return metricstest.Values(t, set, "parley_flush_")["parley_flush_failures_total"] > 2 })
	})
}

type key struct{}

// The call to the backend keeps of a request's context what Carry says, and ends
// with nothing of the request's.
func TestACallKeepsWhatIsCarried(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		carry func(context.Context) context.Context
		want  any
	}{
		"nothing": {nil, nil},
		"a value": {func(ctx context.Context) context.Context {
			return context.WithValue(context.Background(), key{}, ctx.Value(key{}))
		}, "kept"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				got := make(chan any, 1)
				asked := make(chan struct{})
				b := backend(func(ctx context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
					<-asked
					got <- ctx.Value(key{})
					if ctx.Err() != nil {
						return ctx.Err()
					}
					return each(stream.Chunk{Text: "x", Done: true})
				})
				r := start(t, db, b, func(c *stream.Config) { c.Carry = tt.carry })
				ctx, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
				ex, err := r.Send(ctx, models.NewTurn{UserID: user, ChatID: chat, Content: "hello"})
				if err != nil {
					t.Fatal(err)
				}
				leave()
				close(asked)
				if m := r.await(t, user, ex.Reply.ID); m.Status != models.StatusComplete {
					t.Errorf("the reply is %s", m.Status)
				}
				if v := <-got; v != tt.want {
					t.Errorf("the call has %v, want %v", v, tt.want)
				}
			})
		})
	}
}
