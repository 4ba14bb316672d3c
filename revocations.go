package main

import (
	"context"
	"log/slog"
	"time"

	"parley/auth"
	"parley/models"
	"parley/stream"
)

const (
	// readRevocationsEvery leaves most of the 2 s within which a revocation has to
	// hold everywhere for the reading itself, and for a second attempt.
	readRevocationsEvery = 500 * time.Millisecond
	// revocationsTimeout is after what a reading is given up: by then the set is
	// stale, and a fresh attempt is the better one.
	revocationsTimeout = 2 * time.Second
)

// A revocationFeed brings what any replica revokes into the set that requests
// are judged by, and to the streams that are open.
type revocationFeed struct {
	db   *models.DB
	set  *auth.Revoked
	hub  *stream.Hub // set before the first reading
	log  *slog.Logger
	last int64 // id of the latest that was read

	told chan struct{} // there is more to read
}

func newRevocationFeed(db *models.DB, set *auth.Revoked, log *slog.Logger) *revocationFeed {
	return &revocationFeed{db: db, set: set, log: log, told: make(chan struct{}, 1)}
}

// tell has the feed read soon. It never blocks.
func (f *revocationFeed) tell() {
	select {
	case f.told <- struct{}{}:
	default:
	}
}

// run reads at that interval, and when it is told, until ctx ends.
func (f *revocationFeed) run(ctx context.Context, interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-f.told:
		}
		f.read(ctx)
	}
}

// read reads what was revoked since the last reading. Where that fails, the set
// goes stale, and requests ask the database for themselves.
func (f *revocationFeed) read(ctx context.Context) {
	asked := time.Now()
	reading, cancel := context.WithTimeout(ctx, revocationsTimeout)
	defer cancel()
	revoked, err := f.db.Revocations(reading, f.last)
	if err != nil {
		if ctx.Err() == nil {
			f.log.Warn("revoked sessions cannot be read, trying again", "err", err)
		}
		return
	}
	for _, r := range revoked {
		f.set.Add(r.SID, r.UserID, r.RevokedAt, r.ExpiresAt)
		f.last = max(f.last, r.ID)
	}
	f.set.Fresh(asked)
	if len(revoked) > 0 {
		// Also those that have expired: a stream outlives the token that it
		// began with.
		f.hub.CutOff()
	}
}

// revokes reports whether the viewer of a stream was signed out.
func revokes(set *auth.Revoked) func(stream.Viewer) bool {
	return func(v stream.Viewer) bool {
		return set.Has(auth.Identity{UserID: v.UserID, SID: v.SID, IssuedAt: v.IssuedAt})
	}
}
