package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

// A Revocation ends access tokens before they expire: those of the session SID,
// or those of the user UserID issued at or before RevokedAt, or, if it names
// neither, all that were issued at or before RevokedAt. None of them is valid
// after ExpiresAt in any case.
type Revocation struct {
	ID        int64  `bun:",pk,autoincrement"`
	SID       string `bun:",nullzero"`
	UserID    int64  `bun:",nullzero"`
	RevokedAt time.Time
	ExpiresAt time.Time
}

const (
	// revocationSlack is how much later than it should a token of an ended
	// session may have been issued: by a clock that is ahead, or to a request
	// that had read the session just before.
	revocationSlack = time.Minute
	// lapsedRevocations is how long a revocation is kept when it has expired. A
	// stream outlives the token that it began with: a replica that was cut off
	// from the database learns from these which of its streams to end.
	lapsedRevocations = time.Hour
)

// Revocations returns those with an id above afterID, in the order of their ids,
// also expired ones that are not purged yet. They appear in that order too, so
// who goes on after the last id that it has seen misses none.
func (d *DB) Revocations(ctx context.Context, afterID int64) ([]Revocation, error) {
	var rs []Revocation
	err := d.read.NewSelect().Model(&rs).Where("id > ?", afterID).Order("id").Scan(ctx)
	return rs, classify(ctx, err)
}

// revocationsLock is the advisory lock of writers to revocations: "revoke" in
// bytes. That of package migrations is another.
const revocationsLock int64 = 0x7265766f6b65

// revoke appends to the feed what refuses tokens that were valid for accessTTL.
// A RevokedAt of zero is the present. It is the last statement of its transaction.
func (d *DB) revoke(ctx context.Context, tx bun.Tx, accessTTL time.Duration, rs ...Revocation) error {
	if len(rs) == 0 {
		return nil
	}
	if d.dialect == Postgres {
		// PostgreSQL gives out ids before the commit. Without the lock a row
		// could appear below an id that a reader has already passed. It is held
		// until the commit is visible, and taken last, so it is in no deadlock.
		if _, err := tx.NewRaw("SELECT pg_advisory_xact_lock(?)", revocationsLock).Exec(ctx); err != nil {
			return err
		}
	}
	now := d.now()
	for i := range rs {
		if rs[i].RevokedAt.IsZero() {
			rs[i].RevokedAt = now
		}
		rs[i].ExpiresAt = now.Add(accessTTL + revocationSlack)
	}
	_, err := tx.NewInsert().Model(&rs).Exec(ctx)
	return err
}

// revokeSessions revokes the tokens of sessions that have ended.
func (d *DB) revokeSessions(ctx context.Context, tx bun.Tx, sids []string, accessTTL time.Duration) error {
	return d.revoke(ctx, tx, accessTTL, ofSessions(sids)...)
}

func ofSessions(sids []string) []Revocation {
	rs := make([]Revocation, len(sids))
	for i, sid := range sids {
		rs[i].SID = sid
	}
	return rs
}
