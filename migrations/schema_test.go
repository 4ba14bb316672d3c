package migrations_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// schema is what a database says about its tables, one line a fact, in words
// that both dialects share.
func schema(t *testing.T, db *bun.DB, dialect string) []string {
	t.Helper()
	query := sqliteSchema
	if dialect == models.Postgres {
		query = postgresSchema
	}
	var facts []string
	if err := db.NewRaw(query).Scan(context.Background(), &facts); err != nil {
		t.Fatal(err)
	}
	// The words that are searched for: FTS5's tables have no counterpart.
	facts = slices.DeleteFunc(facts, func(fact string) bool { return strings.Contains(fact, "_words") })
	slices.Sort(facts)
	return facts
}

const sqliteSchema = `
WITH tables AS (
	SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'bun_migrations'
), columns AS (
	SELECT t.name AS tbl, c.* FROM tables t, pragma_table_info(t.name) c
), indexes AS (
	SELECT t.name AS tbl, i.name AS name, i."unique" AS uniq, i.origin,
		(SELECT group_concat(x.name || CASE x."desc" WHEN 1 THEN ' DESC' ELSE '' END, ', ')
			FROM (SELECT * FROM pragma_index_xinfo(i.name) WHERE key = 1 ORDER BY seqno) x) AS cols
	FROM tables t, pragma_index_list(t.name) i
)
SELECT 'table ' || name FROM tables
UNION ALL
SELECT 'column ' || tbl || '.' || name || ' ' ||
	CASE type WHEN 'INTEGER' THEN 'integer' WHEN 'BIGINT' THEN 'integer' WHEN 'TEXT' THEN 'text'
		WHEN 'BOOLEAN' THEN 'boolean' WHEN 'TIMESTAMP' THEN 'time' WHEN 'BLOB' THEN 'bytes' ELSE lower(type) END ||
	CASE WHEN "notnull" OR pk THEN ' not null' ELSE '' END ||
	coalesce(' default ' || lower(dflt_value), '')
FROM columns
UNION ALL
SELECT 'primary key ' || tbl || '(' || group_concat(name, ', ') || ')'
FROM (SELECT * FROM columns WHERE pk > 0 ORDER BY tbl, pk) GROUP BY tbl
UNION ALL
SELECT 'unique ' || tbl || '(' || cols || ')' FROM indexes WHERE origin = 'u'
UNION ALL
SELECT 'index ' || name || ' ' || tbl || '(' || cols || ')' FROM indexes WHERE origin = 'c'
UNION ALL
SELECT 'reference ' || t.name || '.' || f."from" || ' ' || f."table" || '.' || f."to" || ' ' || f.on_delete
FROM tables t, pragma_foreign_key_list(t.name) f`

const postgresSchema = `
WITH indexes AS (
	SELECT i.indrelid::regclass::text AS tbl, i.indexrelid::regclass::text AS name, indisunique, indisprimary,
		(SELECT string_agg(a.attname || CASE WHEN i.indoption[k.ord - 1] & 1 = 1 THEN ' DESC' ELSE '' END, ', ' ORDER BY k.ord)
			FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (att, ord)
			JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att) AS cols
	FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
	WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> 'bun_migrations'
)
SELECT 'table ' || table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> 'bun_migrations'
UNION ALL
SELECT 'column ' || table_name || '.' || column_name || ' ' ||
	CASE data_type WHEN 'bigint' THEN 'integer' WHEN 'timestamp with time zone' THEN 'time' WHEN 'bytea' THEN 'bytes' ELSE data_type END ||
	CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END ||
	coalesce(' default ' || lower(column_default), '')
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'bun_migrations'
UNION ALL
SELECT 'primary key ' || tbl || '(' || cols || ')' FROM indexes WHERE indisprimary
UNION ALL
SELECT 'unique ' || tbl || '(' || cols || ')' FROM indexes WHERE indisunique AND NOT indisprimary
UNION ALL
SELECT 'index ' || name || ' ' || tbl || '(' || cols || ')' FROM indexes WHERE NOT indisunique
UNION ALL
SELECT 'reference ' || r.conrelid::regclass || '.' || a.attname || ' ' || r.confrelid::regclass || '.' || b.attname ||
	CASE r.confdeltype WHEN 'c' THEN ' CASCADE' WHEN 'n' THEN ' SET NULL' ELSE ' ' || r.confdeltype::text END
FROM pg_constraint r
JOIN pg_attribute a ON a.attrelid = r.conrelid AND a.attnum = r.conkey[1]
JOIN pg_attribute b ON b.attrelid = r.confrelid AND b.attnum = r.confkey[1]
WHERE r.contype = 'f' AND r.connamespace = 'public'::regnamespace`

