package models_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

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
			must(t, db.CreateUser(t.Context(), &u, &s, models.By{}))
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
			return db.CreateUser(t.Context(), &u, &s, models.By{})
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "user exists": 19})
		wantEqual(t, count(t, db, "users"), 1)
		wantEqual(t, count(t, db, "device_sessions"), 1)
	})
}

func TestASignUpIsAudited(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u := models.User{Email: "new@example.org", UserName: "new", PasswordHash: "x"}
		s := models.DeviceSession{SID: "sid", Name: "Firefox", ExpiresAt: time.Now().Add(time.Hour)}
		must(t, db.CreateUser(t.Context(), &u, &s, models.By{IP: "192.0.2.9", RequestID: "signup"}))
		wantEqual(t, audited(t, db), []models.AuditEntry{{
			Action: "account.created", SubjectID: u.ID, SubjectEmail: u.Email, IP: "192.0.2.9", RequestID: "signup",
		}})
	})
}

func TestAUserChanges(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		taken, _ := newUser(t, db)
		for name, test := range map[string]struct {
			name, email, hash string // "": left out; the hash: the present one
			want              string
			changed           bool // the address
		}{
			"the name alone":                      {name: "Another", want: "ok"},
			"the name, whatever the password":     {name: "Another", hash: "of-another", want: "ok"},
			"the address":                         {email: "the-address@example.net", want: "ok", changed: true},
			"both":                                {name: "Another", email: "both@example.net", want: "ok", changed: true},
			"the address that it has":             {name: "Another", email: "same", want: "ok"},
			"the address by a former password":    {name: "Another", email: "x@example.net", hash: "of-another", want: "not found"},
			"somebody else's address":             {name: "Another", email: taken.Email, want: "user exists"},
			"nothing":                             {want: "ok"},
			"an address that is none, for a mask": {email: "nowhere", want: "ok", changed: true},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				u, _ := newUser(t, db)
				setReset(t, db, u, name)
				change, want := models.UserChange{PasswordHash: u.PasswordHash}, u
				if test.hash != "" {
					change.PasswordHash = test.hash
				}
				if test.name != "" {
					change.UserName, want.UserName = &test.name, test.name
				}
				if test.email == "same" {
					test.email = u.Email
				}
				if test.email != "" {
					change.Email, want.Email = &test.email, test.email
				}
				by := models.By{UserID: u.ID, IP: "192.0.2.9", RequestID: name}
				got, err := db.UpdateUser(t.Context(), u.ID, change, by)
				wantEqual(t, errorName(err), test.want)
				if err != nil {
					want = u
				} else {
					wantEqual(t, got, want)
				}
				stored, err := db.User(t.Context(), u.ID)
				must(t, err)
				wantEqual(t, stored, want)

				masked := map[string]string{
					"the address": "t…@example.net", "both": "b…@example.net", "an address that is none, for a mask": "…",
				}[name]
				var (
					entries []models.AuditEntry
					mails   []models.Mail
					reset   = "ok"
				)
				if test.changed {
					reset = "not found"
					entries = []models.AuditEntry{{
						Action: "email.changed", ActorID: u.ID, ActorEmail: u.Email, SubjectID: u.ID, SubjectEmail: u.Email,
						IP: "192.0.2.9", RequestID: name, Detail: "to " + masked,
					}}
					mails = []models.Mail{{
						Kind: models.MailEmailChanged, UserID: u.ID, Recipient: u.Email,
						Data: map[string]string{"ip": "192.0.2.9", "new_email": masked},
					}}
				}
				_, err = db.Reset(t.Context(), name, time.Now())
				wantEqual(t, errorName(err), reset)
				wantEqual(t, of(u.ID, actions(audited(t, db), "email.changed")), entries)
				wantEqual(t, ofMails(u.ID, outbox(t, db)), mails)
			})
		}
		name := "Nobody"
		_, err := db.UpdateUser(t.Context(), 9999, models.UserChange{UserName: &name}, models.By{})
		wantError(t, err, models.ErrNotFound)
	})
}

// of are the entries about a user.
func of(userID int64, entries []models.AuditEntry) []models.AuditEntry {
	var its []models.AuditEntry
	for _, e := range entries {
		if e.SubjectID == userID {
			its = append(its, e)
		}
	}
	return its
}

// ofMails are the mails to a user.
func ofMails(userID int64, mails []models.Mail) []models.Mail {
	var its []models.Mail
	for _, m := range mails {
		if m.UserID == userID {
			its = append(its, m)
		}
	}
	return its
}

func TestOneOfManyGetsAnAddress(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var users []models.User
		for range 12 {
			u, _ := newUser(t, db)
			users = append(users, u)
		}
		email := "wanted@example.org"
		errs := together(len(users), func(i int) error {
			_, err := db.UpdateUser(t.Context(), users[i].ID, models.UserChange{Email: &email, PasswordHash: users[i].PasswordHash}, models.By{})
			return err
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "user exists": 11})
		wantEqual(t, len(outbox(t, db)), 1)
	})
}

// A send refers to its user's row before it changes it. Whoever changes the
// address meanwhile waits for all of that: if it held the row already, each would
// wait for the other.
func TestAnAddressIsChangedWhileItsUserSends(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	u, _ := newUser(t, db)
	var (
		seen    recorder
		hooked  = *db
		changed = make(chan error, 1)
		runs    int
	)
	hooked.Hook(&seen)
	email := "another@example.org"
	must(t, db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewRaw("SELECT 1 FROM users WHERE id = ? FOR KEY SHARE", u.ID).Exec(ctx); err != nil {
			return err
		}
		if runs++; runs == 1 {
			go func() {
				_, err := hooked.UpdateUser(t.Context(), u.ID, models.UserChange{Email: &email, PasswordHash: u.PasswordHash}, models.By{})
				changed <- err
			}()
			awaitLock(t, db)
		}
		_, err := tx.NewRaw("UPDATE users SET event_seq = event_seq + 1 WHERE id = ?", u.ID).Exec(ctx)
		return err
	}))
	must(t, <-changed)
	tries := slices.DeleteFunc(seen.statements, func(s string) bool { return !strings.HasPrefix(s, "SELECT") })
	wantEqual(t, []int{runs, len(tries)}, []int{1, 1})
}
