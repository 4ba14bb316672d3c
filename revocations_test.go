package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"parley/auth"
	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

func TestARevocationIsReadOnceAndAnOutageMakesTheSetStale(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u := models.User{Email: "you@example.com", UserName: "you", PasswordHash: "x"}
		session := models.DeviceSession{SID: "S1", ExpiresAt: time.Now().Add(time.Hour)}
		if err := db.CreateUser(t.Context(), &u, &session, models.By{}); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		logger := newLogger(&log, &Config{})
		now := time.Now()
		set := auth.NewRevoked(func() time.Time { return now })
		hub := stream.NewHub(db, nil, stream.Config{Replica: "one", Revoked: revokes(set)}, logger)
		feed := &revocationFeed{db: db, set: set, hub: hub, log: logger}
		caller := auth.Identity{UserID: u.ID, SID: "S1", IssuedAt: now}

		if !set.Stale() {
			t.Error("a set that nothing was read into is fresh")
		}
		feed.read(t.Context())
		if set.Stale() || set.Has(caller) || feed.last != 0 {
			t.Errorf("before the logout: stale %t, revoked %t, last %d", set.Stale(), set.Has(caller), feed.last)
		}
		if err := db.EndSession(t.Context(), "S1", time.Minute, models.By{}); err != nil {
			t.Fatal(err)
		}
		feed.read(t.Context())
		last := feed.last
		if !set.Has(caller) || last == 0 {
			t.Errorf("after the logout: revoked %t, last %d", set.Has(caller), last)
		}
		if viewer := (stream.Viewer{UserID: u.ID, SID: "S1", IssuedAt: now}); !revokes(set)(viewer) {
			t.Error("the streams of the session stay")
		}
		feed.read(t.Context())
		if feed.last != last || log.Len() > 0 {
			t.Errorf("with nothing more to read: got last %d, want %d, and the log\n%s", feed.last, last, &log)
		}

		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		now = time.Now().Add(3 * time.Second)
		feed.read(t.Context())
		if !set.Stale() || !set.Has(caller) {
			t.Errorf("without the database: stale %t, revoked %t; want both", set.Stale(), set.Has(caller))
		}
		if got := strings.Count(log.String(), `"level":"WARN"`); got != 1 {
			t.Errorf("without the database: got %d warnings, want 1:\n%s", got, &log)
		}
	})
}
