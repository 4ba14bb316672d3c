package models_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

func TestReadsDoNotWaitForAWriter(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, s := newUser(t, db)
		chat := value(t)(createChat(t, db, u.ID))
		ex := send(t, db, chat, "question")
		err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
			// A writer that takes its time over a row which all of them read.
			if _, err := tx.NewRaw("UPDATE chats SET title = 'unfinished' WHERE id = ?", chat.ID).Exec(ctx); err != nil {
				return err
			}
			for name, read := range map[string]func() error{
				"User":        func() error { _, err := db.User(ctx, u.ID); return err },
				"UserByEmail": func() error { _, err := db.UserByEmail(ctx, u.Email); return err },
				"Revocations": func() error { _, err := db.Revocations(ctx, 0); return err },
				"Chats":       func() error { _, _, err := db.Chats(ctx, u.ID, models.Page{}); return err },
				"Chat": func() error {
					got, err := db.Chat(ctx, u.ID, chat.ID)
					wantEqual(t, got.Title, "question")
					return err
				},
				"Reset": func() error {
					_, err := db.Reset(ctx, "token", time.Now())
					if errors.Is(err, models.ErrNotFound) {
						return nil
					}
					return err
				},
				"Messages":        func() error { _, _, err := db.Messages(ctx, u.ID, chat.ID, models.Page{}); return err },
				"Message":         func() error { _, err := db.Message(ctx, u.ID, ex.Reply.ID); return err },
				"History":         func() error { _, err := db.History(ctx, chat.ID, ex.Reply.ID, 0, 0); return err },
				"ReplyProgress":   func() error { _, err := db.ReplyProgress(ctx, ex.Reply.ID, 0); return err },
				"UserEvents":      func() error { _, err := db.UserEvents(ctx, u.ID, 0, 10); return err },
				"EventBounds":     func() error { _, _, err := db.EventBounds(ctx, u.ID); return err },
				"LatestEvents":    func() error { _, err := db.LatestEvents(ctx, []int64{u.ID}); return err },
				"RunningReplies":  func() error { _, err := db.RunningReplies(ctx, u.ID); return err },
				"FirstReplyEvent": func() error { _, err := db.FirstReplyEvent(ctx, u.ID, []int64{ex.Reply.ID}); return err },
				"Devices":         func() error { _, err := db.Devices(ctx, u.ID); return err },
				"SessionAlive":    func() error { return db.SessionAlive(ctx, s.SID, u.ID) },
				"KnownNetwork":    func() error { _, err := db.KnownNetwork(ctx, u.ID, netip.Prefix{}); return err },
				"AuditEntries":    func() error { _, _, err := db.AuditEntries(ctx, models.Page{}); return err },
				"ExportChats":     func() error { _, err := db.ExportChats(ctx, u.ID, 0, 10); return err },
				"ExportMessages":  func() error { _, err := db.ExportMessages(ctx, chat.ID, 0, 10); return err },
				"ExportAudit":     func() error { _, err := db.ExportAudit(ctx, u.ID, 0, 10); return err },
				"ExportUsage":     func() error { _, err := db.ExportUsage(ctx, u.ID, 0, 10); return err },
				"Usage":           func() error { _, err := db.Usage(ctx, u.ID, "", "9"); return err },
				"UsageByDay":      func() error { _, err := db.UsageByDay(ctx, "", "9"); return err },
				"MailsWaiting":    func() error { _, err := db.MailsWaiting(ctx); return err },
				"OrphanedReplies": func() error { _, err := db.OrphanedReplies(ctx, 10); return err },
			} {
				if err := read(); err != nil {
					t.Errorf("%s: got %v while another one writes, want an answer", name, err)
				}
			}
			return nil
		})
		must(t, err)
	})
}
