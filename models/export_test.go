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

func (d *DB) InSmallTx(ctx context.Context, fn func(ctx context.Context, tx bun.Tx) error) error {
	return d.inSmallTx(ctx, fn)
}

func (d *DB) Passing(ctx context.Context, rows any, query string, args ...any) error {
	return d.passing(ctx, rows, query, args...)
}

// InTwoTrips is inTwoTrips with statements without arguments that return a text.
func (d *DB) InTwoTrips(ctx context.Context, first string, dest *string, then func(ctx context.Context, tx bun.IDB) (last string, err error)) error {
	return d.inTwoTrips(ctx, statement{first, nil, dest}, func(ctx context.Context, tx bun.IDB) (statement, error) {
		last, err := then(ctx, tx)
		return statement{last, nil, dest}, err
	})
}

func (d *DB) Read() *bun.DB { return d.read }

func (d *DB) Pools() map[string]*sql.DB {
	return map[string]*sql.DB{"read": d.read.DB, "write": d.write.DB}
}

// HoldDisk has all commits of SQLite wait for the disk until release.
func (d *DB) HoldDisk() (release func()) {
	d.writer.log.disk.Lock()
	return d.writer.log.disk.Unlock
}

// BreakDisk has writes to SQLite's log fail until mend.
func (d *DB) BreakDisk() (mend func()) {
	log := &d.writer.log
	path := log.path
	log.path = path + "/nothing"
	return func() { log.path = path }
}
