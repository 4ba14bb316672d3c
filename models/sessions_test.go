package models_test

import (
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestRotation(t *testing.T) {
	t.Parallel()
	type step struct {
		generation int64
		after      time.Duration // since the session began
		touch      bool          // instead: tokens of the generation are used
	}
	type outcome struct {
		rotation   models.Rotation
		generation int64
		err        string
	}
	tests := map[string]struct {
		before []step
		last   step
		want   outcome
	}{
		"the current token gets a successor": {
			last: step{generation: 1}, want: outcome{models.Rotated, 2, "ok"},
		},
		"so does the successor": {
			before: []step{{generation: 1}},
			last:   step{generation: 2}, want: outcome{models.Rotated, 3, "ok"},
		},
		"the previous one gets the same successor while that is unused": {
			before: []step{{generation: 1}},
			last:   step{generation: 1, after: 50 * time.Minute}, want: outcome{models.Repeated, 2, "ok"},
		},
		"and within 10 s if it is used": {
			before: []step{{generation: 1}, {generation: 2, touch: true}},
			last:   step{generation: 1, after: 10*time.Second - time.Microsecond}, want: outcome{models.Repeated, 2, "ok"},
		},
		"but not at 10 s": {
			before: []step{{generation: 1}, {generation: 2, touch: true}},
			last:   step{generation: 1, after: 10 * time.Second}, want: outcome{models.Reused, 2, "ok"},
		},
		"and asking again does not lengthen the 10 s": {
			before: []step{{generation: 1}, {generation: 2, touch: true}, {generation: 1, after: 9 * time.Second}},
			last:   step{generation: 1, after: 12 * time.Second}, want: outcome{models.Reused, 2, "ok"},
		},
		"use of the previous generation is not use of the successor": {
			before: []step{{generation: 1}, {generation: 1, touch: true}},
			last:   step{generation: 1, after: time.Minute}, want: outcome{models.Repeated, 2, "ok"},
		},
		"an older token ends the session at once": {
			before: []step{{generation: 1}, {generation: 2}},
			last:   step{generation: 1}, want: outcome{models.Reused, 3, "ok"},
		},
		"after which no token is known": {
			before: []step{{generation: 1}, {generation: 2}, {generation: 1}},
			last:   step{generation: 3}, want: outcome{err: "not found"},
		},
		"a generation that never was is not found": {
			last: step{generation: 2}, want: outcome{err: "not found"},
		},
		"an expired session is not found": {
			last: step{generation: 1, after: time.Hour}, want: outcome{err: "not found"},
		},
		"nor is its previous token": {
			before: []step{{generation: 1}},
			last:   step{generation: 1, after: time.Hour}, want: outcome{err: "not found"},
		},
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				_, s := newUser(t, db)
				began := s.ExpiresAt.Add(-time.Hour)
				present := func(s step, sid string) outcome {
					if s.touch {
						must(t, db.TouchSession(t.Context(), sid, s.generation, began.Add(s.after)))
						return outcome{}
					}
					got, rotation, err := db.RotateSession(t.Context(), sid, s.generation, began.Add(s.after))
					return outcome{rotation, got.Generation, errorName(err)}
				}
				for _, b := range test.before {
					present(b, s.SID)
				}
				if got := present(test.last, s.SID); got != test.want {
					t.Errorf("got %+v, want %+v", got, test.want)
				}
			})
		}
	})
}

func TestParallelRotationsGiveOneSuccessor(t *testing.T) {
	t.Parallel()
	type result struct {
		session  models.DeviceSession
		rotation models.Rotation
		err      error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, s := newUser(t, db)
		now := time.Now()
		results := together(50, func(i int) (r result) {
			r.session, r.rotation, r.err = db.RotateSession(t.Context(), s.SID, 1, now.Add(time.Duration(i)*time.Millisecond))
			return r
		})
		rotations := make(map[models.Rotation]int)
		for _, r := range results {
			must(t, r.err)
			rotations[r.rotation]++
			wantEqual(t, r.session, results[0].session)
		}
		wantEqual(t, rotations, map[models.Rotation]int{models.Rotated: 1, models.Repeated: 49})
		wantEqual(t, results[0].session.Generation, int64(2))
	})
}

