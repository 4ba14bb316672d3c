package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

// Owned is what others want of a reply that a replica writes.
type Owned struct {
	MessageID     int64
	Fence         int
	StopRequested bool
	Watched       bool // somebody follows it on another replica
}

// OwnedReplies returns the replies that the database has under a replica's
// name: all of them, or those that somebody wants something of.
func (d *DB) OwnedReplies(ctx context.Context, owner string, all bool) ([]Owned, error) {
	var rs []Owned
	err := d.read.NewRaw(`SELECT message_id, fence, stop_requested_at IS NOT NULL AS stop_requested,
			COALESCE(watched_until > ?, FALSE) AS watched
		FROM replies WHERE owner = ? AND (? OR stop_requested_at IS NOT NULL OR watched_until > ?)`,
		d.clock(0), owner, all, d.clock(0)).Scan(ctx, &rs)
	return rs, classify(ctx, err)
}

// RequestStop asks whoever writes a reply to stop. For a reply that has ended
// it does nothing.
func (d *DB) RequestStop(ctx context.Context, messageID int64) error {
	_, err := d.write.NewRaw(`UPDATE replies SET stop_requested_at = ?
		WHERE message_id = ? AND stop_requested_at IS NULL`, d.clock(0), messageID).Exec(ctx)
	return classify(ctx, err)
}

// WatchReplies asks whoever writes these replies to save them often, for so
// long from here on. It is to be asked again before that: a reply that somebody
// is changing at this moment may be left out.
func (d *DB) WatchReplies(ctx context.Context, messageIDs []int64, lasting time.Duration) error {
	if len(messageIDs) == 0 {
		return nil
	}
	which := "?1"
	if d.dialect == Postgres {
		// Others who lock several replies, to save their texts or to watch some of
		// the same, do so in an order of their own: nobody is waited for.
		which = "SELECT message_id FROM replies WHERE message_id IN (?1) FOR NO KEY UPDATE SKIP LOCKED"
	}
	_, err := d.write.NewRaw("UPDATE replies SET watched_until = ?0 WHERE message_id IN ("+which+")",
		d.clock(lasting), bun.List(messageIDs)).Exec(ctx)
	return classify(ctx, err)
}
