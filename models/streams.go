package models

import (
	"context"
	"maps"

	"github.com/uptrace/bun"
)

// streamCount is how many streams a user has open on a replica.
type streamCount struct {
	Replica string `bun:",pk"`
	UserID  int64  `bun:",pk"`
	Open    int64
}

// ShareStreamCounts says how many streams users have open on a replica, in place
// of what was said before, and returns how many each has open on all other living
// replicas, as far as those said so. A count below 1 is none. It writes only what
// is different. ErrNotFound if the replica has not called RenewReplica.
func (d *DB) ShareStreamCounts(ctx context.Context, replica string, open map[int64]int64) (map[int64]int64, error) {
	var rows []struct {
		UserID int64
		Open   int64
		Own    bool
	}
	err := d.read.NewRaw(`SELECT user_id, open, replica = ? AS own FROM stream_counts
		JOIN replicas ON replicas.id = replica WHERE lease_until > ? OR replica = ?`,
		replica, d.clock(0), replica).Scan(ctx, &rows)
	if err != nil {
		return nil, classify(ctx, err)
	}
	said, elsewhere := make(map[int64]int64), make(map[int64]int64)
	for _, row := range rows {
		if row.Own {
			said[row.UserID] = row.Open
		} else {
			elsewhere[row.UserID] += row.Open
		}
	}
	open = maps.Clone(open)
	maps.DeleteFunc(open, func(_, n int64) bool { return n < 1 })
	if maps.Equal(said, open) {
		return elsewhere, nil
	}
	return elsewhere, d.replaceStreamCounts(ctx, replica, open)
}

func (d *DB) replaceStreamCounts(ctx context.Context, replica string, open map[int64]int64) error {
	var rows []streamCount
	for userID, n := range open {
		rows = append(rows, streamCount{Replica: replica, UserID: userID, Open: n})
	}
	return withoutParent(d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewRaw("DELETE FROM stream_counts WHERE replica = ?", replica).Exec(ctx); err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		_, err := tx.NewInsert().Model(&rows).Exec(ctx)
		return err
	}))
}
