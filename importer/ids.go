package importer

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// maxKept is the largest id that is kept. Numbers in JavaScript are exact to
// twice that, which leaves as many ids for what comes after.
const maxKept int64 = 1 << 52

// A span is some ids of the source that nobody else has been given here and
// nobody will be: those after one and up to another.
type span struct{ After, Upto int64 }

// An imported row stands for a source.
type imported struct {
	bun.BaseModel `bun:"table:imports"`

	ID        int64  `bun:",pk,autoincrement"`
	Source    string // its place
	Users     span   `bun:"embed:users_"`
	Chats     span   `bun:"embed:chats_"`
	Messages  span   `bun:"embed:messages_"`
	StartedAt time.Time
}

func (i *imported) spans() [3]*span { return [3]*span{&i.Users, &i.Chats, &i.Messages} }

// begin finds the row that stands for the source, or makes it, and sets the ids
// of the source aside.
func (r *run) begin(ctx context.Context) error {
	for i, table := range tables {
		r.report.tally(table).Total = r.src.counts[i]
	}
	largest, err := r.src.largestIDs(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	return r.inBatch(ctx, func(ctx context.Context, tx bun.IDB) error {
		row := imported{Source: r.src.place, StartedAt: r.now}
		err := tx.NewSelect().Model(&row).Where("source = ?", r.src.place).Scan(ctx)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := r.setAside(ctx, tx, &row, largest); err != nil {
			return err
		}
		r.spans = make(map[string]span)
		for i, table := range tables {
			r.spans[table] = *row.spans()[i]
		}
		if !r.DryRun {
			if err := save(ctx, tx, &row); err != nil {
				return err
			}
		}
		r.importID = row.ID
		return nil
	})
}

func save(ctx context.Context, tx bun.IDB, row *imported) error {
	if row.ID != 0 {
		_, err := tx.NewUpdate().Model(row).WherePK().Exec(ctx)
		return err
	}
	_, err := tx.NewInsert().Model(row).Exec(ctx)
	return err
}

// setAside makes the ids that will be given here begin above those of the source.
// Which ids nobody was given is certain at the first import, and later on if
// nobody was given any since.
func (r *run) setAside(ctx context.Context, tx bun.IDB, row *imported, largest [3]int64) error {
	if r.postgres && !r.DryRun {
		// An id is drawn under the lock of an insert. So as long as there is no
		// insert, there is nobody who draws.
		if _, err := tx.ExecContext(ctx, "LOCK TABLE chats, messages, users IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return err
		}
	}
	last, err := r.lastIDs(ctx, tx)
	if err != nil {
		return err
	}
	for i, s := range row.spans() {
		switch {
		case row.ID == 0:
			*s = span{After: last[i], Upto: max(last[i], largest[i])}
		case last[i] == s.Upto:
			s.Upto = max(s.Upto, largest[i])
		}
		if last[i] < s.Upto && !r.DryRun {
			if err := r.setLastID(ctx, tx, tables[i], s.Upto); err != nil {
				return err
			}
		}
	}
	return nil
}

// lastIDs are the last ids that users, chats and messages were given.
func (r *run) lastIDs(ctx context.Context, tx bun.IDB) ([3]int64, error) {
	query := "SELECT COALESCE((SELECT seq FROM sqlite_sequence WHERE name = ?0), 0), (SELECT COALESCE(max(id), 0) FROM ?1)"
	if r.postgres {
		query = "SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence(?0, 'id')::regclass), 0), (SELECT COALESCE(max(id), 0) FROM ?1)"
	}
	var last [3]int64
	for i, table := range tables {
		var given, present int64
		if err := tx.NewRaw(query, table, bun.Ident(table)).Scan(ctx, &given, &present); err != nil {
			return last, err
		}
		last[i] = max(given, present)
	}
	return last, nil
}

// setLastID makes id the last one that a table was given.
func (r *run) setLastID(ctx context.Context, tx bun.IDB, table string, id int64) error {
	if r.postgres {
		_, err := tx.ExecContext(ctx, "SELECT setval(pg_get_serial_sequence(?, 'id')::regclass, ?)", table, id)
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM sqlite_sequence WHERE name = ?", table); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", table, id)
	return err
}

// numbering gives rows of one table their ids, in one batch.
type numbering struct {
	run   *run
	table string
	taken map[int64]bool // ids that others have, here or in this batch
	fresh []*int64       // where ids are wanted that nobody had, in order
}

// numberer knows which of the old ids are free.
func (r *run) numberer(ctx context.Context, tx bun.IDB, table string, old []int64) (*numbering, error) {
	n := &numbering{run: r, table: table, taken: make(map[int64]bool)}
	if len(old) == 0 {
		return n, nil
	}
	var taken []int64
	if err := tx.NewRaw("SELECT id FROM ? WHERE id IN (?)", bun.Ident(table), bun.List(old)).Scan(ctx, &taken); err != nil {
		return nil, err
	}
	for _, id := range taken {
		n.taken[id] = true
	}
	return n, nil
}

// keep takes an old id if it is free and greater than above.
func (n *numbering) keep(old, above int64) bool {
	if s := n.run.spans[n.table]; old <= s.After || old > s.Upto || old <= above || n.taken[old] {
		return false
	}
	n.taken[old] = true
	return true
}

// draw sets all ids that are to be fresh, in the order in which they were asked
// for. In a dry run they stay 0.
func (n *numbering) draw(ctx context.Context, tx bun.IDB) error {
	if len(n.fresh) == 0 || n.run.DryRun {
		return nil
	}
	var ids []int64
	if n.run.postgres {
		err := tx.NewRaw("SELECT nextval(pg_get_serial_sequence(?, 'id')::regclass) FROM generate_series(1, ?)", n.table, len(n.fresh)).Scan(ctx, &ids)
		if err != nil {
			return err
		}
		slices.Sort(ids)
	} else {
		var last int64
		if err := tx.NewRaw("SELECT COALESCE(max(seq), 0) FROM sqlite_sequence WHERE name = ?", n.table).Scan(ctx, &last); err != nil {
			return err
		}
		for i := range n.fresh {
			ids = append(ids, last+1+int64(i))
		}
	}
	for i, id := range ids {
		*n.fresh[i] = id
	}
	return nil
}
