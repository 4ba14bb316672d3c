package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/uptrace/bun"

	"parley/migrations"
)

func migrateCommands() command {
	sub := func(name, does, about string, act func(context.Context, io.Writer, *bun.DB) error) command {
		return command{name: name, does: does, about: about, setup: func(*flag.FlagSet) action {
			return func(ctx context.Context, p process) error { return onDatabase(ctx, p, act) }
		}}
	}
	return command{
		name:  "migrate",
		does:  "bring the database up to date, or back",
		about: "It works on DATABASE_URL. parley serve does migrate up by itself unless\nMIGRATE_ON_START=false.",
		sub: []command{
			sub("up", "apply all migrations that are pending", "", migrateUp),
			sub("down", "undo the last migration", "What the migration had added is deleted, with what is stored in it.", migrateDown),
			sub("status", "list the migrations and when they were applied", "", migrateStatus),
		},
	}
}

// onDatabase opens the database that is set, for act, and closes it.
func onDatabase(ctx context.Context, p process, act func(context.Context, io.Writer, *bun.DB) error) (err error) {
	c := configure(p.environ, p.dotenv)
	if err := c.need("DATABASE_URL", "DATABASE_MAX_CONNS"); err != nil {
		return err
	}
	db, err := open(ctx, &c.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return act(ctx, p.stdout, db.Bun())
}

func migrateUp(ctx context.Context, out io.Writer, db *bun.DB) error {
	applied := 0
	err := migrations.Up(ctx, db, func(line string) {
		applied++
		fmt.Fprintln(out, line)
	})
	if err == nil && applied == 0 {
		fmt.Fprintln(out, "nothing to apply")
	}
	return err
}

func migrateDown(ctx context.Context, out io.Writer, db *bun.DB) error {
	return migrations.Down(ctx, db, func(line string) { fmt.Fprintln(out, line) })
}

func migrateStatus(ctx context.Context, out io.Writer, db *bun.DB) error {
	all, err := migrations.Status(ctx, db)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "MIGRATION\tAPPLIED")
	for _, m := range all {
		applied := "pending"
		if !m.AppliedAt.IsZero() {
			applied = m.AppliedAt.UTC().Format(time.RFC3339)
		}
		if !m.Known {
			applied += ", by a newer version of this program"
		}
		fmt.Fprintf(table, "%s\t%s\n", m.Name, applied)
	}
	return table.Flush()
}
