package models_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// calls is every method that asks the database, with arguments it would take.
var calls = map[string]func(ctx context.Context, db *models.DB) error{
	"CreateUser": func(ctx context.Context, db *models.DB) error {
		return db.CreateUser(ctx, &models.User{Email: "a@example.org"}, &models.DeviceSession{SID: "a"})
	},
	"UserByEmail": func(ctx context.Context, db *models.DB) error {
		_, err := db.UserByEmail(ctx, "a@example.org")
		return err
	},
	"User":            func(ctx context.Context, db *models.DB) error { _, err := db.User(ctx, 1); return err },
	"SetPasswordHash": func(ctx context.Context, db *models.DB) error { return db.SetPasswordHash(ctx, 1, "old", "new") },
	"CreateSession": func(ctx context.Context, db *models.DB) error {
		return db.CreateSession(ctx, &models.DeviceSession{SID: "b", UserID: 1})
	},
	"RotateSession": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.RotateSession(ctx, "a", 1, time.Now())
		return err
	},
	"TouchSession": func(ctx context.Context, db *models.DB) error { return db.TouchSession(ctx, "a", 1, time.Now()) },
	"EndSession":   func(ctx context.Context, db *models.DB) error { return db.EndSession(ctx, "a", time.Minute) },
	"Revocations":  func(ctx context.Context, db *models.DB) error { _, err := db.Revocations(ctx, 0); return err },
	"CreateChat": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.CreateChat(ctx, 1, "title", true, nil)
		return err
	},
	"CreateChat with a key": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.CreateChat(ctx, 1, "title", true, &models.IdempotencyKey{Key: "k"})
		return err
	},
	"Chats": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.Chats(ctx, 1, models.Page{})
		return err
	},
	"Chat":       func(ctx context.Context, db *models.DB) error { _, err := db.Chat(ctx, 1, 1); return err },
	"RenameChat": func(ctx context.Context, db *models.DB) error { _, err := db.RenameChat(ctx, 1, 1, "t"); return err },
	"DeleteChat": func(ctx context.Context, db *models.DB) error { _, err := db.DeleteChat(ctx, 1, 1); return err },
	"Messages": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.Messages(ctx, 1, 1, models.Page{})
		return err
	},
	"Message": func(ctx context.Context, db *models.DB) error { _, err := db.Message(ctx, 1, 1); return err },
	"History": func(ctx context.Context, db *models.DB) error { _, err := db.History(ctx, 1, 1, 0, 0); return err },
	"AppendTurn": func(ctx context.Context, db *models.DB) error {
		_, err := db.AppendTurn(ctx, models.NewTurn{UserID: 1, ChatID: 1, Content: "text"})
		return err
	},
	"SaveTexts": func(ctx context.Context, db *models.DB) error {
		_, err := db.SaveTexts(ctx, []models.ReplyText{{MessageID: 1, Fence: 1, Text: "text"}})
		return err
	},
	"FinishReply": func(ctx context.Context, db *models.DB) error {
		return db.FinishReply(ctx, models.ReplyEnd{MessageID: 1, Fence: 1, Status: models.StatusComplete})
	},
	"ReplyProgress":   func(ctx context.Context, db *models.DB) error { _, err := db.ReplyProgress(ctx, 1, 0); return err },
	"OrphanedReplies": func(ctx context.Context, db *models.DB) error { _, err := db.OrphanedReplies(ctx, 1); return err },
	"TakeReply":       func(ctx context.Context, db *models.DB) error { _, _, err := db.TakeReply(ctx, 1, 1, "me"); return err },
	"RestartReply": func(ctx context.Context, db *models.DB) error {
		return db.RestartReply(ctx, models.Restart{MessageID: 1, Fence: 1, Attempt: 2})
	},
	"OwnedReplies": func(ctx context.Context, db *models.DB) error { _, err := db.OwnedReplies(ctx, "me", true); return err },
	"RequestStop":  func(ctx context.Context, db *models.DB) error { return db.RequestStop(ctx, 1) },
	"WatchReplies": func(ctx context.Context, db *models.DB) error { return db.WatchReplies(ctx, []int64{1}, time.Second) },
	"Regenerate": func(ctx context.Context, db *models.DB) error {
		_, err := db.Regenerate(ctx, models.Rewrite{UserID: 1, MessageID: 1})
		return err
	},
	"Edit": func(ctx context.Context, db *models.DB) error {
		_, err := db.Edit(ctx, models.Rewrite{UserID: 1, MessageID: 1, Content: "text"})
		return err
	},
	"ReleaseReply":   func(ctx context.Context, db *models.DB) error { return db.ReleaseReply(ctx, 1, 1, "me") },
	"RenewReplica":   func(ctx context.Context, db *models.DB) error { return db.RenewReplica(ctx, "me", time.Minute) },
	"RemoveReplica":  func(ctx context.Context, db *models.DB) error { return db.RemoveReplica(ctx, "me") },
	"UserEvents":     func(ctx context.Context, db *models.DB) error { _, err := db.UserEvents(ctx, 1, 0, 1); return err },
	"EventBounds":    func(ctx context.Context, db *models.DB) error { _, _, err := db.EventBounds(ctx, 1); return err },
	"LatestEvents":   func(ctx context.Context, db *models.DB) error { _, err := db.LatestEvents(ctx, []int64{1}); return err },
	"FollowUsers":    func(ctx context.Context, db *models.DB) error { return db.FollowUsers(ctx, []int64{1}, time.Second) },
	"RunningReplies": func(ctx context.Context, db *models.DB) error { _, err := db.RunningReplies(ctx, 1); return err },
	"PurgeExpired":   func(ctx context.Context, db *models.DB) error { return db.PurgeExpired(ctx, time.Now()) },
}

func TestStorageTroubleIsUnavailableAndNothingElse(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
		defer cancel()
		for name, call := range calls {
			if err := call(gone, db); !errors.Is(err, context.Canceled) || errors.Is(err, models.ErrUnavailable) {
				t.Errorf("%s, given up by its caller: got %v, want %v", name, err, context.Canceled)
			}
			if got := errorName(call(late, db)); got != models.ErrUnavailable.Error() {
				t.Errorf("%s, out of time: got %s, want %v", name, got, models.ErrUnavailable)
			}
		}
		must(t, db.Close())
		for name, call := range calls {
			if got := errorName(call(t.Context(), db)); got != models.ErrUnavailable.Error() {
				t.Errorf("%s, closed: got %s, want %v", name, got, models.ErrUnavailable)
			}
		}
	})
}
