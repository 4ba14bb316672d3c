package models_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// texts are the messages of a chat, in order.
func texts(t *testing.T, db *models.DB, chat models.Chat) []string {
	t.Helper()
	ms, _, err := db.Messages(t.Context(), chat.UserID, chat.ID, models.Page{})
	must(t, err)
	var all []string
	for _, m := range ms {
		all = append(all, m.Role+": "+m.Content)
	}
	return all
}

func TestRegenerateReplacesTheLastReply(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		first := say(t, db, chat, "one", "answer one")
		last := say(t, db, chat, "two", "answer two")

		ex, err := db.Regenerate(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: last.Reply.ID, Owner: "replica-1"})
		must(t, err)
		wantEqual(t, ex.User, last.User)
		wantEqual(t, []any{ex.Chat.MessageCount, ex.Reply.ID > last.Reply.ID, ex.Reply.Status}, []any{int64(4), true, "streaming"})
		wantEqual(t, texts(t, db, chat), []string{"user: one", "assistant: answer one", "user: two", "assistant: "})
		if _, err := db.Message(t.Context(), chat.UserID, last.Reply.ID); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("the reply that was replaced: %v", err)
		}

		_, err = db.Regenerate(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: ex.Reply.ID})
		running, ok := errors.AsType[*models.ReplyInProgress](err)
		if !ok || running.MessageID != ex.Reply.ID {
			t.Errorf("regenerate what is being written: %v", err)
		}
		finish(t, db, ex, "another answer two")
		for name, id := range map[string]int64{"an earlier reply": first.Reply.ID, "a message of the user": last.User.ID} {
			if _, err := db.Regenerate(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: id}); !errors.Is(err, models.ErrNotRewritable) {
				t.Errorf("%s: %v", name, err)
			}
		}
		wantEqual(t, texts(t, db, chat), []string{"user: one", "assistant: answer one", "user: two", "assistant: another answer two"})
	})
}

func TestEditDropsWhatFollowed(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		say(t, db, chat, "one", "answer one")
		second := say(t, db, chat, "two", "answer two")
		say(t, db, chat, "three", "answer three")

		ex, err := db.Edit(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: second.User.ID, Content: "zwei", Owner: "replica-1"})
		must(t, err)
		second.User.Content = "zwei"
		wantEqual(t, ex.User, second.User)
		wantEqual(t, ex.Chat.MessageCount, int64(4))
		wantEqual(t, texts(t, db, chat), []string{"user: one", "assistant: answer one", "user: zwei", "assistant: "})
		finish(t, db, ex, "Antwort zwei")
		if _, err := db.Edit(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: ex.Reply.ID, Content: "x"}); !errors.Is(err, models.ErrNotRewritable) {
			t.Errorf("edit a reply: %v", err)
		}
	})
}

// A client that sends again what it sent is told of the reply that stands in the
// place of the first one; of a turn that was dropped there is nothing to tell.
func TestARepeatedTurnGetsTheReplyThatThereIs(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		turn := func(n int) models.NewTurn {
			return models.NewTurn{
				UserID: chat.UserID, ChatID: chat.ID, Content: fmt.Sprint("question ", n),
				Key: &models.IdempotencyKey{Route: "r", Key: fmt.Sprint(n), BodyHash: "h"},
			}
		}
		var sent []models.Exchange
		for n := range 3 {
			ex, err := db.AppendTurn(t.Context(), turn(n))
			must(t, err)
			finish(t, db, ex, "answer")
			sent = append(sent, ex)
		}
		again := func(n int) int64 {
			ex, err := db.AppendTurn(t.Context(), turn(n))
			must(t, err)
			wantEqual(t, ex.Replayed, true)
			return ex.Reply.ID
		}
		regenerate := models.Rewrite{
			UserID: chat.UserID, MessageID: sent[2].Reply.ID,
			Key: &models.IdempotencyKey{Route: "regenerate", Key: "k", BodyHash: "h"},
		}
		second, err := db.Regenerate(t.Context(), regenerate)
		must(t, err)
		wantEqual(t, []int64{again(0), again(1), again(2)}, []int64{sent[0].Reply.ID, sent[1].Reply.ID, second.Reply.ID})
		finish(t, db, second, "another")
		third, err := db.Regenerate(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: second.Reply.ID})
		must(t, err)
		finish(t, db, third, "yet another")
		repeated, err := db.Regenerate(t.Context(), regenerate)
		must(t, err)
		wantEqual(t, []any{again(2), repeated.Replayed, repeated.Reply.ID}, []any{third.Reply.ID, true, third.Reply.ID})

		edited, err := db.Edit(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: sent[1].User.ID, Content: "other words"})
		must(t, err)
		wantEqual(t, []int64{again(0), again(1)}, []int64{sent[0].Reply.ID, edited.Reply.ID})
		_, err = db.AppendTurn(t.Context(), turn(2))
		wantError(t, err, models.ErrNotFound)
	})
}

func TestOnlyTheUserRewrites(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ex := say(t, db, newChat(t, db), "one", "answer one")
		other, _ := newUser(t, db)
		for name, rewrite := range map[string]func(context.Context, models.Rewrite) (models.Exchange, error){
			"regenerate": db.Regenerate, "edit": db.Edit,
		} {
			for id, want := range map[int64]error{ex.User.ID: models.ErrForbidden, ex.Reply.ID: models.ErrForbidden, 999: models.ErrNotFound} {
				if _, err := rewrite(t.Context(), models.Rewrite{UserID: other.ID, MessageID: id, Content: "x"}); !errors.Is(err, want) {
					t.Errorf("%s message %d: %v, want %v", name, id, err, want)
				}
			}
		}
		wantEqual(t, texts(t, db, ex.Chat), []string{"user: one", "assistant: answer one"})
	})
}

