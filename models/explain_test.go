package models_test

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	// What is prepared has no values, and the plan does not depend on them.
	unbound := make([]any, strings.Count(statement, "?"))
	must(t, db.Bun().NewRaw("EXPLAIN QUERY PLAN "+statement, unbound...).Scan(t.Context(), &rows))
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

// What runs at every request, or many times a minute, grows with nothing that a
// stranger can fill.
func TestHotStatementsReadIndexes(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for range 2 {
			newUser(t, db)
		}
		u, s := newUser(t, db)
		series := "WITH RECURSIVE g (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < 20000)"
		for _, statement := range []string{
			`INSERT INTO users (email, user_name, password_hash, created_at) ` + series + ` SELECT 'user' || i, '', '', ?0 FROM g`,
			`INSERT INTO device_sessions (sid, user_id, name, ip, rotated_at, created_at, last_seen_at, expires_at) ` +
				series + ` SELECT 'sid' || i, users.id, '', '192.0.2.1', ?0, ?0, ?0, ?1 FROM g JOIN users ON email = 'user' || i`,
			`INSERT INTO mails (kind, user_id, recipient, data, next_at, created_at) ` +
				series + ` SELECT 'reset_password', i, 'x', '{}', ?1, ?0 FROM g`,
			`INSERT INTO throttles (key, tat, allowed) ` + series + ` SELECT 'key' || i, 0, TRUE FROM g`,
			`INSERT INTO audit_entries (at, action, subject_id, actor_id, ip, request_id, detail) ` +
				series + ` SELECT ?0, 'a', i, i, '', '', '' FROM g`,
			`INSERT INTO password_resets (user_id, token_hash, created_at, expires_at) SELECT id, 'hash' || id, ?0, ?1 FROM users`,
			`INSERT INTO usage (message_id, fence, user_id, chat_id, day, model, input_tokens, output_tokens, estimated, created_at) ` +
				series + ` SELECT i, 1, users.id, 1, '2026-01-01', '', 1, 1, FALSE, ?0 FROM g JOIN users ON email = 'user' || i`,
			`INSERT INTO usage_days (user_id, day) SELECT id, '2026-01-' || (10 + id % 20) FROM users`,
			`ANALYZE`,
		} {
			_, err := db.Bun().NewRaw(statement, time.Now(), time.Now().Add(time.Hour)).Exec(t.Context())
			must(t, err)
		}
		for name, test := range map[string]struct {
			do               func(db *models.DB) error
			postgres, sqlite string
		}{
			"ClaimMails": {
				func(db *models.DB) error { _, err := db.ClaimMails(t.Context(), 10, time.Minute); return err },
				`(?s)Index Scan using mails_next_at_idx on mails.*Index Cond: \(next_at <= statement_timestamp\(\)\).*Index Scan using mails_pkey on mails`,
				`SEARCH mails USING COVERING INDEX mails_next_at_idx \(next_at<\?\)`,
			},
			"Devices": {
				func(db *models.DB) error { _, err := db.Devices(t.Context(), u.ID); return err },
				`Index Scan using device_sessions_user_id_idx on device_sessions`,
				`SEARCH device_session USING INDEX device_sessions_user_id_idx \(user_id=\?\)`,
			},
			"KnownNetwork": {
				func(db *models.DB) error {
					_, err := db.KnownNetwork(t.Context(), u.ID, netip.MustParsePrefix("192.0.2.1/32"))
					return err
				},
				`Index Scan using device_sessions_user_id_idx on device_sessions`,
				`SEARCH device_sessions USING INDEX device_sessions_user_id_idx \(user_id=\?\)`,
			},
			"SessionAlive": {
				func(db *models.DB) error { return db.SessionAlive(t.Context(), s.SID, u.ID) },
				`(?s)Index Scan using device_sessions_(sid_key|user_id_idx) on device_sessions.*Index Scan using users_pkey on users`,
				`(?s)SEARCH s USING INDEX (sqlite_autoindex_device_sessions_1 \(sid=\?\)|device_sessions_user_id_idx \(user_id=\?\)).*SEARCH u USING INTEGER PRIMARY KEY`,
			},
			"Count": {
				func(db *models.DB) error {
					_, err := db.Count(t.Context(), []models.Limit{{Key: "a", Quota: 5, Window: time.Hour}, {Key: "b", Quota: 5, Window: time.Hour}})
					return err
				},
				`Function Scan on count_hit`, // see TestFunctionsReadIndexes
				`SCAN quota`,                 // the limits: the primary key of an upsert is not shown
			},
			"Refund": {
				func(db *models.DB) error {
					return db.Refund(t.Context(), []models.Limit{{Key: "a", Quota: 5, Window: time.Hour}})
				},
				`Conflict Arbiter Indexes: throttles_pkey`,
				`SCAN quota`,
			},
			"Reset": {
				func(db *models.DB) error {
					_, err := db.Reset(t.Context(), fmt.Sprint("hash", u.ID), time.Now())
					return err
				},
				`(?s)Index Scan using password_resets_token_hash_key on password_resets.*Index Scan using users_pkey on users`,
				`(?s)SEARCH password_resets USING INDEX sqlite_autoindex_password_resets_1 \(token_hash=\?\).*SEARCH user USING INTEGER PRIMARY KEY`,
			},
			"AuditEntries": {
				func(db *models.DB) error { _, _, err := db.AuditEntries(t.Context(), models.Page{}); return err },
				`Index Scan Backward using audit_entries_pkey`,
				`^SCAN audit_entry$`, // backwards by the rowid, as far as the limit
			},
			"Usage": {
				func(db *models.DB) error {
					_, err := db.Usage(t.Context(), u.ID, "2026-01-01", "2026-01-31")
					return err
				},
				`Index Scan using usage_days_pkey on usage_days`,
				`SEARCH usage_days USING PRIMARY KEY \(user_id=\? AND day>\? AND day<\?\)`,
			},
			"UsageByDay": {
				func(db *models.DB) error {
					_, err := db.UsageByDay(t.Context(), "2026-01-11", "2026-01-11")
					return err
				},
				`Scan on usage_days_day_idx`,
				`SEARCH usage_days USING INDEX usage_days_day_idx \(day>\? AND day<\?\)`,
			},
			"ExportUsage": {
				func(db *models.DB) error { _, err := db.ExportUsage(t.Context(), u.ID, 0, 100); return err },
				`(?s)usage_(pkey|user_id_message_id_idx).*usage_user_id_message_id_idx`,
				`(?s)SEARCH usage USING INDEX usage_user_id_message_id_idx \(user_id=\? AND message_id=\?\).*usage_user_id_message_id_idx \(user_id=\? AND message_id>\?\)`,
			},
			"ExportAudit": {
				func(db *models.DB) error { _, err := db.ExportAudit(t.Context(), u.ID, 0, 100); return err },
				`Index Scan using audit_entries_subject_id_id_idx on audit_entries`,
				`SEARCH audit_entry USING INDEX audit_entries_subject_id_id_idx \(subject_id=\? AND id>\?\)`,
			},
		} {
			var r recorder
			hooked := *db
			hooked.Hook(&r)
			must(t, test.do(&hooked))
			statements := slices.DeleteFunc(r.statements, func(s string) bool {
				return slices.Contains([]string{"BEGIN", "COMMIT", "ROLLBACK"}, s)
			})
			wantEqual(t, []any{name, len(statements)}, []any{name, 1})
			got := plan(t, db, statements[0])
			want, bad := test.sqlite, `SCAN (mails|device_sessions|users|throttles|t|password_resets|usage|usage_days)`
			if db.Dialect() == models.Postgres {
				want, bad = test.postgres, `Seq Scan on (mails|device_sessions|users|throttles|password_resets|audit|usage)`
			}
			if !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%s: got the plan\n%s\nwant %s", name, got, want)
			}
			if regexp.MustCompile(bad).MatchString(got) {
				t.Errorf("%s: got the plan\n%s\nwant no %s", name, got, bad)
			}
		}
	})
}

