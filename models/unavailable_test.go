package models_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// calls is every method that asks the database, with arguments it would take.
var calls = map[string]func(ctx context.Context, db *models.DB) error{
	"CreateUser": func(ctx context.Context, db *models.DB) error {
		return db.CreateUser(ctx, &models.User{Email: "a@example.org"}, &models.DeviceSession{SID: "a"}, models.By{})
	},
	"UserByEmail": func(ctx context.Context, db *models.DB) error {
		_, err := db.UserByEmail(ctx, "a@example.org")
		return err
	},
	"User":            func(ctx context.Context, db *models.DB) error { _, err := db.User(ctx, 1); return err },
	"SetPasswordHash": func(ctx context.Context, db *models.DB) error { return db.SetPasswordHash(ctx, 1, "old", "new") },
	"CreateSession": func(ctx context.Context, db *models.DB) error {
		return db.CreateSession(ctx, &models.DeviceSession{SID: "b", UserID: 1}, models.By{})
	},
	"RotateSession": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.RotateSession(ctx, "a", 1, time.Now(), time.Minute, models.By{})
		return err
	},
	"TouchSession": func(ctx context.Context, db *models.DB) error { return db.TouchSession(ctx, "a", 1, time.Now()) },
	"EndSession": func(ctx context.Context, db *models.DB) error {
		return db.EndSession(ctx, "a", time.Minute, models.By{})
	},
	"EndDevice": func(ctx context.Context, db *models.DB) error {
		_, err := db.EndDevice(ctx, 1, 1, time.Minute, models.By{})
		return err
	},
	"EndSessions": func(ctx context.Context, db *models.DB) error {
		_, err := db.EndSessions(ctx, 1, "", time.Minute, models.By{})
		return err
	},
	"Devices":      func(ctx context.Context, db *models.DB) error { _, err := db.Devices(ctx, 1); return err },
	"SessionAlive": func(ctx context.Context, db *models.DB) error { return db.SessionAlive(ctx, "a", 1) },
	"KnownNetwork": func(ctx context.Context, db *models.DB) error {
		_, err := db.KnownNetwork(ctx, 1, netip.MustParsePrefix("192.0.2.1/32"))
		return err
	},
	"ChangePassword": func(ctx context.Context, db *models.DB) error {
		_, err := db.ChangePassword(ctx, 1, "old", "new", "", time.Minute, models.By{})
		return err
	},
	"RequestReset": func(ctx context.Context, db *models.DB) error {
		return db.RequestReset(ctx, "a@example.org", models.By{})
	},
	"SetReset": func(ctx context.Context, db *models.DB) error { return db.SetReset(ctx, 1, "hash", time.Now()) },
	"Reset": func(ctx context.Context, db *models.DB) error {
		_, err := db.Reset(ctx, "hash", time.Now())
		return err
	},
	"UseReset": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.UseReset(ctx, "hash", "new", time.Now(), time.Minute, models.By{})
		return err
	},
	"UpdateUser": func(ctx context.Context, db *models.DB) error {
		_, err := db.UpdateUser(ctx, 1, models.UserChange{}, models.By{})
		return err
	},
	"DeleteUser": func(ctx context.Context, db *models.DB) error {
		_, err := db.DeleteUser(ctx, 1, "", time.Minute, models.By{})
		return err
	},
	"ExportChats":    func(ctx context.Context, db *models.DB) error { _, err := db.ExportChats(ctx, 1, 0, 1); return err },
	"ExportMessages": func(ctx context.Context, db *models.DB) error { _, err := db.ExportMessages(ctx, 1, 0, 1); return err },
	"ExportAudit":    func(ctx context.Context, db *models.DB) error { _, err := db.ExportAudit(ctx, 1, 0, 1); return err },
	"AuditEntries": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.AuditEntries(ctx, models.Page{})
		return err
	},
	"Count": func(ctx context.Context, db *models.DB) error {
		_, err := db.Count(ctx, []models.Limit{{Key: "k", Quota: 1, Window: time.Hour}})
		return err
	},
	"Refund": func(ctx context.Context, db *models.DB) error {
		return db.Refund(ctx, []models.Limit{{Key: "k", Quota: 1, Window: time.Hour}})
	},
	"ClaimMails": func(ctx context.Context, db *models.DB) error {
		_, err := db.ClaimMails(ctx, 1, time.Minute)
		return err
	},
	"MailSent":     func(ctx context.Context, db *models.DB) error { return db.MailSent(ctx, 1) },
	"MailFailed":   func(ctx context.Context, db *models.DB) error { return db.MailFailed(ctx, 1, time.Minute, "busy") },
	"DropMail":     func(ctx context.Context, db *models.DB) error { return db.DropMail(ctx, 1) },
	"MailsWaiting": func(ctx context.Context, db *models.DB) error { _, err := db.MailsWaiting(ctx); return err },
	"ShareStreamCounts": func(ctx context.Context, db *models.DB) error {
		_, err := db.ShareStreamCounts(ctx, "me", map[int64]int64{1: 1})
		return err
	},
	"Revocations": func(ctx context.Context, db *models.DB) error { _, err := db.Revocations(ctx, 0); return err },
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
	"SetTitle": func(ctx context.Context, db *models.DB) error {
		_, err := db.SetTitle(ctx, models.MadeTitle{UserID: 1, ChatID: 1, MessageID: 1, Title: "t"})
		return err
	},
	"Usage":       func(ctx context.Context, db *models.DB) error { _, err := db.Usage(ctx, 1, "", "9"); return err },
	"UsageByDay":  func(ctx context.Context, db *models.DB) error { _, err := db.UsageByDay(ctx, "", "9"); return err },
	"ExportUsage": func(ctx context.Context, db *models.DB) error { _, err := db.ExportUsage(ctx, 1, 0, 1); return err },
	"DeleteChat":  func(ctx context.Context, db *models.DB) error { _, err := db.DeleteChat(ctx, 1, 1); return err },
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
	"ReplyProgress": func(ctx context.Context, db *models.DB) error { _, err := db.ReplyProgress(ctx, 1, 0); return err },
	"RepliesProgress": func(ctx context.Context, db *models.DB) error {
		_, err := db.RepliesProgress(ctx, map[int64]int64{1: 0, 2: 5})
		return err
	},
	"OrphanedReplies": func(ctx context.Context, db *models.DB) error { _, err := db.OrphanedReplies(ctx, 1); return err },
	"TakeReplies": func(ctx context.Context, db *models.DB) error {
		_, err := db.TakeReplies(ctx, []models.RunningReply{{MessageID: 1, Fence: 1}}, "me")
		return err
	},
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
	"Repeated": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.Repeated(ctx, 1, &models.IdempotencyKey{Route: "messages", Key: "k"})
		return err
	},
	"DisownReply":    func(ctx context.Context, db *models.DB) error { return db.DisownReply(ctx, 1, 1, "me") },
	"ReleaseReply":   func(ctx context.Context, db *models.DB) error { return db.ReleaseReply(ctx, 1, 1, "me") },
	"RenewReplica":   func(ctx context.Context, db *models.DB) error { return db.RenewReplica(ctx, "me", time.Minute) },
	"NextLapse":      func(ctx context.Context, db *models.DB) error { _, _, err := db.NextLapse(ctx, "me"); return err },
	"RemoveReplica":  func(ctx context.Context, db *models.DB) error { return db.RemoveReplica(ctx, "me") },
	"UserEvents":     func(ctx context.Context, db *models.DB) error { _, err := db.UserEvents(ctx, 1, 0, 1); return err },
	"EventBounds":    func(ctx context.Context, db *models.DB) error { _, _, err := db.EventBounds(ctx, 1); return err },
	"LatestEvents":   func(ctx context.Context, db *models.DB) error { _, err := db.LatestEvents(ctx, []int64{1}); return err },
	"FollowUsers":    func(ctx context.Context, db *models.DB) error { return db.FollowUsers(ctx, []int64{1}, time.Second) },
	"RunningReplies": func(ctx context.Context, db *models.DB) error { _, err := db.RunningReplies(ctx, 1); return err },
	"FirstReplyEvent": func(ctx context.Context, db *models.DB) error {
		_, err := db.FirstReplyEvent(ctx, 1, []int64{1})
		return err
	},
	"CreateUpload": func(ctx context.Context, db *models.DB) error {
		_, _, err := db.CreateUpload(ctx, models.NewUpload{UserID: 1, Most: 1})
		return err
	},
	"Upload":       func(ctx context.Context, db *models.DB) error { _, err := db.Upload(ctx, 1, 1); return err },
	"DeleteUpload": func(ctx context.Context, db *models.DB) error { return db.DeleteUpload(ctx, 1, 1) },
	"AppendChunk": func(ctx context.Context, db *models.DB) error {
		_, err := db.AppendChunk(ctx, models.NewChunk{UserID: 1, UploadID: 1, Data: []byte{1}})
		return err
	},
	"UploadHead": func(ctx context.Context, db *models.DB) error { _, err := db.UploadHead(ctx, 1); return err },
	"CompleteUpload": func(ctx context.Context, db *models.DB) error {
		_, err := db.CompleteUpload(ctx, models.Completion{UserID: 1, UploadID: 1})
		return err
	},
	"TakeUpload":  func(ctx context.Context, db *models.DB) error { _, err := db.TakeUpload(ctx, 1, 1, "me"); return err },
	"UploadPiece": func(ctx context.Context, db *models.DB) error { _, _, err := db.UploadPiece(ctx, 1, 1, 0); return err },
	"EndTry": func(ctx context.Context, db *models.DB) error {
		return db.EndTry(ctx, models.UploadEnd{UploadID: 1, Fence: 1, Dropped: true})
	},
	"OrphanedUploads": func(ctx context.Context, db *models.DB) error {
		_, err := db.OrphanedUploads(ctx, "me", 1, 1)
		return err
	},
	"ChatIdle": func(ctx context.Context, db *models.DB) error { return db.ChatIdle(ctx, 1) },
	"KeyedExchange": func(ctx context.Context, db *models.DB) error {
		_, err := db.KeyedExchange(ctx, 1, models.IdempotencyKey{Key: "k"})
		return err
	},
	"Exchange":      func(ctx context.Context, db *models.DB) error { _, err := db.Exchange(ctx, 1, 1); return err },
	"ExportUploads": func(ctx context.Context, db *models.DB) error { _, err := db.ExportUploads(ctx, 1, 0, 1); return err },
	"PurgeExpired":  func(ctx context.Context, db *models.DB) error { return db.PurgeExpired(ctx, time.Now(), time.Hour) },
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
