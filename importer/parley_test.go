package importer_test

import (
	"fmt"
	"testing"
	"time"

	"parley/importer"
	"parley/models"
	"parley/models/modelstest"
)

func TestParleyMovesToAnotherDatabase(t *testing.T) {
	t.Parallel()
	eachPair(t, func(t *testing.T, dialect string, db *models.DB) {
		ctx := t.Context()
		from := modelstest.URL(t, dialect)
		old, err := models.Open(ctx, from)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { old.Close() })
		for i := range 3 {
			u := models.User{Email: fmt.Sprintf("person%d@example.org", i+1), UserName: "person", PasswordHash: "$argon2id$x"}
			if err := old.CreateUser(ctx, &u, &models.DeviceSession{SID: u.Email}, models.By{}); err != nil {
				t.Fatal(err)
			}
		}
		exec(t, old, "UPDATE users SET is_admin = TRUE WHERE id = 1")
		exec(t, old, "UPDATE users SET disabled_at = ? WHERE id = 2", at("10:00:00"))
		exec(t, old, "DELETE FROM users WHERE id = 3")
		if _, _, err := old.CreateChat(ctx, 1, "Empty", true, nil); err != nil {
			t.Fatal(err)
		}
		say := func(chat int64, text string) models.Exchange {
			ex, err := old.AppendTurn(ctx, models.NewTurn{UserID: 1, ChatID: chat, Content: text, Owner: "r"})
			if err != nil {
				t.Fatal(err)
			}
			return ex
		}
		first := say(0, "A first message")
		exec(t, old, "DELETE FROM replies")
		exec(t, old, `UPDATE messages SET content = 'So far', status = 'stopped', finish_reason = 'stopped', input_tokens = 3,
			output_tokens = 4, attempt = 2, shared_bytes = 2 WHERE id = ?`, first.Reply.ID)
		running := say(first.Chat.ID, "A second one")
		exec(t, old, "INSERT INTO reply_chunks (message_id, start, text) VALUES (?0, 6, ' being written'), (?0, 0, 'I am, ')", running.Reply.ID)

		// The clocks of two replicas may disagree; the order is that of the ids.
		exec(t, old, "UPDATE messages SET created_at = ? WHERE id = ?", running.User.CreatedAt.Add(time.Minute), first.User.ID)
		exec(t, old, "UPDATE chats SET last_message_at = ?0, active_at = ?0 WHERE id = ?1", running.User.CreatedAt.Add(time.Minute), first.Chat.ID)

		report := run(t, db, options(from))
		want := contentOf(t, old)
		want.Messages[3].Status, want.Messages[3].ErrorCode = "failed", ptr("internal_error")
		want.Messages[3].Content = "I am,  being written"
		wantEqual(t, "content", contentOf(t, db), want)
		wantEqual(t, "columns", report.Columns[1].Behind, []string{"message_count", "last_message_at"})

		exec(t, old, "DELETE FROM messages WHERE id = ?", running.Reply.ID)
		again := run(t, db, options(from))
		wantEqual(t, "the second time", again.Messages, importer.Tally{Total: 3, Known: 3})
		next := models.User{Email: "next@example.org"}
		if err := db.CreateUser(ctx, &next, &models.DeviceSession{SID: "s"}, models.By{}); err != nil || next.ID != 3 {
			t.Errorf("got %d for the next id, %v", next.ID, err)
		}
	})
}
