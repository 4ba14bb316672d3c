package models

import (
	"context"
	"database/sql"
	"math"

	"github.com/uptrace/bun"
)

// appendTurnPostgres stores a turn. A function of the database admits it: after one
// round trip the backend can be asked. Another one stores it, with what to tell the user.
//
// Under READ COMMITTED the sends to one chat queue at the chat's row, and equal keys
// at the key's.
func (d *DB) appendTurnPostgres(ctx context.Context, turn NewTurn, args *turnArgs) (ex Exchange, err error) {
	args.Reserved, err = turn.Budget.reservation(ctx, d.read, turn.ChatID, math.MaxInt64, turn.Content)
	if err != nil {
		return Exchange{}, classify(ctx, err)
	}
	if turn.Limit.Quota >= 1 {
		q := turn.Limit.quota()
		args.LimitKey, args.Emission, args.Burst = q.Key, q.Emission, q.Burst
	}
	const admit = `SELECT (turn.chat).*, user_message_id, reply_id, tat, allowed, now
		FROM admit_turn(?user_id, ?chat_id, ?now, ?route, ?key, ?body_hash, ?day, ?reserved, ?daily_limit,
			?limit_key, ?emission, ?burst) AS turn`
	var row struct {
		Chat
		UserMessageID int64
		ReplyID       int64
		usage
	}
	err = d.inTwoTrips(ctx, statement{admit, []any{args}, &row}, func(ctx context.Context, tx bun.IDB) (last statement, err error) {
		ex = args.exchange(row.Chat, row.UserMessageID, row.ReplyID)
		ex.SpeechFence = turn.Voice.newFence()
		if args.Emission > 0 {
			if ex.Counted, err = turn.Limit.admits(row.usage); err != nil {
				return last, err
			}
		}
		recorded := turn.UploadID != 0 // and the recording may have another owner
		if !recorded {
			ask(turn.Stored, ex)
		}
		last = tellPostgres(turn.UserID, turn.events(ex), &ex.Followed)
		const store = " FROM store_turn(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
		values := []any{
			args.UserID, ex.Chat.ID, args.ChatID == 0, ex.Chat.Title, ex.User.ID, args.Content, ex.Reply.ID,
			args.Owner, args.Now, args.Reserved, args.ContextBytes, args.ContextMessages,
		}
		if !recorded && turn.Voice == nil {
			last.query, last.args = last.query+store, append(last.args, values...)
			return last, nil
		}
		// What else is stored refers to the messages.
		if _, err := tx.NewRaw("SELECT"+store, values...).Exec(ctx); err != nil {
			return last, err
		}
		if recorded {
			if err := turn.useUpload(ctx, tx, ex.Reply.ID); err != nil {
				return last, err
			}
			ask(turn.Stored, ex)
		}
		return last, turn.beginSpeech(ctx, tx, ex)
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

// admitTurn sees to it that nothing can refuse a turn any more, counts it, and sets
// aside what it may cost. It only reads what it can: the backend waits for it.
func (d *DB) admitTurn(ctx context.Context, tx bun.Tx, turn NewTurn, args turnArgs) (Exchange, error) {
	counted, err := turn.Limit.hit(ctx, d, tx)
	if err != nil {
		return Exchange{}, err
	}
	// Both find no row if the turn is refused.
	const (
		lastMessage = `COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0) AS last_message_id`
		unusedKey   = `NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE user_id = :user_id AND route = :route AND key = :key)`

		begin = `SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'chats'), 0) + 1 AS id, ` + lastMessage + `
			FROM users WHERE id = :user_id AND ` + unusedKey

		goOn = `SELECT *, ` + lastMessage + ` FROM chats WHERE id = :chat_id AND user_id = :user_id
			AND NOT EXISTS (SELECT 1 FROM replies WHERE chat_id = :chat_id) AND ` + unusedKey
	)
	find := goOn
	if args.ChatID == 0 {
		find = begin
	}
	var row struct {
		Chat
		LastMessageID int64
	}
	err = d.scan(ctx, tx, &row, find, sql.Named("user_id", args.UserID), sql.Named("chat_id", args.ChatID),
		sql.Named("route", args.Route), sql.Named("key", args.Key))
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

// insertTurn stores the two messages in their chat, and that the second one is being
// written.
func (d *DB) insertTurn(ctx context.Context, tx bun.Tx, turn NewTurn, ex Exchange, args turnArgs) error {
	chat := `INSERT INTO chats (id, user_id, title, titled, created_at, message_count, last_message_at, active_at)
		VALUES (:id, :user_id, :title, TRUE, :now, 2, :now, :now)`
	if args.ChatID != 0 {
		chat = `UPDATE chats SET message_count = message_count + 2, last_message_at = :now, active_at = :now, title = :title, titled = TRUE
			WHERE id = :id`
	}
	_, err := d.exec(ctx, tx, chat, sql.Named("id", ex.Chat.ID), sql.Named("user_id", args.UserID),
		sql.Named("title", ex.Chat.Title), sql.Named("now", args.Now))
	if err != nil {
		return err
	}
	values := make([]any, 0, 12)
	for _, m := range []Message{ex.User, ex.Reply} {
		values = append(values, m.ID, m.ChatID, m.Role, m.Content, m.Status, m.CreatedAt)
	}
	_, err = d.exec(ctx, tx, "INSERT INTO messages (id, chat_id, role, content, status, created_at) VALUES (?, ?, ?, ?, ?, ?), (?, ?, ?, ?, ?, ?)", values...)
	if err != nil {
		return err
	}
	if err := d.beginReply(ctx, tx, ex, args); err != nil {
		return err
	}
	return turn.beginSpeech(ctx, tx, ex)
}
