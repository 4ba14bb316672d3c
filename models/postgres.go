package models

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

const (
	defaultPoolConns = 10
	connectTimeout   = 5 * time.Second
)

func openPostgres(ctx context.Context, databaseURL string) (*DB, error) {
	config, conns, err := postgresConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	pool := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(prepareConn))
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(30 * time.Minute)

	// A newer version of this program may have added columns: it is rolled out
	// while this one serves.
	db := bun.NewDB(pool, postgresDialect{pgdialect.New()}, bun.WithDiscardUnknownColumns()).WithQueryHook(statementTimeout{})
	d := &DB{read: db, write: db, dialect: Postgres, listen: config}
	if err := d.Ping(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// postgresConfig reads the URL and returns how to connect and the size of the
// pool.
func postgresConfig(databaseURL string) (*pgx.ConnConfig, int, error) {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return nil, 0, fmt.Errorf("database URL: %w", err)
	}
	conns := defaultPoolConns
	if s, ok := config.RuntimeParams["pool_max_conns"]; ok {
		if conns, err = strconv.Atoi(s); err != nil || conns < 1 {
			return nil, 0, errors.New("database URL: pool_max_conns must be a positive number")
		}
		delete(config.RuntimeParams, "pool_max_conns")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	// A pooler in transaction mode gives every transaction another session, so
	// nothing may be prepared in one. Of the settings that can be sent at the
	// start, poolers pass on these.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.StatementCacheCapacity = 0
	config.DescriptionCacheCapacity = 0
	config.RuntimeParams["client_encoding"] = "UTF8"
	config.RuntimeParams["standard_conforming_strings"] = "on"
	config.RuntimeParams["timezone"] = "UTC"
	return config, conns, nil
}

// prepareConn makes sure that a connection reads quoted strings as bun writes
// them, where a backslash is no escape, and gives times in UTC.
func prepareConn(_ context.Context, conn *pgx.Conn) error {
	for param, want := range map[string]string{"standard_conforming_strings": "on", "client_encoding": "UTF8"} {
		if got := conn.PgConn().ParameterStatus(param); got != want {
			return fmt.Errorf("database connection has %s %q, want %q", param, got, want)
		}
	}
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID,
		Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}

// A statement returns a row, into dest.
type statement struct {
	query string
	args  []any
	dest  any
}

// inTwoTrips is inTx on PostgreSQL for a transaction of two statements that return
// a row, and of what then may do between them, which returns the second one. BEGIN
// goes behind the first one, in one message, and makes it part of the transaction, and
// COMMIT behind the second one: half the round trips. It is of the session's
// isolation. What must not be committed is for the second one to raise, as an error:
// that is not looked at before.
//
// See "Multiple Statements in a Simple Query" in PostgreSQL's documentation.
func (d *DB) inTwoTrips(ctx context.Context, first statement, then func(ctx context.Context, tx bun.IDB) (statement, error)) error {
	timed, cancel := withQueryTimeout(ctx)
	defer cancel()
	return classify(ctx, again(timed, func() error {
		conn, err := d.write.Conn(timed)
		if err != nil {
			return err
		}
		defer leave(timed, conn)
		if err := d.trip(timed, conn, first, "; BEGIN"); err != nil {
			return err
		}
		second, err := then(timed, conn)
		if err != nil {
			return err
		}
		return d.trip(timed, conn, second, "; COMMIT")
	}))
}

// trip runs a statement and what comes behind it, and reads all that is answered.
func (d *DB) trip(ctx context.Context, conn bun.Conn, s statement, behind string) error {
	rows, err := conn.QueryContext(ctx, s.query+behind, s.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return cmp.Or(rows.Err(), sql.ErrNoRows)
	}
	if err := d.write.ScanRow(ctx, rows, s.dest); err != nil {
		return err
	}
	rows.Next()
	return cmp.Or(rows.Err(), rows.Close())
}

// beside runs a statement with its values beside it, in the same message, and scans the
// rows that it returns into a slice. It is for long texts: bun would write them into
// the statement, and PostgreSQL read them out again, which takes as long as all the
// rest. Question marks stand for the values. Nothing is prepared in the session.
func (d *DB) beside(ctx context.Context, on queryer, rows any, query string, args ...any) error {
	ctx, cancel := withQueryTimeout(ctx)
	defer cancel()
	values := []any{pgx.QueryExecModeExec}
	for i, arg := range args {
		value, err := bindable(arg)
		if err != nil {
			return err
		}
		values = append(values, value)
		query = strings.Replace(query, "?", "$"+strconv.Itoa(i+1), 1)
	}
	return d.told(ctx, query, func(ctx context.Context) error {
		found, err := on.QueryContext(ctx, query, values...) //nolint:rowserrcheck // ScanRows checks it
		if err != nil {
			return err
		}
		return d.write.ScanRows(ctx, found, rows)
	})
}

// A queryer is a pool, or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// leave takes back what was not committed, and gives the connection back to the
// pool. If it cannot, the connection is closed, and the server takes it back.
func leave(ctx context.Context, conn bun.Conn) {
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	idle := true
	_ = conn.Raw(func(driver any) error { // an error says that it is closed
		if c, ok := driver.(*stdlib.Conn); ok && !c.Conn().IsClosed() {
			idle = c.Conn().PgConn().TxStatus() == 'I' // as the server has last said of the session
		}
		return nil
	})
	if !idle {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer cancel()
		_, _ = conn.ExecContext(ctx, "ROLLBACK")
	}
}
