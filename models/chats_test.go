package models_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestAChatIsReadAsItWasCreated(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		chat, replayed, err := db.CreateChat(t.Context(), u.ID, "Über 🙂 'quotes' ?0 \\", true, nil)
		must(t, err)
		wantEqual(t, replayed, false)
		wantEqual(t, chat, models.Chat{
			ID: chat.ID, UserID: u.ID, Title: "Über 🙂 'quotes' ?0 \\", Titled: true,
			CreatedAt: chat.CreatedAt, ActiveAt: chat.CreatedAt,
		})
		read, err := db.Chat(t.Context(), u.ID, chat.ID)
		must(t, err)
		wantEqual(t, read, chat)

		_, _, err = db.CreateChat(t.Context(), u.ID+1, "title", true, nil)
		wantError(t, err, models.ErrNotFound)
		_, _, err = db.CreateChat(t.Context(), u.ID+1, "title", true, &models.IdempotencyKey{Route: "r", Key: "k", BodyHash: "h"})
		wantError(t, err, models.ErrNotFound)
	})
}

func TestAChatIsCreatedOnceForAKey(t *testing.T) {
	t.Parallel()
	type result struct {
		chat     models.Chat
		replayed bool
		err      error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		other, _ := newUser(t, db)
		key := models.IdempotencyKey{Route: "POST /chats", Key: "1", BodyHash: "a"}
		results := together(20, func(int) (r result) {
			r.chat, r.replayed, r.err = db.CreateChat(t.Context(), u.ID, "once", true, &key)
			return r
		})
		first := 0
		for _, r := range results {
			must(t, r.err)
			wantEqual(t, r.chat, results[0].chat)
			if !r.replayed {
				first++
			}
		}
		wantEqual(t, first, 1)
		wantEqual(t, count(t, db, "chats"), 1)

		// The answer is the first one, whatever became of the chat.
		_, err := db.RenameChat(t.Context(), u.ID, results[0].chat.ID, "renamed")
		must(t, err)
		again, replayed, err := db.CreateChat(t.Context(), u.ID, "once", true, &key)
		must(t, err)
		wantEqual(t, replayed, true)
		wantEqual(t, again, results[0].chat)

		_, _, err = db.CreateChat(t.Context(), u.ID, "twice", true, &models.IdempotencyKey{Route: key.Route, Key: key.Key, BodyHash: "b"})
		wantError(t, err, models.ErrKeyReused)
		for _, fresh := range []struct {
			userID int64
			key    models.IdempotencyKey
		}{
			{other.ID, key},
			{u.ID, models.IdempotencyKey{Route: "POST /other", Key: "1", BodyHash: "a"}},
			{u.ID, models.IdempotencyKey{Route: key.Route, Key: "2", BodyHash: "a"}},
		} {
			_, replayed, err := db.CreateChat(t.Context(), fresh.userID, "once", true, &fresh.key)
			must(t, err)
			wantEqual(t, replayed, false)
		}
	})
}

func TestAKeyIsFreeAfterADay(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		key := &models.IdempotencyKey{Route: "POST /chats", Key: "1", BodyHash: "a"}
		turn := models.NewTurn{UserID: u.ID, Content: "hello", Key: &models.IdempotencyKey{Route: "POST /messages", Key: "1", BodyHash: "a"}}
		_, _, err := db.CreateChat(t.Context(), u.ID, "first", true, key)
		must(t, err)
		_, err = db.AppendTurn(t.Context(), turn)
		must(t, err)
		_, err = db.Bun().NewRaw("UPDATE idempotency_keys SET created_at = ?, body_hash = ?", time.Now().Add(-25*time.Hour), "old").Exec(t.Context())
		must(t, err)

		_, replayed, err := db.CreateChat(t.Context(), u.ID, "second", true, key)
		must(t, err)
		ex, err := db.AppendTurn(t.Context(), turn)
		must(t, err)
		wantEqual(t, []bool{replayed, ex.Replayed}, []bool{false, false})
		wantEqual(t, count(t, db, "chats"), 4)
		wantEqual(t, count(t, db, "idempotency_keys WHERE body_hash = 'a'"), 2)
	})
}

