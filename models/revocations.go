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

// Revocations returns those that still matter with an id above afterID, in the
// order of their ids. They appear in that order too, so who goes on after the
// last id that it has seen misses none.
func (d *DB) Revocations(ctx context.Context, afterID int64) ([]Revocation, error) {
	var rs []Revocation
	err := d.read.NewSelect().Model(&rs).
		Where("id > ? AND expires_at > ?", afterID, d.now()).Order("id").Scan(ctx)
	return rs, classify(ctx, err)
}

// revocationsLock is the advisory lock of writers to revocations: "revoke" in
// bytes. That of package migrations is another.
const revocationsLock int64 = 0x7265766f6b65

// revoke appends to the feed. It is the last statement of its transaction.
func (d *DB) revoke(ctx context.Context, tx bun.Tx, r Revocation) error {
	if d.dialect == Postgres {
		// PostgreSQL gives out ids before the commit. Without the lock a row
		// could appear below an id that a reader has already passed. It is held
		// until the commit is visible, and taken last, so it is in no deadlock.
		if _, err := tx.NewRaw("SELECT pg_advisory_xact_lock(?)", revocationsLock).Exec(ctx); err != nil {
			return err
		}
	}
	_, err := tx.NewInsert().Model(&r).Exec(ctx)
	return err
}
