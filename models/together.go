package models

import (
	"context"
	"slices"
	"sync"

	"github.com/uptrace/bun"
)

// maxTogether is how many transactions share one commit at the most: the first
// of them waits for the last.
const maxTogether = 32

// A writer runs the transactions of SQLite. One is written at a time, and its
// commit syncs a file, which takes longer than its statements do; so those that
// come meanwhile are run within one, each behind a savepoint, and share its
// commit. There is no goroutine for it: whoever comes first runs what waits,
// and leaves the rest to the first of those that came later.
type writer struct {
	mu      sync.Mutex
	waiting []*writing
	busy    bool // somebody runs what waited
}

// A writing is a transaction that waits for its turn.
type writing struct {
	ctx context.Context // its end is not that of the caller's: what is begun is ended
	fn  func(ctx context.Context, tx bun.Tx) error

	leads chan struct{} // closed when it is its turn to run what waits
	done  chan struct{} // closed when what follows is final

	settled  bool // err is final, or fn panicked
	err      error
	panicked any
}

// writeTogether runs fn in a transaction, perhaps together with others. Of these one
// that fails takes back nothing but what it did itself. It may be run twice.
func (d *DB) writeTogether(ctx context.Context, fn func(ctx context.Context, tx bun.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline() // inTx has set one
	running, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	w := &writing{ctx: running, fn: fn, leads: make(chan struct{}), done: make(chan struct{})}
	if !d.writer.enter(w) {
		select {
		case <-w.done:
			return w.result()
		case <-w.leads:
		case <-ctx.Done():
			if d.writer.withdraw(w) {
				return ctx.Err()
			}
			select {
			case <-w.done:
				return w.result()
			case <-w.leads:
			}
		}
	}
	defer d.writer.pass()
	d.run(d.writer.take())
	return w.result()
}

// enter has w wait, or lead: true.
func (wr *writer) enter(w *writing) bool {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	wr.waiting = append(wr.waiting, w)
	leads := !wr.busy
	wr.busy = true
	return leads
}

// withdraw takes out w, unless it is run already or is to lead.
func (wr *writer) withdraw(w *writing) bool {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	at := slices.Index(wr.waiting, w)
	select {
	case <-w.leads:
		return false
	default:
	}
	if at < 0 {
		return false
	}
	wr.waiting = slices.Delete(wr.waiting, at, at+1)
	return true
}

// take returns what is to be run together, the one that leads first.
func (wr *writer) take() []*writing {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	n := min(len(wr.waiting), maxTogether)
	together := slices.Clone(wr.waiting[:n])
	wr.waiting = slices.Delete(wr.waiting, 0, n)
	return together
}

// pass has the first of those that wait lead.
func (wr *writer) pass() {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	if len(wr.waiting) == 0 {
		wr.busy = false
		return
	}
	close(wr.waiting[0].leads)
}

// result is how the transaction went.
func (w *writing) result() error {
	if w.panicked != nil {
		panic(w.panicked)
	}
	return w.err
}

// run runs transactions to their end: together, or those that this leaves
// unsettled each by itself.
func (d *DB) run(all []*writing) {
	d.runTogether(all)
	for _, w := range all {
		if !w.settled {
			d.runTogether([]*writing{w})
		}
		close(w.done)
	}
}

// runTogether runs transactions within one. What it leaves unsettled has left
// nothing behind.
func (d *DB) runTogether(all []*writing) {
	// The first one's end is not that of the others.
	ctx := context.WithoutCancel(all[0].ctx)
	waiting, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := d.write.Conn(waiting)
	if err != nil {
		settle(all, err)
		return
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		settle(all, err)
		return
	}
	for _, w := range all {
		if !w.within(tx, len(all) > 1) {
			tx.Rollback() //nolint:errcheck // what cannot be taken back is gone already
			return
		}
	}
	if slices.ContainsFunc(all, func(w *writing) bool { return !w.settled }) {
		settle(all, tx.Commit())
		return
	}
	tx.Rollback() //nolint:errcheck // nothing is left in it
}

// settle ends those that have not ended yet.
func settle(all []*writing, err error) {
	for _, w := range all {
		if !w.settled {
			w.settled, w.err = true, err
		}
	}
}

// within runs w in tx, behind a savepoint if there are others in it. It is false
// when all of tx is lost: SQLite takes back the whole of a transaction when
// there is no room, or when a statement is interrupted.
func (w *writing) within(tx bun.Tx, others bool) (ok bool) {
	if w.err = w.ctx.Err(); w.err != nil {
		w.settled = true
		return true
	}
	if !others {
		w.call(tx)
		return !w.settled
	}
	ctx := context.WithoutCancel(w.ctx)
	if _, err := tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return false
	}
	if w.call(tx); w.settled {
		if _, err := tx.ExecContext(ctx, "ROLLBACK TO one"); err != nil {
			return false
		}
	}
	_, err := tx.ExecContext(ctx, "RELEASE one")
	return err == nil
}

// call calls fn, and settles w if that fails.
func (w *writing) call(tx bun.Tx) {
	defer func() {
		if w.panicked = recover(); w.panicked != nil {
			w.settled = true
		}
	}()
	w.err = w.fn(w.ctx, tx)
	w.settled = w.err != nil
}
