package models_test

import (
	"context"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// feed reads a user's events from after on.
func feed(t testing.TB, db *models.DB, userID, after int64) []models.UserEvent {
	t.Helper()
	events, err := db.UserEvents(t.Context(), userID, after, 1000)
	must(t, err)
	return events
}

// kinds are those of events.
func kinds(events []models.UserEvent) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.Kind)
	}
	return all
}

func TestEveryChangeIsToldToTheUser(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		var after int64
		told := func(want ...models.UserEvent) {
			t.Helper()
			for i := range want {
				want[i].Seq = after + int64(i) + 1
			}
			wantEqual(t, feed(t, db, u.ID, after), want)
			after += int64(len(want))
		}
		key := func(route string) *models.IdempotencyKey {
			return &models.IdempotencyKey{Route: route, Key: "k", BodyHash: "h"}
		}

		chat, _, err := db.CreateChat(t.Context(), u.ID, "New Chat", false, key("create"))
		must(t, err)
		told(models.UserEvent{Kind: "chat_created", ChatID: chat.ID, Chat: &chat})

		first := send(t, db, chat, "The first")
		told(
			models.UserEvent{Kind: "chat_updated", ChatID: chat.ID, Chat: &first.Chat},
			models.UserEvent{Kind: "message_created", ChatID: chat.ID, MessageID: first.User.ID, Message: &first.User},
			models.UserEvent{Kind: "reply", ChatID: chat.ID, MessageID: first.Reply.ID},
		)
		finish(t, db, first, "An answer")
		wantEqual(t, len(feed(t, db, u.ID, after)), 0) // its end is told by its own stream

		renamed := value(t)(db.RenameChat(t.Context(), u.ID, chat.ID, "My own"))
		told(models.UserEvent{Kind: "chat_updated", ChatID: chat.ID, Chat: &renamed})

		again, err := db.Regenerate(t.Context(), models.Rewrite{UserID: u.ID, MessageID: first.Reply.ID, Key: key("regenerate")})
		must(t, err)
		told(
			models.UserEvent{Kind: "messages_deleted", ChatID: chat.ID, MessageID: first.User.ID},
			models.UserEvent{Kind: "chat_updated", ChatID: chat.ID, Chat: &again.Chat},
			models.UserEvent{Kind: "reply", ChatID: chat.ID, MessageID: again.Reply.ID},
		)
		finish(t, db, again, "Another answer")

		edited, err := db.Edit(t.Context(), models.Rewrite{UserID: u.ID, MessageID: first.User.ID, Content: "Other words"})
		must(t, err)
		told(
			models.UserEvent{Kind: "message_updated", ChatID: chat.ID, MessageID: first.User.ID, Message: &edited.User},
			models.UserEvent{Kind: "messages_deleted", ChatID: chat.ID, MessageID: first.User.ID},
			models.UserEvent{Kind: "chat_updated", ChatID: chat.ID, Chat: &edited.Chat},
			models.UserEvent{Kind: "reply", ChatID: chat.ID, MessageID: edited.Reply.ID},
		)

		_, err = db.DeleteChat(t.Context(), u.ID, chat.ID)
		must(t, err)
		told(models.UserEvent{Kind: "chat_deleted", ChatID: chat.ID})

		began, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, Content: "At once", Key: key("send")})
		must(t, err)
		told(
			models.UserEvent{Kind: "chat_created", ChatID: began.Chat.ID, Chat: &began.Chat},
			models.UserEvent{Kind: "message_created", ChatID: began.Chat.ID, MessageID: began.User.ID, Message: &began.User},
			models.UserEvent{Kind: "reply", ChatID: began.Chat.ID, MessageID: began.Reply.ID},
		)

		// What is read late is told as it is by then.
		for _, e := range feed(t, db, u.ID, 0)[:after-3] {
			if e.Chat != nil || e.Message != nil {
				t.Errorf("got %+v of a chat that is gone, want ids alone", e)
			}
		}
	})
}

