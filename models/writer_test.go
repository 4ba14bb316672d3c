package models_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// numbers returns a database with a table that takes each number once.
func numbers(t *testing.T) *models.DB {
	t.Helper()
	db := modelstest.New(t, models.SQLite)
	_, err := db.Bun().ExecContext(t.Context(), "CREATE TABLE taken (n INTEGER PRIMARY KEY)")
	must(t, err)
	return db
}

// listed are the numbers that others see.
func listed(t *testing.T, db *models.DB) []int {
	t.Helper()
	var n []int
	must(t, db.Read().NewRaw("SELECT n FROM taken ORDER BY n").Scan(t.Context(), &n))
	return n
}

func TestTransactionsThatWaitStandOrFallAlone(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	errRefused := errors.New("refused")
	kinds := []struct {
		end  func(ctx context.Context, tx bun.Tx, i int) error
		want func(i int) string
	}{
		{func(context.Context, bun.Tx, int) error { return nil }, func(int) string { return "<nil>" }},
		{func(context.Context, bun.Tx, int) error { return errRefused }, func(int) string { return "refused" }},
		{
			func(_ context.Context, _ bun.Tx, i int) error { panic(fmt.Sprint("at ", i)) },
			func(i int) string { return fmt.Sprint("panic: at ", i) },
		},
		{
			func(ctx context.Context, tx bun.Tx, i int) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO taken VALUES (?)", i)
				return err
			},
			func(int) string { return "constraint failed: UNIQUE constraint failed: taken.n (1555)" },
		},
		{
			// SQLite takes back the whole transaction by itself.
			func(ctx context.Context, tx bun.Tx, i int) error {
				_, err := tx.ExecContext(ctx, "INSERT OR ROLLBACK INTO taken VALUES (?)", i)
				return err
			},
			func(int) string { return "constraint failed: UNIQUE constraint failed: taken.n (1555)" },
		},
	}
	const n = 100
	results := together(n, func(i int) (result string) {
		defer func() {
			if p := recover(); p != nil {
				result = fmt.Sprint("panic: ", p)
			}
		}()
		return fmt.Sprint(db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO taken VALUES (?)", i); err != nil {
				return err
			}
			return kinds[i%len(kinds)].end(ctx, tx, i)
		}))
	})
	var want []int
	for i, result := range results {
		if wanted := kinds[i%len(kinds)].want(i); result != wanted {
			t.Errorf("transaction %d: got %s, want %s", i, result, wanted)
		}
		if i%len(kinds) == 0 {
			want = append(want, i)
		}
	}
	if got := listed(t, db); !slices.Equal(got, want) {
		t.Errorf("stored: got %v, want %v", got, want)
	}
}

func TestWhoeverLeavesIsNotWritten(t *testing.T) {
	t.Parallel()
	db := numbers(t)
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
	ctx, leave := context.WithCancel(t.Context())
	done.Go(func() {
		wantError(t, db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO taken VALUES (1)")
			return err
		}), context.Canceled)
		close(free)
	})
	leave()
	done.Wait()
	// But what is begun is ended.
	ctx, leave = context.WithCancel(t.Context())
	must(t, db.InTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		leave()
		_, err := tx.ExecContext(ctx, "INSERT INTO taken VALUES (2)")
		return err
	}))
	// And what has waited for its turn until its time was nearly over.
	ctx, leave = context.WithTimeout(t.Context(), time.Second)
	defer leave()
	must(t, db.InTx(ctx, func(inside context.Context, tx bun.Tx) error {
		<-ctx.Done()
		_, err := tx.ExecContext(inside, "INSERT INTO taken VALUES (3)")
		return err
	}))
	wantEqual(t, listed(t, db), []int{2, 3})
}

// What is counted does not wait for the disk, neither for that of SQLite's own
// (PRAGMA synchronous: 1 is NORMAL) nor for the writer's.
func TestACountDoesNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	release := db.HoldDisk()
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	limit := models.Limit{Key: "k", Quota: 2, Window: time.Hour}
	for range 3 {
		counted, err := db.Count(ctx, []models.Limit{limit})
		must(t, err)
		wantEqual(t, counted[0].Remaining, int64(1))
		must(t, db.Refund(ctx, []models.Limit{limit}))
	}
	var synchronous []int
	must(t, db.Passing(ctx, &synchronous, "PRAGMA synchronous"))
	wantEqual(t, synchronous, []int{1})
}

// A commit lets the next one write, and returns when the disk has it.
func TestCommitsWaitForTheDiskTogether(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	const n = 20
	release := db.HoldDisk()
	var done sync.WaitGroup
	var mu sync.Mutex
	returned := 0
	for i := range n {
		done.Go(func() {
			err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
				_, err := tx.ExecContext(ctx, "INSERT INTO taken VALUES (?)", i)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			returned++
			if err != nil {
				t.Error(err)
			}
		})
	}
	for len(listed(t, db)) < n {
		time.Sleep(time.Millisecond)
	}
	mu.Lock()
	wantEqual(t, returned, 0)
	mu.Unlock()
	release()
	done.Wait()
}

