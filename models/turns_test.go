package models_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

func TestATurnIsStoredWhole(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		began, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, Content: " I need\nadvice ", Owner: "replica-1"})
		must(t, err)
		at := began.Chat.CreatedAt
		want := models.Exchange{
			Chat: models.Chat{
				ID: began.Chat.ID, UserID: u.ID, Title: "I need advice", Titled: true,
				CreatedAt: at, MessageCount: 2, LastMessageAt: &at, ActiveAt: at,
			},
			User: models.Message{
				ID: began.User.ID, ChatID: began.Chat.ID, Role: "user", Content: " I need\nadvice ",
				Status: "complete", Attempt: 1, CreatedAt: at,
			},
			Reply: models.Message{
				ID: began.Reply.ID, ChatID: began.Chat.ID, Role: "assistant", Status: "streaming", Attempt: 1, CreatedAt: at,
			},
		}
		wantEqual(t, began, want)
		if began.User.ID >= began.Reply.ID {
			t.Errorf("got message %d before reply %d, want rising ids", began.User.ID, began.Reply.ID)
		}
		chat, err := db.Chat(t.Context(), u.ID, began.Chat.ID)
		must(t, err)
		wantEqual(t, chat, want.Chat)
		stored, _, err := db.Messages(t.Context(), u.ID, began.Chat.ID, models.Page{})
		must(t, err)
		wantEqual(t, stored, []models.Message{want.User, want.Reply})
		p, err := db.ReplyProgress(t.Context(), began.Reply.ID, 0)
		must(t, err)
		wantEqual(t, p.Running, &models.RunningReply{
			MessageID: began.Reply.ID, ChatID: began.Chat.ID, UserID: u.ID, UserMessageID: began.User.ID,
			Owner: "replica-1", Fence: 1, StartedAt: at,
		})

		finish(t, db, began, "Tell me.")
		next := send(t, db, began.Chat, "Another matter")
		want.Chat.MessageCount, want.Chat.LastMessageAt, want.Chat.ActiveAt = 4, &next.User.CreatedAt, next.User.CreatedAt
		wantEqual(t, next.Chat, want.Chat)

		_, err = db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID + 1, Content: "nobody says so"})
		wantError(t, err, models.ErrNotFound)
	})
}

// Of any number of turns those are stored that the limit holds; what is refused, by
// the limit or for another reason, has used nothing up, and what was stored before
// is found whatever the limit says.
func TestTurnsAreCountedAsTheyAreStored(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		limit := models.Limit{Key: "k", Quota: 5, Window: time.Minute}
		key := &models.IdempotencyKey{Route: "messages", Key: "k", BodyHash: "h"}
		turn := models.NewTurn{UserID: user.ID, Content: "hello", Owner: "replica-1", Limit: limit, Key: key}
		first, err := db.AppendTurn(t.Context(), turn)
		must(t, err)
		wantEqual(t, []any{first.Counted.Allowed, first.Counted.Remaining}, []any{true, int64(4)})
		again, err := db.AppendTurn(t.Context(), turn)
		must(t, err)
		wantEqual(t, []any{again.Replayed, again.Reply.ID}, []any{true, first.Reply.ID})
		turn.Key = nil
		last := models.Limit{Key: "last", Quota: 1, Window: time.Minute}
		for _, limit := range []models.Limit{limit, last, last} {
			_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: user.ID, ChatID: first.Chat.ID, Content: "hello", Limit: limit})
			wantError(t, err, models.ErrReplyInProgress)
			_, err = db.AppendTurn(t.Context(), models.NewTurn{UserID: user.ID, ChatID: 99, Content: "hello", Limit: limit})
			wantError(t, err, models.ErrNotFound)
		}
		got := tally(together(12, func(int) error { _, err := db.AppendTurn(t.Context(), turn); return err }), func(err error) string {
			var over *models.OverLimit
			if errors.As(err, &over) && errors.Is(err, models.ErrOverLimit) && over.Counted.RetryAfter > 0 {
				return "over"
			}
			return errorName(err)
		})
		wantEqual(t, got, map[string]int{"ok": 4, "over": 8})

		turn.Key = key
		again, err = db.AppendTurn(t.Context(), turn)
		must(t, err)
		wantEqual(t, []any{again.Replayed, again.Reply.ID}, []any{true, first.Reply.ID})
		finish(t, db, first, "Yes")
		for _, rewrite := range []func(context.Context, models.Rewrite) (models.Exchange, error){db.Regenerate, db.Edit} {
			_, err = rewrite(t.Context(), models.Rewrite{UserID: user.ID, MessageID: first.Reply.ID, Limit: limit})
			wantError(t, err, models.ErrOverLimit)
		}
		wantEqual(t, count(t, db, "messages"), 10)
	})
}

