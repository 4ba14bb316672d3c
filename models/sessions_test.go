package models_test

import (
	"errors"
	"fmt"
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
					got, rotation, err := db.RotateSession(t.Context(), sid, s.generation, began.Add(s.after), accessTTL, models.By{})
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
			r.session, r.rotation, r.err = db.RotateSession(t.Context(), s.SID, 1, now.Add(time.Duration(i)*time.Millisecond), accessTTL, models.By{})
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
		_, _, err := db.RotateSession(t.Context(), s.SID, 1, later, accessTTL, models.By{})
		must(t, err)
		want.Generation, want.GenerationUsed, want.RotatedAt, want.LastSeenAt = 2, false, later, later
		wantEqual(t, stored(), want)
	})
}

func TestADeviceIsWhereItWasLastRefreshed(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, s := newUser(t, db)
		for i, step := range []struct{ from, want string }{
			{"", "192.0.2.7"}, {"2001:db8::1", "2001:db8::1"}, {"", "2001:db8::1"}, {"198.51.100.1", "198.51.100.1"},
		} {
			got, _, err := db.RotateSession(t.Context(), s.SID, int64(i+1), time.Now(), accessTTL, models.By{IP: step.from})
			must(t, err)
			wantEqual(t, got.IP, step.want)
		}
	})
}

func TestASecondSessionOfAUser(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		s := models.DeviceSession{SID: "second", UserID: u.ID, ExpiresAt: time.Now().Add(time.Hour)}
		must(t, db.CreateSession(t.Context(), &s, models.By{UserID: u.ID, IP: "192.0.2.1", RequestID: "r"}))
		if s.ID == 0 || s.Generation != 1 || s.CreatedAt.IsZero() || s.RotatedAt != s.CreatedAt || s.LastSeenAt != s.CreatedAt {
			t.Errorf("got %+v, want an id, generation 1 and times", s)
		}
		wantEqual(t, actions(audited(t, db), "session.started"), []models.AuditEntry{{
			Action: "session.started", ActorID: u.ID, ActorEmail: u.Email, SubjectID: u.ID, SubjectEmail: u.Email,
			IP: "192.0.2.1", RequestID: "r",
		}})
	})
}

func TestWhoMayBeginASession(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, first := newUser(t, db)
		disabled, itsFirst := newUser(t, db)
		_, err := db.Bun().NewRaw("UPDATE users SET disabled_at = ? WHERE id = ?", time.Now(), disabled.ID).Exec(t.Context())
		must(t, err)
		for name, test := range map[string]struct {
			userID int64
			hash   string
			want   error
		}{
			"a user":                        {u.ID, "", nil},
			"by the present password":       {u.ID, u.PasswordHash, nil},
			"by a former one":               {u.ID, "$argon2id$of-another", models.ErrNotFound},
			"one who is disabled":           {disabled.ID, disabled.PasswordHash, models.ErrNotFound},
			"one who does not exist at all": {disabled.ID + 1, "", models.ErrNotFound},
		} {
			s := models.DeviceSession{SID: name, UserID: test.userID, PasswordHash: test.hash, ExpiresAt: time.Now().Add(time.Hour)}
			if err := db.CreateSession(t.Context(), &s, models.By{}); !errors.Is(err, test.want) {
				t.Errorf("%s: got %v, want %v", name, err, test.want)
			}
		}
		wantEqual(t, sessions(t, db, u.ID), []string{"a user", "by the present password", first.SID})
		wantEqual(t, sessions(t, db, disabled.ID), []string{itsFirst.SID})
		wantEqual(t, len(actions(audited(t, db), "session.started")), 2)
	})
}

func TestAnEndedSessionIsRevoked(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, ended := newUser(t, db)
		_, reused := newUser(t, db)
		must(t, db.EndSession(t.Context(), ended.SID, accessTTL, models.By{}))
		must(t, db.EndSession(t.Context(), ended.SID, accessTTL, models.By{}))
		must(t, db.EndSession(t.Context(), "unknown", accessTTL, models.By{}))
		_, _, err := db.RotateSession(t.Context(), ended.SID, 1, time.Now(), accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)

		for _, generation := range []int64{1, 2, 1} {
			_, _, err := db.RotateSession(t.Context(), reused.SID, generation, time.Now(), accessTTL, models.By{})
			must(t, err)
		}
		got, err := db.Revocations(t.Context(), 0)
		must(t, err)
		if len(got) != 2 {
			t.Fatalf("got %d revocations, want one for each session: %+v", len(got), got)
		}
		wantEqual(t, got, []models.Revocation{
			{ID: got[0].ID, SID: ended.SID, RevokedAt: got[0].RevokedAt, ExpiresAt: got[0].RevokedAt.Add(lapse)},
			{ID: got[1].ID, SID: reused.SID, RevokedAt: got[1].RevokedAt, ExpiresAt: got[1].RevokedAt.Add(lapse)},
		})
		later, err := db.Revocations(t.Context(), got[0].ID)
		must(t, err)
		wantEqual(t, later, got[1:])
	})
}

func TestParallelReuseIsToldOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, s := newUser(t, db)
		for _, generation := range []int64{1, 2} {
			_, _, err := db.RotateSession(t.Context(), s.SID, generation, time.Now(), accessTTL, models.By{})
			must(t, err)
		}
		by := models.By{IP: "203.0.113.66", RequestID: "the-thief's"}
		errs := together(20, func(int) error {
			_, rotation, err := db.RotateSession(t.Context(), s.SID, 1, time.Now(), accessTTL, by)
			if err == nil && rotation != models.Reused {
				return fmt.Errorf("rotation %v", rotation)
			}
			return err
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "not found": 19})
		wantEqual(t, revoked(t, db), []string{s.SID})
		wantEqual(t, actions(audited(t, db), "session.reused"), []models.AuditEntry{{
			Action: "session.reused", SubjectID: u.ID, SubjectEmail: u.Email, IP: by.IP, RequestID: by.RequestID, Detail: s.Name,
		}})
		wantEqual(t, outbox(t, db), []models.Mail{{
			Kind: models.MailSessionReused, UserID: u.ID, Recipient: u.Email,
			Data: map[string]string{"device": s.Name, "ip": by.IP},
		}})
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
			must(t, db.CreateSession(t.Context(), &s, models.By{}))
			sids[s.SID], queue = true, append(queue, s.SID)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for _, err := range together(sessions, func(i int) error {
				return db.EndSession(t.Context(), queue[i], time.Hour, models.By{})
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