// What a transaction does to its connection is over with it: a statement by itself
// is on the disk when it returns.
func TestStatementsAloneWaitForTheDisk(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	synchronous := func(db bun.IDB) (level int) {
		t.Helper()
		must(t, db.NewRaw("PRAGMA synchronous").Scan(t.Context(), &level))
		return level
	}
	const normal, full = 1, 2
	for name, end := range map[string]func() error{
		"one that is committed": func() error { return nil },
		"one that fails":        func() error { return errors.New("refused") },
		"one that panics":       func() error { panic("at once") },
	} {
		func() {
			defer func() { recover() }()                                    //nolint:errcheck // it is what the last one does
			db.InTx(t.Context(), func(_ context.Context, tx bun.Tx) error { //nolint:errcheck // one fails
				if got := synchronous(tx); got != normal {
					t.Errorf("%s: got %d, want %d", name, got, normal)
				}
				return end()
			})
		}()
		if got := synchronous(db.Bun()); got != full {
			t.Errorf("after %s: got %d, want %d", name, got, full)
		}
	}
}

// What a statement needs to be taken back stays in memory only where it is little: any
// other transaction, and a statement by itself, may change more than there is memory.
func TestWhatIsTakenBackFromMemory(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	const file, memory = 1, 2
	want := func(what string, db bun.IDB, want int) {
		t.Helper()
		var got int
		must(t, db.NewRaw("PRAGMA temp_store").Scan(t.Context(), &got))
		if got != want {
			t.Errorf("%s: got %d, want %d", what, got, want)
		}
	}
	must(t, db.InSmallTx(t.Context(), func(_ context.Context, tx bun.Tx) error {
		want("a small transaction", tx, memory)
		return nil
	}))
	want("a statement after it", db.Bun(), file)
	must(t, db.InTx(t.Context(), func(_ context.Context, tx bun.Tx) error {
		want("any transaction", tx, file)
		return nil
	}))
}

// Of a disk that did not take something nobody knows what it has. What would be
// appended behind that is refused, and the database is not ready.
func TestADiskThatFails(t *testing.T) {
	t.Parallel()
	db := numbers(t)
	u, _ := newUser(t, db)
	must(t, db.Ping(t.Context()))
	add := func(n int) error {
		return db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO taken VALUES (?)", n)
			return err
		})
	}
	must(t, add(1))
	mend := db.BreakDisk()
	wantError(t, add(2), models.ErrUnavailable)
	mend()
	wantError(t, add(3), models.ErrUnavailable)
	wantError(t, db.Ping(t.Context()), models.ErrUnavailable)
	_, err := db.Count(t.Context(), []models.Limit{{Key: "k", Quota: 1, Window: time.Minute}})
	wantError(t, err, models.ErrUnavailable)
	wantEqual(t, listed(t, db), []int{1, 2})
	_, err = db.User(t.Context(), u.ID)
	must(t, err)
}

// The log is beside the file that a link leads to.
func TestADatabaseBehindALink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "data"), 0o700))
	must(t, os.Symlink(filepath.Join("data", "parley.db"), filepath.Join(dir, "link.db")))
	db, err := models.Open(t.Context(), "sqlite://"+filepath.Join(dir, "link.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	must(t, db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
		_, err := tx.ExecContext(ctx, "CREATE TABLE taken (n INTEGER PRIMARY KEY)")
		return err
	}))
	wantEqual(t, len(listed(t, db)), 0)
}

// Who repeats a request is not told that it was stored before the disk has it.
func TestARepeatedTurnWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	u, _ := newUser(t, db)
	key := &models.IdempotencyKey{Route: "messages", Key: "k", BodyHash: "h"}
	db.BreakDisk()
	_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, Content: "hello", Owner: "replica-1", Key: key})
	wantError(t, err, models.ErrUnavailable)
	wantEqual(t, count(t, db, "messages"), 2)
	_, found, err := db.Repeated(t.Context(), u.ID, key)
	wantError(t, err, models.ErrUnavailable)
	wantEqual(t, found, false)
}

// Statements that were prepared go on when the tables change under them, as in a
// migration by a newer version.
func TestPreparedStatementsOutliveMigrations(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	u, _ := newUser(t, db)
	for i := range 3 {
		ex, err := db.AppendTurn(t.Context(), models.NewTurn{
			UserID: u.ID, Content: fmt.Sprint(i), Owner: "replica-1", Limit: models.Limit{Key: "k", Quota: 5, Window: time.Minute},
		})
		must(t, err)
		finish(t, db, ex, "Yes")
		for _, table := range []string{"chats", "messages", "replies", "users", "throttles", "user_events"} {
			_, err := db.Bun().ExecContext(t.Context(), fmt.Sprintf("ALTER TABLE %s ADD COLUMN later_%d TEXT NOT NULL DEFAULT 'x'", table, i))
			must(t, err)
		}
	}
	wantEqual(t, count(t, db, "messages"), 6)
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
