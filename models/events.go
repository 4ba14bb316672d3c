package models

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/schema"
)

// What happens to a user, as UserEvent.Kind says it.
const (
	EventChatCreated     = "chat_created"
	EventChatUpdated     = "chat_updated" // its title, or its counters
	EventChatDeleted     = "chat_deleted"
	EventMessageCreated  = "message_created"  // by the user
	EventMessageUpdated  = "message_updated"  // by the user
	EventMessagesDeleted = "messages_deleted" // of the chat, all that came after MessageID
	EventReply           = "reply"            // MessageID is being written
)

// A UserEvent is one step of a user's feed. Its number follows that of the step
// before, from 1 on.
type UserEvent struct {
	Seq       int64
	Kind      string
	ChatID    int64
	MessageID int64    `bun:",nullzero"`                         // 0: it concerns the chat as a whole
	Chat      *Chat    `bun:"rel:belongs-to,join:chat_id=id"`    // of EventChatCreated and EventChatUpdated
	Message   *Message `bun:"rel:belongs-to,join:message_id=id"` // of EventMessageCreated and EventMessageUpdated
}

// storedEvent is a row: ids, never contents.
type storedEvent struct {
	bun.BaseModel `bun:"table:user_events,alias:e"`

	UserID int64
	UserEvent
	CreatedAt time.Time
}

// tell appends to the feed of a user what its transaction changes, and says if
// somebody follows that feed. It is the last statement of the transaction.
//
// It numbers the events by updating the user's row, whose lock is held until the
// commit. So the numbers of one user appear in their order and without a gap:
// whoever comes next gets its own only after these are visible, or taken back. A
// reader that has seen a number has seen all before it, and goes on after the
// last. (An identity hands numbers out before the commit, and loses those that are
// taken back.)
//
// It comes last because all changes take their locks in one order, chats, replies,
// messages, keys, days of usage, users, and none waits for another in a circle. A row that refers
// to the user takes a share of the user's row before that (FOR KEY SHARE), but
// this update, which leaves the key as it is, neither waits for such a share nor
// keeps others from it (FOR NO KEY UPDATE).
func (d *DB) tell(ctx context.Context, tx bun.Tx, userID int64, events ...UserEvent) (followed bool, err error) {
	if d.dialect == Postgres { // one round trip
		one := tellPostgres(userID, events, &followed)
		err = tx.NewRaw(one.query, one.args...).Scan(ctx, one.dest)
		return followed, err
	}
	var counted struct {
		EventSeq int64
		Followed bool
	}
	now := d.now()
	err = d.scan(ctx, tx, &counted, `UPDATE users SET event_seq = event_seq + ? WHERE id = ?
		RETURNING event_seq, COALESCE(followed_until > ?, FALSE) AS followed`, len(events), userID, now)
	if err != nil {
		return false, err
	}
	const row = ", (?, ?, ?, ?, NULLIF(?, 0), ?)"
	values := make([]any, 0, 6*len(events))
	for i, e := range events {
		values = append(values, userID, counted.EventSeq-int64(len(events)-1-i), e.Kind, e.ChatID, e.MessageID, now)
	}
	_, err = d.exec(ctx, tx, "INSERT INTO user_events (user_id, seq, kind, chat_id, message_id, created_at) VALUES "+
		strings.Repeat(row, len(events))[2:], values...)
	return counted.Followed, err
}

// tellPostgres is the statement that tells a user of events.
func tellPostgres(userID int64, events []UserEvent, followed *bool) statement {
	kinds, chatIDs, messageIDs := make([]string, len(events)), make([]int64, len(events)), make([]int64, len(events))
	for i, e := range events {
		kinds[i], chatIDs[i], messageIDs[i] = e.Kind, e.ChatID, e.MessageID
	}
	return statement{
		"SELECT tell_user(?, ?, ?, ?)",
		[]any{userID, pgdialect.Array(kinds), pgdialect.Array(chatIDs), pgdialect.Array(messageIDs)},
		followed,
	}
}

// UserEvents returns what happened to a user after an event, in order, limit
// events at the most, with chats and messages as they are at this moment, nil if
// they are gone. If events after it were purged, the first one is not after+1.
func (d *DB) UserEvents(ctx context.Context, userID, after int64, limit int) ([]UserEvent, error) {
	var rows []storedEvent
	err := d.read.NewSelect().Model(&rows).
		RelationWithOpts("Chat", bun.RelationOpts{AdditionalJoinOnConditions: onlyFor(EventChatCreated, EventChatUpdated)}).
		RelationWithOpts("Message", bun.RelationOpts{AdditionalJoinOnConditions: onlyFor(EventMessageCreated, EventMessageUpdated)}).
		Where("e.user_id = ? AND e.seq > ?", userID, after).Order("e.seq").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, classify(ctx, err)
	}
	events := make([]UserEvent, len(rows))
	for i, row := range rows {
		events[i] = row.UserEvent
	}
	return events, nil
}

