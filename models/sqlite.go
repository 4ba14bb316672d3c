package models

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"
	"github.com/uptrace/bun/driver/sqliteshim"
)

// sqlitePragmas hold on every connection.
var sqlitePragmas = []string{
	"busy_timeout(5000)", // ms; other processes on the same file
	"foreign_keys(1)",
	"journal_mode(WAL)",
	"synchronous(FULL)", // a commit survives a power cut; the writer sees to its own
}

func openSQLite(ctx context.Context, escaped string) (*DB, error) {
	path, err := sqlitePath(escaped)
	if err != nil {
		return nil, err
	}
	if err := createSQLite(path); err != nil {
		return nil, err
	}
	// SQLite keeps its side files beside the file that a link leads to.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, fmt.Errorf("database file: %w", err)
	}
	write, err := sql.Open(sqliteshim.ShimName, sqliteDSN(path, "_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	if err := awaitWAL(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, classify(ctx, err)), write.Close())
	}
	read, err := sql.Open(sqliteshim.ShimName, sqliteDSN(path, "_pragma=query_only(1)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), write.Close())
	}
	readers := max(4, runtime.GOMAXPROCS(0))
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)

	hooked := func(pool *sql.DB) *bun.DB {
		// A newer version of this program may have added columns: it is rolled out
		// while this one serves.
		db := bun.NewDB(pool, sqliteDialect{sqlitedialect.New()}, bun.WithDiscardUnknownColumns())
		return db.WithQueryHook(statementTimeout{})
	}
	return &DB{read: hooked(read), write: hooked(write), dialect: SQLite, writer: newWriter(path), prepared: new(prepared)}, nil
}

// sqlitePath is the absolute path that stands behind sqlite://.
func sqlitePath(escaped string) (string, error) {
	if strings.ContainsAny(escaped, "?#") {
		return "", errors.New("database URL: sqlite:// takes a path and no options")
	}
	path, err := url.PathUnescape(escaped)
	switch {
	case err != nil:
		return "", fmt.Errorf("database URL: %w", err)
	case path == "" || path == ":memory:" || strings.ContainsRune(path, 0):
		return "", errors.New("database URL: sqlite:// needs the path of a file")
	}
	return filepath.Abs(path)
}

// createSQLite makes the file, so that only its owner can read it: SQLite would
// go by the umask, and its side files take over the mode of this one.
func createSQLite(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("database file %s: its folder does not exist", path)
	case err != nil:
		return fmt.Errorf("database file: %w", err)
	}
	return f.Close()
}

func sqliteDSN(path, option string) string {
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path)}
	params := []string{option}
	for _, pragma := range sqlitePragmas {
		params = append(params, "_pragma="+pragma)
	}
	dsn.RawQuery = strings.Join(params, "&")
	return dsn.String()
}

// awaitWAL makes the first connection, which turns a fresh file to WAL. SQLite
// does not wait for others who do the same at that moment, so this does.
func awaitWAL(ctx context.Context, pool *sql.DB) error {
	ctx, cancel := withQueryTimeout(ctx)
	defer cancel()
	for {
		var mode string
		err := pool.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("this file system has no write-ahead log (journal mode is %s)", mode)
		}
		if code, ok := sqliteCode(err); !ok || code&0xff != 5 { // SQLITE_BUSY
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
