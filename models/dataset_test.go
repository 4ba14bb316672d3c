package models_test

import (
	"testing"
	"time"

	"parley/models"
)

// fill gives a user chats with messages, told evenly to all of them in turn, so
// that those of one chat lie far apart as they would in a table that has grown.
func fill(tb testing.TB, db *models.DB, userID int64, chats, messages int) {
	tb.Helper()
	var (
		series  = "SELECT i FROM generate_series(1, ?4) AS g (i)"
		minutes = "?1::timestamptz + i * interval '1 millisecond'"
	)
	if db.Dialect() == models.SQLite {
		series = "WITH RECURSIVE g (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < ?4) SELECT i FROM g"
		// The form in which bun writes times.
		minutes = "strftime('%Y-%m-%d %H:%M:%f+00:00', ?1, (i / 1000.0) || ' seconds')"
	}
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, statement := range []string{
		`INSERT INTO chats (user_id, title, titled, created_at, message_count, last_message_at, active_at)
			SELECT ?0, 'Chat ' || i, TRUE, ?1, ?3 / ?2, ` + minutes + `, ` + minutes + ` FROM (` + series + `) s WHERE i <= ?2`,
		`INSERT INTO messages (chat_id, role, content, status, created_at)
			SELECT first + (i - 1) / 2 % ?2, CASE i % 2 WHEN 1 THEN 'user' ELSE 'assistant' END,
				'Message ' || i || ' of a conversation that goes on for a while, as they do, about this and that.',
				'complete', ` + minutes + `
			FROM (` + series + `) s, (SELECT min(id) AS first FROM chats WHERE user_id = ?0) c`,
		`ANALYZE`,
	} {
		_, err := db.Bun().NewRaw(statement, userID, began, chats, messages, max(chats, messages)).Exec(tb.Context())
		must(tb, err)
	}
	if db.Dialect() == models.SQLite {
		// A log as long as the data set would slow down every read.
		_, err := db.Bun().NewRaw("PRAGMA wal_checkpoint(TRUNCATE)").Exec(tb.Context())
		must(tb, err)
	}
}
