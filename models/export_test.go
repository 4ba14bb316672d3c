package models

import (
	"context"
	"database/sql"

	"github.com/uptrace/bun"
)

// What the tests of the connection itself look at.
var (
	Classify            = classify
	UniqueViolation     = uniqueViolation
	ForeignKeyViolation = foreignKeyViolation
)

func (d *DB) InTx(ctx context.Context, fn func(ctx context.Context, tx bun.Tx) error) error {
	return d.inTx(ctx, fn)
}

func (d *DB) Read() *bun.DB { return d.read }

func (d *DB) Pools() map[string]*sql.DB {
	return map[string]*sql.DB{"read": d.read.DB, "write": d.write.DB}
}

// TransactionsWaiting is how many wait for SQLite's writer.
func (d *DB) TransactionsWaiting() int {
	d.writer.mu.Lock()
	defer d.writer.mu.Unlock()
	return len(d.writer.waiting)
}