func TestTouchingWritesOnceARotation(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, s := newUser(t, db)
		stored := func() models.DeviceSession {
			t.Helper()
			var got models.DeviceSession
			must(t, db.Read().NewSelect().Model(&got).Where("sid = ?", s.SID).Scan(t.Context()))
			return got
		}
		first, later := s.CreatedAt.Add(time.Minute), s.CreatedAt.Add(2*time.Minute)
		want := s
		want.GenerationUsed, want.LastSeenAt = true, first
		for _, touch := range []struct {
			sid        string
			generation int64
			at         time.Time
		}{{s.SID, 1, first}, {s.SID, 1, later}, {s.SID, 2, later}, {"unknown", 1, later}} {
			must(t, db.TouchSession(t.Context(), touch.sid, touch.generation, touch.at))
			wantEqual(t, stored(), want)
		}
		_, _, err := db.RotateSession(t.Context(), s.SID, 1, later)
		must(t, err)
		want.Generation, want.GenerationUsed, want.RotatedAt, want.LastSeenAt = 2, false, later, later
		wantEqual(t, stored(), want)
	})
}

func TestASecondSessionOfAUser(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		s := models.DeviceSession{SID: "second", UserID: u.ID, ExpiresAt: time.Now().Add(time.Hour)}
		must(t, db.CreateSession(t.Context(), &s))
		if s.ID == 0 || s.Generation != 1 || s.CreatedAt.IsZero() || s.RotatedAt != s.CreatedAt || s.LastSeenAt != s.CreatedAt {
			t.Errorf("got %+v, want an id, generation 1 and times", s)
		}
		wantError(t, db.CreateSession(t.Context(), &models.DeviceSession{SID: "third", UserID: u.ID + 1}), models.ErrNotFound)
	})
}

func TestAnEndedSessionIsRevoked(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, ended := newUser(t, db)
		_, reused := newUser(t, db)
		must(t, db.EndSession(t.Context(), ended.SID, 15*time.Minute))
		must(t, db.EndSession(t.Context(), ended.SID, 15*time.Minute))
		must(t, db.EndSession(t.Context(), "unknown", 15*time.Minute))
		_, _, err := db.RotateSession(t.Context(), ended.SID, 1, time.Now())
		wantError(t, err, models.ErrNotFound)

		for _, generation := range []int64{1, 2, 1} {
			_, _, err := db.RotateSession(t.Context(), reused.SID, generation, time.Now())
			must(t, err)
		}
		got, err := db.Revocations(t.Context(), 0)
		must(t, err)
		if len(got) != 2 {
			t.Fatalf("got %d revocations, want one for each session: %+v", len(got), got)
		}
		wantEqual(t, got, []models.Revocation{
			{ID: got[0].ID, SID: ended.SID, RevokedAt: got[0].RevokedAt, ExpiresAt: got[0].RevokedAt.Add(15 * time.Minute)},
			{ID: got[1].ID, SID: reused.SID, RevokedAt: got[1].RevokedAt, ExpiresAt: reused.ExpiresAt},
		})
		later, err := db.Revocations(t.Context(), got[0].ID)
		must(t, err)
		wantEqual(t, later, got[1:])
	})
}

func TestParallelReuseIsRevokedOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, s := newUser(t, db)
		for _, generation := range []int64{1, 2} {
			_, _, err := db.RotateSession(t.Context(), s.SID, generation, time.Now())
			must(t, err)
		}
		errs := together(20, func(int) error {
			_, _, err := db.RotateSession(t.Context(), s.SID, 1, time.Now())
			return err
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "not found": 19})
		wantEqual(t, count(t, db, "revocations"), 1)
	})
}

// A reader that goes on after the last id it has seen must not pass a row that
// is committed later under a lower id.
func TestAReaderOfTheFeedMissesNoRevocation(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		const sessions = 60
		u, _ := newUser(t, db)
		sids := make(map[string]bool)
		var queue []string
		for i := range sessions {
			s := models.DeviceSession{SID: string(rune('A' + i)), UserID: u.ID, ExpiresAt: time.Now().Add(time.Hour)}
			must(t, db.CreateSession(t.Context(), &s))
			sids[s.SID], queue = true, append(queue, s.SID)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for _, err := range together(sessions, func(i int) error {
				return db.EndSession(t.Context(), queue[i], time.Hour)
			}) {
				if err != nil {
					t.Error(err)
				}
			}
		}()
		var last int64
		for reading := true; reading; {
			select {
			case <-ended:
				reading = false // after one more look
			default:
			}
			rs, err := db.Revocations(t.Context(), last)
			must(t, err)
			for _, r := range rs {
				delete(sids, r.SID)
				last = r.ID
			}
		}
		if len(sids) != 0 {
			t.Errorf("missed %d of %d revocations", len(sids), sessions)
		}
	})
}
