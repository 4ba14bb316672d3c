package models_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestDevicesAreTheLivingOnesLatestUseFirst(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, first := newUser(t, db)
		newUser(t, db)
		second, third := newSession(t, db, u.ID), newSession(t, db, u.ID)
		expired := models.DeviceSession{SID: "expired", UserID: u.ID, ExpiresAt: time.Now().Add(-time.Second)}
		must(t, db.CreateSession(t.Context(), &expired, models.By{}))
		must(t, db.TouchSession(t.Context(), second.SID, 1, time.Now().Add(time.Minute)))
		second.GenerationUsed = true

		got, err := db.Devices(t.Context(), u.ID)
		must(t, err)
		for i := range got {
			if got[i].ID == second.ID {
				second.LastSeenAt = got[i].LastSeenAt
			}
		}
		wantEqual(t, got, []models.DeviceSession{second, third, first})
	})
}

func TestASessionIsAlive(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, s := newUser(t, db)
		other, ended := newUser(t, db)
		must(t, db.EndSession(t.Context(), ended.SID, accessTTL, models.By{}))
		disabled, unusable := newUser(t, db)
		_, err := db.Bun().NewRaw("UPDATE users SET disabled_at = ? WHERE id = ?", time.Now(), disabled.ID).Exec(t.Context())
		must(t, err)
		gone, lost := newUser(t, db)
		_, err = db.DeleteUser(t.Context(), gone.ID, "", accessTTL, models.By{})
		must(t, err)
		expired := models.DeviceSession{SID: "expired", UserID: u.ID, ExpiresAt: time.Now().Add(-time.Second)}
		must(t, db.CreateSession(t.Context(), &expired, models.By{}))

		for name, test := range map[string]struct {
			sid    string
			userID int64
			want   string
		}{
			"one that lives":                 {s.SID, u.ID, "ok"},
			"one of another user":            {s.SID, other.ID, "not found"},
			"one that has ended":             {ended.SID, other.ID, "not found"},
			"one that has expired":           {expired.SID, u.ID, "not found"},
			"one of a user who is disabled":  {unusable.SID, disabled.ID, "not found"},
			"one of a user who is gone":      {lost.SID, gone.ID, "not found"},
			"one of a user who never was":    {s.SID, gone.ID + 1, "not found"},
			"one that never was":             {"unknown", u.ID, "not found"},
			"one without a name, as in none": {"", u.ID, "not found"},
		} {
			if got := errorName(db.SessionAlive(t.Context(), test.sid, test.userID)); got != test.want {
				t.Errorf("%s: got %s, want %s", name, got, test.want)
			}
		}
	})
}

func TestANetworkIsKnownByALivingDevice(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db) // at 192.0.2.7
		other, _ := newUser(t, db)
		for ip, expires := range map[string]time.Duration{
			"2001:db8:1:2::3": time.Hour, "::ffff:198.51.100.7": time.Hour, "203.0.113.7": -time.Second,
			"fe80::1%eth0": time.Hour, "not an address": time.Hour, "": time.Hour,
		} {
			s := models.DeviceSession{SID: "at " + ip, UserID: u.ID, IP: ip, ExpiresAt: time.Now().Add(expires)}
			must(t, db.CreateSession(t.Context(), &s, models.By{}))
		}
		for network, want := range map[string]bool{
			"192.0.2.7/32":        true,
			"192.0.2.8/32":        false,
			"2001:db8:1:2::/64":   true,
			"2001:db8:1:3::/64":   false,
			"198.51.100.7/32":     true,
			"fe80::/64":           true,
			"203.0.113.7/32":      false, // its session has expired
			"255.255.255.255/32":  false,
			"2001:db8:ffff::1/64": false,
		} {
			got, err := db.KnownNetwork(t.Context(), u.ID, netip.MustParsePrefix(network))
			must(t, err)
			if got != want {
				t.Errorf("%s: got %v, want %v", network, got, want)
			}
		}
		got, err := db.KnownNetwork(t.Context(), u.ID, netip.Prefix{})
		must(t, err)
		wantEqual(t, got, false)
		got, err = db.KnownNetwork(t.Context(), other.ID, netip.MustParsePrefix("2001:db8:1:2::/64"))
		must(t, err)
		wantEqual(t, got, false)
	})
}

