package models_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func newAdmin(t testing.TB, db *models.DB) models.User {
	t.Helper()
	u, _ := newUser(t, db)
	_, err := db.SetUser(t.Context(), u.ID, models.UserState{IsAdmin: new(true)}, accessTTL, models.By{})
	must(t, err)
	return u
}

func TestSetUser(t *testing.T) {
	t.Parallel()
	yes, no := new(true), new(false)
	by := func(u models.User) models.By { return models.By{UserID: u.ID, IP: "192.0.2.9", RequestID: "set"} }
	for name, test := range map[string]struct {
		before, state models.UserState
		actions       string
		out           bool // is signed out everywhere
	}{
		"what is so already is no change": {models.UserState{}, models.UserState{Disabled: no, IsAdmin: no}, "", false},
		"nothing":                         {models.UserState{IsAdmin: yes}, models.UserState{}, "", false},
		"a user is disabled":              {models.UserState{}, models.UserState{Disabled: yes}, "account.disabled", true},
		"a user is enabled again":         {models.UserState{Disabled: yes}, models.UserState{Disabled: no}, "account.enabled", false},
		"a user is promoted":              {models.UserState{}, models.UserState{IsAdmin: yes}, "account.promoted", false},
		"an administrator is demoted":     {models.UserState{IsAdmin: yes}, models.UserState{IsAdmin: no}, "account.demoted", true},
		"an administrator is disabled":    {models.UserState{IsAdmin: yes}, models.UserState{Disabled: yes}, "account.disabled", true},
		"both at once":                    {models.UserState{IsAdmin: yes}, models.UserState{Disabled: yes, IsAdmin: no}, "account.disabled account.demoted", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db *models.DB) {
				admin := newAdmin(t, db)
				u, _ := newUser(t, db)
				_, err := db.SetUser(t.Context(), u.ID, test.before, accessTTL, models.By{})
				must(t, err)
				if test.before.Disabled == nil {
					newSession(t, db, u.ID)
				}
				had, earlier := sessions(t, db, u.ID), revoked(t, db)
				entries := len(audited(t, db))

				sids, err := db.SetUser(t.Context(), u.ID, test.state, accessTTL, by(admin))
				must(t, err)
				var want []models.AuditEntry
				for action := range strings.FieldsSeq(test.actions) {
					want = append(want, models.AuditEntry{
						Action: action, ActorID: admin.ID, ActorEmail: admin.Email, SubjectID: u.ID, SubjectEmail: u.Email, IP: "192.0.2.9", RequestID: "set",
					})
				}
				wantEqual(t, append([]models.AuditEntry(nil), audited(t, db)[entries:]...), want)
				got, err := db.User(t.Context(), u.ID)
				must(t, err)
				is := func(before, after *bool) bool {
					return after != nil && *after || after == nil && before != nil && *before
				}
				wantEqual(t, []bool{got.DisabledAt != nil, got.IsAdmin},
					[]bool{is(test.before.Disabled, test.state.Disabled), is(test.before.IsAdmin, test.state.IsAdmin)})
				if test.out {
					wantEqual(t, sids, had)
					wantEqual(t, revoked(t, db), append(earlier, had...))
					wantEqual(t, sessions(t, db, u.ID), []string(nil))
				} else {
					wantEqual(t, sids, []string(nil))
					wantEqual(t, revoked(t, db), earlier)
					wantEqual(t, sessions(t, db, u.ID), had)
				}
			})
		})
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		admin := newAdmin(t, db)
		disabled := newAdmin(t, db)
		_, err := db.SetUser(t.Context(), disabled.ID, models.UserState{Disabled: new(true)}, accessTTL, models.By{})
		must(t, err)
		before := audited(t, db)
		for _, state := range []models.UserState{{Disabled: new(true)}, {IsAdmin: new(false)}, {Disabled: new(true), IsAdmin: new(false)}} {
			_, err := db.SetUser(t.Context(), admin.ID, state, accessTTL, models.By{UserID: admin.ID})
			wantError(t, err, models.ErrLastAdmin)
		}
		_, err = db.DeleteUser(t.Context(), admin.ID, "", accessTTL, models.By{UserID: admin.ID})
		wantError(t, err, models.ErrLastAdmin)
		wantEqual(t, audited(t, db), before)
		wantEqual(t, len(sessions(t, db, admin.ID)), 1)
		_, err = db.SetUser(t.Context(), 1<<40, models.UserState{IsAdmin: new(true)}, accessTTL, models.By{})
		wantError(t, err, models.ErrNotFound)
		// Whoever is disabled administers nothing, and may go.
		_, err = db.SetUser(t.Context(), disabled.ID, models.UserState{IsAdmin: new(false)}, accessTTL, models.By{})
		must(t, err)
	})
}

// Of several administrators who are all demoted, disabled and deleted at once,
// one stays.
func TestAdministratorsDemoteOneAnother(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for range 3 {
			const n = 6
			var admins [n]models.User
			for i := range admins {
				admins[i] = newAdmin(t, db)
			}
			results := together(n, func(i int) (err error) {
				next := admins[(i+1)%n].ID
				by := models.By{UserID: admins[i].ID}
				switch i % 3 {
				case 0:
					_, err = db.SetUser(t.Context(), next, models.UserState{IsAdmin: new(false)}, accessTTL, by)
				case 1:
					_, err = db.SetUser(t.Context(), next, models.UserState{Disabled: new(true)}, accessTTL, by)
				default:
					_, err = db.DeleteUser(t.Context(), next, "", accessTTL, by)
				}
				return err
			})
			wantEqual(t, tally(results, func(err error) string {
				if err != nil && strings.Contains(err.Error(), models.ErrLastAdmin.Error()) {
					return "last"
				}
				return errorName(err)
			}), map[string]int{"ok": n - 1, "last": 1})
			wantEqual(t, count(t, db, "users WHERE is_admin AND disabled_at IS NULL"), 1)
			_, err := db.DeleteAllUsers(t.Context(), accessTTL, models.By{})
			must(t, err)
		}
	})
}

func TestUsers(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		add := func(email, name string) models.User {
			u := models.User{Email: email, UserName: name, PasswordHash: "x"}
			must(t, db.CreateUser(t.Context(), &u, &models.DeviceSession{SID: email, ExpiresAt: time.Now().Add(time.Hour)}, models.By{}))
			return u
		}
		ann := add("ann@example.org", "Ann 100%")
		bob := add("bob_b@example.org", "Ωmega BOB")
		cy := add("cy@example.net", `C\y`)
		chat := value(t)(createChat(t, db, bob.ID))
		say(t, db, chat, "question", "answer")
		send(t, db, value(t)(createChat(t, db, bob.ID)), "another")
		_, err := db.EndSessions(t.Context(), cy.ID, "", accessTTL, models.By{})
		must(t, err)
		for name, test := range map[string]struct {
			containing string
			want       []int64
		}{
			"all, the latest first":                     {"", []int64{cy.ID, bob.ID, ann.ID}},
			"a part of an address":                      {"example.org", []int64{bob.ID, ann.ID}},
			"in another case":                           {"BOB_B@EXAMPLE", []int64{bob.ID}},
			"a part of a name, in another case":         {"mega bob", []int64{bob.ID}},
			"a letter beyond ASCII":                     {"Ωmega", []int64{bob.ID}},
			"a per cent sign is one":                    {"100%", []int64{ann.ID}},
			"and no wildcard":                           {"a%e", nil},
			"an underscore is one":                      {"_", []int64{bob.ID}},
			"a backslash is one":                        {`\y`, []int64{cy.ID}},
			"a quote closes nothing":                    {`' OR ''='`, nil},
			"a question mark stands for nothing either": {`?0`, nil},
		} {
			users, next, err := db.Users(t.Context(), test.containing, models.Page{})
			must(t, err)
			var got []int64
			for _, u := range users {
				got = append(got, u.ID)
			}
			wantEqual(t, []any{name, got, next}, []any{name, test.want, ""})
		}
		users, _, err := db.Users(t.Context(), "", models.Page{})
		must(t, err)
		for i, want := range []string{"0 0 false", "2 4 true", "0 0 true"} {
			wantEqual(t, fmt.Sprint(users[i].ChatCount, users[i].MessageCount, users[i].LastSeenAt() != nil), want)
			one, err := db.UserSummary(t.Context(), users[i].ID)
			must(t, err)
			wantEqual(t, one, users[i])
		}
		wantEqual(t, users[1].LastSeenAt(), users[1].ActiveAt)
		wantEqual(t, users[1].User, func() models.User { u, _ := db.User(t.Context(), bob.ID); return u }())

		var got []int64
		page, pages := models.Page{Limit: 2}, 0
		for ; ; pages++ {
			users, next, err := db.Users(t.Context(), "example", page)
			must(t, err)
			for _, u := range users {
				got = append(got, u.ID)
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
		wantEqual(t, []any{got, pages}, []any{[]int64{cy.ID, bob.ID, ann.ID}, 1})
		_, _, err = db.Users(t.Context(), "", models.Page{Cursor: "YQAAAAAAAAAB"}) // of the audit
		wantError(t, err, models.ErrInvalidCursor)
		_, err = db.UserSummary(t.Context(), 1<<40)
		wantError(t, err, models.ErrNotFound)
	})
}

// Several replicas that start at once make one administrator.
func TestTheFirstAdministratorIsMadeOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		has, err := db.HasAdmin(t.Context())
		wantEqual(t, []any{has, err}, []any{false, nil})
		squatter, _ := newUser(t, db)
		setReset(t, db, squatter, "token")
		sids := sessions(t, db, squatter.ID)
		results := together(8, func(i int) string {
			u := models.User{Email: squatter.Email, UserName: "root", PasswordHash: "of the operator"}
			if i%2 == 1 {
				u.Email = "another@example.org"
			}
			made, err := db.MakeAdmin(t.Context(), &u, true, accessTTL, models.By{})
			return fmt.Sprint(made, " ", errorName(err))
		})
		wantEqual(t, tally(results, func(s string) string { return s }), map[string]int{"true ok": 1, "false ok": 7})
		wantEqual(t, count(t, db, "users WHERE is_admin"), 1)

		// Who has taken the address before is out.
		u := models.User{Email: squatter.Email, UserName: "root", PasswordHash: "of the operator"}
		before := len(actions(audited(t, db), "account.promoted"))
		made, err := db.MakeAdmin(t.Context(), &u, false, accessTTL, models.By{})
		wantEqual(t, []any{made, err}, []any{true, nil})
		got, err := db.User(t.Context(), squatter.ID)
		must(t, err)
		wantEqual(t, u, got)
		want := squatter
		want.PasswordHash, want.IsAdmin = "of the operator", true
		want.CreatedAt = got.CreatedAt
		wantEqual(t, got, want)
		wantEqual(t, sessions(t, db, squatter.ID), []string(nil))
		wantEqual(t, revoked(t, db), sids)
		wantEqual(t, count(t, db, "password_resets"), 0)
		wantEqual(t, actions(audited(t, db), "account.promoted")[before:], []models.AuditEntry{
			{Action: "account.promoted", SubjectID: squatter.ID, SubjectEmail: squatter.Email, Detail: "by the operator, with a password"},
		})
		has, err = db.HasAdmin(t.Context())
		wantEqual(t, []any{has, err}, []any{true, nil})
	})
}
