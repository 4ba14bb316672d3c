// Package migrations makes the tables of the database and changes them from one
// version of the program to the next. Each change is one pair of files, up and
// down, under the same name for SQLite and for PostgreSQL.
//
// It never knows what the tables are for.
//
// Its invariant: a run is one transaction that holds the lock against other
// runs. Whatever ends a run early, also a kill, leaves the database as it was and
// nothing locked. So a file may hold only statements that the database can roll
// back.
package migrations

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect"
	"github.com/uptrace/bun/migrate"
)

var (
	// ErrNewer says that a newer version of the program has changed the database.
	// This one may not understand it and does not touch it.
	ErrNewer = errors.New("the database is newer than this program")
	// ErrNothingToUndo says that no migration is applied.
	ErrNothingToUndo = errors.New("no migration to undo")
)

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// table is where bun's migrator keeps what has been applied.
const table = "bun_migrations"

// Migration is one change of the database.
type Migration struct {
	Name      string    // the files' name up to the first dot
	AppliedAt time.Time // zero: not yet
	Known     bool      // this program has it; if not, a newer one has applied it
}

// Up applies what is pending, in the order of the names, all or nothing, and
// tells log the name of each. If nothing is pending it costs one query. Of
// several runs at once, also from other machines, one does the work and the
// others wait for it, as long as ctx allows. It takes one connection of db.
// ErrNewer if the database is ahead.
func Up(ctx context.Context, db *bun.DB, log func(line string)) error {
	if pending, err := Pending(ctx, db); err != nil || pending == 0 {
		return err
	}
	return underLock(ctx, db, func(ctx context.Context, locked *bun.DB) error {
		create := locked.NewCreateTable().Model((*migrate.Migration)(nil)).ModelTableExpr(table).IfNotExists()
		if _, err := create.Exec(ctx); err != nil {
			return err
		}
		if _, err := Pending(ctx, locked); err != nil {
			return err
		}
		migrator, err := newMigrator(locked, log)
		if err != nil {
			return err
		}
		_, err = migrator.Migrate(ctx)
		return err
	})
}

// Down undoes the last applied migration and tells log its name.
// ErrNothingToUndo if there is none, ErrNewer if the database is ahead.
func Down(ctx context.Context, db *bun.DB, log func(line string)) error {
	applied, err := appliedAt(ctx, db)
	if err != nil {
		return err
	}
	if len(applied) == 0 {
		return ErrNothingToUndo
	}
	return underLock(ctx, db, func(ctx context.Context, locked *bun.DB) error {
		if _, err := Pending(ctx, locked); err != nil {
			return err
		}
		migrator, err := newMigrator(locked, log)
		if err != nil {
			return err
		}
		all, err := migrator.MigrationsWithStatus(ctx)
		if err != nil {
			return err
		}
		applied := all.Applied()
		if len(applied) == 0 {
			return ErrNothingToUndo
		}
		last := &applied[0]
		if err := last.Down(ctx, migrator, last); err != nil {
			return fmt.Errorf("%s: down: %w", last.Name, err)
		}
		return migrator.MarkUnapplied(ctx, last)
	})
}

// Status lists all migrations by name: those of this program, and those that a
// newer one has applied.
func Status(ctx context.Context, db *bun.DB) ([]Migration, error) {
	changes, err := changesFor(db.Dialect().Name())
	if err != nil {
		return nil, err
	}
	applied, err := appliedAt(ctx, db)
	if err != nil {
		return nil, err
	}
	var all []Migration
	for _, c := range changes {
		all = append(all, Migration{Name: c.name, AppliedAt: applied[c.name], Known: true})
		delete(applied, c.name)
	}
	for name, at := range applied {
		all = append(all, Migration{Name: name, AppliedAt: at})
	}
	slices.SortFunc(all, func(a, b Migration) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Pending counts the migrations that Up would apply, by one query.
// ErrNewer if the database is ahead.
func Pending(ctx context.Context, db *bun.DB) (int, error) {
	all, err := Status(ctx, db)
	if err != nil {
		return 0, err
	}
	pending := 0
	for _, m := range all {
		if !m.Known {
			return 0, fmt.Errorf("%w: it has %s", ErrNewer, m.Name)
		}
		if m.AppliedAt.IsZero() {
			pending++
		}
	}
	return pending, nil
}

// appliedAt gives the applied migrations and when that was.
func appliedAt(ctx context.Context, db *bun.DB) (map[string]time.Time, error) {
	var rows []struct {
		Name       string
		MigratedAt time.Time
	}
	err := db.NewSelect().Table(table).Column("name", "migrated_at").Scan(ctx, &rows)
	if err != nil && !isNoTable(err) {
		return nil, fmt.Errorf("read the applied migrations: %w", err)
	}
	applied := make(map[string]time.Time, len(rows))
	for _, row := range rows {
		applied[row.Name] = row.MigratedAt.UTC()
	}
	return applied, nil
}

// isNoTable says that nothing was ever applied.
func isNoTable(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "42P01" // undefined_table
	}
	return strings.Contains(err.Error(), "no such table: "+table)
}

// change is one pair of files.
type change struct{ name, up, down string }

// changesFor reads the files of a dialect, in the order of their names.
func changesFor(name dialect.Name) ([]change, error) {
	folder := map[dialect.Name]string{dialect.SQLite: "sqlite", dialect.PG: "postgres"}[name]
	if folder == "" {
		return nil, fmt.Errorf("no migrations for %v", name)
	}
	ups, err := fs.Glob(files, folder+"/*.up.sql")
	if err != nil {
		return nil, err
	}
	changes := make([]change, 0, len(ups))
	for _, path := range ups {
		stem := strings.TrimSuffix(path, ".up.sql")
		up, err := files.ReadFile(path)
		if err != nil {
			return nil, err
		}
		down, err := files.ReadFile(stem + ".down.sql")
		if err != nil {
			return nil, err
		}
		changes = append(changes, change{strings.TrimPrefix(stem, folder+"/"), string(up), string(down)})
	}
	return changes, nil
}

// newMigrator is bun's migrator over our files, whose statements go where all
// statements of db go.
func newMigrator(db *bun.DB, log func(string)) (*migrate.Migrator, error) {
	changes, err := changesFor(db.Dialect().Name())
	if err != nil {
		return nil, err
	}
	all := migrate.NewMigrations()
	run := func(verb, statements string) func(context.Context, *migrate.Migrator, *migrate.Migration) error {
		return func(ctx context.Context, m *migrate.Migrator, this *migrate.Migration) error {
			log(verb + " " + this.Name)
			_, err := m.DB().NewRaw(statements).Exec(ctx)
			return err
		}
	}
	for _, c := range changes {
		all.Add(migrate.Migration{Name: c.name, Up: run("apply", c.up), Down: run("undo", c.down)})
	}
	return migrate.NewMigrator(db, all, migrate.WithTableName(table)), nil
}
