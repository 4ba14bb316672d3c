package models_test

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// recorder keeps the statements that it sees.
type recorder struct{ statements []string }

func (r *recorder) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	r.statements = append(r.statements, event.Query)
	return ctx
}

func (r *recorder) AfterQuery(context.Context, *bun.QueryEvent) {}

// plan is how the database runs a statement.
func plan(t *testing.T, db *models.DB, statement string) string {
	t.Helper()
	var lines []string
	if db.Dialect() == models.Postgres {
		must(t, db.Bun().NewRaw("EXPLAIN "+statement).Scan(t.Context(), &lines))
		return strings.Join(lines, "\n")
	}
	var rows []struct {
		ID, Parent, Notused int64
		Detail              string
	}
	must(t, db.Bun().NewRaw("EXPLAIN QUERY PLAN "+statement).Scan(t.Context(), &rows))
	for _, row := range rows {
		lines = append(lines, row.Detail)
	}
	return strings.Join(lines, "\n")
}

func TestPagesReadOneIndexWithoutSorting(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		other, _ := newUser(t, db)
		fill(t, db, u.ID, 500, 20_000)
		fill(t, db, other.ID, 500, 20_000)
		chats, next, err := db.Chats(t.Context(), u.ID, models.Page{Limit: 20})
		must(t, err)
		_, err = db.Bun().NewRaw(`WITH RECURSIVE g (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 5000)
			INSERT INTO user_events (user_id, seq, kind, chat_id, message_id, created_at)
			SELECT users.id, i, 'message_created', ?, i, ? FROM g, users; ANALYZE`, chats[0].ID, time.Now()).Exec(t.Context())
		must(t, err)
		_, back, err := db.Messages(t.Context(), u.ID, chats[0].ID, models.Page{Limit: 10})
		must(t, err)

		for name, test := range map[string]struct {
			read             func() error
			postgres, sqlite string
			badToo           string
		}{
			"the chat list": {
				read:     func() error { _, _, err := db.Chats(t.Context(), u.ID, models.Page{Limit: 20}); return err },
				postgres: `Index Scan using chats_user_id_active_at_id_idx on chats.*\n +Index Cond: \(user_id = \d+\)`,
				sqlite:   `^SEARCH chat USING INDEX chats_user_id_active_at_id_idx \(user_id=\?\)$`,
				badToo:   "messages",
			},
			"its next page": {
				read: func() error {
					_, _, err := db.Chats(t.Context(), u.ID, models.Page{Limit: 20, Cursor: next})
					return err
				},
				postgres: `Index Scan using chats_user_id_active_at_id_idx on chats.*\n +Index Cond: \(\(user_id = \d+\) AND \(ROW\(active_at, id\) < ROW\(`,
				sqlite:   `^SEARCH chat USING INDEX chats_user_id_active_at_id_idx \(user_id=\? AND active_at<\?\)$`,
				badToo:   "messages",
			},
			"the messages of a chat": {
				read: func() error {
					_, _, err := db.Messages(t.Context(), u.ID, chats[0].ID, models.Page{Limit: 10})
					return err
				},
				postgres: `Index Scan Backward using messages_chat_id_id_idx on messages`,
				sqlite:   `SEARCH m USING INDEX messages_chat_id_id_idx \(chat_id=\? AND id<\?\)`,
				badToo:   "Seq Scan on messages",
			},
			"what happened to a user": {
				read:     func() error { _, err := db.UserEvents(t.Context(), u.ID, 0, 100); return err },
				postgres: `(?s)Index Scan using user_events_pkey on user_events.*Index Scan using chats_pkey.*Index Scan using messages_pkey`,
				sqlite:   `^SEARCH e USING PRIMARY KEY \(user_id=\? AND seq>\?\)\nSEARCH chat USING INTEGER PRIMARY KEY .*\nSEARCH message USING INTEGER PRIMARY KEY`,
				badToo:   "Seq Scan",
			},
			"the messages before": {
				read: func() error {
					_, _, err := db.Messages(t.Context(), u.ID, chats[0].ID, models.Page{Limit: 10, Cursor: back})
					return err
				},
				postgres: `Index Scan Backward using messages_chat_id_id_idx on messages`,
				sqlite:   `SEARCH m USING INDEX messages_chat_id_id_idx \(chat_id=\? AND id<\?\)`,
				badToo:   "Seq Scan on messages",
			},
		} {
			var r recorder
			db.Hook(&r)
			must(t, test.read())
			wantEqual(t, len(r.statements), 1)
			got := plan(t, db, r.statements[0])
			want := test.sqlite
			if db.Dialect() == models.Postgres {
				want = test.postgres
			}
			if !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%s: got the plan\n%s\nwant %s", name, got, want)
			}
			for _, bad := range []string{"Sort", "B-TREE FOR ORDER BY", "SCAN", test.badToo} {
				if strings.Contains(topPlan(got), bad) {
					t.Errorf("%s: got the plan\n%s\nwant no %s", name, got, bad)
				}
			}
		}
	})
}

// topPlan leaves out how the chunks of a reply that is being written are put in
// order, which is done for such a message only.
func topPlan(plan string) string {
	plan, _, _ = strings.Cut(plan, "CORRELATED SCALAR SUBQUERY")
	return regexp.MustCompile(`(?s)SubPlan.*`).ReplaceAllString(plan, "")
}
