package models_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// setReset gives a user a token, as the delivery of its mail does.
func setReset(t testing.TB, db *models.DB, u models.User, tokenHash string) {
	t.Helper()
	must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
	must(t, db.SetReset(t.Context(), u.ID, tokenHash, time.Now().Add(time.Hour)))
	_, err := db.Bun().NewRaw("DELETE FROM mails WHERE user_id = ? AND kind = ?", u.ID, models.MailResetPassword).Exec(t.Context())
	must(t, err)
}

func TestARequestedResetWaitsInTheOutboxOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		by := models.By{IP: "192.0.2.9", RequestID: "forgot"}
		want := []models.Mail{{
			Kind: models.MailResetPassword, UserID: u.ID, Recipient: u.Email, Data: map[string]string{"ip": "192.0.2.9"},
		}}
		errs := together(20, func(int) error { return db.RequestReset(t.Context(), u.Email, by) })
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 20})
		wantEqual(t, outbox(t, db), want)
		entry := models.AuditEntry{
			Action: "password.reset_requested", SubjectID: u.ID, SubjectEmail: u.Email, IP: "192.0.2.9", RequestID: "forgot",
		}
		wantEqual(t, actions(audited(t, db), entry.Action), slices.Repeat([]models.AuditEntry{entry}, 20))

		// One that is being sent is replaced by another: that it was sent says
		// nothing about the one that waits.
		claimed, err := db.ClaimMails(t.Context(), 10, time.Hour)
		must(t, err)
		must(t, db.RequestReset(t.Context(), u.Email, by))
		must(t, db.MailSent(t.Context(), claimed[0].ID))
		wantEqual(t, outbox(t, db), want)
	})
}

// Timing is not asserted: what is, is that the same is done.
func TestARequestForAnUnknownAddressLooksLikeAnyOther(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		disabled, _ := newUser(t, db)
		_, err := db.Bun().NewRaw("UPDATE users SET disabled_at = ? WHERE id = ?", time.Now(), disabled.ID).Exec(t.Context())
		must(t, err)
		statements := func(email string) []string {
			var r shapes
			hooked := *db
			hooked.Hook(&r)
			must(t, hooked.RequestReset(t.Context(), email, models.By{IP: "192.0.2.9"}))
			return r
		}
		known := statements(u.Email)
		wantEqual(t, len(known) > 3, true)
		wantEqual(t, statements("nobody@example.org"), known)
		wantEqual(t, statements(disabled.Email), known)
		wantEqual(t, len(outbox(t, db)), 1)
		wantEqual(t, actions(audited(t, db), "password.reset_requested")[1], models.AuditEntry{
			Action: "password.reset_requested", IP: "192.0.2.9",
		})
	})
}

// shapes are the statements that a hook has seen, without their values.
type shapes []string

func (s *shapes) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	shape := []rune(nil)
	quoted := false
	for _, r := range event.Query {
		switch {
		case r == '\'':
			quoted = !quoted
		case quoted, r >= '0' && r <= '9':
		default:
			shape = append(shape, r)
		}
	}
	*s = append(*s, string(shape))
	return ctx
}

func (*shapes) AfterQuery(context.Context, *bun.QueryEvent) {}

func TestAResetIsReadWithoutUse(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		now := time.Now()
		setReset(t, db, u, "first")
		for range 2 {
			got, err := db.Reset(t.Context(), "first", now)
			must(t, err)
			wantEqual(t, got, u)
		}
		setReset(t, db, u, "second")
		for hash, at := range map[string]time.Time{"first": now, "second": now.Add(2 * time.Hour), "": now} {
			_, err := db.Reset(t.Context(), hash, at)
			wantError(t, err, models.ErrNotFound)
			_, _, err = db.UseReset(t.Context(), hash, "hash", at, accessTTL, models.By{})
			wantError(t, err, models.ErrNotFound)
		}
		_, err := db.Bun().NewRaw("UPDATE users SET disabled_at = ? WHERE id = ?", now, u.ID).Exec(t.Context())
		must(t, err)
		_, err = db.Reset(t.Context(), "second", now)
		wantError(t, err, models.ErrNotFound)
		_, _, err = db.UseReset(t.Context(), "second", "hash", now, accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)
	})
}

