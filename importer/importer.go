// Package importer brings the accounts and the chats of another database over:
// of Amanda and of Tena, the two services that Parley succeeds, or of another
// Parley, which is how one moves from SQLite to PostgreSQL.
//
// It never knows how a password is checked or an address is written: hashes are
// carried as they are, and its caller tells it the rest. It never writes to the
// database that it reads.
//
// Its invariant: an account, and a chat with all of its messages, comes over
// whole or not at all, and once. What has come is noted by the transaction that
// brings it. So a run may be cut short at any point and done again, and several
// at once do together what one would have done.
package importer

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/uptrace/bun"

	"parley/models"
)

// DefaultBatch is a good size of a batch.
const DefaultBatch = 1000

// Options say what to bring over, and how.
type Options struct {
	// From is the URL of the source: sqlite://path, whose path is relative unless
	// it begins with a slash, or postgres://…. A driver named as SQLAlchemy does,
	// in postgresql+psycopg2://…, is passed over.
	From string
	// Batch is how many accounts, or messages, one transaction brings over. A
	// chat is never parted, so a long one makes a larger batch.
	Batch int
	// DryRun makes the same report and writes nothing.
	DryRun bool

	// NormalizeEmail returns the one form under which an address is stored.
	NormalizeEmail func(string) (string, error)
	// KnownHash says if a password can be verified against this hash.
	KnownHash func(hash string) bool
	// Progress, if not nil, is called after each batch with the report so far,
	// which is not to be kept.
	Progress func(*Report)
}

// Run brings over what the source holds and db, migrated, does not. With an
// error it returns what has been brought over until then: the same call goes on
// from there. A second call brings what the source has got since the first.
//
// The source may be in use. From PostgreSQL, and from a file with a write-ahead
// log, it is read as it was when Run began; another SQLite file cannot be written
// to as long as it is read.
func Run(ctx context.Context, db *models.DB, o Options) (Report, error) {
	src, err := openSource(ctx, o.From)
	if err != nil {
		return Report{}, err
	}
	defer src.close()
	r := &run{
		db: db.Bun(), postgres: db.Dialect() == models.Postgres, src: src, Options: o,
		now:    time.Now().UTC().Truncate(time.Microsecond),
		users:  make(map[int64]int64),
		emails: make(map[string]bool),
		report: Report{Source: src.describe(), DryRun: o.DryRun, Columns: src.columns()},
	}
	for _, step := range []func(context.Context) error{r.refuseItself, r.begin, r.bringUsers, r.bringChats, r.countStrays} {
		if err := step(ctx); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// run is one call of Run.
type run struct {
	Options

	db       *bun.DB
	postgres bool
	src      *source
	now      time.Time
	importID int64           // of the row that stands for this source; 0 in a dry run of one that has none
	spans    map[string]span // which old ids can be kept

	// What has become of the source's accounts so far, by their old ids: the new
	// id, or one of those below.
	users  map[int64]int64
	emails map[string]bool // addresses of the source that were met

	report Report
}

// What stands for the id of an account that has none here.
const (
	wouldCome   = 0 // in a dry run
	staysBehind = -1
	deletedHere = -2
)

// importLock is the advisory lock of one batch: "import" in bytes.
const importLock int64 = 0x696d706f7274

// lockTimeout bounds how long a statement waits for a lock that the running
// service holds, with all that then waits behind it.
const lockTimeout = "10s"

// attempts is how often a batch is tried that loses against somebody who signs
// up or deletes at that moment.
const attempts = 3

// inBatch runs do in one transaction that keeps the batches of other runs
// waiting, or in a dry run as it is. do may be called several times and leaves
// nothing behind but rows.
func (r *run) inBatch(ctx context.Context, do func(ctx context.Context, tx bun.IDB) error) error {
	if r.DryRun {
		return do(ctx, r.db)
	}
	var opts *sql.TxOptions
	if r.postgres {
		opts = &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	}
	for attempt := 1; ; attempt++ {
		err := r.db.RunInTx(ctx, opts, func(ctx context.Context, tx bun.Tx) error {
			if r.postgres { // on SQLite the transaction has the only write lock
				if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(?)", importLock); err != nil {
					return err
				}
				if _, err := tx.ExecContext(ctx, "SET LOCAL lock_timeout = ?", lockTimeout); err != nil {
					return err
				}
			}
			return do(ctx, tx)
		})
		if !lostRace(err) || attempt == attempts {
			return err
		}
	}
}

// lostRace says that a transaction met another one, was rolled back, and may
// well succeed when it is done again.
func lostRace(err error) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01", "23505": // serialization_failure, deadlock_detected, unique_violation
		return true
	}
	return false
}

// done adds what a batch has come to.
func (r *run) done(batch *Report) {
	r.report.add(batch)
	if r.Progress != nil {
		r.Progress(&r.report)
	}
}