func TestWhatDoesNotHappenIsNotTold(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := say(t, db, chat, "question", "answer")
		stranger, _ := newUser(t, db)
		turn := models.NewTurn{
			UserID: chat.UserID, ChatID: chat.ID, Content: "once",
			Key: &models.IdempotencyKey{Route: "r", Key: "k", BodyHash: "h"},
		}
		_, err := db.AppendTurn(t.Context(), turn)
		must(t, err)
		_, latest, err := db.EventBounds(t.Context(), chat.UserID)
		must(t, err)

		for name, refused := range map[string]struct {
			call func(ctx context.Context) error
			want error
		}{
			"a turn that was stored": {
				func(ctx context.Context) error { _, err := db.AppendTurn(ctx, turn); return err }, nil,
			},
			"a turn while a reply is being written": {func(ctx context.Context) error {
				_, err := db.AppendTurn(ctx, models.NewTurn{UserID: chat.UserID, ChatID: chat.ID, Content: "next"})
				return err
			}, models.ErrReplyInProgress},
			"a rewrite meanwhile": {func(ctx context.Context) error {
				_, err := db.Edit(ctx, models.Rewrite{UserID: chat.UserID, MessageID: ex.User.ID, Content: "x"})
				return err
			}, models.ErrReplyInProgress},
			"a stranger's turn": {func(ctx context.Context) error {
				_, err := db.AppendTurn(ctx, models.NewTurn{UserID: stranger.ID, ChatID: chat.ID, Content: "next"})
				return err
			}, models.ErrForbidden},
			"a stranger's title": {
				func(ctx context.Context) error { _, err := db.RenameChat(ctx, stranger.ID, chat.ID, "x"); return err },
				models.ErrForbidden,
			},
			"a stranger's deletion": {
				func(ctx context.Context) error { _, err := db.DeleteChat(ctx, stranger.ID, chat.ID); return err },
				models.ErrForbidden,
			},
			"a title that cannot be stored": {
				func(ctx context.Context) error {
					_, err := db.RenameChat(ctx, chat.UserID, chat.ID, "\x00")
					return err
				},
				models.ErrInvalidText,
			},
		} {
			t.Run(name, func(t *testing.T) {
				wantError(t, refused.call(t.Context()), refused.want)
				wantEqual(t, len(feed(t, db, chat.UserID, latest)), 0)
				wantEqual(t, len(feed(t, db, stranger.ID, 0)), 0)
			})
		}
	})
}

func TestTheFeedIsReadInPieces(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		other := newChat(t, db)
		say(t, db, chat, "question", "answer")
		whole := feed(t, db, chat.UserID, 0)
		wantEqual(t, kinds(whole), []string{"chat_created", "chat_updated", "message_created", "reply"})
		for limit := 1; limit <= 5; limit++ {
			var got []models.UserEvent
			for {
				more, err := db.UserEvents(t.Context(), chat.UserID, int64(len(got)), limit)
				must(t, err)
				if len(more) == 0 {
					break
				}
				wantEqual(t, len(more) <= limit, true)
				got = append(got, more...)
			}
			wantEqual(t, got, whole)
		}
		latest, err := db.LatestEvents(t.Context(), []int64{other.UserID, chat.UserID, 999})
		must(t, err)
		wantEqual(t, latest, map[int64]int64{chat.UserID: 4, other.UserID: 1})
		latest, err = db.LatestEvents(t.Context(), nil)
		must(t, err)
		wantEqual(t, latest, map[int64]int64{})
	})
}

// The clocks of the machines that wrote the events differ.
func TestWhatIsKeptOfAFeedHasNoGap(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		bounds := func() [2]int64 {
			t.Helper()
			oldest, latest, err := db.EventBounds(t.Context(), u.ID)
			must(t, err)
			return [2]int64{oldest, latest}
		}
		_, _, err := db.EventBounds(t.Context(), u.ID+1)
		wantError(t, err, models.ErrNotFound)
		wantEqual(t, bounds(), [2]int64{1, 0})
		for range 5 {
			value(t)(createChat(t, db, u.ID))
		}
		other := newChat(t, db)
		wantEqual(t, bounds(), [2]int64{1, 5})
		now := time.Now()
		for seq, age := range map[int]time.Duration{
			1: 14 * time.Minute, 2: 14 * time.Minute, 3: 16 * time.Minute, 4: 14 * time.Minute, 5: 14 * time.Minute,
		} {
			_, err := db.Bun().NewRaw("UPDATE user_events SET created_at = ? WHERE user_id = ? AND seq = ?",
				now.Add(-age), u.ID, seq).Exec(t.Context())
			must(t, err)
		}
		for _, step := range []struct {
			later time.Duration
			want  [2]int64
		}{
			{-2 * time.Minute, [2]int64{1, 5}},
			{0, [2]int64{4, 5}},
			{0, [2]int64{4, 5}},
			{2 * time.Minute, [2]int64{6, 5}},
		} {
			must(t, db.PurgeExpired(t.Context(), now.Add(step.later), time.Hour))
			wantEqual(t, bounds(), step.want)
		}
		wantEqual(t, kinds(feed(t, db, other.UserID, 0)), []string{"chat_created"})
		value(t)(createChat(t, db, u.ID))
		wantEqual(t, bounds(), [2]int64{6, 6})
	})
}