// onlyFor joins a row to events of these kinds.
func onlyFor(kinds ...string) []schema.QueryWithArgs {
	return []schema.QueryWithArgs{bun.SafeQuery("e.kind IN (?)", bun.List(kinds))}
}

// EventBounds returns the numbers of the oldest event of a user that is kept, and
// of the latest one that there was; oldest is latest+1 if none is kept.
// ErrNotFound if there is no such user.
func (d *DB) EventBounds(ctx context.Context, userID int64) (oldest, latest int64, err error) {
	err = d.read.NewRaw(`SELECT COALESCE((SELECT min(seq) FROM user_events WHERE user_id = users.id), event_seq + 1), event_seq
		FROM users WHERE id = ?`, userID).Scan(ctx, &oldest, &latest)
	return oldest, latest, classify(ctx, err)
}

// LatestEvents returns the number of the latest event of each of these users.
func (d *DB) LatestEvents(ctx context.Context, userIDs []int64) (map[int64]int64, error) {
	latest := make(map[int64]int64, len(userIDs))
	if len(userIDs) == 0 {
		return latest, nil
	}
	var rows []struct{ ID, EventSeq int64 }
	err := d.read.NewRaw("SELECT id, event_seq FROM users WHERE id IN (?)", bun.List(userIDs)).Scan(ctx, &rows)
	if err != nil {
		return nil, classify(ctx, err)
	}
	for _, row := range rows {
		latest[row.ID] = row.EventSeq
	}
	return latest, nil
}

// followLock is the advisory lock of FollowUsers: "follow" in bytes.
const followLock int64 = 0x666f6c6c6f77

// FollowUsers says that somebody follows the feeds of these users, for so long
// from here on: an Exchange tells it to who makes it.
func (d *DB) FollowUsers(ctx context.Context, userIDs []int64, lasting time.Duration) error {
	if len(userIDs) == 0 {
		return nil
	}
	follow := "UPDATE users SET followed_until = ?0 WHERE id IN (?1)"
	if d.dialect == Postgres {
		// Two of these that lock some of the same users could each wait for the
		// other, in whatever order they name them. One at a time waits only for
		// changes, which hold one user and wait for nobody.
		follow = `WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock(?2))
			UPDATE users SET followed_until = ?0 FROM turn WHERE id IN (?1)`
	}
	_, err := d.write.NewRaw(follow, d.clock(lasting), bun.List(userIDs), followLock).Exec(ctx)
	return classify(ctx, err)
}

// RunningReplies returns the ids of a user's replies that are being written, the
// oldest first.
func (d *DB) RunningReplies(ctx context.Context, userID int64) ([]int64, error) {
	var ids []int64
	err := d.read.NewRaw("SELECT message_id FROM replies WHERE user_id = ? ORDER BY message_id", userID).Scan(ctx, &ids)
	return ids, classify(ctx, err)
}

// FirstReplyEvent returns the number of the first event of a user that tells of the
// beginning of one of these replies, 0 if none of them is kept.
func (d *DB) FirstReplyEvent(ctx context.Context, userID int64, messageIDs []int64) (seq int64, err error) {
	err = d.read.NewRaw("SELECT COALESCE(min(seq), 0) FROM user_events WHERE user_id = ? AND kind = ? AND message_id IN (?)",
		userID, EventReply, bun.List(messageIDs)).Scan(ctx, &seq)
	return seq, classify(ctx, err)
}

// eventLifetime is how long events are kept: longer than the 10 minutes for which
// a feed can be resumed, by what clocks of machines may differ.
const eventLifetime = 15 * time.Minute

// purgeEvents deletes events made before ?0, and those before them in the feeds
// of their users, whatever clock these were made by: what is kept of a feed has
// no gap.
const purgeEvents = `WITH old AS (SELECT user_id, max(seq) AS seq FROM user_events WHERE created_at < ?0 GROUP BY user_id)
	DELETE FROM user_events WHERE user_id IN (SELECT user_id FROM old)
		AND seq <= (SELECT seq FROM old WHERE old.user_id = user_events.user_id)`
