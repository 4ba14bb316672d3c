package models_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// slow is a statement that does not end in any time that a test waits.
func slow(dialect string) string {
	if dialect == models.Postgres {
		return "SELECT count(*) FROM pg_sleep(3600)"
	}
	return "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n WHERE i < 0"
}

func TestTroubleIsUnavailable(t *testing.T) {
	t.Parallel()
	ask := func(ctx context.Context, db *models.DB, query string) error {
		var n int
		return models.Classify(ctx, db.Read().NewRaw(query).Scan(ctx, &n))
	}
	tests := map[string]func(t *testing.T, db *models.DB) error{
		"the deadline passes in a statement": func(t *testing.T, db *models.DB) error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			return ask(ctx, db, slow(db.Dialect()))
		},
		"the deadline passes in a transaction": func(t *testing.T, db *models.DB) error {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			return db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
				_, err := tx.ExecContext(ctx, slow(db.Dialect()))
				return err
			})
		},
		"the deadline has passed before": func(t *testing.T, db *models.DB) error {
			ctx, cancel := context.WithTimeout(t.Context(), -1)
			defer cancel()
			return errors.Join(ask(ctx, db, "SELECT 1"), db.Ping(ctx))
		},
		"all connections are taken": func(t *testing.T, db *models.DB) error {
			pool := db.Pools()["write"]
			for range pool.Stats().MaxOpenConnections {
				conn, err := pool.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			return db.InTx(ctx, func(context.Context, bun.Tx) error { return nil })
		},
		"it was closed": func(t *testing.T, db *models.DB) error {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return db.Ping(t.Context())
		},
		"somebody else has locked it": func(t *testing.T, db *models.DB) error {
			if db.Dialect() == models.Postgres {
				_, err := db.Read().NewRaw("DO $$ BEGIN RAISE lock_not_available; END $$").Exec(t.Context())
				return models.Classify(t.Context(), err)
			}
			var path string
			if err := db.Read().NewRaw("SELECT file FROM pragma_database_list").Scan(t.Context(), &path); err != nil {
				t.Fatal(err)
			}
			// The one writer would wait for 5 s.
			if _, err := db.Bun().ExecContext(t.Context(), "PRAGMA busy_timeout = 1"); err != nil {
				t.Fatal(err)
			}
			other, err := sql.Open("sqliteshim", "file:"+path+"?_txlock=exclusive")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			tx, err := other.Begin()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			return db.InTx(t.Context(), func(context.Context, bun.Tx) error { return nil })
		},
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				err := test(t, modelstest.New(t, db.Dialect()))
				if !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
			})
		}
	})
}

func TestPostgresSaysThatItIsUnavailable(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	for name, statement := range map[string]string{
		"the connection is cut":            "SELECT pg_terminate_backend(pg_backend_pid())",
		"a statement takes too long":       "SET LOCAL statement_timeout = 1; SELECT pg_sleep(3600)",
		"it only reads":                    "SET LOCAL transaction_read_only = on; DELETE FROM replicas",
		"a serialization fails for ever":   "DO $$ BEGIN RAISE serialization_failure; END $$",
		"its disk is full":                 "DO $$ BEGIN RAISE disk_full; END $$",
		"it has too many clients":          "DO $$ BEGIN RAISE too_many_connections; END $$",
		"it is starting up":                "DO $$ BEGIN RAISE cannot_connect_now; END $$",
		"its files are damaged":            "DO $$ BEGIN RAISE data_corrupted; END $$",
		"a pooler lost its server (08P01)": "DO $$ BEGIN RAISE protocol_violation; END $$",
	} {
		t.Run(name, func(t *testing.T) {
			err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
				_, err := tx.ExecContext(ctx, statement)
				return err
			})
			if !errors.Is(err, models.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestWhoeverGivesUpIsToldSo(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			_, err := tx.ExecContext(ctx, slow(db.Dialect()))
			return err
		})
		if !errors.Is(err, context.Canceled) || errors.Is(err, models.ErrUnavailable) {
			t.Errorf("in a transaction: got %v, want context.Canceled", err)
		}
		if err := db.Ping(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, models.ErrUnavailable) {
			t.Errorf("before a statement: got %v, want context.Canceled", err)
		}
		// A finding that was made before is not lost to it.
		if err := models.Classify(ctx, sql.ErrNoRows); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("no row: got %v, want ErrNotFound", err)
		}
	})
}

func TestADatabaseThatIsNotMigratedIsUnavailable(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, err := db.Bun().NewRaw("SELECT 1 FROM nowhere").Exec(t.Context())
		if err := models.Classify(t.Context(), err); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	})
}

