package models_test

import (
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestSystemMetrics(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		got, err := db.SystemMetrics(t.Context())
		must(t, err)
		wantEqual(t, got, models.SystemMetrics{})

		ann := newChat(t, db)
		say(t, db, ann, "question", "answer")
		say(t, db, ann, "question", "answer")
		send(t, db, newChat(t, db), "question")
		week, past := newChat(t, db), newChat(t, db)
		today := time.Now()
		for userID, day := range map[int64]int{ann.UserID: 0, week.UserID: 6, past.UserID: 30} {
			_, err := db.Bun().NewRaw(`INSERT INTO usage_days (user_id, day, input_tokens, output_tokens, estimated_tokens, replies)
				VALUES (?, ?, 3, 4, 5, 1) ON CONFLICT (user_id, day) DO UPDATE SET input_tokens = 3, output_tokens = 4, estimated_tokens = 5, replies = 1`,
				userID, models.Day(today.AddDate(0, 0, -day))).Exec(t.Context())
			must(t, err)
		}
		day := func(ago int) models.UsageTotal {
			return models.UsageTotal{Users: 1, UsageDay: models.UsageDay{
				Day: models.Day(today.AddDate(0, 0, -ago)), InputTokens: 3, OutputTokens: 4, EstimatedTokens: 5, Replies: 1,
			}}
		}
		got, err = db.SystemMetrics(t.Context())
		must(t, err)
		wantEqual(t, got, models.SystemMetrics{
			Users: models.Count{N: 4}, Chats: models.Count{N: 4}, Messages: models.Count{N: 6},
			Active: models.ActiveUsers{Day: 1, Week: 2, Month: 2}, Running: 1,
			Days: []models.UsageTotal{day(6), day(0)},
		})
	})
}

// PostgreSQL says that it estimates, and is not far off.
func TestManyRowsAreEstimated(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	chat := newChat(t, db)
	for _, statement := range []string{
		`INSERT INTO users (email, user_name, password_hash, created_at) SELECT n, '', '', now() FROM generate_series(1, 150000) AS n`,
		`INSERT INTO chats (user_id, title, created_at, active_at, message_count) SELECT ?, '', now(), now(), 1 FROM generate_series(1, 150000)`,
		`INSERT INTO messages (chat_id, role, content, status, created_at) SELECT id, 'user', '', 'complete', now() FROM chats`,
		`ANALYZE users, chats, messages`,
	} {
		_, err := db.Bun().NewRaw(statement, chat.UserID).Exec(t.Context())
		must(t, err)
	}
	got, err := db.SystemMetrics(t.Context())
	must(t, err)
	for name, n := range map[string]models.Count{"users": got.Users, "chats": got.Chats, "messages": got.Messages} {
		if !n.Estimated || n.N < 140_000 || n.N > 160_000 {
			t.Errorf("150001 %s are taken for %+v", name, n)
		}
	}
}
