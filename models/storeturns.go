package models

import (
	"cmp"
	"context"
	"database/sql"
	"strings"

	"github.com/uptrace/bun"
)

// storeTurnPostgres stores all of a turn but what to tell the user: one statement
// and so one round trip. Where there is a daily limit, the last part sets the tokens
// aside; if it cannot, nothing is returned, and so all is taken back.
//
// Under READ COMMITTED the sends to one chat queue at the chat's row. The one
// that waited sees the row as the first one left it, but everything else as of
// its own start, without the reply that was committed meanwhile: then UNIQUE
// (chat_id) of replies refuses it, and takes back all of the statement. Equal
// keys meet in the same way at the key's row.
//
// The reply's insert reads what the user's has returned, so its id is higher.
func (d *DB) storeTurnPostgres(ctx context.Context, tx bun.Tx, turn NewTurn, args turnArgs) (Exchange, error) {
	hit, allowed, keyed, last := "", "", "", "running"
	if turn.Limit.Quota >= 1 {
		q := turn.Limit.quota()
		args.LimitKey, args.Emission, args.Burst = q.Key, q.Emission, q.Burst
		hit = "quota (key, emission, burst) AS (VALUES (?limit_key, ?emission, ?burst)), hit AS (" + d.hits() + "),"
		allowed, last = " AND (SELECT allowed FROM hit)", "hit, running"
	}
	if args.Key != "" {
		keyed = `, keyed AS (
			INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, message_id, created_at)
			SELECT ?user_id, ?route, ?key, ?body_hash, 0, reply_id, ?now FROM running RETURNING key)`
		last += ", keyed"
	}
	if args.DailyLimit > 0 {
		keyed += ", spent AS (" + reserve(" FROM "+last) + " RETURNING day)"
		last += ", spent"
	}
	var row struct {
		Chat
		UserMessageID int64
		ReplyID       int64
		usage
	}
	err := tx.NewRaw(`
		WITH `+hit+` chat AS (`+args.first()+allowed+` RETURNING *),
		asked AS (
			INSERT INTO messages (chat_id, role, content, status, created_at)
			SELECT id, 'user', ?content, 'complete', ?now FROM chat RETURNING id, chat_id),
		answer AS (
			INSERT INTO messages (chat_id, role, content, status, created_at)
			SELECT chat_id, 'assistant', '', 'streaming', ?now FROM asked RETURNING id),
		running AS (
			INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at, reserved, context_bytes, context_messages)
			SELECT answer.id, asked.chat_id, ?user_id, asked.id, ?owner, ?now, ?reserved, ?context_bytes, ?context_messages
			FROM asked, answer
			RETURNING message_id AS reply_id, user_message_id)`+keyed+`
		SELECT * FROM chat, `+last, args).Scan(ctx, &row)
	if isNoRows(err) && hit != "" {
		var was usage
		told := tx.NewRaw("SELECT key, tat, allowed, "+d.micros()+" AS now FROM throttles WHERE key = ?", args.LimitKey).Scan(ctx, &was)
		if told == nil && !was.Allowed {
			told = &OverLimit{turn.Limit.after(was)}
		}
		err = cmp.Or(told, err)
	}
	if err != nil {
		return Exchange{}, err
	}
	ex := args.exchange(row.Chat, row.UserMessageID, row.ReplyID)
	ex.SpeechFence = turn.Voice.newFence()
	if hit != "" {
		ex.Counted = turn.Limit.after(row.usage)
	}
	if err := turn.useUpload(ctx, tx, ex.Reply.ID); err != nil {
		return Exchange{}, err
	}
	ask(turn.Stored, ex)
	return ex, turn.beginSpeech(ctx, tx, ex)
}

// storeTurnSQLite is the same in several statements: its transaction has the
// write lock, so what the first ones have found stays true, and the ids that come
// next are known before the rows are there.
func (d *DB) storeTurnSQLite(ctx context.Context, tx bun.Tx, turn NewTurn, args turnArgs) (Exchange, error) {
	counted, err := turn.Limit.hit(ctx, d, tx)
	if err != nil {
		return Exchange{}, err
	}
	var row struct {
		Chat
		LastMessageID int64
	}
	// Values are written as bun names them, with a colon in place of its question mark.
	const next = `, COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0) AS last_message_id`
	err = d.scan(ctx, tx, &row, strings.ReplaceAll(args.first(), "?", ":")+" RETURNING *"+next,
		sql.Named("user_id", args.UserID), sql.Named("chat_id", args.ChatID), sql.Named("title", args.Title),
		sql.Named("now", args.Now), sql.Named("route", args.Route), sql.Named("key", args.Key))
	if err != nil {
		return Exchange{}, err
	}
	if err := args.setAside(ctx, tx); err != nil {
		return Exchange{}, err
	}
	ex := args.exchange(row.Chat, row.LastMessageID+1, row.LastMessageID+2)
	ex.Counted, ex.SpeechFence = counted, turn.Voice.newFence()
	recorded := turn.UploadID != 0
	if !recorded {
		ask(turn.Stored, ex)
	}
	for _, m := range []Message{ex.User, ex.Reply} {
		_, err := d.exec(ctx, tx, "INSERT INTO messages (id, chat_id, role, content, status, created_at) VALUES (?, ?, ?, ?, ?, ?)",
			m.ID, m.ChatID, m.Role, m.Content, m.Status, m.CreatedAt)
		if err != nil {
			return Exchange{}, err
		}
	}
	if err := d.beginReply(ctx, tx, ex, args); err != nil {
		return Exchange{}, err
	}
	if err := turn.beginSpeech(ctx, tx, ex); err != nil {
		return Exchange{}, err
	}
	if recorded { // which may have another owner
		if err := turn.useUpload(ctx, tx, ex.Reply.ID); err != nil {
			return Exchange{}, err
		}
		ask(turn.Stored, ex)
	}
	return ex, nil
}
