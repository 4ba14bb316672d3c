package models_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// ownTables are those that hold rows of a user, and how to find them.
var ownTables = map[string]string{
	"users":            "id = ?0",
	"device_sessions":  "user_id = ?0",
	"chats":            "user_id = ?0",
	"messages":         "chat_id IN (?1)",
	"replies":          "user_id = ?0",
	"reply_chunks":     "message_id IN (?2)",
	"idempotency_keys": "user_id = ?0",
	"user_events":      "user_id = ?0",
	"password_resets":  "user_id = ?0",
	"usage":            "user_id = ?0",
	"usage_days":       "user_id = ?0",
	"uploads":          "user_id = ?0",
	"upload_chunks":    "upload_id IN (SELECT id FROM uploads WHERE user_id = ?0)",
	"mails":            "user_id = ?0",
}

func TestAUserIsDeletedWithAllThatItHas(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		type had struct {
			user    models.User
			running models.Exchange
			rows    func() map[string]int
		}
		fill := func() had {
			u, _ := newUser(t, db)
			newSession(t, db, u.ID)
			chat := value(t)(createChat(t, db, u.ID))
			said := say(t, db, chat, "question", "answer")
			running, err := db.AppendTurn(t.Context(), models.NewTurn{
				UserID: u.ID, Content: "another", Owner: "replica-1", Key: &models.IdempotencyKey{Route: "r", Key: "k", BodyHash: "h"},
			})
			must(t, err)
			saved, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: running.Reply.ID, Fence: 1, Text: "some"}})
			must(t, err)
			wantEqual(t, saved, []int64{running.Reply.ID})
			must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
			must(t, db.SetReset(t.Context(), u.ID, u.Email, time.Now().Add(time.Hour)))
			add(t, db, newUpload(t, db, u.ID), noise(10))
			return had{u, running, func() map[string]int {
				rows := make(map[string]int)
				for table, where := range ownTables {
					rows[table] = count(t, db, table+" WHERE "+where, u.ID,
						models.IDs(chat.ID, running.Chat.ID), models.IDs(said.Reply.ID, running.Reply.ID))
				}
				return rows
			}}
		}
		kept, gone := fill(), fill()
		before := kept.rows()
		for table, rows := range before {
			if rows == 0 {
				t.Errorf("there is nothing in %s to delete", table)
			}
		}
		wantEqual(t, gone.rows(), before)

		by := models.By{UserID: kept.user.ID, IP: "192.0.2.9", RequestID: "delete"}
		_, err := db.DeleteUser(t.Context(), gone.user.ID, "another hash", accessTTL, by)
		wantError(t, err, models.ErrNotFound)
		wantEqual(t, gone.rows(), before)
		sids := sessions(t, db, gone.user.ID)
		slices.Sort(sids)

		type result struct {
			deleted models.Deleted
			err     error
		}
		results := together(5, func(int) (r result) {
			r.deleted, r.err = db.DeleteUser(t.Context(), gone.user.ID, gone.user.PasswordHash, accessTTL, by)
			return r
		})
		wantEqual(t, tally(results, func(r result) string { return errorName(r.err) }), map[string]int{"ok": 1, "not found": 4})
		for _, r := range results {
			if r.err == nil {
				wantEqual(t, r.deleted, models.Deleted{SIDs: sids, Running: []int64{gone.running.Reply.ID}})
			} else {
				wantEqual(t, r.deleted, models.Deleted{})
			}
		}
		for table, rows := range gone.rows() {
			wantEqual(t, []any{table, rows}, []any{table, 0})
		}
		wantEqual(t, kept.rows(), before)
		wantEqual(t, revoked(t, db), append(sids, fmt.Sprint("user ", gone.user.ID)))
		wantEqual(t, actions(audited(t, db), "account.deleted"), []models.AuditEntry{{
			Action: "account.deleted", ActorID: kept.user.ID, ActorEmail: kept.user.Email,
			SubjectID: gone.user.ID, SubjectEmail: gone.user.Email, IP: "192.0.2.9", RequestID: "delete",
		}})
	})
}

func TestWhoDeletesItselfLeavesNoAddress(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		other, theirs := newUser(t, db)
		self := models.By{UserID: u.ID}
		// Of another user who had the id before a wipe.
		_, err := db.Bun().NewRaw(`INSERT INTO audit_entries (at, action, actor_id, actor_email, subject_id, subject_email, ip, request_id, detail)
			VALUES (?0, 'earlier', ?1, 'earlier@example.org', ?1, 'earlier@example.org', '', '', '')`, u.CreatedAt.Add(-time.Second), u.ID).Exec(t.Context())
		must(t, err)
		must(t, db.EndSession(t.Context(), theirs.SID, accessTTL, self))
		must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
		_, err = db.DeleteUser(t.Context(), u.ID, u.PasswordHash, accessTTL, self)
		must(t, err)
		wantEqual(t, audited(t, db), []models.AuditEntry{
			{Action: "account.created", SubjectID: u.ID},
			{Action: "account.created", SubjectID: other.ID, SubjectEmail: other.Email},
			{Action: "earlier", ActorID: u.ID, ActorEmail: "earlier@example.org", SubjectID: u.ID, SubjectEmail: "earlier@example.org"},
			{Action: "session.ended", ActorID: u.ID, SubjectID: other.ID, SubjectEmail: other.Email, Detail: theirs.Name},
			{Action: "password.reset_requested", SubjectID: u.ID},
			{Action: "account.deleted", ActorID: u.ID, SubjectID: u.ID},
		})
		wantEqual(t, outbox(t, db), []models.Mail(nil))
	})
}