func TestAnEndedSessionIsAudited(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, s := newUser(t, db)
		by := models.By{UserID: u.ID, IP: "192.0.2.9", RequestID: "logout"}
		errs := together(20, func(int) error { return db.EndSession(t.Context(), s.SID, accessTTL, by) })
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 20})
		wantEqual(t, revoked(t, db), []string{s.SID})
		wantEqual(t, actions(audited(t, db), "session.ended"), []models.AuditEntry{{
			Action: "session.ended", ActorID: u.ID, ActorEmail: u.Email, SubjectID: u.ID, SubjectEmail: u.Email,
			IP: "192.0.2.9", RequestID: "logout", Detail: s.Name,
		}})
	})
}

func TestADeviceIsRemovedOnce(t *testing.T) {
	t.Parallel()
	type result struct {
		sid string
		err error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, kept := newUser(t, db)
		_, theirs := newUser(t, db)
		s := newSession(t, db, u.ID)
		by := models.By{UserID: u.ID, IP: "192.0.2.9", RequestID: "remove"}
		results := together(20, func(int) (r result) {
			r.sid, r.err = db.EndDevice(t.Context(), u.ID, s.ID, accessTTL, by)
			return r
		})
		wantEqual(t, tally(results, func(r result) string { return fmt.Sprintf("%q %s", r.sid, errorName(r.err)) }),
			map[string]int{fmt.Sprintf("%q ok", s.SID): 1, `"" not found`: 19})
		_, err := db.EndDevice(t.Context(), u.ID, theirs.ID, accessTTL, by)
		wantError(t, err, models.ErrForbidden)
		_, err = db.EndDevice(t.Context(), u.ID, 999, accessTTL, by)
		wantError(t, err, models.ErrNotFound)

		wantEqual(t, sessions(t, db, u.ID), []string{kept.SID})
		wantEqual(t, sessions(t, db, theirs.UserID), []string{theirs.SID})
		wantEqual(t, revoked(t, db), []string{s.SID})
		wantEqual(t, actions(audited(t, db), "device.removed"), []models.AuditEntry{{
			Action: "device.removed", ActorID: u.ID, ActorEmail: u.Email, SubjectID: u.ID, SubjectEmail: u.Email,
			IP: "192.0.2.9", RequestID: "remove", Detail: s.Name,
		}})
	})
}

func TestAllSessionsEndButOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, kept := newUser(t, db)
		_, theirs := newUser(t, db)
		var others []string
		for range 30 {
			others = append(others, newSession(t, db, u.ID).SID)
		}
		slices.Sort(others)
		by := models.By{UserID: u.ID, IP: "192.0.2.9", RequestID: "all"}
		ended := together(20, func(int) []string {
			sids, err := db.EndSessions(t.Context(), u.ID, kept.SID, accessTTL, by)
			if err != nil {
				t.Error(err)
			}
			return sids
		})
		wantEqual(t, tally(ended, func(sids []string) string { return fmt.Sprint(len(sids)) }), map[string]int{"30": 1, "0": 19})
		wantEqual(t, slices.Concat(ended...), others)
		wantEqual(t, revoked(t, db), others)
		wantEqual(t, sessions(t, db, u.ID), []string{kept.SID})
		entry := models.AuditEntry{
			Action: "sessions.ended", ActorID: u.ID, ActorEmail: u.Email, SubjectID: u.ID, SubjectEmail: u.Email,
			IP: "192.0.2.9", RequestID: "all",
		}
		wantEqual(t, actions(audited(t, db), "sessions.ended"), []models.AuditEntry{entry})

		sids, err := db.EndSessions(t.Context(), u.ID, "", accessTTL, by)
		must(t, err)
		wantEqual(t, sids, []string{kept.SID})
		wantEqual(t, sessions(t, db, theirs.UserID), []string{theirs.SID})
		sids, err = db.EndSessions(t.Context(), 999, "", accessTTL, by)
		must(t, err)
		wantEqual(t, len(sids), 0)
		wantEqual(t, actions(audited(t, db), "sessions.ended"), []models.AuditEntry{entry, entry})
	})
}
