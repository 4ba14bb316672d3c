// Package modelstest gives tests databases of their own: a file for SQLite, and
// for PostgreSQL a database of a private server that is started once for each test
// process and needs nothing but PostgreSQL's programs.
//
// It never knows what a test does with its database.
//
// Its invariant: two tests never see each other's rows, and what a test process
// has started ends with it, in whatever way that ends.
package modelstest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"parley/migrations"
	"parley/models"
)

// Dialects are those that Each runs a test on.
var Dialects = []string{models.SQLite, models.Postgres}

// Each runs test as a parallel subtest on every dialect, with a database of its own.
func Each(t *testing.T, test func(t *testing.T, db *models.DB)) {
	t.Helper()
	for _, dialect := range Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			test(t, New(t, dialect))
		})
	}
}

// New opens a private, migrated, empty database, and closes it after the test.
// Without PostgreSQL's programs a test for it is skipped, or fails when CI is set.
func New(tb testing.TB, dialect string) *models.DB {
	tb.Helper()
	return open(tb, URL(tb, dialect))
}

// URL is the URL of a private, migrated, empty database that lives as long as
// the test. It can be opened several times, and by other programs.
func URL(tb testing.TB, dialect string) string {
	tb.Helper()
	switch dialect {
	case models.SQLite:
		return sqliteURL(tb)
	case models.Postgres:
		return cluster(tb).database(tb, template)
	}
	tb.Fatalf("modelstest: unknown dialect %q", dialect)
	return ""
}

// EmptyURL is URL without the migrations.
func EmptyURL(tb testing.TB, dialect string) string {
	tb.Helper()
	if dialect == models.Postgres {
		return cluster(tb).database(tb, "template0")
	}
	return "sqlite://" + filepath.Join(sqliteDir(tb), "parley.db")
}

// PooledURL is URL for PostgreSQL behind PgBouncer in transaction mode, with two
// server sessions for all connections to a database. Without PgBouncer the test
// is skipped, or fails when CI is set.
func PooledURL(tb testing.TB) string {
	tb.Helper()
	return pooled(tb, cluster(tb).database(tb, template))
}

// EmptyPooledURL is PooledURL without the migrations.
func EmptyPooledURL(tb testing.TB) string {
	tb.Helper()
	return pooled(tb, cluster(tb).database(tb, "template0"))
}

func open(tb testing.TB, url string) *models.DB {
	tb.Helper()
	db, err := models.Open(context.Background(), url)
	if err != nil {
		tb.Fatalf("modelstest: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("modelstest: close the database: %v", err)
		}
	})
	return db
}

func newSQLiteDir() (string, error) { return os.MkdirTemp(temporary(), "parley-sqlite-") }

// migratedFile is the content of a migrated, empty SQLite database.
var migratedFile = sync.OnceValues(func() ([]byte, error) {
	dir, err := newSQLiteDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "template.db")
	if err := migrate("sqlite://" + path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

func sqliteURL(tb testing.TB) string {
	tb.Helper()
	content, err := migratedFile()
	if err != nil {
		tb.Fatalf("modelstest: %v", err)
	}
	path := filepath.Join(sqliteDir(tb), "parley.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatalf("modelstest: %v", err)
	}
	return "sqlite://" + path
}

// sqliteDir is a folder that lives as long as the test. That of a benchmark is on
// a disk: what it costs to sync is what is measured.
func sqliteDir(tb testing.TB) string {
	tb.Helper()
	if _, ok := tb.(*testing.B); ok {
		return tb.TempDir()
	}
	dir, err := newSQLiteDir()
	if err != nil {
		tb.Fatalf("modelstest: %v", err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Errorf("modelstest: %v", err)
		}
	})
	return dir
}

// migrate makes the tables of a database that nobody else uses, and lets it go.
func migrate(url string) (err error) {
	ctx := context.Background()
	db, err := models.Open(ctx, url)
	if err != nil {
		return err
	}
	err = migrations.Up(ctx, db.Bun(), func(string) {})
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	return err
}