func TestOneOfManyRewritesWins(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := say(t, db, chat, "one", "answer one")
		outcomes := make(chan string)
		for i := range 20 {
			go func() {
				w := models.Rewrite{UserID: chat.UserID, MessageID: ex.Reply.ID, Content: fmt.Sprint("one ", i), Owner: "replica-1"}
				rewrite := db.Regenerate
				if i%2 == 0 {
					w.MessageID, rewrite = ex.User.ID, db.Edit
				}
				_, err := rewrite(t.Context(), w)
				switch {
				case err == nil:
					outcomes <- "ok"
				case errors.Is(err, models.ErrReplyInProgress), errors.Is(err, models.ErrNotFound):
					outcomes <- "refused" // not found: the reply that another one replaced
				default:
					outcomes <- err.Error()
				}
			}()
		}
		got := make(map[string]int)
		for range 20 {
			got[<-outcomes]++
		}
		wantEqual(t, got, map[string]int{"ok": 1, "refused": 19})
	})
}

func TestARewriteThatIsRepeatedIsOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := say(t, db, chat, "one", "answer one")
		w := models.Rewrite{
			UserID: chat.UserID, MessageID: ex.Reply.ID, Owner: "replica-1",
			Key: &models.IdempotencyKey{Route: "regenerate", Key: "k", BodyHash: "h"},
		}
		first, err := db.Regenerate(t.Context(), w)
		must(t, err)
		finish(t, db, first, "another answer")
		again, err := db.Regenerate(t.Context(), w)
		must(t, err)
		wantEqual(t, []any{again.Replayed, again.Reply.ID, again.Reply.Content}, []any{true, first.Reply.ID, "another answer"})
		w.Key.BodyHash = "another"
		if _, err := db.Regenerate(t.Context(), w); !errors.Is(err, models.ErrKeyReused) {
			t.Errorf("the key with another body: %v", err)
		}
	})
}

func TestARewriteThatIsSentManyTimesAtOnceIsOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ex := say(t, db, newChat(t, db), "one", "answer one")
		for _, tt := range []struct {
			name    string
			rewrite func(context.Context, models.Rewrite) (models.Exchange, error)
			message func(models.Exchange) int64
		}{
			{"edit", db.Edit, func(ex models.Exchange) int64 { return ex.User.ID }},
			{"regenerate", db.Regenerate, func(ex models.Exchange) int64 { return ex.Reply.ID }},
		} {
			w := models.Rewrite{
				UserID: ex.Chat.UserID, MessageID: tt.message(ex), Content: "eins", Owner: "replica-1",
				Key: &models.IdempotencyKey{Route: tt.name, Key: "k", BodyHash: "h"},
			}
			stored := make([]models.Exchange, 20)
			var all sync.WaitGroup
			for i := range stored {
				all.Go(func() {
					var err error
					if stored[i], err = tt.rewrite(t.Context(), w); err != nil {
						t.Errorf("%s %d: %v", tt.name, i, err)
					}
				})
			}
			all.Wait()
			replayed := 0
			for _, got := range stored {
				wantEqual(t, got.Reply.ID, stored[0].Reply.ID)
				if got.Replayed {
					replayed++
				}
			}
			wantEqual(t, replayed, len(stored)-1)
			ex = stored[0]
			finish(t, db, ex, "another answer")
		}
	})
}

// Where a pooler stands in the way, another URL leads past it.
func TestListenAtAnotherURL(t *testing.T) {
	t.Parallel()
	url := modelstest.URL(t, models.Postgres)
	there, err := models.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { must(t, there.Close()) })
	db := modelstest.New(t, models.Postgres)
	must(t, db.ListenAt(url))
	ctx, cancel := context.WithCancel(t.Context())
	ready, heard, ended := make(chan struct{}), make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- db.Listen(ctx, func() { close(ready) }, func(n string) { heard <- n })
	}()
	<-ready
	must(t, there.Notify(t.Context(), "saved 7"))
	select {
	case got := <-heard:
		wantEqual(t, got, "saved 7")
	case <-time.After(20 * time.Second):
		t.Error("nothing was heard")
	}
	cancel()
	must(t, <-ended)
	if err := db.ListenAt("postgres://%zz"); err == nil {
		t.Error("a malformed URL is no error")
	}
}

func TestNoticesReachThoseWhoListen(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	ctx, cancel := context.WithCancel(t.Context())
	ready, heard, ended := make(chan struct{}), make(chan string, 2000), make(chan error, 1)
	go func() {
		ended <- db.Listen(ctx, func() { close(ready) }, func(n string) { heard <- n })
	}()
	<-ready
	var want []string
	for i := range 1500 {
		want = append(want, fmt.Sprint("saved ", i))
	}
	must(t, db.Notify(t.Context(), want...)) // more than one notification holds
	must(t, db.Notify(t.Context()))
	var got []string
	for range want {
		select {
		case n := <-heard:
			got = append(got, n)
		case <-time.After(20 * time.Second):
			t.Fatalf("heard %d notices of %d", len(got), len(want))
		}
	}
	wantEqual(t, got, want)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("listening ended with %v", err)
	}
}
