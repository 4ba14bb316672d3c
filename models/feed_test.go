package models_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// The numbers of one user appear in their order and without a gap, whatever else
// the user does at that time: a reader that goes on after the last one that it has
// seen sees all.
func TestAReaderOfTheFeedMissesNothing(t *testing.T) {
	t.Parallel()
	const chats, rounds = 8, 5
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var d deadlocks
		db.Hook(&d)
		u, _ := newUser(t, db)
		var all []models.Chat
		for range chats {
			all = append(all, value(t)(createChat(t, db, u.ID)))
		}
		// What each of the writers does, and what that tells.
		perChat := slices.Repeat([]string{
			"chat_updated", "message_created", "reply",
			"chat_updated",
			"messages_deleted", "chat_updated", "reply",
		}, rounds)
		latest := int64(chats + chats*len(perChat))

		seen, readerErr := make(chan []models.UserEvent, 1), make(chan error, 1)
		go func() {
			var events []models.UserEvent
			for after := int64(0); after < latest && t.Context().Err() == nil; after = int64(len(events)) {
				more, err := db.UserEvents(t.Context(), u.ID, after, 7)
				if err != nil {
					readerErr <- err
					break
				}
				events = append(events, more...)
				if n := len(events); n > 0 && events[n-1].Seq != int64(n) {
					readerErr <- fmt.Errorf("after event %d: got %v", after, kinds(more))
					break
				}
			}
			seen <- events
		}()
		errs := together(chats, func(i int) error {
			for range rounds {
				ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, ChatID: all[i].ID, Content: "question"})
				if err != nil {
					return err
				}
				if _, err := db.RenameChat(t.Context(), u.ID, all[i].ID, "renamed"); err != nil {
					return err
				}
				end := models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: "answer", Status: models.StatusComplete}
				if err := db.FinishReply(t.Context(), end); err != nil {
					return err
				}
				again, err := db.Regenerate(t.Context(), models.Rewrite{UserID: u.ID, MessageID: ex.Reply.ID})
				if err != nil {
					return err
				}
				end.MessageID = again.Reply.ID
				if err := db.FinishReply(t.Context(), end); err != nil {
					return err
				}
			}
			return nil
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": chats})
		if t.Failed() {
			return
		}
		events := <-seen
		select {
		case err := <-readerErr:
			t.Fatal(err)
		default:
		}
		got := make(map[int64][]string)
		for i, e := range events {
			wantEqual(t, e.Seq, int64(i+1))
			got[e.ChatID] = append(got[e.ChatID], e.Kind)
		}
		for _, chat := range all {
			wantEqual(t, got[chat.ID], append([]string{"chat_created"}, perChat...))
		}
		oldest, newest, err := db.EventBounds(t.Context(), u.ID)
		must(t, err)
		wantEqual(t, []int64{oldest, newest}, []int64{1, latest})
		wantEqual(t, d.Load(), int64(0))
	})
}

// deadlocks counts the statements that lost one.
type deadlocks struct{ atomic.Int64 }

func (d *deadlocks) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (d *deadlocks) AfterQuery(_ context.Context, event *bun.QueryEvent) {
	if event.Err != nil && strings.Contains(event.Err.Error(), "40P01") {
		d.Add(1)
	}
}

// Changes that race for a key, in several chats of a user, and those who follow
// many users at once, in any order, wait for one another but never in a circle.
func TestTheFeedsLocksAreInNoDeadlock(t *testing.T) {
	t.Parallel()
	type result struct {
		ex  models.Exchange
		err error
	}
	db := modelstest.New(t, models.Postgres)
	var d deadlocks
	db.Hook(&d)
	var users, reversed []int64
	var last []models.Exchange // of each chat
	for range 4 {
		u, _ := newUser(t, db)
		users, reversed = append(users, u.ID), append([]int64{u.ID}, reversed...)
		for range 4 {
			last = append(last, say(t, db, value(t)(createChat(t, db, u.ID)), "question", "answer"))
		}
	}
	for round := range 10 {
		results := together(4*len(last), func(i int) (r result) {
			chat, reply := last[i/4].Chat, last[i/4].Reply.ID
			key := &models.IdempotencyKey{Route: "r", Key: fmt.Sprint(round), BodyHash: "h"}
			switch i % 4 {
			case 0:
				r.err = db.FollowUsers(t.Context(), users, time.Minute)
			case 1:
				r.err = db.FollowUsers(t.Context(), reversed, time.Minute)
			case 2:
				r.ex, r.err = db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, Content: "question", Key: key})
			default:
				r.ex, r.err = db.Regenerate(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: reply, Key: key})
			}
			return r
		})
		wantEqual(t, tally(results, func(r result) string { return errorName(r.err) }), map[string]int{"ok": len(results)})
		for i, r := range results {
			if r.ex.Reply.ID != 0 && !r.ex.Replayed {
				finish(t, db, r.ex, "answer")
				last[i/4] = r.ex
			}
		}
	}
	for _, id := range users {
		for i, e := range feed(t, db, id, 0) {
			wantEqual(t, e.Seq, int64(i+1))
		}
	}
	wantEqual(t, d.Load(), int64(0))
}