func TestBothDialectsHaveTheSameSchema(t *testing.T) {
	t.Parallel()
	postgres := modelstest.New(t, models.Postgres)
	sqlite := modelstest.New(t, models.SQLite)
	got := schema(t, sqlite.Bun(), models.SQLite)
	want := schema(t, postgres.Bun(), models.Postgres)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SQLite (+) differs from PostgreSQL (-):\n%s", diff)
	}
	// Both queries would agree on nothing, too.
	for _, fact := range []string{
		"table users",
		"column users.is_admin boolean not null default false",
		"column users.disabled_at time",
		"primary key idempotency_keys(user_id, route, key)",
		"unique replies(chat_id)",
		"unique password_resets(token_hash)",
		"primary key stream_counts(replica, user_id)",
		"reference stream_counts.replica replicas.id CASCADE",
		"index chats_user_id_active_at_id_idx chats(user_id, active_at DESC, id DESC)",
		"reference messages.chat_id chats.id CASCADE",
	} {
		if !slices.Contains(got, fact) {
			t.Errorf("the schema does not say %q", fact)
		}
	}
}

// Without an index, deleting one row reads the whole table that refers to it.
func TestEveryReferenceHasAnIndex(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		facts := schema(t, db.Bun(), db.Dialect())
		indexed := map[string]bool{} // table(column
		for _, fact := range facts {
			kind, _, _ := strings.Cut(fact, " ")
			if kind == "index" || kind == "unique" || kind == "primary" {
				columns := strings.Fields(fact[strings.LastIndex(fact[:strings.Index(fact, "(")], " "):])[0]
				indexed[strings.TrimRight(columns, ",)")] = true
			}
		}
		for _, fact := range facts {
			var table, column string
			if rest, ok := strings.CutPrefix(fact, "reference "); ok {
				table, column, _ = strings.Cut(strings.Fields(rest)[0], ".")
				if !indexed[table+"("+column] {
					t.Errorf("%s has no index", fact)
				}
			}
		}
	})
}

func TestIdsAreNeverReused(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		const insert = `INSERT INTO users (email, user_name, password_hash, created_at)
			VALUES ('a@example.org', 'a', '', CURRENT_TIMESTAMP) RETURNING id`
		var first, second int64
		for _, step := range []struct {
			query string
			dest  *int64
		}{{insert, &first}, {"DELETE FROM users RETURNING id", new(int64)}, {insert, &second}} {
			if err := db.Bun().NewRaw(step.query).Scan(t.Context(), step.dest); err != nil {
				t.Fatal(err)
			}
		}
		if second <= first {
			t.Errorf("the id after %d is %d", first, second)
		}
	})
}