func TestAChatTakesItsTitleFromItsFirstMessage(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		first := say(t, db, chat, "The first", "Yes")
		second := say(t, db, chat, "The second", "Yes")
		wantEqual(t, []string{first.Chat.Title, second.Chat.Title}, []string{"The first", "The first"})
	})
}

func TestOneReplyAtATimeInAChat(t *testing.T) {
	t.Parallel()
	type result struct {
		ex  models.Exchange
		err error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		for round := range 5 {
			results := together(20, func(i int) (r result) {
				r.ex, r.err = db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, ChatID: chat.ID, Content: fmt.Sprint("from ", i)})
				return r
			})
			wantEqual(t, tally(results, func(r result) string { return errorName(r.err) }),
				map[string]int{"ok": 1, "a reply is in progress": 19})
			var won models.Exchange
			for _, r := range results {
				if r.err == nil {
					won = r.ex
				}
			}
			for _, r := range results {
				var running *models.ReplyInProgress
				if errors.As(r.err, &running) && running.MessageID != won.Reply.ID {
					t.Errorf("got reply %d in progress, want %d", running.MessageID, won.Reply.ID)
				}
			}
			wantEqual(t, won.Chat.MessageCount, int64(2*round+2))
			wantEqual(t, count(t, db, "messages"), 2*round+2)
			finish(t, db, won, "done")
		}
	})
}

func TestATurnIsStoredOnceForAKey(t *testing.T) {
	t.Parallel()
	type result struct {
		ex  models.Exchange
		err error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		for name, chatID := range map[string]int64{"in a chat": chat.ID, "that begins a chat": 0} {
			turn := models.NewTurn{
				UserID: chat.UserID, ChatID: chatID, Content: "once", Owner: "replica-1",
				Key: &models.IdempotencyKey{Route: "POST /messages", Key: name, BodyHash: "a"},
			}
			before := count(t, db, "messages")
			results := together(20, func(int) (r result) {
				r.ex, r.err = db.AppendTurn(t.Context(), turn)
				return r
			})
			first := 0
			for _, r := range results {
				must(t, r.err)
				if !r.ex.Replayed {
					first++
				}
				r.ex.Replayed = results[0].ex.Replayed
				wantEqual(t, r.ex, results[0].ex)
			}
			wantEqual(t, first, 1)
			wantEqual(t, count(t, db, "messages"), before+2)

			// A repetition gets the reply as it stands, and its key is not for another body.
			finish(t, db, results[0].ex, "done")
			again, err := db.AppendTurn(t.Context(), turn)
			must(t, err)
			wantEqual(t, []any{again.Replayed, again.Reply.ID, again.Reply.Content}, []any{true, results[0].ex.Reply.ID, "done"})
			other := turn
			other.Key = &models.IdempotencyKey{Route: "POST /messages", Key: name, BodyHash: "b"}
			_, err = db.AppendTurn(t.Context(), other)
			wantError(t, err, models.ErrKeyReused)
			other.Key = &models.IdempotencyKey{Route: "POST /other", Key: name, BodyHash: "b"}
			fresh, err := db.AppendTurn(t.Context(), other)
			must(t, err)
			wantEqual(t, fresh.Replayed, false)
			finish(t, db, fresh, "done")

			_, err = db.DeleteChat(t.Context(), chat.UserID, results[0].ex.Chat.ID)
			must(t, err)
			_, err = db.AppendTurn(t.Context(), turn)
			wantError(t, err, models.ErrNotFound)
		}
	})
}

// A turn that is refused leaves its key free.
func TestARefusedTurnDoesNotUseItsKey(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		running := send(t, db, chat, "first")
		turn := models.NewTurn{
			UserID: chat.UserID, ChatID: chat.ID, Content: "second",
			Key: &models.IdempotencyKey{Route: "POST /messages", Key: "k", BodyHash: "a"},
		}
		_, err := db.AppendTurn(t.Context(), turn)
		wantError(t, err, models.ErrReplyInProgress)
		finish(t, db, running, "done")
		ex, err := db.AppendTurn(t.Context(), turn)
		must(t, err)
		wantEqual(t, ex.Replayed, false)
	})
}