func TestAResetIsUsedOnce(t *testing.T) {
	t.Parallel()
	type result struct {
		userID int64
		sids   []string
		err    error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, first := newUser(t, db)
		_, theirs := newUser(t, db)
		all := []string{first.SID, newSession(t, db, u.ID).SID, newSession(t, db, u.ID).SID}
		slices.Sort(all)
		setReset(t, db, u, "token")
		by := models.By{IP: "192.0.2.9", RequestID: "reset"}
		results := together(20, func(i int) (r result) {
			r.userID, r.sids, r.err = db.UseReset(t.Context(), "token", fmt.Sprint("hash ", i), time.Now(), accessTTL, by)
			return r
		})
		wantEqual(t, tally(results, func(r result) string { return errorName(r.err) }), map[string]int{"ok": 1, "not found": 19})
		for i, r := range results {
			if r.err != nil {
				continue
			}
			wantEqual(t, []any{r.userID, r.sids}, []any{u.ID, all})
			got, err := db.User(t.Context(), u.ID)
			must(t, err)
			wantEqual(t, got.PasswordHash, fmt.Sprint("hash ", i))
		}
		wantEqual(t, sessions(t, db, u.ID), []string(nil))
		wantEqual(t, sessions(t, db, theirs.UserID), []string{theirs.SID})
		wantEqual(t, revoked(t, db), all)
		wantEqual(t, actions(audited(t, db), "password.reset"), []models.AuditEntry{{
			Action: "password.reset", SubjectID: u.ID, SubjectEmail: u.Email, IP: "192.0.2.9", RequestID: "reset",
		}})
		wantEqual(t, outbox(t, db), []models.Mail{{
			Kind: models.MailPasswordChanged, UserID: u.ID, Recipient: u.Email, Data: map[string]string{"ip": "192.0.2.9"},
		}})
	})
}

// A reset, a change and another address at the same moment: in whatever order
// they come, none is half done, and none waits for another in a circle.
func TestWhatChangesAnAccountDoesNotMix(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for round := range 10 {
			u, kept := newUser(t, db)
			setReset(t, db, u, fmt.Sprint("token ", round))
			must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
			another := fmt.Sprintf("another%d@example.org", round)
			errs := together(4, func(i int) (err error) {
				switch i {
				case 0:
					_, _, err = db.UseReset(t.Context(), fmt.Sprint("token ", round), "by reset", time.Now(), accessTTL, models.By{})
				case 1:
					_, err = db.ChangePassword(t.Context(), u.ID, u.PasswordHash, "by change", kept.SID, accessTTL, models.By{})
				case 2:
					_, err = db.UpdateUser(t.Context(), u.ID, models.UserChange{Email: &another, PasswordHash: u.PasswordHash}, models.By{})
				default:
					err = db.SetReset(t.Context(), u.ID, fmt.Sprint("late ", round), time.Now().Add(time.Hour))
				}
				return err
			})
			for _, err := range errs {
				if got := errorName(err); got != "ok" && got != "not found" {
					t.Error(err)
				}
			}
			got, err := db.User(t.Context(), u.ID)
			must(t, err)
			want := u
			switch {
			case errs[1] == nil: // it compares with the first hash, so it came before any reset
				want.PasswordHash = "by change"
				wantError(t, errs[0], models.ErrNotFound)
			case errs[0] == nil:
				want.PasswordHash = "by reset"
			}
			if errs[2] == nil {
				want.Email = another
			}
			wantEqual(t, got, want)
			wantEqual(t, count(t, db, "password_resets"), 0)
		}
	})
}

func TestATokenIsMadeOnlyForAMailThatWaits(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, test := range map[string]struct {
			meanwhile func(u models.User, s models.DeviceSession) error
			want      string
		}{
			"nothing": {func(models.User, models.DeviceSession) error { return nil }, "ok"},
			"another name": {func(u models.User, _ models.DeviceSession) error {
				name := "Another"
				_, err := db.UpdateUser(t.Context(), u.ID, models.UserChange{UserName: &name}, models.By{})
				return err
			}, "ok"},
			"another password": {func(u models.User, s models.DeviceSession) error {
				_, err := db.ChangePassword(t.Context(), u.ID, u.PasswordHash, "another", s.SID, accessTTL, models.By{})
				return err
			}, "not found"},
			"another address": {func(u models.User, _ models.DeviceSession) error {
				email := "another-" + u.Email
				_, err := db.UpdateUser(t.Context(), u.ID, models.UserChange{Email: &email, PasswordHash: u.PasswordHash}, models.By{})
				return err
			}, "not found"},
			"deleted": {func(u models.User, _ models.DeviceSession) error {
				_, err := db.DeleteUser(t.Context(), u.ID, "", accessTTL, models.By{})
				return err
			}, "not found"},
		} {
			u, s := newUser(t, db)
			must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
			_, err := db.ClaimMails(t.Context(), 10, time.Hour)
			must(t, err)
			must(t, test.meanwhile(u, s))
			if got := errorName(db.SetReset(t.Context(), u.ID, name, time.Now().Add(time.Hour))); got != test.want {
				t.Errorf("%s: got %s, want %s", name, got, test.want)
			}
		}
	})
}
