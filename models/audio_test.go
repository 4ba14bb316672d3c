package models_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// speak appends a turn whose reply is spoken.
func speak(t testing.TB, db *models.DB, chat models.Chat) models.Exchange {
	t.Helper()
	ex, err := db.AppendTurn(t.Context(), models.NewTurn{
		UserID: chat.UserID, ChatID: chat.ID, Content: "question", Owner: "replica-1",
		Voice: &models.Voice{Name: "slt", Speed: 1.5, Format: "mp3"},
	})
	must(t, err)
	return ex
}

// piece is the one that comes next, seq, of the first attempt.
func piece(ex models.Exchange, seq int) models.AudioPiece {
	return models.AudioPiece{
		MessageID: ex.Reply.ID, Seq: seq, Attempt: 1, Upto: int64(10 * seq), Data: fmt.Append([]byte{0, 0xff}, seq),
	}
}

func audio(t testing.TB, db *models.DB, ex models.Exchange, after int) []models.AudioPiece {
	t.Helper()
	ps, err := db.Audio(t.Context(), ex.Reply.ID, after)
	must(t, err)
	return ps
}

func TestAReplyIsSpoken(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := speak(t, db, chat)
		want := models.Speech{
			MessageID: ex.Reply.ID, UserID: chat.UserID, Voice: models.Voice{Name: "slt", Speed: 1.5, Format: "mp3"},
			Owner: "replica-1", Fence: ex.SpeechFence, Attempt: 1, State: models.SpeechRunning, StartedAt: ex.Reply.CreatedAt,
		}
		stored := func() {
			t.Helper()
			got, err := db.Speech(t.Context(), ex.Reply.ID)
			must(t, err)
			wantEqual(t, got, want)
			p, err := db.ReplyProgress(t.Context(), ex.Reply.ID, 0)
			must(t, err)
			known := want
			known.UserID, known.Owner, known.Fence, known.StartedAt = 0, "", 0, time.Time{}
			wantEqual(t, p.Speech, &known)
		}
		stored()
		if ex.SpeechFence == 0 {
			t.Error("the owner has no fence")
		}
		must(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 1)))
		finish(t, db, ex, "the text ends before")
		must(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 2)))
		must(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 2))) // the answer got lost
		want.Pieces = 2
		stored()
		wantEqual(t, audio(t, db, ex, 0), []models.AudioPiece{piece(ex, 1), piece(ex, 2)})
		wantEqual(t, audio(t, db, ex, 1), []models.AudioPiece{piece(ex, 2)})
		wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence+1, piece(ex, 3)), models.ErrStaleOwner)
		wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 4)), models.ErrStaleOwner)
		later := piece(ex, 3)
		later.Attempt = 2
		wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence, later), models.ErrStaleOwner)

		wantError(t, db.EndSpeech(t.Context(), ex.Reply.ID, ex.SpeechFence+1, models.SpeechDone), models.ErrStaleOwner)
		must(t, db.EndSpeech(t.Context(), ex.Reply.ID, ex.SpeechFence, models.SpeechDone))
		want.State, want.Owner = models.SpeechDone, ""
		stored()
		must(t, db.StopSpeech(t.Context(), ex.Reply.ID))
		stored()
		wantError(t, db.EndSpeech(t.Context(), ex.Reply.ID, ex.SpeechFence, models.SpeechFailed), models.ErrStaleOwner)
		wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 3)), models.ErrStaleOwner)

		text := say(t, db, chat, "and now?", "text alone")
		wantEqual(t, text.SpeechFence, int64(0))
		_, err := db.Speech(t.Context(), text.Reply.ID)
		wantError(t, err, models.ErrNotFound)
		p, err := db.ReplyProgress(t.Context(), text.Reply.ID, 0)
		must(t, err)
		wantEqual(t, p.Speech, (*models.Speech)(nil))

		_, err = db.DeleteChat(t.Context(), chat.UserID, chat.ID)
		must(t, err)
		wantEqual(t, audio(t, db, ex, 0), []models.AudioPiece(nil))
		wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 3)), models.ErrNotFound)
		wantError(t, db.EndSpeech(t.Context(), ex.Reply.ID, ex.SpeechFence, models.SpeechDone), models.ErrNotFound)
		wantError(t, db.ReleaseSpeech(t.Context(), ex.Reply.ID, ex.SpeechFence), models.ErrNotFound)
		must(t, db.StopSpeech(t.Context(), ex.Reply.ID))
	})
}

func TestASpeechIsTakenByOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		must(t, db.RenewReplica(t.Context(), "replica-1", time.Hour))
		ex := speak(t, db, newChat(t, db))
		found := func(replica string) []int {
			t.Helper()
			own, orphaned, err := db.RunningSpeeches(t.Context(), replica, 10)
			must(t, err)
			return []int{len(own), len(orphaned)}
		}
		wantEqual(t, found("replica-1"), []int{1, 0})
		wantEqual(t, found("replica-2"), []int{0, 0})
		_, err := db.TakeSpeech(t.Context(), ex.Reply.ID, ex.SpeechFence, "replica-2")
		wantError(t, err, models.ErrStaleOwner)

		fence := ex.SpeechFence
		for round, free := range []func() error{
			func() error { return db.RenewReplica(t.Context(), "replica-1", 0) },
			func() error { return db.ReleaseSpeech(t.Context(), ex.Reply.ID, fence) },
		} {
			must(t, free())
			wantEqual(t, found("replica-3"), []int{0, 1})
			results := together(10, func(i int) string {
				_, err := db.TakeSpeech(t.Context(), ex.Reply.ID, fence, fmt.Sprint("taker-", i))
				return errorName(err)
			})
			won := 0
			for _, r := range results {
				if r == "ok" {
					won++
				} else if r != models.ErrStaleOwner.Error() {
					t.Error(r)
				}
			}
			if won != 1 {
				t.Errorf("round %d: %d of %v took it", round, won, results)
			}
			wantError(t, db.AppendAudio(t.Context(), fence, piece(ex, 1)), models.ErrStaleOwner)
			fence++
		}
		// Its own a replica takes again, of which it does not know.
		s, err := db.Speech(t.Context(), ex.Reply.ID)
		must(t, err)
		must(t, db.RenewReplica(t.Context(), s.Owner, time.Hour))
		got, err := db.TakeSpeech(t.Context(), ex.Reply.ID, fence, s.Owner)
		must(t, err)
		wantEqual(t, got, fence+1)
		// Who stops it takes it from its owner.
		must(t, db.StopSpeech(t.Context(), ex.Reply.ID))
		wantError(t, db.AppendAudio(t.Context(), got, piece(ex, 1)), models.ErrStaleOwner)
		wantEqual(t, found(s.Owner), []int{0, 0})
		_, err = db.TakeSpeech(t.Context(), ex.Reply.ID, got+1, "replica-9")
		wantError(t, err, models.ErrStaleOwner)
	})
}

// Of the owners of one speech that all think it theirs, one stores each piece.
func TestAPieceIsStoredOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ex := speak(t, db, newChat(t, db))
		for seq := 1; seq <= 3; seq++ {
			for _, err := range together(8, func(i int) error {
				p := piece(ex, seq)
				p.Data = []byte{byte(i)}
				return db.AppendAudio(t.Context(), ex.SpeechFence+int64(i%2), p)
			}) {
				if err != nil && !errors.Is(err, models.ErrStaleOwner) {
					t.Error(err)
				}
			}
			wantEqual(t, len(audio(t, db, ex, 0)), seq)
		}
	})
}

// What was spoken of the text that two attempts share stays.
func TestAnotherAttemptIsSpoken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ shared, kept int }{
		"that shares nothing":         {0, 0},
		"that shares a part":          {29, 2},
		"that shares all, and begins": {30, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db *models.DB) {
				ex := speak(t, db, newChat(t, db))
				for seq := 1; seq <= 3; seq++ {
					must(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, seq)))
				}
				must(t, db.RestartReply(t.Context(), models.Restart{
					MessageID: ex.Reply.ID, Fence: 1, Attempt: 2, SharedBytes: int64(test.shared), Spoken: true,
				}))
				next := piece(ex, test.kept+1)
				wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence, next), models.ErrStaleOwner)
				next.Attempt = 2
				must(t, db.AppendAudio(t.Context(), ex.SpeechFence, next))
				var want []models.AudioPiece
				for seq := 1; seq <= test.kept; seq++ {
					want = append(want, piece(ex, seq))
				}
				wantEqual(t, audio(t, db, ex, 0), append(want, next))
			})
		})
	}
}

func TestAudioLapses(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ended := speak(t, db, chat)
		must(t, db.AppendAudio(t.Context(), ended.SpeechFence, piece(ended, 1)))
		finish(t, db, ended, "text")
		must(t, db.EndSpeech(t.Context(), ended.Reply.ID, ended.SpeechFence, models.SpeechFailed))
		running := speak(t, db, chat)
		must(t, db.AppendAudio(t.Context(), running.SpeechFence, piece(running, 1)))
		for _, step := range []struct {
			after time.Duration
			state string
			kept  int
		}{{59 * time.Minute, models.SpeechFailed, 1}, {61 * time.Minute, models.SpeechExpired, 0}, {2 * time.Hour, models.SpeechExpired, 0}} {
			must(t, db.PurgeExpired(t.Context(), time.Now().Add(step.after), time.Hour))
			s, err := db.Speech(t.Context(), ended.Reply.ID)
			must(t, err)
			wantEqual(t, []any{s.State, s.Pieces, len(audio(t, db, ended, 0)), len(audio(t, db, running, 0))}, []any{step.state, 1, step.kept, 1})
		}
	})
}

// A step before the wipe, what is spoken ends, also of texts that have ended.
func TestSigningAllOutEndsWhatIsSpoken(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		running, whole := speak(t, db, newChat(t, db)), speak(t, db, newChat(t, db))
		finish(t, db, whole, "text")
		_, ids, err := db.SignOutAll(t.Context(), accessTTL, models.By{})
		must(t, err)
		wantEqual(t, ids, []int64{running.Reply.ID, whole.Reply.ID})
		for _, ex := range []models.Exchange{running, whole} {
			wantError(t, db.AppendAudio(t.Context(), ex.SpeechFence, piece(ex, 1)), models.ErrStaleOwner)
		}
	})
}
