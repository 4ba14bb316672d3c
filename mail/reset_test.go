package mail_test

import (
	"errors"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

// signUp makes an account.
func signUp(t *testing.T, db *models.DB, email string) models.User {
	t.Helper()
	u := models.User{Email: email, UserName: "you", PasswordHash: "old"}
	s := models.DeviceSession{SID: "sid of " + email, Name: "a phone", ExpiresAt: time.Now().Add(time.Hour)}
	if err := db.CreateUser(t.Context(), &u, &s, models.By{}); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestTheLinkOfAResetWorksForAnHour(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user := signUp(t, db, address)
		server := serveSMTP(t, plain)
		o, logs := outboxTo(t, server, db)
		if err := db.RequestReset(t.Context(), address, models.By{IP: "203.0.113.7"}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Reset(t.Context(), "its-hash", time.Now()); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("before the mail is sent: got %v, want no token", err)
		}
		if _, err := db.Bun().NewRaw("UPDATE mails SET created_at = ?", noon).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := round(t, o); err != nil {
			t.Fatal(err)
		}
		got := server.messages()
		if len(got) != 1 {
			t.Fatalf("got %d messages, want 1", len(got))
		}
		checkMessage(t, "reset_password", got[0], "Choose a new password for Parley")

		owner, err := db.Reset(t.Context(), "its-hash", time.Now().Add(59*time.Minute))
		if err != nil || owner.ID != user.ID {
			t.Errorf("after 59 minutes: got user %d and %v, want user %d", owner.ID, err, user.ID)
		}
		if _, err := db.Reset(t.Context(), "its-hash", time.Now().Add(time.Hour)); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("after an hour: got %v, want no token", err)
		}
		if left := outbox(t, db); len(left) > 0 {
			t.Errorf("got %v left in the outbox, want nothing", left)
		}
		if logs.has("secret") || logs.has(address) {
			t.Errorf("got the log %q, want nothing of the mail in it", logs.all())
		}
	})
}

func TestAResetReachesNobodyButTheOwnerOfTheAccount(t *testing.T) {
	t.Parallel()
	const elsewhere = "me@example.net"
	for name, change := range map[string]func(t *testing.T, db *models.DB, user models.User){
		"the account is gone": func(t *testing.T, db *models.DB, user models.User) {
			if _, err := db.DeleteUser(t.Context(), user.ID, "", time.Minute, models.By{}); err != nil {
				t.Fatal(err)
			}
		},
		"the account has another address": func(t *testing.T, db *models.DB, user models.User) {
			email := elsewhere
			if _, err := db.UpdateUser(t.Context(), user.ID, models.UserChange{Email: &email, PasswordHash: "old"}, models.By{}); err != nil {
				t.Fatal(err)
			}
		},
		"the account has another address, and its owner asks for a reset too": func(t *testing.T, db *models.DB, user models.User) {
			email := elsewhere
			if _, err := db.UpdateUser(t.Context(), user.ID, models.UserChange{Email: &email, PasswordHash: "old"}, models.By{}); err != nil {
				t.Fatal(err)
			}
			if err := db.RequestReset(t.Context(), elsewhere, models.By{}); err != nil {
				t.Fatal(err)
			}
		},
		"the password was changed": func(t *testing.T, db *models.DB, user models.User) {
			if _, err := db.ChangePassword(t.Context(), user.ID, "old", "other", "", time.Minute, models.By{}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db *models.DB) {
				user := signUp(t, db, address)
				server := serveSMTP(t, plain)
				o, _ := outboxTo(t, server, db)
				if err := db.RequestReset(t.Context(), address, models.By{}); err != nil {
					t.Fatal(err)
				}
				// What happens stands between the claim and the delivery: the mail is
				// taken out, and put back as it was.
				claimed, err := db.ClaimMails(t.Context(), 1, time.Minute)
				if err != nil || len(claimed) != 1 {
					t.Fatal(claimed, err)
				}
				change(t, db, user)
				if err := o.Deliver(t.Context(), claimed[0]); err != nil {
					t.Fatal(err)
				}
				if got := server.messages(); len(got) > 0 {
					t.Errorf("got %d messages, want none: %s", len(got), got[0].raw)
				}
				for _, w := range outbox(t, db) {
					if diff := cmp.Diff(w, waiting{Recipient: w.Recipient}); diff != "" {
						t.Errorf("of other mails (-got +want):\n%s", diff)
					}
				}
			})
		})
	}
}

func TestAServerThatIsDownEndsNoLinkThatCameBefore(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	user := signUp(t, db, address)
	server := &mailServer{greets: func(*smtp.Conn) error { return refusal(554, smtp.EnhancedCode{5, 3, 2}, "go away") }}
	server.listen(t, plain)
	o, _ := outboxTo(t, server, db)
	if err := db.RequestReset(t.Context(), address, models.By{}); err != nil {
		t.Fatal(err)
	}
	if err := db.SetReset(t.Context(), user.ID, "former", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := round(t, o); err == nil {
		t.Error("got no error, want one: the server is down")
	}
	if _, err := db.Reset(t.Context(), "former", time.Now()); err != nil {
		t.Errorf("the former link: got %v, want it to work", err)
	}
}
