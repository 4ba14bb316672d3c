package migrations

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
)

// lockKey is what runs on one PostgreSQL database lock: "parley" in bytes.
const lockKey int64 = 0x7061726c6579

// underLock gives fn a handle whose built statements all run in one transaction
// that keeps other runs waiting, and commits it if fn returns nil.
//
// The lock is the transaction itself (SQLite's write lock), or belongs to it
// (PostgreSQL's advisory lock, of the transaction, since behind a pooler a session
// is not ours), so that the end of the connection is the end of the lock.
func underLock(ctx context.Context, db *bun.DB, fn func(ctx context.Context, locked *bun.DB) error) (err error) {
	conn, err := db.DB.Conn(ctx)
	if err != nil {
		return fmt.Errorf("lock the migrations: %w", err)
	}
	defer func() { _ = conn.Close() }() // it may have been discarded

	begin, check := beginPostgres, func(context.Context, *sql.Conn) error { return nil }
	if db.Dialect().Name() == dialect.SQLite {
		begin, check = beginSQLite, checkReferences
		defer discard(conn) // its foreign keys are off
	}
	defer func() {
		if err != nil {
			// Where this fails, the connection is broken and the server rolls back.
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err) // drivers say it in many ways
		}
	}()
	if err := begin(ctx, conn); err != nil {
		return fmt.Errorf("lock the migrations: %w", err)
	}
	if err := fn(ctx, bun.NewDB(db.DB, db.Dialect(), bun.WithConnResolver(fixed{conn}))); err != nil {
		return err
	}
	if err := check(ctx, conn); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

func beginPostgres(ctx context.Context, conn *sql.Conn) error {
	// A change may take longer than the server grants to everyday statements.
	_, err := conn.ExecContext(ctx, fmt.Sprintf(
		"BEGIN; SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(%d)", lockKey))
	return err
}

// beginSQLite turns foreign keys off, which works only outside a transaction: to
// rebuild a table (SQLite's way to alter one) is to drop it, and with foreign
// keys on that would delete what refers to it.
func beginSQLite(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "PRAGMA foreign_keys = OFF"); err != nil {
		return err
	}
	for {
		_, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE")
		var coded interface{ Code() int }
		if !errors.As(err, &coded) || coded.Code()&0xff != 5 { // SQLITE_BUSY
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// checkReferences is what foreign keys would have said.
func checkReferences(ctx context.Context, conn *sql.Conn) error {
	rows, err := conn.QueryContext(ctx, "SELECT \"table\", parent FROM pragma_foreign_key_check")
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return rows.Err()
	}
	var table, parent string
	if err := rows.Scan(&table, &parent); err != nil {
		return err
	}
	return fmt.Errorf("rows of %s refer to rows of %s that do not exist", table, parent)
}

// discard keeps conn from going back into the pool.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
}

// fixed sends every built statement to one connection.
type fixed struct{ conn *sql.Conn }

// ResolveConn implements bun.ConnResolver.
func (f fixed) ResolveConn(context.Context, bun.Query) bun.IConn { return f.conn }

// Close implements bun.ConnResolver.
func (fixed) Close() error { return nil }