func TestATextWithNULIsRefused(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, ChatID: chat.ID, Content: "a\x00b"})
		wantError(t, err, models.ErrInvalidText)
		ex := send(t, db, chat, "question")
		_, err = db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: "a\x00b"}})
		wantError(t, err, models.ErrInvalidText)
		err = db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: "a\x00b", Status: models.StatusComplete})
		wantError(t, err, models.ErrInvalidText)
	})
}

// counter counts statements.
type counter struct{ atomic.Int64 }

func (c *counter) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context {
	c.Add(1)
	return ctx
}

func (c *counter) AfterQuery(context.Context, *bun.QueryEvent) {}

// Whoever answers a turn waits for what may refuse it and for the ids, and for
// nothing else that is stored. On PostgreSQL that is one round trip; on SQLite the
// limit and the chat, behind BEGIN.
func TestATurnIsAnsweredBeforeAllIsStored(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		say(t, db, chat, "question", "answer")
		var c counter
		db.Hook(&c)
		var before int64
		var asked models.Exchange
		ex, err := db.AppendTurn(t.Context(), models.NewTurn{
			UserID: chat.UserID, ChatID: chat.ID, Content: "another",
			Key:    &models.IdempotencyKey{Route: "POST /messages", Key: "k", BodyHash: "a"},
			Limit:  models.Limit{Key: "k", Quota: 5, Window: time.Minute},
			Voice:  &models.Voice{Name: "kal", Speed: 1, Format: "mp3"},
			Stored: func(ex models.Exchange) { before, asked = c.Load(), ex },
		})
		must(t, err)
		wantEqual(t, asked, ex)
		wantEqual(t, before, map[string]int64{models.Postgres: 1, models.SQLite: 3}[db.Dialect()])
	})
}

func TestNobodyIsAskedToAnswerATurnThatIsRefused(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, ChatID: chat.ID, Content: "hello", Owner: "replica-1"})
		must(t, err)
		once := models.Limit{Key: "once", Quota: 1, Window: time.Hour}
		_, err = db.Count(t.Context(), []models.Limit{once})
		must(t, err)
		key := &models.IdempotencyKey{Route: "messages", Key: "k", BodyHash: "h"}
		first, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, Content: "hello", Owner: "replica-1", Key: key})
		must(t, err)
		recording, theirs := whole(t, db, chat.UserID), newChat(t, db)
		for name, test := range map[string]struct {
			turn models.NewTurn
			want error
		}{
			"the limit is reached":            {models.NewTurn{Limit: once}, models.ErrOverLimit},
			"the chat is being answered":      {models.NewTurn{ChatID: chat.ID}, models.ErrReplyInProgress},
			"the text cannot be stored":       {models.NewTurn{Content: "a\x00b"}, models.ErrInvalidText},
			"there is no such chat":           {models.NewTurn{ChatID: 99}, models.ErrNotFound},
			"the chat is another's":           {models.NewTurn{ChatID: theirs.ID}, models.ErrForbidden},
			"the day's tokens are used":       {models.NewTurn{Budget: models.Budget{DailyLimit: 9, Answer: 10}}, models.ErrDailyLimit},
			"the key was used":                {models.NewTurn{Key: key}, nil},
			"there is no such user":           {models.NewTurn{UserID: 99}, models.ErrNotFound},
			"the recording has another owner": {models.NewTurn{UploadID: recording.ID, UploadFence: recording.Fence + 1}, models.ErrStaleOwner},
		} {
			turn := test.turn
			turn.UserID, turn.Content, turn.Owner = cmp.Or(turn.UserID, chat.UserID), cmp.Or(turn.Content, "hello"), "replica-1"
			turn.Stored = func(models.Exchange) { t.Errorf("%s: it is answered", name) }
			ex, err := db.AppendTurn(t.Context(), turn)
			if !errors.Is(err, test.want) || err == nil && ex.Reply.ID != first.Reply.ID {
				t.Errorf("%s: got %v and reply %d, want %v", name, err, ex.Reply.ID, test.want)
			}
		}
	})
}
