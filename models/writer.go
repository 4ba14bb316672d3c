package models

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/uptrace/bun"
)

// A writer runs the transactions of SQLite, which writes one at a time. A commit
// appends to a file, the write-ahead log, which takes microseconds, and the disk
// takes milliseconds to have it. So what is committed lets the next one write, waits
// for the disk behind that, and counts from then on: all that was committed meanwhile
// waits for the disk once.
type writer struct {
	turn chan struct{} // full while somebody writes; those that wait get it in their order
	log  walSync
}

// newWriter returns the writer of the database in that file.
func newWriter(path string) *writer {
	return &writer{turn: make(chan struct{}, 1), log: walSync{path: path + "-wal"}}
}

// Undo is where SQLite keeps what takes back a statement that fails half-way: the
// pages that it has changed, as they were.
type undo string

const (
	// A file takes any number. For its first 64 KiB there is memory, which the
	// system is asked for, and given back, with each statement that might fail
	// half-way: a third of the time of a send, and meanwhile no other thread gets any.
	undoInFile undo = "FILE"
	// Memory that is there already takes them all: each has 4 KiB.
	undoInMemory undo = "MEMORY"
)

// writeSQLite runs fn in a transaction. When it returns nil, all of it is on the disk;
// others may see it a little before. fn's context does not end with the caller's:
// what is begun is ended. ctx has a deadline.
func (d *DB) writeSQLite(ctx context.Context, undo undo, fn func(ctx context.Context, tx bun.Tx) error) error {
	if err := d.commitSQLite(ctx, undo, fn); err != nil {
		return err
	}
	err := d.writer.log.sync()
	if err != nil {
		d.write.Close() //nolint:errcheck // nobody is to write any more
	}
	return err
}

// commitSQLite runs fn in a transaction, and lets the next one write. A power cut may
// take what is not on the disk yet: all of it, with what was committed after it.
func (d *DB) commitSQLite(ctx context.Context, undo undo, fn func(ctx context.Context, tx bun.Tx) error) error {
	if err := d.writer.log.err(); err != nil {
		return err
	}
	select {
	case d.writer.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.writer.turn }()
	d.prepared.prepare(ctx, d.write)
	conn, err := d.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it goes back to the pool
	// Who waited long for its turn has its time all the same. To take back what would
	// be done in milliseconds helps nobody: the backend has been asked by then, and
	// whoever comes again has it asked again.
	deadline := time.Now().Add(queryTimeout)
	if set, _ := ctx.Deadline(); set.After(deadline) {
		deadline = set
	}
	ctx = context.WithoutCancel(ctx)
	// Statements by themselves are on the disk when they return. This one's commit
	// does not wait for it.
	if _, err := conn.Conn.ExecContext(ctx, "PRAGMA synchronous = NORMAL; PRAGMA temp_store = "+string(undo)); err != nil {
		return err
	}
	defer conn.Conn.ExecContext(ctx, "PRAGMA synchronous = FULL; PRAGMA temp_store = FILE") //nolint:errcheck // fails with the connection only
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // what is committed cannot be taken back
	running, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := fn(running, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// A walSync has the write-ahead log written to the disk, once for all who wait
// for it. There is no goroutine for it: the first of them does it.
type walSync struct {
	path string
	disk sync.Mutex // held while the disk is at it

	mu     sync.Mutex
	next   *batch // of those who come from here on; nil: of none yet
	failed error
}

// A batch is who waits for the same writing.
type batch struct {
	once sync.Once
	err  error
}

// sync returns when what stood in the log before it was called is on the disk. An
// error is for good: what the disk has not taken then it will not be asked for
// again, and whatever is appended behind that would be lost with it. Whoever opens
// the database anew finds all that is whole.
func (s *walSync) sync() error {
	s.mu.Lock()
	if s.next == nil {
		s.next = new(batch)
	}
	b := s.next
	s.mu.Unlock()
	b.once.Do(func() {
		s.disk.Lock()
		defer s.disk.Unlock()
		s.mu.Lock()
		s.next = nil // what is written from here on may not be seen by this one
		b.err = s.failed
		s.mu.Unlock()
		if b.err != nil {
			return
		}
		if b.err = s.write(); b.err != nil {
			s.mu.Lock()
			s.failed = b.err
			s.mu.Unlock()
		}
	})
	return b.err
}

// write opens the log each time: SQLite begins another file when it is alone for a
// moment.
func (s *walSync) write() error {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("%w until a restart: %w", ErrUnavailable, err)
	}
	return nil
}

// err is the error of a sync that failed, which holds for all that follow.
func (s *walSync) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
