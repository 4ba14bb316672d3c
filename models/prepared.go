package models

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"
)

// Prepared are the statements that SQLite's writer runs with each message. It
// has parsed them before: bun writes values into its statements, which makes each
// of them another one, and for a small one parsing takes as long as running. Those
// that carry whole texts need not copy them into a statement either.
type prepared struct {
	mu     sync.Mutex
	known  map[string]*sql.Stmt
	wanted []string
}

// prepare prepares what was wanted since it was last called. It needs a connection,
// so whoever holds the only one must not call it. What cannot be prepared fails
// where it is run.
func (p *prepared) prepare(ctx context.Context, db *bun.DB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, query := range p.wanted {
		stmt, err := db.DB.PrepareContext(ctx, query) //nolint:sqlclosecheck // it is kept, and ends with its connection
		if err == nil {
			if p.known == nil {
				p.known = make(map[string]*sql.Stmt)
			}
			p.known[query] = stmt
		}
	}
	p.wanted = nil
}

// in is the statement as tx runs it, until it ends.
func (p *prepared) in(ctx context.Context, tx bun.Tx, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	stmt := p.known[query]
	if stmt == nil && !slices.Contains(p.wanted, query) {
		p.wanted = append(p.wanted, query)
	}
	p.mu.Unlock()
	if stmt == nil {
		return tx.PrepareContext(ctx, query)
	}
	return tx.StmtContext(ctx, stmt), nil
}

// exec runs a statement in a transaction, a prepared one on SQLite. Its values
// stand as question marks, or as sql.Named.
func (d *DB) exec(ctx context.Context, tx bun.Tx, query string, args ...any) (res sql.Result, err error) {
	if d.dialect == Postgres {
		return tx.NewRaw(query, args...).Exec(ctx)
	}
	err = d.runPrepared(ctx, tx, query, args, func(ctx context.Context, stmt *sql.Stmt, bound []any) error {
		res, err = stmt.ExecContext(ctx, bound...)
		return err
	})
	return res, err
}

// scan is exec of a statement that returns a row, which it scans as bun does;
// sql.ErrNoRows if there is none.
func (d *DB) scan(ctx context.Context, tx bun.Tx, dest any, query string, args ...any) error {
	if d.dialect == Postgres {
		return tx.NewRaw(query, args...).Scan(ctx, dest)
	}
	return d.runPrepared(ctx, tx, query, args, func(ctx context.Context, stmt *sql.Stmt, bound []any) error {
		rows, err := stmt.QueryContext(ctx, bound...)
		if err != nil {
			return err
		}
		defer rows.Close()
		if rows.Next() {
			return d.write.ScanRow(ctx, rows, dest)
		}
		return cmp.Or(rows.Err(), sql.ErrNoRows)
	})
}

// scanAll is exec of a statement that returns any number of rows, which it scans
// into a slice, and whose values may be long: on PostgreSQL they stand beside it.
func (d *DB) scanAll(ctx context.Context, tx bun.Tx, dest any, query string, args ...any) error {
	if d.dialect == Postgres {
		return d.beside(ctx, tx.Tx, dest, query, args...)
	}
	return d.runPrepared(ctx, tx, query, args, func(ctx context.Context, stmt *sql.Stmt, bound []any) error {
		rows, err := stmt.QueryContext(ctx, bound...) //nolint:rowserrcheck // ScanRows checks it
		if err != nil {
			return err
		}
		return d.write.ScanRows(ctx, rows, dest)
	})
}

func (d *DB) runPrepared(ctx context.Context, tx bun.Tx, query string, args []any, run func(context.Context, *sql.Stmt, []any) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	bound := make([]any, len(args))
	for i, arg := range args {
		if bound[i], err = bindable(arg); err != nil {
			return err
		}
	}
	// To be able to interrupt it would cost a goroutine each time, and it is over
	// soon: it reads and writes by keys.
	ctx = context.WithoutCancel(ctx)
	return d.told(ctx, query, func(ctx context.Context) error {
		stmt, err := d.prepared.in(ctx, tx, query)
		if err != nil {
			return err
		}
		return run(ctx, stmt, bound)
	})
}

// told runs a statement that bun does not know of, and tells the hooks of it as bun
// does.
func (d *DB) told(ctx context.Context, query string, run func(ctx context.Context) error) error {
	event := &bun.QueryEvent{DB: d.write, Query: query, StartTime: time.Now()}
	hooked := make([]context.Context, len(d.hooks))
	for i, hook := range d.hooks {
		hooked[i] = hook.BeforeQuery(ctx, event) //nolint:fatcontext // to each its own
	}
	event.Err = run(ctx)
	for i, hook := range d.hooks {
		hook.AfterQuery(hooked[i], event)
	}
	return event.Err
}

// bindable is a value as bun would write it into a statement.
func bindable(arg any) (any, error) {
	switch arg := arg.(type) {
	case sql.NamedArg:
		value, err := bindable(arg.Value)
		return sql.Named(arg.Name, value), err
	case string:
		if strings.IndexByte(arg, 0) >= 0 {
			return nil, ErrInvalidText
		}
	case []string:
		for _, text := range arg {
			if strings.IndexByte(text, 0) >= 0 {
				return nil, ErrInvalidText
			}
		}
	case time.Time:
		return arg.UTC().Format("2006-01-02 15:04:05.999999-07:00"), nil
	}
	return arg, nil
}
