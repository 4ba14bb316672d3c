package models_test

import (
	"fmt"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestAUserIsReadAsItWasCreated(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		created, session := newUser(t, db)
		if created.ID <= 0 || session.ID <= 0 || session.UserID != created.ID {
			t.Errorf("got user %d and session %d of user %d, want ids and the same user", created.ID, session.ID, session.UserID)
		}
		byID, err := db.User(t.Context(), created.ID)
		must(t, err)
		wantEqual(t, byID, created)
		byEmail, err := db.UserByEmail(t.Context(), created.Email)
		must(t, err)
		wantEqual(t, byEmail, created)

		_, err = db.User(t.Context(), created.ID+1)
		wantError(t, err, models.ErrNotFound)
		_, err = db.UserByEmail(t.Context(), "nobody@example.org")
		wantError(t, err, models.ErrNotFound)
	})
}

func TestTimesAreUTCInMicroseconds(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		zone := time.FixedZone("", -5*60*60)
		for given, want := range map[time.Time]time.Time{
			time.Date(2026, 3, 1, 23, 30, 0, 123456789, zone):       time.Date(2026, 3, 2, 4, 30, 0, 123456000, time.UTC),
			time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC):           time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC),
			time.Date(2026, 3, 1, 23, 30, 0, 100_000_999, time.UTC): time.Date(2026, 3, 1, 23, 30, 0, 100_000_000, time.UTC),
		} {
			u := models.User{Email: given.String(), CreatedAt: given}
			s := models.DeviceSession{SID: given.String(), ExpiresAt: given}
			must(t, db.CreateUser(t.Context(), &u, &s))
			read, err := db.User(t.Context(), u.ID)
			must(t, err)
			for _, got := range []time.Time{u.CreatedAt, s.ExpiresAt, read.CreatedAt} {
				if got.Format(time.RFC3339Nano) != want.Format(time.RFC3339Nano) {
					t.Errorf("stored %v: got %v, want %v", given, got, want)
				}
			}
		}
	})
}

func TestOneAddressIsOneAccount(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		errs := together(20, func(i int) error {
			u := models.User{Email: "same@example.org", UserName: "same", PasswordHash: "x"}
			s := models.DeviceSession{SID: fmt.Sprint("sid", i), ExpiresAt: time.Now().Add(time.Hour)}
			return db.CreateUser(t.Context(), &u, &s)
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "user exists": 19})
		wantEqual(t, count(t, db, "users"), 1)
		wantEqual(t, count(t, db, "device_sessions"), 1)
	})
}

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
