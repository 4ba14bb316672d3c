package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/uptrace/bun"
)

// The names of the two dialects, as DB.Dialect gives them.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)

const (
	// queryTimeout bounds a statement or a transaction whose context has no
	// deadline of its own, so that a database that hangs is reported in seconds.
	queryTimeout = 10 * time.Second
	// txAttempts is how often a transaction is run that loses against others.
	txAttempts = 5
)

// DB is a database, safe for concurrent use.
type DB struct {
	// On SQLite read is a pool of connections that cannot write, and write is
	// one connection: writers queue in Go instead of failing with SQLITE_BUSY.
	// On PostgreSQL both are the same pool.
	read, write *bun.DB
	dialect     string
	writer      *writer         // of SQLite's transactions
	prepared    *prepared       // statements of it
	hooks       []bun.QueryHook // that see those too
	listen      *pgx.ConnConfig // how Listen connects; nil on SQLite
}

// Open connects to the database that databaseURL names and checks that it
// answers. The caller closes it. Tables are made by package migrations.
//
//	sqlite://path              a file, relative to the working directory or absolute (three slashes).
//	                           It is created, readable by its owner only; its folder must exist
//	                           The path is percent-decoded
//	postgres://user@host/name  as libpq reads it; also postgresql://. pool_max_conns (default 10)
//	                           limits the connections, connect_timeout (default 5) the seconds to
//	                           make one. A pooler in transaction mode may stand between
//
// A malformed URL is an error that does not repeat it, since it may hold a
// password. A database that does not answer is ErrUnavailable.
func Open(ctx context.Context, databaseURL string) (*DB, error) {
	scheme, rest, ok := strings.Cut(databaseURL, "://")
	if !ok {
		return nil, errors.New("database URL: want sqlite://path or postgres://…")
	}
	switch scheme {
	case "sqlite":
		return openSQLite(ctx, rest)
	case "postgres", "postgresql":
		return openPostgres(ctx, databaseURL)
	}
	return nil, fmt.Errorf("database URL: unknown scheme %q, want sqlite or postgres", scheme)
}

// Close waits for the statements that run and closes all connections.
func (d *DB) Close() error {
	if d.read == d.write {
		return d.write.Close()
	}
	// The writer goes last: the last connection folds the write-ahead log in.
	return errors.Join(d.read.Close(), d.write.Close())
}

// Ping asks the database if it is there; ErrUnavailable if not.
func (d *DB) Ping(ctx context.Context) error {
	timed, cancel := withQueryTimeout(ctx)
	defer cancel()
	if d.dialect == SQLite {
		if err := d.writer.log.err(); err != nil {
			return err
		}
	}
	var one int
	return classify(ctx, d.read.NewRaw("SELECT 1").Scan(timed, &one))
}

// Dialect is SQLite or Postgres.
func (d *DB) Dialect() string { return d.dialect }

// Bun is the writing pool for package migrations, whose statements may take
// longer than those of this package. Closing it is left to Close.
func (d *DB) Bun() *bun.DB { return bun.NewDB(d.write.DB, d.write.Dialect()) }

// now is the time as both databases can store it: UTC, in microseconds.
func (d *DB) now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// inTx runs fn in one transaction and commits it if fn returns nil. On SQLite
// it holds the only write lock from the start (BEGIN IMMEDIATE), and fn's context
// does not end with the caller's; on PostgreSQL it is READ COMMITTED. It is rolled
// back when fn fails or panics. A transaction that loses a deadlock or a race is run
// again, so fn may be called several times and must leave nothing behind but rows and
// what it sets anew each time. Errors are classified.
//
// fn uses tx for every statement: on SQLite d.write would wait for itself.
func (d *DB) inTx(ctx context.Context, fn func(ctx context.Context, tx bun.Tx) error) error {
	return d.transact(ctx, undoInFile, fn)
}

// inSmallTx is inTx of statements that each change a few rows. It is for those
// that run all the time: see undoInMemory.
func (d *DB) inSmallTx(ctx context.Context, fn func(ctx context.Context, tx bun.Tx) error) error {
	return d.transact(ctx, undoInMemory, fn)
}

func (d *DB) transact(ctx context.Context, undo undo, fn func(ctx context.Context, tx bun.Tx) error) error {
	timed, cancel := withQueryTimeout(ctx)
	defer cancel()
	if d.dialect == SQLite {
		return classify(ctx, d.writeSQLite(timed, undo, fn))
	}
	return classify(ctx, again(timed, func() error {
		return d.write.RunInTx(timed, &sql.TxOptions{Isolation: sql.LevelReadCommitted}, fn)
	}))
}

// again runs a transaction until it does not lose against others.
func again(ctx context.Context, run func() error) error {
	for attempt := 1; ; attempt++ {
		err := run()
		if !retryable(err) || attempt == txAttempts {
			return err
		}
		pause := time.Duration(rand.Int64N(int64(attempt) * int64(10*time.Millisecond)))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// withQueryTimeout gives ctx the deadline of a statement, unless it has one.
func withQueryTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, queryTimeout)
}

// statementTimeout gives every built statement outside a transaction its
// deadline. It ends with the statement's scan, so a query whose rows are walked
// by hand (Rows) needs a context that already has a deadline.
type statementTimeout struct{}

type cancelKey struct{}

// BeforeQuery implements bun.QueryHook.
func (statementTimeout) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	if _, ok := ctx.Deadline(); ok || event.IQuery == nil {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	return context.WithValue(ctx, cancelKey{}, cancel)
}

// AfterQuery implements bun.QueryHook.
func (statementTimeout) AfterQuery(ctx context.Context, _ *bun.QueryEvent) {
	if cancel, ok := ctx.Value(cancelKey{}).(context.CancelFunc); ok {
		cancel()
	}
}
