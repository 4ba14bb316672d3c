package models

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/uptrace/bun"
)

// An IdempotencyKey is how a client names one request, to be able to repeat it.
// It belongs to a user and a route; BodyHash tells what was asked for.
type IdempotencyKey struct {
	Route    string
	Key      string
	BodyHash string
}

// keyLifetime is how long a key gets the first answer again.
const keyLifetime = 24 * time.Hour

// storedKey is a key that was used, with its answer: what was made, or the
// message that it made.
type storedKey struct {
	bun.BaseModel `bun:"table:idempotency_keys"`

	UserID    int64
	Route     string
	Key       string
	BodyHash  string
	Status    int
	Answer    string `bun:",nullzero"`
	MessageID int64  `bun:",nullzero"`
	CreatedAt time.Time
}

func newKey(userID int64, key *IdempotencyKey, now time.Time) storedKey {
	return storedKey{UserID: userID, Route: key.Route, Key: key.Key, BodyHash: key.BodyHash, CreatedAt: now}
}

// usedKey returns the earlier use of a key, nil if there is none or key is nil.
// ErrKeyReused if it came with another body. A use that is too old is deleted,
// so that the key is free again.
func (d *DB) usedKey(ctx context.Context, userID int64, key *IdempotencyKey) (*storedKey, error) {
	if key == nil {
		return nil, nil
	}
	var used storedKey
	err := d.read.NewSelect().Model(&used).
		Where("user_id = ? AND route = ? AND key = ?", userID, key.Route, key.Key).Scan(ctx)
	switch {
	case isNoRows(err):
		return nil, nil
	case err != nil:
		return nil, classify(ctx, err)
	case used.CreatedAt.Before(d.now().Add(-keyLifetime)):
		_, err := d.write.NewDelete().Model((*storedKey)(nil)).
			Where("user_id = ? AND route = ? AND key = ? AND created_at = ?", userID, key.Route, key.Key, used.CreatedAt).
			Exec(ctx)
		return nil, classify(ctx, err)
	case used.BodyHash != key.BodyHash:
		return nil, ErrKeyReused
	}
	if d.dialect == SQLite {
		// Others see it a little before it counts.
		if err := d.writer.log.sync(); err != nil {
			return nil, err
		}
	}
	return &used, nil
}

// isNoRows says that a statement found nothing, where that is an answer.
func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }
