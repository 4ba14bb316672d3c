package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
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
		feed := newRevocationFeed(db, set, logger)
		feed.hub = stream.NewHub(db, nil, stream.Config{Replica: "one", Revoked: revokes(set)}, logger)
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

// A replica that polls once an hour hears of it from the other one.
func TestAReplicaIsToldThatSessionsHaveEnded(t *testing.T) {
	t.Parallel()
	url := modelstest.URL(t, models.Postgres)
	replica := func(name string) *revocationFeed {
		db, err := models.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		logger := newLogger(t.Output(), &Config{})
		feed := newRevocationFeed(db, auth.NewRevoked(time.Now), logger)
		feed.hub = stream.NewHub(db, nil, stream.Config{
			Replica: name, PollEvery: time.Hour, Revoked: revokes(feed.set), SessionsEnded: feed.tell,
		}, logger)
		ctx, stop := context.WithCancel(context.Background())
		var loops sync.WaitGroup
		loops.Go(func() { feed.hub.Run(ctx) })
		loops.Go(func() { feed.run(ctx, time.Hour) })
		t.Cleanup(func() {
			stop()
			loops.Wait()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		return feed
	}
	await := func(what string, met func() bool) {
		t.Helper()
		for late := time.Now().Add(10 * time.Second); !met(); time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				t.Fatal(what)
			}
		}
	}
	one, two := replica("one"), replica("two")
	await("it does not read as it begins to listen", func() bool { return !two.set.Stale() })
	u := models.User{Email: "you@example.com", UserName: "you", PasswordHash: "x"}
	session := models.DeviceSession{SID: "S1", ExpiresAt: time.Now().Add(time.Hour)}
	if err := one.db.CreateUser(t.Context(), &u, &session, models.By{}); err != nil {
		t.Fatal(err)
	}
	if err := one.db.EndSession(t.Context(), "S1", time.Minute, models.By{}); err != nil {
		t.Fatal(err)
	}
	one.hub.TellSessionsEnded(t.Context())
	caller := auth.Identity{UserID: u.ID, SID: "S1", IssuedAt: time.Now()}
	await("the other replica was not told", func() bool { return two.set.Has(caller) })
}
