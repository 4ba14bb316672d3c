package models

import (
	"context"
	"database/sql"
	"math"

	"github.com/uptrace/bun"
)

// appendTurnPostgres stores a turn. A function of the database stores all of it but
// what to tell the user: after one round trip the backend can be asked.
//
// Under READ COMMITTED the sends to one chat queue at the chat's row. The one
// that waited sees the row as the first one left it, but everything else as of
// its own start, without the reply that was committed meanwhile: then UNIQUE
// (chat_id) of replies refuses it, and takes back all of it. Equal keys meet in the
// same way at the key's row.
func (d *DB) appendTurnPostgres(ctx context.Context, turn NewTurn, args *turnArgs) (ex Exchange, err error) {
	args.Reserved, err = turn.Budget.reservation(ctx, d.read, turn.ChatID, math.MaxInt64, turn.Content)
	if err != nil {
		return Exchange{}, classify(ctx, err)
	}
	if turn.Limit.Quota >= 1 {
		q := turn.Limit.quota()
		args.LimitKey, args.Emission, args.Burst = q.Key, q.Emission, q.Burst
	}
	const store = `SELECT (turn.chat).*, user_message_id, reply_id, tat, allowed, now
		FROM append_turn(?user_id, ?chat_id, ?content, ?title, ?owner, ?now, ?route, ?key, ?body_hash, ?day, ?reserved,
			?daily_limit, ?context_bytes, ?context_messages, ?limit_key, ?emission, ?burst) AS turn`
	var row struct {
		Chat
		UserMessageID int64
		ReplyID       int64
		usage
	}
	err = d.inTwoTrips(ctx, statement{store, []any{args}, &row}, func(ctx context.Context, tx bun.IDB) (last statement, err error) {
		ex = args.exchange(row.Chat, row.UserMessageID, row.ReplyID)
		ex.SpeechFence = turn.Voice.newFence()
		if args.Emission > 0 {
			if ex.Counted, err = turn.Limit.admits(row.usage); err != nil {
				return last, err
			}
		}
		if err := turn.useUpload(ctx, tx, ex.Reply.ID); err != nil {
			return last, err
		}
		ask(turn.Stored, ex)
		if err := turn.beginSpeech(ctx, tx, ex); err != nil {
			return last, err
		}
		return tellPostgres(turn.UserID, turn.events(ex), &ex.Followed), nil
	})
	return ex, err
}

// appendTurnSQLite is the same in several statements: its transaction has the
// write lock, so what the first ones have found stays true, and the ids that come
// next are known before the rows are there.
func (d *DB) appendTurnSQLite(ctx context.Context, turn NewTurn, args *turnArgs) (ex Exchange, err error) {
	err = d.inSmallTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		args.Reserved, err = turn.Budget.reservation(ctx, tx, turn.ChatID, math.MaxInt64, turn.Content)
		if err != nil {
			return err
		}
		if ex, err = d.admitTurn(ctx, tx, turn, *args); err != nil {
			return err
		}
		recorded := turn.UploadID != 0 // and the recording may have another owner
		if !recorded {
			ask(turn.Stored, ex)
		}
		if err := d.insertTurn(ctx, tx, turn, ex, *args); err != nil {
			return err
		}
		if recorded {
			if err := turn.useUpload(ctx, tx, ex.Reply.ID); err != nil {
				return err
			}
			ask(turn.Stored, ex)
		}
		ex.Followed, err = d.tell(ctx, tx, turn.UserID, turn.events(ex)...)
		return err
	})
	return ex, err
}

// admitTurn begins the chat of a turn, or counts the turn in it, and sets aside
// what it may cost. It is refused here if it is.
func (d *DB) admitTurn(ctx context.Context, tx bun.Tx, turn NewTurn, args turnArgs) (Exchange, error) {
	counted, err := turn.Limit.hit(ctx, d, tx)
	if err != nil {
		return Exchange{}, err
	}
	// Both find no row if the turn is refused, which is how that is known without an
	// error in most cases.
	const (
		unusedKey = `NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE user_id = :user_id AND route = :route AND key = :key)`

		begin = `INSERT INTO chats (user_id, title, titled, created_at, message_count, last_message_at, active_at)
			SELECT :user_id, :title, TRUE, :now, 2, :now, :now WHERE ` + unusedKey

		raise = `UPDATE chats SET message_count = message_count + 2, last_message_at = :now, active_at = :now,
				title = CASE WHEN titled THEN title ELSE :title END, titled = TRUE
			WHERE id = :chat_id AND user_id = :user_id
				AND NOT EXISTS (SELECT 1 FROM replies WHERE chat_id = :chat_id) AND ` + unusedKey

		next = ` RETURNING *, COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0) AS last_message_id`
	)
	first := raise
	if args.ChatID == 0 {
		first = begin
	}
	var row struct {
		Chat
		LastMessageID int64
	}
	err = d.scan(ctx, tx, &row, first+next,
		sql.Named("user_id", args.UserID), sql.Named("chat_id", args.ChatID), sql.Named("title", args.Title),
		sql.Named("now", args.Now), sql.Named("route", args.Route), sql.Named("key", args.Key))
	if err != nil {
		return Exchange{}, err
	}
	if err := d.setAside(ctx, tx, args); err != nil {
		return Exchange{}, err
	}
	ex := args.exchange(row.Chat, row.LastMessageID+1, row.LastMessageID+2)
	ex.Counted, ex.SpeechFence = counted, turn.Voice.newFence()
	return ex, nil
}

// insertTurn stores the two messages, and that the second one is being written.
func (d *DB) insertTurn(ctx context.Context, tx bun.Tx, turn NewTurn, ex Exchange, args turnArgs) error {
	for _, m := range []Message{ex.User, ex.Reply} {
		_, err := d.exec(ctx, tx, "INSERT INTO messages (id, chat_id, role, content, status, created_at) VALUES (?, ?, ?, ?, ?, ?)",
			m.ID, m.ChatID, m.Role, m.Content, m.Status, m.CreatedAt)
		if err != nil {
			return err
		}
	}
	if err := d.beginReply(ctx, tx, ex, args); err != nil {
		return err
	}
	return turn.beginSpeech(ctx, tx, ex)
}
