package models_test

import (
	"fmt"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestTheAuditIsReadPageByPageLatestFirst(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		before := time.Now().Add(-time.Second)
		var want []string
		for i := range 10 {
			must(t, db.EndSession(t.Context(), newSession(t, db, u.ID).SID, accessTTL, models.By{RequestID: fmt.Sprint(i)}))
			want = append([]string{fmt.Sprint("session.ended ", i), "session.started "}, want...)
		}
		want = append(want, "account.created ")
		var (
			got   []string
			pages int
			page  = models.Page{Limit: 6}
			below = int64(1 << 62)
		)
		for ; ; pages++ {
			entries, next, err := db.AuditEntries(t.Context(), page)
			must(t, err)
			for _, e := range entries {
				got = append(got, e.Action+" "+e.RequestID)
				if e.ID >= below || e.At.Before(before) || e.At.After(time.Now()) {
					t.Errorf("entry %d of %v after entry %d", e.ID, e.At, below)
				}
				below = e.ID
			}
			if next == "" {
				break
			}
			page.Cursor = next
		}
		wantEqual(t, got, want)
		wantEqual(t, pages, 3)
		chats, cursor, err := db.Chats(t.Context(), u.ID, models.Page{})
		wantEqual(t, []any{len(chats), cursor, err}, []any{0, "", nil})
		for _, cursor := range []string{"x", "YQAAAAAAAAAA", "bQAAAAAAAAAB"} { // no list's, id 0, of messages
			_, _, err := db.AuditEntries(t.Context(), models.Page{Cursor: cursor})
			wantError(t, err, models.ErrInvalidCursor)
		}
	})
}

// Nothing has happened without an entry: what cannot be audited is not done.
func TestWhatCannotBeAuditedIsNotDone(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, s := newUser(t, db)
		setReset(t, db, u, "token")
		chat := value(t)(createChat(t, db, u.ID))
		send(t, db, chat, "question")
		for range 2 {
			_, _, err := db.RotateSession(t.Context(), s.SID, 1+int64(count(t, db, "device_sessions WHERE generation = 2")), time.Now(), accessTTL, models.By{})
			must(t, err)
		}
		tables := []string{
			"users", "device_sessions", "password_resets", "mails", "revocations", "audit_entries", "chats", "messages", "replies",
		}
		rows := func() map[string]int {
			n := make(map[string]int)
			for _, table := range tables {
				n[table] = count(t, db, table)
			}
			return n
		}
		before := rows()
		by := models.By{UserID: u.ID, RequestID: "a\x00b"} // which no column can store
		email := "another@example.org"
		for name, call := range map[string]func() error{
			"CreateUser": func() error {
				return db.CreateUser(t.Context(), &models.User{Email: email}, &models.DeviceSession{SID: "x"}, by)
			},
			"CreateSession": func() error {
				return db.CreateSession(t.Context(), &models.DeviceSession{SID: "x", UserID: u.ID}, by)
			},
			"RotateSession": func() error {
				_, _, err := db.RotateSession(t.Context(), s.SID, 1, time.Now(), accessTTL, by)
				return err
			},
			"EndSession":  func() error { return db.EndSession(t.Context(), s.SID, accessTTL, by) },
			"EndDevice":   func() error { _, err := db.EndDevice(t.Context(), u.ID, s.ID, accessTTL, by); return err },
			"EndSessions": func() error { _, err := db.EndSessions(t.Context(), u.ID, "", accessTTL, by); return err },
			"ChangePassword": func() error {
				_, err := db.ChangePassword(t.Context(), u.ID, u.PasswordHash, "hash", "", accessTTL, by)
				return err
			},
			"RequestReset": func() error { return db.RequestReset(t.Context(), u.Email, by) },
			"UseReset": func() error {
				_, _, err := db.UseReset(t.Context(), "token", "hash", time.Now(), accessTTL, by)
				return err
			},
			"UpdateUser": func() error {
				_, err := db.UpdateUser(t.Context(), u.ID, models.UserChange{Email: &email, PasswordHash: u.PasswordHash}, by)
				return err
			},
			"DeleteUser": func() error { _, err := db.DeleteUser(t.Context(), u.ID, "", accessTTL, by); return err },
		} {
			if err := call(); errorName(err) != models.ErrInvalidText.Error() {
				t.Errorf("%s: got %v, want %v", name, err, models.ErrInvalidText)
			}
			if after := rows(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("%s: got %v rows, want %v", name, after, before)
			}
		}
		got, err := db.User(t.Context(), u.ID)
		must(t, err)
		wantEqual(t, got, u)
	})
}
