package models_test

import (
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// pagesOf reads an export in pages of two.
func pagesOf[T any](t *testing.T, read func(afterID int64, limit int) ([]T, error), id func(T) int64) []T {
	t.Helper()
	var (
		all   []T
		after int64
	)
	for {
		page, err := read(after, 2)
		must(t, err)
		if len(page) == 0 {
			return all
		}
		if len(page) > 2 {
			t.Fatalf("got a page of %d", len(page))
		}
		all = append(all, page...)
		after = id(page[len(page)-1])
	}
}

func TestAnExportHoldsAllThatIsStored(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, s := newUser(t, db)
		other, _ := newUser(t, db)
		var chats []models.Chat
		for range 5 {
			chats = append(chats, value(t)(createChat(t, db, u.ID)))
			value(t)(createChat(t, db, other.ID))
		}
		var messages []models.Message
		for range 3 {
			ex := say(t, db, chats[1], "question", "answer")
			for _, id := range []int64{ex.User.ID, ex.Reply.ID} {
				m, err := db.Message(t.Context(), u.ID, id)
				must(t, err)
				messages = append(messages, m)
			}
		}
		running := send(t, db, chats[1], "and?")
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: running.Reply.ID, Fence: 1, Text: "As far as"}})
		must(t, err)
		running.Reply.Content = "As far as"
		messages = append(messages, running.User, running.Reply)
		chats[1], err = db.Chat(t.Context(), u.ID, chats[1].ID)
		must(t, err)

		gotChats := pagesOf(t, func(after int64, limit int) ([]models.Chat, error) {
			return db.ExportChats(t.Context(), u.ID, after, limit)
		}, func(c models.Chat) int64 { return c.ID })
		wantEqual(t, gotChats, chats)
		gotMessages := pagesOf(t, func(after int64, limit int) ([]models.Message, error) {
			return db.ExportMessages(t.Context(), chats[1].ID, after, limit)
		}, func(m models.Message) int64 { return m.ID })
		wantEqual(t, gotMessages, messages)

		_, err = db.Bun().NewRaw(`INSERT INTO audit_entries (at, action, subject_id, ip, request_id, detail)
			VALUES (?, 'of who had the id before', ?, '', '', '')`, u.CreatedAt.Add(-time.Second), u.ID).Exec(t.Context())
		must(t, err)
		must(t, db.EndSession(t.Context(), s.SID, accessTTL, models.By{UserID: other.ID}))
		newSession(t, db, u.ID)
		var actions []string
		for _, e := range pagesOf(t, func(after int64, limit int) ([]models.AuditEntry, error) {
			return db.ExportAudit(t.Context(), u.ID, after, limit)
		}, func(e models.AuditEntry) int64 { return e.ID }) {
			wantEqual(t, e.SubjectEmail, u.Email)
			actions = append(actions, e.Action)
		}
		wantEqual(t, actions, []string{"account.created", "session.ended", "session.started"})
	})
}
