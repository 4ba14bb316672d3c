package models_test

import (
	"fmt"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// whole adds an upload that is complete.
func whole(t testing.TB, db *models.DB, userID int64) models.Upload {
	t.Helper()
	u := add(t, db, newUpload(t, db, userID), noise(100))
	u, err := db.CompleteUpload(t.Context(), models.Completion{UserID: userID, UploadID: u.ID, Voice: "slt", Speed: 1.5, Keep: time.Minute})
	must(t, err)
	return u
}

func TestOneReplicaTakesAnUpload(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		u := whole(t, db, user.ID)
		for replica := range 8 {
			must(t, db.RenewReplica(t.Context(), fmt.Sprint(replica), time.Minute))
		}
		got := tally(together(8, func(i int) error {
			_, err := db.TakeUpload(t.Context(), u.ID, u.Fence, fmt.Sprint(i))
			return err
		}), errorName)
		wantEqual(t, got, map[string]int{"ok": 1, models.ErrStaleOwner.Error(): 7})
		taken, err := db.Upload(t.Context(), user.ID, u.ID)
		must(t, err)
		wantEqual(t, []any{taken.Fence, taken.Tries, taken.Orphaned}, []any{u.Fence + 1, int64(1), false})

		// While the owner lives nobody else takes it, but the owner itself may.
		_, err = db.TakeUpload(t.Context(), u.ID, taken.Fence, "another")
		wantError(t, err, models.ErrStaleOwner)
		again, err := db.TakeUpload(t.Context(), u.ID, taken.Fence, taken.Owner)
		must(t, err)
		orphans, err := db.OrphanedUploads(t.Context(), "another", 5, 10)
		must(t, err)
		wantEqual(t, len(orphans), 0)

		must(t, db.RemoveReplica(t.Context(), taken.Owner))
		orphans, err = db.OrphanedUploads(t.Context(), "another", 5, 10)
		must(t, err)
		wantEqual(t, []any{len(orphans), orphans[0].ID}, []any{1, u.ID})
		orphans, err = db.OrphanedUploads(t.Context(), "another", 2, 10)
		must(t, err)
		wantEqual(t, len(orphans), 0)
		_, err = db.TakeUpload(t.Context(), u.ID, again.Fence, "another")
		must(t, err)
		_, _, err = db.UploadPiece(t.Context(), u.ID, again.Fence, 0)
		wantError(t, err, models.ErrStaleOwner)
	})
}

func TestARecordingBecomesOneTurn(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		u := whole(t, db, user.ID)
		must(t, db.RenewReplica(t.Context(), "replica-1", time.Minute))
		u, err := db.TakeUpload(t.Context(), u.ID, u.Fence, "replica-1")
		must(t, err)
		turn := models.NewTurn{UserID: user.ID, Content: "hello", Owner: "replica-1", UploadID: u.ID, UploadFence: u.Fence}
		stale := turn
		stale.UploadFence--
		_, err = db.AppendTurn(t.Context(), stale)
		wantError(t, err, models.ErrStaleOwner)
		wantEqual(t, count(t, db, "messages"), 0)

		var replyID int64
		got := tally(together(8, func(int) error {
			ex, err := db.AppendTurn(t.Context(), turn)
			if err == nil {
				replyID = ex.Reply.ID
			}
			return err
		}), errorName)
		wantEqual(t, got, map[string]int{"ok": 1, models.ErrStaleOwner.Error(): 7})
		wantEqual(t, []int{count(t, db, "chats"), count(t, db, "messages"), count(t, db, "upload_chunks")}, []int{1, 2, 0})

		used, err := db.Upload(t.Context(), user.ID, u.ID)
		must(t, err)
		wantEqual(t, []any{used.Ended, used.MessageID, used.Owner}, []any{true, replyID, ""})
		// Complete it once more, and it is the same.
		again, err := db.CompleteUpload(t.Context(), models.Completion{UserID: user.ID, UploadID: u.ID})
		must(t, err)
		wantEqual(t, again.MessageID, used.MessageID)
		_, err = db.AppendChunk(t.Context(), models.NewChunk{UserID: user.ID, UploadID: u.ID, Offset: 0, Data: noise(10)})
		wantError(t, err, models.ErrUploadWhole)
		_, err = db.TakeUpload(t.Context(), u.ID, used.Fence, "replica-1")
		wantError(t, err, models.ErrStaleOwner)
		ex, err := db.Exchange(t.Context(), user.ID, used.MessageID)
		must(t, err)
		wantEqual(t, []any{ex.User.Content, ex.Reply.ID, ex.Replayed}, []any{"hello", used.MessageID, false})

		// With the message it goes too.
		_, err = db.DeleteChat(t.Context(), user.ID, ex.Chat.ID)
		must(t, err)
		wantEqual(t, count(t, db, "uploads"), 0)
	})
}