func TestAnExchangeSaysIfTheUserIsFollowed(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		other := newChat(t, db)
		followed := func() []bool {
			t.Helper()
			sent := say(t, db, chat, "question", "answer")
			began, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, Content: "another"})
			must(t, err)
			again, err := db.Regenerate(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: sent.Reply.ID})
			must(t, err)
			finish(t, db, again, "another answer")
			edited, err := db.Edit(t.Context(), models.Rewrite{UserID: chat.UserID, MessageID: sent.User.ID, Content: "x"})
			must(t, err)
			finish(t, db, edited, "answer")
			return []bool{sent.Followed, began.Followed, again.Followed, edited.Followed}
		}
		yes, no := []bool{true, true, true, true}, []bool{false, false, false, false}
		wantEqual(t, followed(), no)
		must(t, db.FollowUsers(t.Context(), nil, time.Hour))
		must(t, db.FollowUsers(t.Context(), []int64{other.UserID}, time.Hour))
		wantEqual(t, followed(), no)
		must(t, db.FollowUsers(t.Context(), []int64{999, chat.UserID, other.UserID}, time.Hour))
		wantEqual(t, followed(), yes)
		must(t, db.FollowUsers(t.Context(), []int64{chat.UserID}, -time.Hour))
		wantEqual(t, followed(), no)
	})
}

func TestAUsersRunningReplies(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		send(t, db, newChat(t, db), "somebody else's")
		running := func() []int64 {
			t.Helper()
			ids, err := db.RunningReplies(t.Context(), chat.UserID)
			must(t, err)
			return ids
		}
		wantEqual(t, running(), []int64(nil))
		first := send(t, db, chat, "question")
		second := send(t, db, value(t)(createChat(t, db, chat.UserID)), "question")
		wantEqual(t, running(), []int64{first.Reply.ID, second.Reply.ID})
		finish(t, db, first, "answer")
		wantEqual(t, running(), []int64{second.Reply.ID})
	})
}

func TestTheFirstEventOfSomeReplies(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		var replies, begun []int64
		for range 3 {
			ex := send(t, db, value(t)(createChat(t, db, chat.UserID)), "question")
			replies, begun = append(replies, ex.Reply.ID), append(begun, latest(t, db, chat.UserID))
		}
		for name, c := range map[string]struct {
			of   []int64
			want int64
		}{
			"of one":                    {replies[2:], begun[2]},
			"of two, in whatever order": {[]int64{replies[2], replies[1]}, begun[1]},
			"of none that there is":     {[]int64{replies[2] + 1}, 0},
		} {
			t.Run(name, func(t *testing.T) {
				seq, err := db.FirstReplyEvent(t.Context(), chat.UserID, c.of)
				must(t, err)
				wantEqual(t, seq, c.want)
			})
		}
		seq, err := db.FirstReplyEvent(t.Context(), newChat(t, db).UserID, replies)
		must(t, err)
		wantEqual(t, seq, int64(0))
	})
}

// latest is the number of a user's latest event.
func latest(t *testing.T, db *models.DB, userID int64) int64 {
	t.Helper()
	_, latest, err := db.EventBounds(t.Context(), userID)
	must(t, err)
	return latest
}

func TestADeletedUserTakesTheFeedAlong(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		gone, kept := newChat(t, db), newChat(t, db)
		_, err := db.Bun().NewRaw("DELETE FROM users WHERE id = ?", gone.UserID).Exec(t.Context())
		must(t, err)
		wantEqual(t, len(feed(t, db, gone.UserID, 0)), 0)
		wantEqual(t, count(t, db, "user_events"), 1)
		wantEqual(t, kinds(feed(t, db, kept.UserID, 0)), []string{"chat_created"})
	})
}

func TestTheFeedIsReadByOneStatement(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		for range 20 {
			say(t, db, chat, "question", "answer")
		}
		var c counter
		db.Hook(&c)
		wantEqual(t, len(feed(t, db, chat.UserID, 0)), 61)
		wantEqual(t, c.Load(), int64(1))
	})
}
