package models_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// commits counts the transactions of a database that were committed.
type commits struct {
	mu sync.Mutex
	n  int
}

func (*commits) BeforeQuery(ctx context.Context, _ *bun.QueryEvent) context.Context { return ctx }

func (c *commits) AfterQuery(_ context.Context, event *bun.QueryEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if event.Err == nil && strings.EqualFold(event.Operation(), "COMMIT") {
		c.n++
	}
}

// Transactions that wait for SQLite's one writer share a commit, and each stands
// or falls alone.
func TestTransactionsThatWaitAreCommittedTogether(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	counted := new(commits)
	db.Hook(counted)
	_, err := db.Bun().ExecContext(t.Context(), "CREATE TABLE notes (n INTEGER PRIMARY KEY)")
	must(t, err)
	before := counted.n

	const n = 100
	errRefused := errors.New("refused")
	left, leave := context.WithCancel(t.Context())
	var done sync.WaitGroup
	results := make([]string, n)
	// The first one holds the writer until all others wait for it.
	entered, free := make(chan struct{}), make(chan struct{})
	done.Go(func() {
		must(t, db.InTx(t.Context(), func(context.Context, bun.Tx) error {
			close(entered)
			<-free
			return nil
		}))
	})
	<-entered
	for i := range n {
		done.Go(func() {
			ctx := t.Context()
			if i%10 == 4 {
				ctx = left
			}
			defer func() {
				if p := recover(); p != nil {
					results[i] = fmt.Sprint("panic: ", p)
				}
			}()
			err := db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO notes VALUES (?)", i); err != nil {
					return err
				}
				switch i % 10 {
				case 1:
					return errRefused
				case 2:
					panic("at " + fmt.Sprint(i))
				case 3:
					_, err := tx.ExecContext(ctx, "INSERT INTO notes VALUES (?)", i)
					return err
				}
				return nil
			})
			results[i] = fmt.Sprint(err)
		})
	}
	for db.TransactionsWaiting() < n {
		time.Sleep(time.Millisecond)
	}
	leave()
	for db.TransactionsWaiting() > n-n/10 {
		time.Sleep(time.Millisecond)
	}
	close(free)
	done.Wait()

	var want, stored []int
	for i := range n {
		wanted := "<nil>"
		switch i % 10 {
		case 1:
			wanted = "refused"
		case 2:
			wanted = "panic: at " + fmt.Sprint(i)
		case 3:
			wanted = "constraint failed: UNIQUE constraint failed: notes.n (1555)"
		case 4:
			wanted = "context canceled: context canceled"
		default:
			want = append(want, i)
		}
		if results[i] != wanted {
			t.Errorf("transaction %d: got %s, want %s", i, results[i], wanted)
		}
	}
	must(t, db.Bun().NewRaw("SELECT n FROM notes ORDER BY n").Scan(t.Context(), &stored))
	if !slices.Equal(stored, want) {
		t.Errorf("stored: got %v, want %v", stored, want)
	}
	// The first one, and then 90 by up to 32.
	if got := counted.n - before; got != 4 {
		t.Errorf("got %d commits, want 4", got)
	}
}

// SQLite takes back a whole transaction in some failures: those that were in it
// and are not to blame are run again.
func TestATransactionThatTakesTheOthersAlong(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	_, err := db.Bun().ExecContext(t.Context(), "CREATE TABLE notes (n INTEGER PRIMARY KEY)")
	must(t, err)
	entered, free := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		must(t, db.InTx(t.Context(), func(context.Context, bun.Tx) error {
			close(entered)
			<-free
			return nil
		}))
	})
	<-entered
	const n = 9
	ran := make([]int, n)
	results := make([]string, n)
	for i := range n {
		done.Go(func() {
			err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
				ran[i]++
				statement := "INSERT INTO notes VALUES (?)"
				if i == 4 {
					statement = "INSERT OR ROLLBACK INTO notes VALUES (?), (1000), (1000)"
				}
				_, err := tx.ExecContext(ctx, statement, i)
				return err
			})
			results[i] = fmt.Sprint(err)
		})
	}
	for db.TransactionsWaiting() < n {
		time.Sleep(time.Millisecond)
	}
	close(free)
	done.Wait()
	for i := range n {
		want := "<nil>"
		if i == 4 {
			want = "constraint failed: UNIQUE constraint failed: notes.n (1555)"
		}
		if results[i] != want || ran[i] > 2 {
			t.Errorf("transaction %d: got %s after %d times, want %s", i, results[i], ran[i], want)
		}
	}
	var stored []int
	must(t, db.Bun().NewRaw("SELECT n FROM notes ORDER BY n").Scan(t.Context(), &stored))
	if want := []int{0, 1, 2, 3, 5, 6, 7, 8}; !slices.Equal(stored, want) {
		t.Errorf("stored: got %v, want %v", stored, want)
	}
}

// BenchmarkSendsAtOnce is what a send costs of which many are under way.
func BenchmarkSendsAtOnce(b *testing.B) {
	for _, dialect := range modelstest.Dialects {
		b.Run(dialect, func(b *testing.B) {
			db := modelstest.New(b, dialect)
			u, _ := newUser(b, db)
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := db.AppendTurn(b.Context(), models.NewTurn{UserID: u.ID, Content: "Hello.", Owner: "one"}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