func TestFaultsOfAStatementAreNotTrouble(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, err := db.Bun().NewRaw("SELECT nonsense").Exec(t.Context())
		if err := models.Classify(t.Context(), err); err == nil || errors.Is(err, models.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if err := models.Classify(t.Context(), nil); err != nil {
			t.Errorf("no error: got %v", err)
		}
	})
}

func TestATextWithNULIsRefusedWhereverItStands(t *testing.T) {
	t.Parallel()
	const text = "before\x00' OR 1=1 --"
	type replica struct {
		ID                    string `bun:",pk"`
		LeaseUntil, StartedAt time.Time
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		if err := note(t.Context(), db.Bun(), "a"); err != nil {
			t.Fatal(err)
		}
		named := text
		for name, err := range map[string]error{
			"an argument":        note(t.Context(), db.Bun(), text),
			"a model":            exec(db.Bun().NewInsert().Model(&replica{ID: text}).Exec(t.Context())),
			"a pointer":          exec(db.Bun().NewUpdate().Table("replicas").Set("id = ?", &named).Where("TRUE").Exec(t.Context())),
			"a condition":        exec(db.Bun().NewDelete().Table("replicas").Where("id = ?", text).Exec(t.Context())),
			"a list":             exec(db.Bun().NewDelete().Table("replicas").Where("id IN (?)", bun.List([]string{"b", text})).Exec(t.Context())),
			"bytes in a text":    exec(db.Bun().NewDelete().Table("replicas").Where("id = ?", sql.NullString{String: text, Valid: true}).Exec(t.Context())),
			"a pattern":          exec(db.Bun().NewDelete().Table("replicas").Where("id LIKE ? || '%'", text).Exec(t.Context())),
			"in a transaction":   db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error { return note(ctx, tx, text) }),
			"one of many values": exec(db.Bun().NewInsert().Model(&[]replica{{ID: "b"}, {ID: text}}).Exec(t.Context())),
		} {
			if err := models.Classify(t.Context(), err); !errors.Is(err, models.ErrInvalidText) {
				t.Errorf("%s: got %v, want ErrInvalidText", name, err)
			}
		}
		if got := fmt.Sprint(notes(t, db)); got != "[a]" {
			t.Errorf("rows afterwards: %s", got)
		}
		// The word that stands for it is none of its own.
		if err := note(t.Context(), db.Bun(), "function text_with_nul() no such function: text_with_nul"); err != nil {
			t.Error(err)
		}
	})
}

func exec(_ sql.Result, err error) error { return err }

func TestConstraintsHaveOneNameOnBothDialects(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ctx := t.Context()
		must := func(query string) {
			t.Helper()
			if _, err := db.Bun().NewRaw(query).Exec(ctx); err != nil {
				t.Fatal(err)
			}
		}
		const (
			user = `INSERT INTO users (id, email, user_name, password_hash, created_at)
				VALUES (%d, '%s', '', '', '2026-01-01 00:00:00+00:00')`
			key = `INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, created_at)
				VALUES (%d, '', '', '', 0, '2026-01-01 00:00:00+00:00')`
		)
		must(fmt.Sprintf(user, 1, "a@example.org"))
		must(fmt.Sprintf(key, 1))
		must("INSERT INTO replicas (id, lease_until, started_at) VALUES ('a', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')")
		for name, test := range map[string]struct {
			query, unique string
			reference     bool
		}{
			"a unique column":             {query: fmt.Sprintf(user, 2, "a@example.org"), unique: "users_email_key"},
			"an id":                       {query: fmt.Sprintf(user, 1, "b@example.org"), unique: "users_pkey"},
			"a key of several columns":    {query: fmt.Sprintf(key, 1), unique: "idempotency_keys_pkey"},
			"a key that is a text":        {query: "INSERT INTO replicas SELECT * FROM replicas", unique: "replicas_pkey"},
			"a reference to nothing":      {query: fmt.Sprintf(key, 7), reference: true},
			"a check":                     {query: "INSERT INTO reply_chunks VALUES (1, -1, '')"},
			"nothing where there must be": {query: "UPDATE users SET email = NULL"},
		} {
			_, err := db.Bun().NewRaw(test.query).Exec(ctx)
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			constraint, ok := models.UniqueViolation(err)
			if !ok {
				constraint = ""
			}
			if constraint != test.unique || ok != (test.unique != "") {
				t.Errorf("%s: unique violation of %q, %v; want %q", name, constraint, ok, test.unique)
			}
			if got := models.ForeignKeyViolation(err); got != test.reference {
				t.Errorf("%s: foreign key violation %v, want %v", name, got, test.reference)
			}
			if errors.Is(models.Classify(ctx, err), models.ErrUnavailable) {
				t.Errorf("%s: is unavailable: %v", name, err)
			}
		}
	})
}
