package models_test

import (
	"fmt"
	"strings"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

func TestTextsAreSavedWhereTheirReplyStands(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		a, b, c := send(t, db, newChat(t, db), "a").Reply.ID, send(t, db, newChat(t, db), "b").Reply.ID, send(t, db, newChat(t, db), "c")
		finish(t, db, c, "over")
		for i, test := range []struct {
			texts []models.ReplyText
			want  []int64
		}{
			{nil, nil},
			{[]models.ReplyText{{a, 1, 0, "Größe"}, {b, 1, 0, "it's ?0 \\ "}}, []int64{a, b}},
			{[]models.ReplyText{{a, 1, 7, " 1"}, {b, 1, 9, "gap before"}}, []int64{a}},
			{[]models.ReplyText{{a, 1, 7, " 1 again"}, {b, 1, 11, "gap"}}, nil},
			{[]models.ReplyText{{a, 2, 9, "later attempt"}, {b, 0, 10, "earlier attempt"}, {c.Reply.ID, 1, 0, "ended"}, {999, 1, 0, "never was"}}, nil},
			{[]models.ReplyText{{b, 1, 10, "🙂"}, {c.Reply.ID, 1, 4, "ended"}, {a, 1, 9, "."}}, []int64{a, b}},
		} {
			got, err := db.SaveTexts(t.Context(), test.texts)
			must(t, err)
			if fmt.Sprint(tally(got, id)) != fmt.Sprint(tally(test.want, id)) {
				t.Errorf("step %d: got %v saved, want %v", i, got, test.want)
			}
		}
		for messageID, want := range map[int64]string{a: "Größe 1.", b: "it's ?0 \\ 🙂"} {
			p, err := db.ReplyProgress(t.Context(), messageID, 0)
			must(t, err)
			wantEqual(t, p.Text, want)
			wantEqual(t, p.Running.SavedBytes, int64(len(want)))
		}
	})
}

func id(n int64) string { return fmt.Sprint(n) }

func TestManyTextsAreSavedTogether(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		var texts []models.ReplyText
		for i := range 300 {
			ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, Content: "question"})
			must(t, err)
			texts = append(texts, models.ReplyText{MessageID: ex.Reply.ID, Fence: 1, Text: strings.Repeat("x", i)})
		}
		saved, err := db.SaveTexts(t.Context(), texts)
		must(t, err)
		wantEqual(t, len(saved), len(texts))
		wantEqual(t, count(t, db, "replies WHERE saved_bytes > 0"), 299)
	})
}

func TestAReplyEndsOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "question")
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: "An "}})
		must(t, err)
		wantError(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 2, Status: models.StatusComplete}), models.ErrStaleOwner)
		wantError(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.User.ID, Fence: 1, Status: models.StatusComplete}), models.ErrNotFound)
		before, err := db.Chat(t.Context(), chat.UserID, chat.ID)
		must(t, err)

		errs := together(10, func(i int) error {
			return db.FinishReply(t.Context(), models.ReplyEnd{
				MessageID: ex.Reply.ID, Fence: 1, Content: fmt.Sprint("An answer ", i), Status: models.StatusComplete,
			})
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "not found": 9})
		got, err := db.Message(t.Context(), chat.UserID, ex.Reply.ID)
		must(t, err)
		for i, err := range errs {
			if err == nil {
				wantEqual(t, got.Content, fmt.Sprint("An answer ", i))
			}
		}
		wantEqual(t, []int{count(t, db, "replies"), count(t, db, "reply_chunks")}, []int{0, 0})

		after, err := db.Chat(t.Context(), chat.UserID, chat.ID)
		must(t, err)
		if !after.ActiveAt.After(before.ActiveAt) {
			t.Errorf("got activity at %v, want later than %v", after.ActiveAt, before.ActiveAt)
		}
		before.ActiveAt = after.ActiveAt
		wantEqual(t, after, before)
	})
}

// The text and the end of a reply may be written at the same moment. Whichever
// comes first, nothing is left of the chunks.
func TestNoChunkOutlivesItsReply(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		for range 20 {
			ex := send(t, db, chat, "question")
			errs := together(6, func(i int) error {
				if i == 5 {
					return db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: "done", Status: models.StatusComplete})
				}
				_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Start: int64(i), Text: "x"}})
				return err
			})
			wantEqual(t, tally(errs, errorName), map[string]int{"ok": 6})
			wantEqual(t, count(t, db, "reply_chunks"), 0)
		}
	})
}

func TestProgressIsTheTextFromAnOffset(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "A question")
		const text = "one two three"
		at := 0
		for piece := range strings.SplitAfterSeq(text, " ") {
			_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Start: int64(at), Text: piece}})
			must(t, err)
			at += len(piece)
		}
		want := models.Progress{
			Message: ex.Reply, UserID: chat.UserID, UserMessageID: ex.User.ID, Title: "A question",
			Running: &models.RunningReply{
				MessageID: ex.Reply.ID, ChatID: chat.ID, UserID: chat.UserID, UserMessageID: ex.User.ID,
				Owner: "replica-1", Fence: 1, SavedBytes: int64(len(text)), StartedAt: ex.Reply.CreatedAt,
			},
		}
		for range 2 {
			for from := -1; from < len(text)+3; from++ {
				got, err := db.ReplyProgress(t.Context(), ex.Reply.ID, int64(from))
				must(t, err)
				want.Text = text[min(max(from, 0), len(text)):]
				wantEqual(t, got, want)
			}
			if want.Running == nil {
				break
			}
			// Then the same of the finished reply.
			finish(t, db, ex, text)
			reason := "stop"
			want.Running, want.Message.Content, want.Message.Status, want.Message.FinishReason = nil, text, models.StatusComplete, &reason
		}
		for _, messageID := range []int64{ex.User.ID, ex.Reply.ID + 1} {
			_, err := db.ReplyProgress(t.Context(), messageID, 0)
			wantError(t, err, models.ErrNotFound)
		}
	})
}

// Several replies that are read at once are each what it is when read alone.
func TestProgressOfSeveral(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		none, err := db.RepliesProgress(t.Context(), nil)
		must(t, err)
		wantEqual(t, len(none), 0)
		from := map[int64]int64{-1: 0, 0: 0, 1 << 40: 7}
		want := make(map[int64]models.Progress)
		for i := range 5 {
			ex := send(t, db, newChat(t, db), "A question")
			for at, piece := range []string{"a", "b", "c"}[:i%4] {
				_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Start: int64(at), Text: piece}})
				must(t, err)
			}
			if i == 4 {
				finish(t, db, ex, "abc")
			}
			from[ex.User.ID], from[ex.Reply.ID] = 0, int64(i/2)
			want[ex.Reply.ID], err = db.ReplyProgress(t.Context(), ex.Reply.ID, from[ex.Reply.ID])
			must(t, err)
		}
		got, err := db.RepliesProgress(t.Context(), from)
		must(t, err)
		wantEqual(t, got, want)
	})
}