// What is sent while the user is deleted is either refused or deleted with it,
// and then every reply that was begun is told.
func TestAUserIsDeletedWhileItSends(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for range 5 {
			u, s := newUser(t, db)
			chat := value(t)(createChat(t, db, u.ID))
			var (
				mu      sync.Mutex
				running = make(map[int64]bool)
				sending sync.WaitGroup
				deleted models.Deleted
			)
			begin := func(chatID int64) (models.Exchange, error) {
				ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, ChatID: chatID, Content: "question", Owner: "replica-1"})
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					running[ex.Reply.ID] = true
				}
				return ex, err
			}
			end := func(ex models.Exchange) error {
				_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: "some text"}})
				if err != nil {
					return err
				}
				err = db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: "some text", Status: models.StatusComplete})
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					delete(running, ex.Reply.ID)
				}
				return err
			}
			for i := range 6 {
				sending.Go(func() {
					chatID := int64(0)
					if i%2 == 0 {
						chatID = chat.ID
					}
					for n := 0; ; n++ {
						ex, err := begin(chatID)
						if errors.Is(err, models.ErrReplyInProgress) {
							continue
						}
						if err == nil && n%3 > 0 {
							err = end(ex)
						}
						if err == nil && chatID == 0 && n%3 == 2 {
							_, err = begin(ex.Chat.ID)
						}
						if err != nil {
							if got := errorName(err); got != "not found" {
								t.Error(err)
							}
							return
						}
					}
				})
			}
			sending.Go(func() {
				var err error
				if deleted, err = db.DeleteUser(t.Context(), u.ID, "", accessTTL, models.By{}); err != nil {
					t.Error(err)
				}
			})
			sending.Wait()
			wantEqual(t, deleted.SIDs, []string{s.SID})
			told := make(map[int64]bool)
			for _, id := range deleted.Running {
				told[id] = true
			}
			wantEqual(t, told, running)
			for _, table := range []string{"users", "chats", "messages", "replies", "reply_chunks", "user_events", "device_sessions", "usage", "usage_days"} {
				wantEqual(t, []any{table, count(t, db, table)}, []any{table, 0})
			}
		}
	})
}

// After a wipe ids begin anew. What names the former user by its session is dead,
// and what names the new one is not.
func TestTheNextOwnerOfAnIdOwesNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		former, old := newUser(t, db)
		setReset(t, db, former, "token")
		must(t, db.RequestReset(t.Context(), former.Email, models.By{}))
		_, err := db.DeleteUser(t.Context(), former.ID, "", accessTTL, models.By{})
		must(t, err)
		next := models.User{ID: former.ID, Email: "next@example.org", UserName: "next", PasswordHash: "x"}
		s := models.DeviceSession{SID: "next", ExpiresAt: time.Now().Add(time.Hour)}
		must(t, db.CreateUser(t.Context(), &next, &s, models.By{}))
		wantEqual(t, next.ID, former.ID)

		_, _, err = db.RotateSession(t.Context(), old.SID, 1, time.Now(), accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)
		wantError(t, db.SessionAlive(t.Context(), old.SID, next.ID), models.ErrNotFound)
		must(t, db.SessionAlive(t.Context(), s.SID, next.ID))
		must(t, db.EndSession(t.Context(), old.SID, accessTTL, models.By{}))
		_, err = db.EndDevice(t.Context(), next.ID, old.ID, accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)
		_, _, err = db.UseReset(t.Context(), "token", "by the former", time.Now(), accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)
		wantError(t, db.SetReset(t.Context(), next.ID, "late", time.Now().Add(time.Hour)), models.ErrNotFound)
		_, err = db.ChangePassword(t.Context(), next.ID, former.PasswordHash, "by the former", "", accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)
		wantEqual(t, outbox(t, db), []models.Mail(nil))
		wantEqual(t, sessions(t, db, next.ID), []string{s.SID})
		rs, err := db.Revocations(t.Context(), 0)
		must(t, err)
		for _, r := range rs {
			if r.SID == s.SID || r.UserID == next.ID && r.RevokedAt.After(s.CreatedAt) {
				t.Errorf("the next owner's tokens are revoked by %+v", r)
			}
		}
	})
}
