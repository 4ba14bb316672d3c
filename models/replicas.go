package models

import (
	"cmp"
	"context"
	"slices"
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

// NextLapse returns how soon the first of the leases lapses that other replicas
// have, unless it is renewed; never, false, where they have none.
func (d *DB) NextLapse(ctx context.Context, id string) (in time.Duration, ok bool, err error) {
	var lapse, now bun.NullTime
	err = d.read.NewRaw("SELECT min(lease_until), ?1 FROM replicas WHERE id <> ?0 AND lease_until > ?1", id, d.clock(0)).Scan(ctx, &lapse, &now)
	return lapse.Sub(now.Time), !lapse.IsZero(), classify(ctx, err)
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

// A TakenReply is a reply that a replica has taken over, as it was then: Running is
// its own, and Text all that is saved, to go on from there.
type TakenReply struct {
	Progress
	Asked string // what the user said; "" if that is gone
	From  string // the owner before; "" if it was released
}

// TakeReplies makes owner the one that writes these replies, raises their fences,
// and returns those that it got. It takes only what OrphanedReplies returned with
// that fence and is still an orphan: of several callers one gets a reply. One that
// somebody is about to change is left for the next time. The text, and which
// attempt that is, stay as they are until RestartReply. What the owners before have
// used is counted, by estimate.
func (d *DB) TakeReplies(ctx context.Context, orphans []RunningReply, owner string) (taken []TakenReply, err error) {
	if len(orphans) == 0 {
		return nil, nil
	}
	err = d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		taken = nil
		charges, err := d.own(ctx, tx, orphans, owner)
		if err != nil || len(charges) == 0 {
			return err
		}
		if err := d.countOwners(ctx, tx, charges); err != nil {
			return err
		}
		taken, err = readTaken(ctx, tx, charges)
		return err
	})
	from := make(map[int64]string, len(orphans))
	for _, o := range orphans {
		from[o.MessageID] = o.Owner
	}
	for i := range taken {
		taken[i].From = from[taken[i].Message.ID]
	}
	return taken, err
}

// own makes owner that of those orphans that are some still.
func (d *DB) own(ctx context.Context, tx bun.Tx, orphans []RunningReply, owner string) (charges []charge, err error) {
	type known struct {
		MessageID int64
		Fence     int
	}
	ask := make([]known, len(orphans))
	for i, o := range orphans {
		ask[i] = known{o.MessageID, o.Fence}
	}
	// An owner that renews its lease at this very moment has lost the reply all the
	// same, and its writes are fenced. Nobody is waited for: others who lock several
	// replies, to save their texts, do so in an order of their own.
	lock := ""
	if d.dialect == Postgres {
		lock = "ORDER BY message_id FOR NO KEY UPDATE OF replies SKIP LOCKED"
	}
	err = tx.NewRaw(`
		WITH known (id, known_fence) AS (?0),
		mine AS (SELECT message_id FROM replies JOIN known ON id = message_id AND known_fence = fence WHERE ?1 ?2)
		UPDATE replies SET fence = fence + 1, owner = ?3 WHERE message_id IN (SELECT message_id FROM mine) RETURNING *`,
		tx.NewValues(&ask), d.orphaned(), bun.SafeQuery(lock), owner).Scan(ctx, &charges)
	return charges, err
}

// countOwners counts what the owners have used whose replies were taken from them.
func (d *DB) countOwners(ctx context.Context, tx bun.Tx, charges []charge) error {
	used, err := untold(ctx, tx, charges)
	if err != nil {
		return err
	}
	ids := make([]int64, len(charges))
	for i, c := range charges {
		ids[i] = c.MessageID
	}
	_, err = tx.NewRaw("UPDATE replies SET counted_bytes = saved_bytes WHERE message_id IN (?)", bun.List(ids)).Exec(ctx)
	if err != nil {
		return err
	}
	settlements := make([]settlement, len(charges))
	for i, c := range charges {
		c.Fence-- // of the owner before
		settlements[i] = c.settlement(used[c.MessageID])
	}
	return d.settle(ctx, tx, settlements...)
}

// readTaken reads what there is of replies that were taken, in their order.
func readTaken(ctx context.Context, tx bun.Tx, charges []charge) ([]TakenReply, error) {
	from, asked := make(map[int64]int64, len(charges)), make([]int64, len(charges))
	for i, c := range charges {
		from[c.MessageID], asked[i] = 0, c.UserMessageID
	}
	all, err := repliesProgress(ctx, tx, from)
	if err != nil {
		return nil, err
	}
	var questions []struct {
		ID      int64
		Content string
	}
	if err := tx.NewRaw("SELECT id, content FROM messages WHERE id IN (?)", bun.List(asked)).Scan(ctx, &questions); err != nil {
		return nil, err
	}
	said := make(map[int64]string, len(questions))
	for _, q := range questions {
		said[q.ID] = q.Content
	}
	taken := make([]TakenReply, 0, len(charges))
	for _, c := range charges {
		if p, ok := all[c.MessageID]; ok && p.Running != nil {
			taken = append(taken, TakenReply{Progress: p, Asked: said[c.UserMessageID]})
		}
	}
	slices.SortFunc(taken, func(a, b TakenReply) int { return cmp.Compare(a.Message.ID, b.Message.ID) })
	return taken, nil
}

// ReleaseReply gives up a reply of which all is saved that was sent, for another
// replica to take at once: what its owner has used is counted then. Errors as of
// FinishReply.
func (d *DB) ReleaseReply(ctx context.Context, messageID int64, fence int, owner string) error {
	return d.handOver(ctx, messageID, fence, owner, "")
}

// nobody is an owner that no replica is: a dead one.
const nobody = "nobody"

// DisownReply gives up a reply of which more may have been sent than is saved, for
// another replica to take as one of a dead owner. Errors as of FinishReply.
func (d *DB) DisownReply(ctx context.Context, messageID int64, fence int, owner string) error {
	return d.handOver(ctx, messageID, fence, owner, nobody)
}

func (d *DB) handOver(ctx context.Context, messageID int64, fence int, from, to string) error {
	res, err := d.write.NewRaw("UPDATE replies SET owner = ? WHERE message_id = ? AND fence = ? AND owner = ?",
		to, messageID, fence, from).Exec(ctx)
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
