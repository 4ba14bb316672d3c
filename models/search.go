package models

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

// SearchChats is Chats of those whose title, or one of whose messages, holds all
// words of a text, or words that begin with them. Nothing in the text is an
// operator; a text without words finds nothing. What was said is found once
// IndexTexts has seen it.
func (d *DB) SearchChats(ctx context.Context, userID int64, text string, p Page) ([]Chat, string, error) {
	wanted := ofUser(userID, words(text))
	if len(wanted) == 0 {
		return nil, "", nil
	}
	// Words hold neither quotes nor backslashes.
	query, found := `"`+strings.Join(wanted, `"* AND "`)+`"*`, `id IN (
		SELECT rowid FROM chat_words WHERE chat_words MATCH ?0
		UNION SELECT chat_id FROM messages WHERE id IN (SELECT rowid FROM message_words WHERE message_words MATCH ?0))`
	if d.dialect == Postgres {
		query, found = "'"+strings.Join(wanted, "':* & '")+"':*", `id IN (
			SELECT chat_id FROM chat_words WHERE words @@ CAST(?0 AS tsquery)
			UNION SELECT chat_id FROM message_words WHERE words @@ CAST(?0 AS tsquery))`
	}
	return d.chatPage(ctx, userID, p, func(q *bun.SelectQuery) *bun.SelectQuery { return q.Where(found, query) })
}

// A queued is what IndexTexts has to look at.
type queued struct {
	ID        int64
	ChatID    int64
	MessageID int64 // 0: the title alone
}

// indexLock is the advisory lock of IndexTexts: "search" in bytes.
const indexLock int64 = 0x736561726368

// indexing is how long IndexTexts takes changes on: on SQLite nobody else writes
// meanwhile.
const indexing = 25 * time.Millisecond

// IndexTexts makes titles and messages found that have changed, of limit changes
// at the most, and of fewer where they take long. It returns of how many: 0 if
// there were none, or somebody else is at it.
func (d *DB) IndexTexts(ctx context.Context, limit int) (int, error) {
	// Most of the time there are none: that costs no writer.
	some, err := d.read.NewSelect().TableExpr("search_queue").Exists(ctx)
	if err != nil || !some {
		return 0, classify(ctx, err)
	}
	var done int
	err = d.inSmallTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		done = 0
		if d.dialect == Postgres {
			// One at a time: what was read before must not be written after.
			var mine bool
			if err := tx.NewRaw("SELECT pg_try_advisory_xact_lock(?)", indexLock).Scan(ctx, &mine); err != nil || !mine {
				return err
			}
		}
		// In the order in which others lock chats.
		var changes []queued
		err := tx.NewRaw(`SELECT id, chat_id, COALESCE(message_id, 0) AS message_id
			FROM (SELECT * FROM search_queue ORDER BY id LIMIT ?) AS first ORDER BY chat_id, id`, limit).Scan(ctx, &changes)
		if err != nil || len(changes) == 0 {
			return err
		}
		var ids []int64
		began := time.Now()
		for _, change := range changes {
			if err := d.index(ctx, tx, change); err != nil {
				return err
			}
			ids = append(ids, change.ID)
			if time.Since(began) > indexing {
				break
			}
		}
		done = len(ids)
		_, err = tx.NewRaw("DELETE FROM search_queue WHERE id IN (?)", bun.List(ids)).Exec(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	return done, nil
}

// index makes one change found. What has gone meanwhile is passed over.
func (d *DB) index(ctx context.Context, tx bun.Tx, change queued) error {
	held := ""
	if d.dialect == Postgres {
		held = " FOR KEY SHARE" // so that it stays until the words are written
	}
	var chat Chat
	err := tx.NewRaw("SELECT id, user_id, title FROM chats WHERE id = ?"+held, change.ChatID).Scan(ctx, &chat)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := d.putWords(ctx, tx, "chat_words", chat.ID, chat, chat.Title); err != nil || change.MessageID == 0 {
		return err
	}
	// With a reply comes what it answers.
	var said []Message
	err = tx.NewRaw(`SELECT id, content FROM messages WHERE chat_id = ?0 AND id <= ?1 AND status <> ?2 AND id >
			COALESCE((SELECT max(id) FROM messages WHERE chat_id = ?0 AND id < ?1 AND role = ?3), 0)
		ORDER BY id`+held, chat.ID, change.MessageID, StatusStreaming, RoleAssistant).Scan(ctx, &said)
	if err != nil {
		return err
	}
	for _, m := range said {
		if err := d.putWords(ctx, tx, "message_words", m.ID, chat, m.Content); err != nil {
			return err
		}
	}
	return nil
}

// putWords writes the words of a text in place of those that a row had.
func (d *DB) putWords(ctx context.Context, tx bun.Tx, table string, id int64, chat Chat, text string) error {
	found := ofUser(chat.UserID, words(text))
	if d.dialect == SQLite {
		_, err := d.exec(ctx, tx, "INSERT OR REPLACE INTO "+table+" (rowid, words) VALUES (?, ?)", id, strings.Join(found, " "))
		return err
	}
	statement := `INSERT INTO chat_words (chat_id, words) VALUES (?0, array_to_tsvector(CAST(?2 AS text[])))
		ON CONFLICT (chat_id) DO UPDATE SET words = EXCLUDED.words`
	if table == "message_words" {
		statement = `INSERT INTO message_words (message_id, chat_id, words) VALUES (?0, ?1, array_to_tsvector(CAST(?2 AS text[])))
			ON CONFLICT (message_id) DO UPDATE SET words = EXCLUDED.words`
	}
	_, err := tx.NewRaw(statement, id, chat.ID, pgdialect.Array(found)).Exec(ctx)
	return err
}
