package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// RenewReplica says that the replica is alive for so long from here on, by the
// clock of the database. Replies that it owns are left to it that long.
func (d *DB) RenewReplica(ctx context.Context, id string, lease time.Duration) error {
	_, err := d.write.NewRaw(`INSERT INTO replicas (id, lease_until, started_at) VALUES (?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET lease_until = EXCLUDED.lease_until`,
		id, d.clock(lease), d.clock(0)).Exec(ctx)
	return classify(ctx, err)
}

// RemoveReplica says that the replica has ended: what it owns is free at once.
func (d *DB) RemoveReplica(ctx context.Context, id string) error {
	_, err := d.write.NewRaw("DELETE FROM replicas WHERE id = ?", id).Exec(ctx)
	return classify(ctx, err)
}

// clock is the present plus offset in a statement: the database's own clock
// where several machines use it, since theirs differ.
func (d *DB) clock(offset time.Duration) any {
	if d.dialect == Postgres {
		return bun.SafeQuery("clock_timestamp() + ? * interval '1 microsecond'", offset.Microseconds())
	}
	return d.now().Add(offset)
}

// orphaned is the condition on replies that their owner is dead.
func (d *DB) orphaned() schema.QueryAppender {
	return bun.SafeQuery(
		"NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = replies.owner AND lease_until > ?0)", d.clock(0), nil)
}

// OrphanedReplies returns replies whose owner is dead, or has released them, the
// oldest first.
func (d *DB) OrphanedReplies(ctx context.Context, limit int) ([]RunningReply, error) {
	var rs []RunningReply
	err := d.read.NewRaw(runningReplies+` WHERE ? ORDER BY message_id LIMIT ?`, d.orphaned(), limit).Scan(ctx, &rs)
	return rs, classify(ctx, err)
}

// runningReplies reads RunningReply.
const runningReplies = `SELECT message_id, replies.chat_id, user_id, user_message_id, owner, fence, saved_bytes,
		messages.shared_bytes, stop_requested_at, watched_until, started_at
	FROM replies JOIN messages ON messages.id = message_id`

// TakeReply makes owner the one that writes a reply, raises its fence, and returns
// it with the text that is saved, to go on from there. It takes only what
// OrphanedReplies returned with that fence and is still an orphan: of several
// callers one gets it, the others ErrStaleOwner. ErrNotFound if it has ended.
// The text, and which attempt that is, stay as they are until RestartReply. What
// the owner before has used is counted, by estimate.
func (d *DB) TakeReply(ctx context.Context, messageID int64, fence int, owner string) (RunningReply, string, error) {
	var (
		r    RunningReply
		text string
	)
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		r, text = RunningReply{}, ""
		// One conditional statement. The others wait for the row's lock, and then
		// its fence no longer matches. An owner that renews its lease at this
		// very moment has lost the reply all the same, and its writes are fenced.
		res, err := tx.NewRaw(`UPDATE replies SET fence = fence + 1, owner = ?
			WHERE message_id = ? AND fence = ? AND ?`, owner, messageID, fence, d.orphaned()).Exec(ctx)
		if err := changed(res, err); err != nil {
			return err
		}
		if err := tx.NewRaw(runningReplies+` WHERE message_id = ?`, messageID).Scan(ctx, &r); err != nil {
			return err
		}
		err = tx.NewRaw("SELECT COALESCE(string_agg(text, '' ORDER BY start), '') FROM reply_chunks WHERE message_id = ?",
			messageID).Scan(ctx, &text)
		if err != nil {
			return err
		}
		return d.countOwner(ctx, tx, messageID, fence)
	})
	if err != nil {
		return RunningReply{}, "", d.whyNotReply(ctx, messageID, err)
	}
	return r, text, nil
}

// countOwner counts what the owner with that fence has used, whose reply was taken
// from it.
func (d *DB) countOwner(ctx context.Context, tx bun.Tx, messageID int64, fence int) error {
	var r charge
	if err := tx.NewRaw("SELECT * FROM replies WHERE message_id = ?", messageID).Scan(ctx, &r); err != nil {
		return err
	}
	r.Fence = fence
	used, err := untold(ctx, tx, r)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw("UPDATE replies SET counted_bytes = saved_bytes WHERE message_id = ?", messageID).Exec(ctx)
	if err != nil {
		return err
	}
	return d.settle(ctx, tx, r.settlement(used))
}

// ReleaseReply gives up a reply, for another replica to take at once: what its
// owner has used is counted then. Errors as of FinishReply.
func (d *DB) ReleaseReply(ctx context.Context, messageID int64, fence int, owner string) error {
	res, err := d.write.NewRaw("UPDATE replies SET owner = '' WHERE message_id = ? AND fence = ? AND owner = ?",
		messageID, fence, owner).Exec(ctx)
	return d.whyNotReply(ctx, messageID, classify(ctx, changed(res, err)))
}

// deadReplicas is how long the row of a replica is kept that nobody renews.
const deadReplicas = time.Hour

// PurgeExpired deletes what has no effect any more: idempotency keys after 24 h,
// revocations an hour past their end, device sessions, password resets and uploads
// past theirs, quotas that are whole again, entries of the audit after auditKeep,
// replicas long dead, events after 15 minutes, the audio of replies an hour after
// its end.
func (d *DB) PurgeExpired(ctx context.Context, now time.Time, auditKeep time.Duration) error {
	now = d.stamp(now)
	for _, purge := range []struct {
		statement string
		before    any
	}{
		{"DELETE FROM idempotency_keys WHERE created_at < ?0", now.Add(-keyLifetime)},
		{"DELETE FROM revocations WHERE expires_at <= ?0", now.Add(-lapsedRevocations)},
		{"DELETE FROM device_sessions WHERE expires_at <= ?0", now},
		{"DELETE FROM password_resets WHERE expires_at <= ?0", now},
		{"DELETE FROM uploads WHERE expires_at <= ?0", now},
		{d.purgeThrottles(), now.UnixMicro()},
		{"DELETE FROM audit_entries WHERE at < ?0", now.Add(-auditKeep)},
		{"DELETE FROM replicas WHERE lease_until < ?0", now.Add(-deadReplicas)},
		{purgeEvents, now.Add(-eventLifetime)},
		{purgeAudio, now.Add(-audioLifetime)},
		{purgeSpeeches, now.Add(-audioLifetime)},
	} {
		if _, err := d.write.NewRaw(purge.statement, purge.before).Exec(ctx); err != nil {
			return classify(ctx, err)
		}
	}
	return nil
}
