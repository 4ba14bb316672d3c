package models_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// note writes a row that the tests of transactions count; the id is its name.
func note(ctx context.Context, db bun.IDB, id string) error {
	_, err := db.NewRaw("INSERT INTO replicas (id, lease_until, started_at) VALUES (?, ?, ?)",
		id, time.Unix(0, 0), time.Unix(0, 0)).Exec(ctx)
	return err
}

func notes(t *testing.T, db *models.DB) []string {
	t.Helper()
	ids := []string{}
	if err := db.Read().NewRaw("SELECT id FROM replicas ORDER BY id").Scan(context.Background(), &ids); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestATransactionIsAllOrNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ctx := t.Context()
		ours := errors.New("ours")
		err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			return errors.Join(note(ctx, tx, "of one that failed"), ours)
		})
		if !errors.Is(err, ours) {
			t.Errorf("got %v, want the error of the function", err)
		}
		func() {
			defer func() {
				if got := recover(); got != "ours" {
					t.Errorf("recovered %v", got)
				}
			}()
			_ = db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
				if err := note(ctx, tx, "of one that panicked"); err != nil {
					t.Error(err)
				}
				panic("ours")
			})
		}()
		if err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error { return note(ctx, tx, "of one that went well") }); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"of one that went well"}, notes(t, db)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	})
}

func TestTransactionsThatReadAndWriteDoNotMixOnSQLite(t *testing.T) {
	t.Parallel()
	url := modelstest.URL(t, models.SQLite)
	var done sync.WaitGroup
	const writers, each = 4, 25
	for range writers { // each like a process of its own
		done.Go(func() {
			db, err := models.Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			for range each {
				err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
					var n int
					if err := tx.NewRaw("SELECT count(*) FROM revocations").Scan(ctx, &n); err != nil {
						return err
					}
					_, err := tx.NewRaw("INSERT INTO revocations (id, revoked_at, expires_at) VALUES (?, '', '')", n+1).Exec(ctx)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
	db, err := models.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int
	if err := db.Read().NewRaw("SELECT max(id) FROM revocations").Scan(t.Context(), &n); err != nil || n != writers*each {
		t.Errorf("got %d rows, %v; want %d", n, err, writers*each)
	}
}

func TestATransactionThatLosesADeadlockRunsAgain(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	for _, id := range []string{"a", "b"} {
		if err := note(t.Context(), db.Bun(), id); err != nil {
			t.Fatal(err)
		}
	}
	touch := func(ctx context.Context, tx bun.Tx, id string) error {
		_, err := tx.NewRaw("UPDATE replicas SET started_at = now() WHERE id = ?", id).Exec(ctx)
		return err
	}
	var (
		done, holding sync.WaitGroup
		runs          [2]int
	)
	holding.Add(2)
	for i, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		done.Go(func() {
			err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
				runs[i]++
				if err := touch(ctx, tx, order[0]); err != nil {
					return err
				}
				if runs[i] == 1 { // both hold their first row: one of them must lose
					holding.Done()
					holding.Wait()
				}
				return touch(ctx, tx, order[1])
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if runs[0]+runs[1] < 3 {
		t.Errorf("ran %d and %d times: there was no deadlock", runs[0], runs[1])
	}
}

// deadlines notes the deadline that each statement runs under.
type deadlines struct{ left []time.Duration }

func (d *deadlines) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context {
	left := time.Duration(-1) // none
	if at, ok := ctx.Deadline(); ok {
		left = time.Until(at)
	}
	d.left = append(d.left, left)
	return ctx
}

func (*deadlines) AfterQuery(context.Context, *bun.QueryEvent) {}

func TestEveryStatementHasADeadline(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		long, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var (
			seen deadlines
			one  int
		)
		err := errors.Join(
			db.Read().WithQueryHook(&seen).NewRaw("SELECT 1").Scan(t.Context(), &one),
			db.Read().WithQueryHook(&seen).NewSelect().ColumnExpr("1").Scan(t.Context(), &one),
			db.InTx(t.Context(), func(ctx context.Context, _ bun.Tx) error {
				seen.BeforeQuery(ctx, nil)
				return nil
			}),
			// A caller that has one keeps it.
			db.Read().WithQueryHook(&seen).NewRaw("SELECT 1").Scan(long, &one),
		)
		if err != nil {
			t.Fatal(err)
		}
		for i, left := range seen.left {
			low, high := time.Second, time.Minute
			if i == 3 {
				low, high = time.Minute, time.Hour
			}
			if left < low || left > high {
				t.Errorf("statement %d has %v left, want between %v and %v", i, left, low, high)
			}
		}
		if len(seen.left) != 4 {
			t.Errorf("saw %d statements, want 4", len(seen.left))
		}
	})
}
