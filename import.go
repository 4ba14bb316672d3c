package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"parley/auth"
	"parley/importer"
	"parley/migrations"
	"parley/models"
)

const (
	maxImportBatch = 100_000
	// importProgressEvery is how often a running import says how far it is.
	importProgressEvery = time.Second
)

func importCommand() command {
	return command{
		name: "import",
		does: "bring over the accounts and chats of Amanda, of Tena or of another Parley",
		about: "It reads a database, told by its tables, and writes to DATABASE_URL, also while the\n" +
			"service runs. What it reads is left as it is.\n\n" +
			"  parley import --from sqlite://instance/amanda.db --dry-run\n" +
			"  parley import --from postgres://reader@host/tena\n" +
			"  DATABASE_URL=postgres://… parley import --from sqlite://parley.db\n\n" +
			"Users keep their passwords and sign in again. Ids stay where nobody has them here.\n" +
			"A run that was cut short goes on when it is started again with the same URL, and a\n" +
			"later one brings what is new. The report names what stays behind, and why.",
		setup: func(flags *flag.FlagSet) action {
			from := flags.String("from", "", "the database to read, by its `URL`: sqlite://path or postgres://…")
			dryRun := flags.Bool("dry-run", false, "make the same report and write nothing")
			batch := flags.Int("batch", importer.DefaultBatch, "how many accounts or messages one transaction brings over")
			return func(ctx context.Context, p process) error {
				switch {
				case *from == "":
					return usageError("parley import: --from is missing; see parley import --help")
				case *batch < 1 || *batch > maxImportBatch:
					return usageError(fmt.Sprintf("parley import: --batch is 1 to %d; see parley import --help", maxImportBatch))
				}
				return runImport(ctx, p, importer.Options{From: *from, DryRun: *dryRun, Batch: *batch})
			}
		},
	}
}

// runImport brings a database over, says on stderr how far it is, and prints the
// report.
func runImport(ctx context.Context, p process, o importer.Options) (err error) {
	c := configure(p.environ, p.dotenv)
	if err := c.need("DATABASE_URL", "DATABASE_MAX_CONNS", "MIGRATE_ON_START"); err != nil {
		return err
	}
	migrate := c.MigrateOnStart && !o.DryRun
	if o.DryRun && c.isUnmade() {
		folder, err := os.MkdirTemp("", "parley-import-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder) //nolint:errcheck // the system's to clean, then
		c.DatabaseURL = "sqlite://" + url.PathEscape(filepath.Join(folder, "parley.db"))
		migrate, p.stderr = true, io.Discard // that file is not what was asked about
	}
	db, err := open(ctx, &c.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := prepareImport(ctx, p, db, migrate); err != nil {
		return err
	}

	told := time.Now()
	o.Progress = func(r *importer.Report) {
		if time.Since(told) >= importProgressEvery {
			told = time.Now()
			fmt.Fprintln(p.stderr, r.Progress())
		}
	}
	o.NormalizeEmail, o.KnownHash = auth.NormalizeEmail, knownHash()
	report, err := importer.Run(ctx, db, o)
	switch {
	case err == nil:
		_, err = fmt.Fprint(p.stdout, report)
		return err
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	if report.Users.Total > 0 && !o.DryRun {
		err = errors.Join(err, fmt.Errorf("what came over stays (%s); the same command goes on from there", report.Progress()))
	}
	return err
}

// isUnmade reports whether the database is an SQLite file that the first start, or
// import, is still to make. A dry run leaves it so, and compares with one that is
// made elsewhere.
func (c *Config) isUnmade() bool {
	path, ok := c.sqlitePath()
	if !ok {
		return false
	}
	_, file := os.Stat(path)
	_, folder := os.Stat(filepath.Dir(path))
	return errors.Is(file, fs.ErrNotExist) && folder == nil
}

// prepareImport sees to it that the database has its tables: where migrate is
// true it makes them.
func prepareImport(ctx context.Context, p process, db *models.DB, migrate bool) error {
	if migrate {
		return migrations.Up(ctx, db.Bun(), func(line string) { fmt.Fprintln(p.stderr, line) })
	}
	pending, err := migrations.Pending(ctx, db.Bun())
	if err == nil && pending > 0 {
		err = fmt.Errorf("DATABASE_URL: %d migrations are pending; parley migrate up applies them", pending)
	}
	return err
}

// knownHash says of a stored hash if passwords can be verified against it. It has
// a pool for that whose hasher computes nothing.
func knownHash() func(hash string) bool {
	nothing := func(auth.HashJob) auth.HashResult { return auth.HashResult{} }
	passwords := auth.NewPasswordPool(auth.Argon2Params{MemoryKiB: 8, Time: 1, Threads: 1}, []auth.Hasher{nothing})
	return func(hash string) bool {
		_, _, err := passwords.Verify(context.Background(), hash, "")
		return !errors.Is(err, auth.ErrBadHash)
	}
}