func TestTheChatListPagesByLatestActivity(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		other := newChat(t, db)
		var want []int64
		for range 23 {
			want = append(want, value(t)(createChat(t, db, u.ID)).ID)
		}
		// Ties on the time are ordered by id; five of them fall together.
		tie := time.Now().Add(time.Hour)
		_, err := db.Bun().NewRaw("UPDATE chats SET active_at = ? WHERE id IN (?, ?, ?, ?, ?)", tie,
			want[3], want[9], want[10], want[11], want[20]).Exec(t.Context())
		must(t, err)
		active := []int64{want[20], want[11], want[10], want[9], want[3]}
		slices.Reverse(want)
		want = append(active, slices.DeleteFunc(want, func(id int64) bool { return slices.Contains(active, id) })...)

		for _, limit := range []int{1, 2, 4, 23, 24} {
			var got []int64
			page := models.Page{Limit: limit}
			for {
				chats, next, err := db.Chats(t.Context(), u.ID, page)
				must(t, err)
				for _, c := range chats {
					got = append(got, c.ID)
				}
				if next == "" {
					break
				}
				if len(chats) != limit {
					t.Fatalf("got a page of %d that is not the last, want %d", len(chats), limit)
				}
				page.Cursor = next
			}
			wantEqual(t, got, want)
		}
		theirs, next, err := db.Chats(t.Context(), other.UserID, models.Page{})
		must(t, err)
		wantEqual(t, theirs, []models.Chat{other})
		wantEqual(t, next, "")
		none, _, err := db.Chats(t.Context(), u.ID+100, models.Page{Limit: 5})
		must(t, err)
		wantEqual(t, len(none), 0)
	})
}

func TestPagesHaveAtMost200Rows(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		fill(t, db, u.ID, 250, 250)
		for limit, want := range map[int]int{-1: 100, 0: 100, 1: 1, 200: 200, 201: 200, 1 << 40: 200} {
			chats, _, err := db.Chats(t.Context(), u.ID, models.Page{Limit: limit})
			must(t, err)
			if len(chats) != want {
				t.Errorf("limit %d: got %d chats, want %d", limit, len(chats), want)
			}
		}
	})
}

func TestSomebodyElsesChatIsForbiddenAndAMissingOneNotFound(t *testing.T) {
	t.Parallel()
	calls := map[string]func(t *testing.T, db *models.DB, userID, chatID, messageID int64) error{
		"Chat": func(t *testing.T, db *models.DB, userID, chatID, _ int64) error {
			_, err := db.Chat(t.Context(), userID, chatID)
			return err
		},
		"RenameChat": func(t *testing.T, db *models.DB, userID, chatID, _ int64) error {
			_, err := db.RenameChat(t.Context(), userID, chatID, "mine")
			return err
		},
		"DeleteChat": func(t *testing.T, db *models.DB, userID, chatID, _ int64) error {
			_, err := db.DeleteChat(t.Context(), userID, chatID)
			return err
		},
		"Messages": func(t *testing.T, db *models.DB, userID, chatID, _ int64) error {
			_, _, err := db.Messages(t.Context(), userID, chatID, models.Page{})
			return err
		},
		"Message": func(t *testing.T, db *models.DB, userID, _, messageID int64) error {
			_, err := db.Message(t.Context(), userID, messageID)
			return err
		},
		"AppendTurn": func(t *testing.T, db *models.DB, userID, chatID, _ int64) error {
			_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: userID, ChatID: chatID, Content: "hello"})
			return err
		},
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := say(t, db, chat, "question", "answer")
		stranger, _ := newUser(t, db)
		before, err := db.Chat(t.Context(), chat.UserID, chat.ID)
		must(t, err)
		for name, call := range calls {
			t.Run(name, func(t *testing.T) {
				wantError(t, call(t, db, stranger.ID, chat.ID, ex.Reply.ID), models.ErrForbidden)
				wantError(t, call(t, db, stranger.ID, chat.ID+1000, ex.Reply.ID+1000), models.ErrNotFound)
			})
		}
		after, err := db.Chat(t.Context(), chat.UserID, chat.ID)
		must(t, err)
		wantEqual(t, after, before)
	})
}