// What the functions of the database run, also by plans that serve for any
// arguments, which a session makes when it has called them some times.
func TestFunctionsReadIndexes(t *testing.T) {
	t.Parallel()
	url := modelstest.URL(t, models.Postgres)
	config, err := pgx.ParseConfig(url)
	must(t, err)
	var plans strings.Builder
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { plans.WriteString(notice.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	must(t, err)
	defer conn.Close(t.Context())
	for _, statement := range []string{
		"INSERT INTO users (email, user_name, password_hash, created_at) SELECT 'user' || i, '', '', now() FROM generate_series(1, 20000) i",
		"INSERT INTO chats (user_id, title, titled, created_at, message_count, active_at) SELECT id, '', FALSE, now(), 2, now() FROM users",
		"INSERT INTO messages (chat_id, role, content, status, created_at) SELECT id, 'assistant', '', 'streaming', now() FROM chats",
		"INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at) SELECT messages.id, chat_id, user_id, 0, '', now() FROM messages JOIN chats ON chats.id = chat_id WHERE chat_id > 100",
		"INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, created_at) SELECT id, 'r', id, '', 0, now() FROM users",
		"INSERT INTO usage_days (user_id, day) SELECT id, '2026-01-01' FROM users",
		"INSERT INTO throttles (key, tat, allowed) SELECT id, 0, TRUE FROM users",
		"ANALYZE", "LOAD 'auto_explain'", "SET client_min_messages = log",
		"SET auto_explain.log_min_duration = 0", "SET auto_explain.log_nested_statements = on",
	} {
		_, err := conn.Exec(t.Context(), statement)
		must(t, err)
	}
	for i := range 20 {
		for _, chat := range []int{0, i + 1} {
			_, err := conn.Exec(t.Context(), `SELECT store_turn($1, (turn.chat).id, $2 = 0, 't', user_message_id, 'q', reply_id, 'o', now(), 10, 0, 0)
				FROM admit_turn($1, $2, now(), 'r', $3, '', '2026-01-01', 10, 1000, 'k', 1, 1000) AS turn`,
				i+1, chat, fmt.Sprint("key", i, chat))
			must(t, err)
		}
	}
	for _, want := range []string{"store_turn", "throttles_pkey", "idempotency_keys_pkey", "chats_pkey", "replies_chat_id_key", "usage_days_pkey", `\$\d`} {
		if !regexp.MustCompile(want).MatchString(plans.String()) {
			t.Errorf("no plan has %s", want)
		}
	}
	if found := regexp.MustCompile(`Seq Scan on [a-z_]+`).FindString(plans.String()); found != "" {
		t.Errorf("a plan has %s", found)
	}
}

// topPlan leaves out how the chunks of a reply that is being written are put in
// order, which is done for such a message only.
func topPlan(plan string) string {
	plan, _, _ = strings.Cut(plan, "CORRELATED SCALAR SUBQUERY")
	return regexp.MustCompile(`(?s)SubPlan.*`).ReplaceAllString(plan, "")
}
