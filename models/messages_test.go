package models_test

import (
	"fmt"
	"strings"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

func TestMessagesPageFromTheLatestBack(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat, other := newChat(t, db), newChat(t, db)
		empty, next, err := db.Messages(t.Context(), chat.UserID, chat.ID, models.Page{})
		must(t, err)
		wantEqual(t, []any{len(empty), next}, []any{0, ""})

		var want []string
		for i := range 6 {
			say(t, db, chat, fmt.Sprint("question ", i), fmt.Sprint("answer ", i))
			say(t, db, other, "other question", "other answer")
			want = append(want, fmt.Sprint("question ", i), fmt.Sprint("answer ", i))
		}
		for _, limit := range []int{1, 3, 5, 6, 12, 13} {
			var got []string
			page := models.Page{Limit: limit}
			for {
				ms, next, err := db.Messages(t.Context(), chat.UserID, chat.ID, page)
				must(t, err)
				var contents []string
				for _, m := range ms {
					contents = append(contents, m.Content)
				}
				got = append(contents, got...)
				if next == "" {
					break
				}
				if len(ms) != limit {
					t.Fatalf("got a page of %d that is not the last, want %d", len(ms), limit)
				}
				page.Cursor = next
			}
			wantEqual(t, got, want)
		}
	})
}

func TestAMessageIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		done := say(t, db, chat, "What's 'this'? ?0 \\ é 🙂\r\n", "an answer")
		in, out := int64(311), int64(58)
		failed := send(t, db, chat, "and now")
		must(t, db.FinishReply(t.Context(), models.ReplyEnd{
			MessageID: failed.Reply.ID, Fence: 1, Content: "it bro", Status: models.StatusFailed,
			ErrorCode: "backend_error", Usage: &models.Usage{InputTokens: in, OutputTokens: out, Estimated: true},
		}))
		running := send(t, db, chat, "again")
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: running.Reply.ID, Fence: 1, Text: "It "}})
		must(t, err)
		_, err = db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: running.Reply.ID, Fence: 1, Start: 3, Text: "is…"}})
		must(t, err)

		stop, code := "stop", "backend_error"
		want := []models.Message{done.User, done.Reply, failed.User, failed.Reply, running.User, running.Reply}
		want[1].Content, want[1].Status, want[1].FinishReason = "an answer", models.StatusComplete, &stop
		want[3].Content, want[3].Status, want[3].ErrorCode = "it bro", models.StatusFailed, &code
		want[3].InputTokens, want[3].OutputTokens, want[3].Estimated = &in, &out, true
		want[5].Content = "It is…"

		got, _, err := db.Messages(t.Context(), chat.UserID, chat.ID, models.Page{})
		must(t, err)
		wantEqual(t, got, want)
		for _, m := range want {
			got, err := db.Message(t.Context(), chat.UserID, m.ID)
			must(t, err)
			wantEqual(t, got, m)
		}
	})
}

func TestHistory(t *testing.T) {
	t.Parallel()
	const user, assistant = models.RoleUser, models.RoleAssistant
	tests := map[string]struct {
		maxBytes, maxMessages int64
		want                  []models.Turn
	}{
		"is all that was said before, without what is empty or not over": {
			want: []models.Turn{{user, "one"}, {assistant, "ONE"}, {user, "two"}, {user, "three"}, {assistant, "THR"}, {user, "vier€"}, {assistant, "STOPPED"}},
		},
		"keeps the latest messages": {
			maxMessages: 4, want: []models.Turn{{user, "three"}, {assistant, "THR"}, {user, "vier€"}, {assistant, "STOPPED"}},
		},
		"begins with the user when it was cut": {
			maxMessages: 3, want: []models.Turn{{user, "vier€"}, {assistant, "STOPPED"}},
		},
		"is empty when nothing fits": {maxMessages: 1, want: nil},
		"is whole when it fits exactly": {
			maxMessages: 7, maxBytes: 3 + 3 + 3 + 5 + 3 + 7 + 7,
			want: []models.Turn{{user, "one"}, {assistant, "ONE"}, {user, "two"}, {user, "three"}, {assistant, "THR"}, {user, "vier€"}, {assistant, "STOPPED"}},
		},
		"counts bytes, not characters": {
			maxBytes: 13, want: nil,
		},
		"keeps the latest bytes": {
			maxBytes: 14, want: []models.Turn{{user, "vier€"}, {assistant, "STOPPED"}},
		},
		"is cut by the limit that is reached first": {
			maxBytes: 22, maxMessages: 5, want: []models.Turn{{user, "three"}, {assistant, "THR"}, {user, "vier€"}, {assistant, "STOPPED"}},
		},
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		say(t, db, chat, "one", "ONE")
		say(t, db, chat, "two", "")
		failed := send(t, db, chat, "three")
		must(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: failed.Reply.ID, Fence: 1, Content: "THR", Status: models.StatusFailed}))
		stopped := send(t, db, chat, "vier€")
		must(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: stopped.Reply.ID, Fence: 1, Content: "STOPPED", Status: models.StatusStopped}))
		say(t, db, newChat(t, db), "elsewhere", "ELSEWHERE")
		now := send(t, db, chat, "now")
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				got, err := db.History(t.Context(), chat.ID, now.User.ID, test.maxBytes, test.maxMessages)
				must(t, err)
				wantEqual(t, append([]models.Turn(nil), got...), test.want)
			})
		}
	})
}

func TestALongHistoryIsReadWhole(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		fill(t, db, u.ID, 1, 1234)
		chats, _, err := db.Chats(t.Context(), u.ID, models.Page{})
		must(t, err)
		for maxMessages, want := range map[int64]int{0: 1234, 1000: 1000, 1001: 1000, 2000: 1234} {
			got, err := db.History(t.Context(), chats[0].ID, 1<<62, 0, maxMessages)
			must(t, err)
			wantEqual(t, len(got), want)
			for i, turn := range got {
				if prefix := fmt.Sprintf("Message %d ", 1234-want+i+1); !strings.HasPrefix(turn.Content, prefix) {
					t.Fatalf("turn %d: got %q, want %q…", i, turn.Content, prefix)
				}
			}
		}
	})
}