func TestAGivenTitleStays(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		renamed, err := db.RenameChat(t.Context(), chat.UserID, chat.ID, "  my own  ")
		must(t, err)
		want := chat
		want.Title, want.Titled = "  my own  ", true
		wantEqual(t, renamed, want)
		wantEqual(t, send(t, db, chat, "something else").Chat.Title, "  my own  ")
	})
}

func TestADeletedChatTakesAllWithIt(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		idle, busy, kept := newChat(t, db), newChat(t, db), newChat(t, db)
		say(t, db, idle, "question", "answer")
		running := send(t, db, busy, "question")
		say(t, db, kept, "question", "answer")
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: running.Reply.ID, Fence: 1, Text: "so far"}})
		must(t, err)

		for _, test := range []struct {
			chat models.Chat
			want int64
		}{{idle, 0}, {busy, running.Reply.ID}} {
			got, err := db.DeleteChat(t.Context(), test.chat.UserID, test.chat.ID)
			must(t, err)
			wantEqual(t, got, test.want)
			_, err = db.DeleteChat(t.Context(), test.chat.UserID, test.chat.ID)
			wantError(t, err, models.ErrNotFound)
		}
		for table, want := range map[string]int{"chats": 1, "messages": 2, "replies": 0, "reply_chunks": 0} {
			if got := count(t, db, table); got != want {
				t.Errorf("%s: got %d rows, want %d", table, got, want)
			}
		}
		// Who still writes the reply is told.
		saved, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: running.Reply.ID, Fence: 1, Start: 6, Text: " and on"}})
		must(t, err)
		wantEqual(t, len(saved), 0)
		wantError(t, db.FinishReply(t.Context(), models.ReplyEnd{
			MessageID: running.Reply.ID, Fence: 1, Status: models.StatusComplete,
		}), models.ErrNotFound)
	})
}

// Deleting chats while their replies are written, saved and finished shows no
// fault: whoever comes too late is told so.
func TestChatsAreDeletedUnderTheirReplies(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for range 10 {
			var chats []models.Chat
			var turns []models.Exchange
			for range 6 {
				chats = append(chats, newChat(t, db))
				turns = append(turns, send(t, db, chats[len(chats)-1], "question"))
			}
			errs := together(4*len(chats), func(i int) error {
				chat, ex := chats[i/4], turns[i/4]
				switch i % 4 {
				case 0:
					_, err := db.DeleteChat(t.Context(), chat.UserID, chat.ID)
					return err
				case 1:
					var all []models.ReplyText
					for _, ex := range turns {
						all = append(all, models.ReplyText{MessageID: ex.Reply.ID, Fence: 1, Text: fmt.Sprint("piece ", i)})
					}
					_, err := db.SaveTexts(t.Context(), all)
					return err
				case 2:
					return db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: "answer", Status: models.StatusComplete})
				default:
					_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, ChatID: chat.ID, Content: "again"})
					return err
				}
			})
			got := tally(errs, errorName)
			for _, expected := range []string{"ok", "not found", "a reply is in progress"} {
				delete(got, expected)
			}
			wantEqual(t, got, map[string]int{})
			wantEqual(t, count(t, db, "chats WHERE id >= ?", chats[0].ID), 0)
		}
		for _, table := range []string{"messages", "replies", "reply_chunks"} {
			wantEqual(t, count(t, db, table), 0)
		}
	})
}