func TestWhatIsWantedOfARecordingIsSaidOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		other, _ := newUser(t, db)
		u := whole(t, db, user.ID)
		again, err := db.CompleteUpload(t.Context(), models.Completion{UserID: user.ID, UploadID: u.ID, Voice: "kal", Speed: 3})
		must(t, err)
		wantEqual(t, []any{again.Voice, again.Speed, again.Whole, again.Format}, []any{"slt", 1.5, true, "wav"})
		wantEqual(t, again.ExpiresAt.Equal(u.ExpiresAt), true)

		empty := newUpload(t, db, user.ID)
		_, err = db.CompleteUpload(t.Context(), models.Completion{UserID: user.ID, UploadID: empty.ID})
		wantError(t, err, models.ErrUploadEmpty)
		_, err = db.CompleteUpload(t.Context(), models.Completion{UserID: other.ID, UploadID: empty.ID})
		wantError(t, err, models.ErrForbidden)
		_, err = db.CompleteUpload(t.Context(), models.Completion{UserID: other.ID, UploadID: 999})
		wantError(t, err, models.ErrNotFound)

		// Where it goes can be said with it, and it lives on for a while.
		chat := value(t)(createChat(t, db, user.ID))
		late := add(t, db, newUpload(t, db, user.ID), noise(10))
		kept, err := db.CompleteUpload(t.Context(), models.Completion{
			UserID: user.ID, UploadID: late.ID, ChatID: chat.ID, Format: "ogg", Keep: 2 * time.Hour,
			Key: &models.IdempotencyKey{Route: "r", Key: "k", BodyHash: "h"},
		})
		must(t, err)
		wantEqual(t, []any{kept.ChatID, kept.Format, kept.Sniffed, kept.KeyRoute, kept.Key, kept.BodyHash},
			[]any{chat.ID, "ogg", true, "r", "k", "h"})
		if kept.ExpiresAt.Before(time.Now().Add(time.Hour + time.Minute)) {
			t.Errorf("it expires at %v", kept.ExpiresAt)
		}
		_, err = db.CompleteUpload(t.Context(), models.Completion{UserID: other.ID, UploadID: late.ID, ChatID: chat.ID})
		wantError(t, err, models.ErrForbidden)
	})
}

func TestATryThatCameToNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		must(t, db.RenewReplica(t.Context(), "replica-1", time.Minute))
		u := whole(t, db, user.ID)
		take := func() {
			t.Helper()
			var err error
			u, err = db.Upload(t.Context(), user.ID, u.ID)
			must(t, err)
			u, err = db.TakeUpload(t.Context(), u.ID, u.Fence, "replica-1")
			must(t, err)
		}
		state := func() []any {
			t.Helper()
			got, err := db.Upload(t.Context(), user.ID, u.ID)
			must(t, err)
			return []any{got.Owner, got.Failure, got.Transcript, got.Ended, got.Orphaned, count(t, db, "upload_chunks")}
		}
		take()
		seen, err := db.OrphanedUploads(t.Context(), "replica-1", 5, 10)
		must(t, err)
		wantEqual(t, len(seen), 1)
		must(t, db.EndTry(t.Context(), models.UploadEnd{UploadID: u.ID, Fence: u.Fence, Failure: "voice_failed", Transcript: "some"}))
		wantEqual(t, state(), []any{"", "voice_failed", "some", false, true, 1})
		orphans, err := db.OrphanedUploads(t.Context(), "replica-1", 5, 10)
		must(t, err)
		wantEqual(t, len(orphans), 0)
		// Nor is it taken by who saw it before it failed.
		_, err = db.TakeUpload(t.Context(), u.ID, seen[0].Fence, "replica-1")
		wantError(t, err, models.ErrStaleOwner)

		// Whoever completes it again begins another try.
		_, err = db.CompleteUpload(t.Context(), models.Completion{UserID: user.ID, UploadID: u.ID})
		must(t, err)
		wantEqual(t, state(), []any{"", "", "some", false, true, 1})
		take()
		must(t, db.EndTry(t.Context(), models.UploadEnd{UploadID: u.ID, Fence: u.Fence}))
		wantEqual(t, state(), []any{"", "", "some", false, true, 1})

		take()
		wantError(t, db.EndTry(t.Context(), models.UploadEnd{UploadID: u.ID, Fence: u.Fence - 1, Dropped: true}), models.ErrStaleOwner)
		must(t, db.EndTry(t.Context(), models.UploadEnd{UploadID: u.ID, Fence: u.Fence, Failure: "nothing_heard", Dropped: true}))
		wantEqual(t, state(), []any{"", "nothing_heard", "", true, true, 0})
		wantError(t, db.EndTry(t.Context(), models.UploadEnd{UploadID: u.ID, Fence: u.Fence}), models.ErrStaleOwner)
	})
}

func TestAKeyedExchange(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		key := models.IdempotencyKey{Route: "voice/messages", Key: "k", BodyHash: "h"}
		_, err := db.KeyedExchange(t.Context(), user.ID, key)
		wantError(t, err, models.ErrNotFound)
		ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: user.ID, Content: "hello", Owner: "replica-1", Key: &key})
		must(t, err)
		wantEqual(t, db.ChatIdle(t.Context(), ex.Chat.ID), error(&models.ReplyInProgress{MessageID: ex.Reply.ID}))
		again, err := db.KeyedExchange(t.Context(), user.ID, key)
		must(t, err)
		wantEqual(t, []any{again.Reply.ID, again.Replayed}, []any{ex.Reply.ID, true})
		key.BodyHash = ""
		_, err = db.KeyedExchange(t.Context(), user.ID, key)
		wantError(t, err, models.ErrKeyReused)
		finish(t, db, ex, "hi")
		must(t, db.ChatIdle(t.Context(), ex.Chat.ID))
	})
}
