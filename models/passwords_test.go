package models_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestAPasswordHashIsReplacedOnlyIfItIsStillTheOld(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		errs := together(10, func(i int) error {
			return db.SetPasswordHash(t.Context(), u.ID, u.PasswordHash, fmt.Sprint("hash ", i))
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "not found": 9})
		got, err := db.User(t.Context(), u.ID)
		must(t, err)
		for i, err := range errs {
			if err == nil && got.PasswordHash != fmt.Sprint("hash ", i) {
				t.Errorf("got %q, want that of caller %d", got.PasswordHash, i)
			}
		}
	})
}

func TestAPasswordIsChangedOnce(t *testing.T) {
	t.Parallel()
	type result struct {
		sids []string
		err  error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, kept := newUser(t, db)
		_, theirs := newUser(t, db)
		others := []string{newSession(t, db, u.ID).SID, newSession(t, db, u.ID).SID}
		slices.Sort(others)
		setReset(t, db, u, "token")
		must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
		by := models.By{UserID: u.ID, IP: "192.0.2.9", RequestID: "change"}
		results := together(20, func(i int) (r result) {
			r.sids, r.err = db.ChangePassword(t.Context(), u.ID, u.PasswordHash, fmt.Sprint("hash ", i), kept.SID, accessTTL, by)
			return r
		})
		wantEqual(t, tally(results, func(r result) string { return errorName(r.err) }), map[string]int{"ok": 1, "not found": 19})
		for i, r := range results {
			if r.err != nil {
				wantEqual(t, len(r.sids), 0)
				continue
			}
			wantEqual(t, r.sids, others)
			got, err := db.User(t.Context(), u.ID)
			must(t, err)
			want := u
			want.PasswordHash = fmt.Sprint("hash ", i)
			wantEqual(t, got, want)
		}
		wantEqual(t, sessions(t, db, u.ID), []string{kept.SID})
		wantEqual(t, sessions(t, db, theirs.UserID), []string{theirs.SID})
		wantEqual(t, revoked(t, db), others)
		wantEqual(t, actions(audited(t, db), "password.changed"), []models.AuditEntry{{
			Action: "password.changed", ActorID: u.ID, ActorEmail: u.Email, SubjectID: u.ID, SubjectEmail: u.Email,
			IP: "192.0.2.9", RequestID: "change",
		}})
		wantEqual(t, outbox(t, db), []models.Mail{{
			Kind: models.MailPasswordChanged, UserID: u.ID, Recipient: u.Email, Data: map[string]string{"ip": "192.0.2.9"},
		}})
		_, err := db.Reset(t.Context(), "token", time.Now())
		wantError(t, err, models.ErrNotFound)
	})
}

// Whoever signs in by the former password at the moment in which it is changed
// does not stay signed in.
func TestNobodyStaysSignedInByAFormerPassword(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for round := range 10 {
			u, kept := newUser(t, db)
			errs := together(9, func(i int) error {
				if i == 4 {
					_, err := db.ChangePassword(t.Context(), u.ID, u.PasswordHash, "another", kept.SID, accessTTL, models.By{})
					return err
				}
				return db.CreateSession(t.Context(), &models.DeviceSession{
					SID: fmt.Sprint(round, " ", i), UserID: u.ID, PasswordHash: u.PasswordHash, ExpiresAt: time.Now().Add(time.Hour),
				}, models.By{})
			})
			must(t, errs[4])
			wantEqual(t, sessions(t, db, u.ID), []string{kept.SID})
		}
	})
}