// The planner is asked, not the clock. Where a table is small PostgreSQL would
// rather read it whole, so that is forbidden: what counts is that an index can
// answer, in its own order.
func TestQueriesAreAnsweredByAnIndex(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ query, index string }{
		"the first page of the chat list": {
			"SELECT * FROM chats WHERE user_id = 1 ORDER BY active_at DESC, id DESC LIMIT 50",
			"chats_user_id_active_at_id_idx",
		},
		"a further page of the chat list": {
			"SELECT * FROM chats WHERE user_id = 1 AND (active_at, id) < ('2026-01-01 00:00:00+00:00', 7) ORDER BY active_at DESC, id DESC LIMIT 50",
			"chats_user_id_active_at_id_idx",
		},
		"the latest messages of a chat": {
			"SELECT * FROM messages WHERE chat_id = 1 ORDER BY id DESC LIMIT 50",
			"messages_chat_id_id_idx",
		},
		"the messages before a cursor": {
			"SELECT * FROM messages WHERE chat_id = 1 AND id < 1000 ORDER BY id DESC LIMIT 50",
			"messages_chat_id_id_idx",
		},
		"the history before a message": {
			"SELECT role, content FROM messages WHERE chat_id = 1 AND id < 1000 AND content <> '' ORDER BY id DESC",
			"messages_chat_id_id_idx",
		},
		"a user's devices": {
			"SELECT * FROM device_sessions WHERE user_id = 1",
			"device_sessions_user_id_idx",
		},
		"the replies of one replica": {
			"SELECT * FROM replies WHERE owner = 'r1'",
			"replies_owner_idx",
		},
		"the revocations that lapsed": {
			"DELETE FROM revocations WHERE expires_at < '2026-01-01 00:00:00+00:00'",
			"revocations_expires_at_idx",
		},
		"the idempotency keys that lapsed": {
			"DELETE FROM idempotency_keys WHERE created_at < '2026-01-01 00:00:00+00:00'",
			"idempotency_keys_created_at_idx",
		},
		"what was done to a user": {
			"SELECT * FROM audit_entries WHERE subject_id = 1 AND id > 1000 ORDER BY id LIMIT 50",
			"audit_entries_subject_id_id_idx",
		},
		"what a user did": {
			"SELECT * FROM audit_entries WHERE actor_id = 1 AND id > 1000 ORDER BY id LIMIT 50",
			"audit_entries_actor_id_id_idx",
		},
		"the entries of the audit that lapsed": {
			"DELETE FROM audit_entries WHERE at < '2026-01-01 00:00:00+00:00'",
			"audit_entries_at_idx",
		},
		"the mails that are due": {
			"SELECT id FROM mails WHERE next_at <= '2026-01-01 00:00:00+00:00' ORDER BY next_at LIMIT 10",
			"mails_next_at_idx",
		},
		"the mails that wait for a user": {
			"DELETE FROM mails WHERE user_id = 1 AND kind = 'reset_password'",
			"mails_user_id_idx",
		},
		"the recordings that lapsed": {
			"DELETE FROM uploads WHERE expires_at < '2026-01-01 00:00:00+00:00'",
			"uploads_expires_at_idx",
		},
		"the events that lapsed": {
			"SELECT user_id, seq FROM user_events WHERE created_at < '2026-01-01 00:00:00+00:00'",
			"user_events_created_at_idx",
		},
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, test := range tests {
			plan := explain(t, db, test.query)
			if !strings.Contains(plan, test.index) || strings.Contains(plan, "Sort") || strings.Contains(plan, "TEMP B-TREE") {
				t.Errorf("%s: not by %s alone:\n%s", name, test.index, plan)
			}
		}
	})
}

func explain(t *testing.T, db *models.DB, query string) string {
	t.Helper()
	var lines []string
	err := db.Bun().RunInTx(t.Context(), nil, func(ctx context.Context, tx bun.Tx) error {
		if db.Dialect() == models.Postgres {
			// A sort shows as a Sort node, a bitmap scan as one too: it loses the order.
			if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"); err != nil {
				return err
			}
			return tx.NewRaw("EXPLAIN (COSTS OFF) "+query).Scan(ctx, &lines)
		}
		var steps []struct {
			ID, Parent, Notused int
			Detail              string
		}
		err := tx.NewRaw("EXPLAIN QUERY PLAN "+query).Scan(ctx, &steps)
		for _, step := range steps {
			lines = append(lines, step.Detail)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintln(strings.Join(lines, "\n"))
}
