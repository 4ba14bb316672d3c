package migrations_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/migrations"
	"parley/models"
	"parley/models/modelstest"
)

// open opens a database without tables, or the same one again.
func open(t *testing.T, url string) *models.DB {
	t.Helper()
	db, err := models.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// eachEmpty runs test on both dialects, with a database that has no tables.
func eachEmpty(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			test(t, modelstest.EmptyURL(t, dialect))
		})
	}
}

// names are the migrations in the order of their files.
func names(t *testing.T, dialect string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dialect, "*.up.sql"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files of %s: %v", dialect, err)
	}
	for i, path := range paths {
		paths[i] = strings.TrimSuffix(filepath.Base(path), ".up.sql")
	}
	return paths
}

func silent(string) {}

func TestBothDialectsHaveTheSameFiles(t *testing.T) {
	t.Parallel()
	files := map[string][]string{}
	for _, dialect := range modelstest.Dialects {
		paths, err := filepath.Glob(filepath.Join(dialect, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			files[dialect] = append(files[dialect], filepath.Base(path))
		}
	}
	if diff := cmp.Diff(files[models.Postgres], files[models.SQLite]); diff != "" {
		t.Errorf("SQLite (+) differs from PostgreSQL (-):\n%s", diff)
	}
}

func TestUpDownToNothingAndUpAgain(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, url string) {
		ctx := t.Context()
		db := open(t, url)
		up := names(t, db.Dialect())

		if n, err := migrations.Pending(ctx, db.Bun()); n != len(up) || err != nil {
			t.Errorf("pending at first: got %d, %v; want %d", n, err, len(up))
		}
		var log []string
		if err := migrations.Up(ctx, db.Bun(), func(line string) { log = append(log, line) }); err != nil {
			t.Fatal(err)
		}
		full := schema(t, db.Bun(), db.Dialect())
		for range up {
			if err := migrations.Down(ctx, db.Bun(), func(line string) { log = append(log, line) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := migrations.Down(ctx, db.Bun(), silent); !errors.Is(err, migrations.ErrNothingToUndo) {
			t.Errorf("one step too many: got %v", err)
		}
		if left := schema(t, db.Bun(), db.Dialect()); len(left) != 0 {
			t.Errorf("left after the last step down:\n%s", strings.Join(left, "\n"))
		}
		if err := migrations.Up(ctx, db.Bun(), silent); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(full, schema(t, db.Bun(), db.Dialect())); diff != "" {
			t.Errorf("the second time (+) differs from the first (-):\n%s", diff)
		}
		if n, err := migrations.Pending(ctx, db.Bun()); n != 0 || err != nil {
			t.Errorf("pending at last: got %d, %v; want 0", n, err)
		}

		var want []string
		for _, name := range up {
			want = append(want, "apply "+name)
		}
		slices.Reverse(up)
		for _, name := range up {
			want = append(want, "undo "+name)
		}
		if diff := cmp.Diff(want, log); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

func TestStatusTellsWhatIsApplied(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		if err := migrations.Down(t.Context(), db.Bun(), silent); err != nil {
			t.Fatal(err)
		}
		all, err := migrations.Status(t.Context(), db.Bun())
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, m := range all {
			got = append(got, fmt.Sprintf("%s applied=%v known=%v", m.Name, !m.AppliedAt.IsZero(), m.Known))
		}
		up := names(t, db.Dialect())
		for i, name := range up {
			want = append(want, fmt.Sprintf("%s applied=%v known=true", name, i < len(up)-1))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestADatabaseThatIsNewerIsLeftAlone(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ctx := t.Context()
		_, err := db.Bun().NewRaw("INSERT INTO bun_migrations (name, group_id) VALUES ('9999_future', 9)").Exec(ctx)
		if err != nil {
			t.Fatal(err)
		}
		before := schema(t, db.Bun(), db.Dialect())
		if _, err := migrations.Pending(ctx, db.Bun()); !errors.Is(err, migrations.ErrNewer) {
			t.Errorf("Pending: got %v", err)
		}
		if err := migrations.Up(ctx, db.Bun(), silent); !errors.Is(err, migrations.ErrNewer) {
			t.Errorf("Up: got %v", err)
		}
		if err := migrations.Down(ctx, db.Bun(), silent); !errors.Is(err, migrations.ErrNewer) {
			t.Errorf("Down: got %v", err)
		}
		if diff := cmp.Diff(before, schema(t, db.Bun(), db.Dialect())); diff != "" {
			t.Errorf("the schema changed:\n%s", diff)
		}
		all, err := migrations.Status(ctx, db.Bun())
		if err != nil {
			t.Fatal(err)
		}
		last := all[len(all)-1]
		if last.Name != "9999_future" || last.Known || last.AppliedAt.IsZero() {
			t.Errorf("Status ends with %+v", last)
		}
	})
}

func TestOfManyRunsOneDoesTheWork(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, url string) {
		// Several programs, and in one of them more runs than the pool has connections.
		shared := open(t, url)
		var runs []*models.DB
		for range 8 {
			runs = append(runs, open(t, url))
		}
		for range 12 {
			runs = append(runs, shared)
		}
		var (
			mu   sync.Mutex
			log  []string
			done sync.WaitGroup
		)
		start := make(chan struct{})
		for _, db := range runs {
			done.Go(func() {
				<-start
				err := migrations.Up(t.Context(), db.Bun(), func(line string) {
					mu.Lock()
					defer mu.Unlock()
					log = append(log, line)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		done.Wait()
		var want []string
		for _, name := range names(t, shared.Dialect()) {
			want = append(want, "apply "+name)
		}
		if diff := cmp.Diff(want, log); diff != "" {
			t.Errorf("the log of all runs (-want +got):\n%s", diff)
		}
	})
}

func TestARunThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, url string) {
		db := open(t, url)
		ctx, cancel := context.WithCancel(t.Context())
		err := migrations.Up(ctx, db.Bun(), func(line string) {
			if strings.Contains(line, "0005") {
				cancel()
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		if left := schema(t, db.Bun(), db.Dialect()); len(left) != 0 {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		if err := migrations.Up(t.Context(), db.Bun(), silent); err != nil {
			t.Errorf("the next run: %v", err)
		}
	})
}

func TestForeignKeysHoldAfterARun(t *testing.T) {
	t.Parallel()
	db := open(t, modelstest.EmptyURL(t, models.SQLite))
	if err := migrations.Up(t.Context(), db.Bun(), silent); err != nil {
		t.Fatal(err)
	}
	var on int
	if err := db.Bun().NewRaw("PRAGMA foreign_keys").Scan(t.Context(), &on); err != nil || on != 1 {
		t.Errorf("PRAGMA foreign_keys: got %d, %v; want 1", on, err)
	}
}

// Foreign keys are off during a run, so what they would have said is asked at
// its end.
func TestARunRefusesBrokenReferences(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	if err := migrations.Down(t.Context(), db.Bun(), silent); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"PRAGMA foreign_keys = OFF",
		"INSERT INTO chats (user_id, title, created_at, active_at) VALUES (7, '', '', '')",
	} {
		if _, err := db.Bun().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	err := migrations.Up(t.Context(), db.Bun(), silent)
	const want = "rows of chats refer to rows of users that do not exist"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if n, err := migrations.Pending(t.Context(), db.Bun()); n != 1 || err != nil {
		t.Errorf("pending: got %d, %v; want 1", n, err)
	}
}

// lockHolderURL makes this test binary another program, which begins to migrate
// that database and never gets further than the second change.
const lockHolderURL = "PARLEY_TEST_LOCK_HOLDER_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(lockHolderURL); url != "" {
		holdLock(url)
	}
	os.Exit(m.Run())
}

func holdLock(url string) {
	db, err := models.Open(context.Background(), url)
	if err != nil {
		panic(err)
	}
	first := true
	err = migrations.Up(context.Background(), db.Bun(), func(line string) {
		if first {
			first = false
			return
		}
		fmt.Println(line)
		time.Sleep(time.Hour)
	})
	panic(err)
}

func TestAKilledRunBlocksNobody(t *testing.T) {
	t.Parallel()
	eachEmpty(t, func(t *testing.T, url string) {
		program, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		holder := exec.Command(program)
		holder.Env = append(os.Environ(), lockHolderURL+"="+url)
		holder.Stderr = os.Stderr
		output, err := holder.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(output).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if got, want := strings.TrimSpace(line), "apply "+names(t, open(t, url).Dialect())[1]; got != want {
			t.Errorf("the holder got to %q, want %q", got, want)
		}
		if err := holder.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = holder.Wait() // says that it was killed

		db := open(t, url)
		if err := migrations.Up(t.Context(), db.Bun(), silent); err != nil {
			t.Fatal(err)
		}
		if n, err := migrations.Pending(t.Context(), db.Bun()); n != 0 || err != nil {
			t.Errorf("pending: got %d, %v; want 0", n, err)
		}
	})
}
