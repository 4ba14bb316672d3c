package models_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// claim claims mails and returns their recipients.
func claim(t testing.TB, db *models.DB, limit int, lease time.Duration) []models.Mail {
	t.Helper()
	mails, err := db.ClaimMails(t.Context(), limit, lease)
	must(t, err)
	return mails
}

func TestEachMailIsClaimedByOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		want := make(map[string]int)
		for range 100 {
			u, _ := newUser(t, db)
			must(t, db.RequestReset(t.Context(), u.Email, models.By{}))
			want[u.Email] = 1
		}
		claimed := together(20, func(int) []models.Mail {
			var all []models.Mail
			for {
				mails, err := db.ClaimMails(t.Context(), 7, time.Hour)
				if err != nil {
					t.Error(err)
				}
				if len(mails) == 0 {
					return all
				}
				if len(mails) > 7 {
					t.Errorf("got %d mails, want 7 at the most", len(mails))
				}
				all = append(all, mails...)
			}
		})
		got := make(map[string]int)
		for _, mails := range claimed {
			for _, m := range mails {
				got[m.Recipient] += m.Attempts
			}
		}
		wantEqual(t, got, want)
		n, err := db.MailsWaiting(t.Context())
		wantEqual(t, []any{n, err}, []any{int64(100), nil})
	})
}

func TestAMailOnItsWay(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var users []models.User
		for i := range 3 {
			u, _ := newUser(t, db)
			users = append(users, u)
			must(t, db.RequestReset(t.Context(), u.Email, models.By{IP: fmt.Sprint("192.0.2.", i)}))
		}
		mails := claim(t, db, 2, time.Hour)
		for i, m := range mails {
			if m.CreatedAt.IsZero() || m.ID == 0 {
				t.Errorf("got %+v, want an id and a time", m)
			}
			wantEqual(t, m, models.Mail{
				ID: m.ID, Kind: models.MailResetPassword, UserID: users[i].ID, Recipient: users[i].Email,
				Data: map[string]string{"ip": fmt.Sprint("192.0.2.", i)}, Attempts: 1, CreatedAt: m.CreatedAt,
			})
		}
		wantEqual(t, len(mails), 2)
		third := claim(t, db, 2, 0) // a lease that is over at once
		wantEqual(t, len(third), 1)
		again := claim(t, db, 2, time.Hour)
		wantEqual(t, []int{len(again), again[0].Attempts}, []int{1, 2})
		wantEqual(t, again[0].ID, third[0].ID)

		must(t, db.MailSent(t.Context(), mails[0].ID))
		must(t, db.MailFailed(t.Context(), mails[1].ID, time.Hour, "421 not now"))
		wantEqual(t, len(claim(t, db, 10, time.Hour)), 0)
		must(t, db.MailFailed(t.Context(), mails[1].ID, 0, strings.Repeat("é", 300)+"\x00\xff"))
		retried := claim(t, db, 10, time.Hour)
		wantEqual(t, []int{len(retried), retried[0].Attempts}, []int{1, 2})
		var reason string
		must(t, db.Read().NewRaw("SELECT last_error FROM mails WHERE id = ?", retried[0].ID).Scan(t.Context(), &reason))
		wantEqual(t, reason, strings.Repeat("é", 250))

		must(t, db.DropMail(t.Context(), retried[0].ID))
		must(t, db.DropMail(t.Context(), retried[0].ID))
		must(t, db.MailSent(t.Context(), retried[0].ID))
		must(t, db.MailFailed(t.Context(), retried[0].ID, 0, "gone"))
		wantEqual(t, actions(audited(t, db), "mail.dropped"), []models.AuditEntry{{
			Action: "mail.dropped", SubjectID: users[1].ID, SubjectEmail: users[1].Email, Detail: models.MailResetPassword,
		}})
		n, err := db.MailsWaiting(t.Context())
		wantEqual(t, []any{n, err}, []any{int64(1), nil})
	})
}
