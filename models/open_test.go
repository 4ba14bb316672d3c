package models_test

import (
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tests := map[string]struct{ url, want string }{
		"no scheme":              {"parley.db", "database URL: want sqlite://path or postgres://…"},
		"another scheme":         {"mysql://localhost/parley", `database URL: unknown scheme "mysql", want sqlite or postgres`},
		"no path":                {"sqlite://", "database URL: sqlite:// needs the path of a file"},
		"a database in memory":   {"sqlite://:memory:", "database URL: sqlite:// needs the path of a file"},
		"options after a path":   {"sqlite://x.db?mode=ro", "database URL: sqlite:// takes a path and no options"},
		"a path with a NUL":      {"sqlite://x%00.db", "database URL: sqlite:// needs the path of a file"},
		"a broken escape":        {"sqlite://100%.db", `database URL: invalid URL escape "%.d"`},
		"a folder that is not":   {"sqlite://" + dir + "/no/x.db", "database file " + dir + "/no/x.db: its folder does not exist"},
		"a folder as the file":   {"sqlite://" + dir, "database file: open " + dir + ": is a directory"},
		"a pool of no size":      {"postgres://u:secret@h/d?pool_max_conns=0", "database URL: pool_max_conns must be a positive number"},
		"a pool of a wrong size": {"postgres://u:secret@h/d?pool_max_conns=x", "database URL: pool_max_conns must be a positive number"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := models.Open(t.Context(), test.url)
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
	t.Run("a malformed URL, without telling the password", func(t *testing.T) {
		t.Parallel()
		_, err := models.Open(t.Context(), "postgres://u:secret@h:port/d")
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	})
}

func TestOpenOfADatabaseThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	// Takes connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	text := filepath.Join(t.TempDir(), "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("This is no database. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, url := range map[string]string{
		"nobody listens":       "postgres://u:secret@" + closed.Addr().String() + "/d",
		"the server is silent": "postgres://u:secret@" + silent.Addr().String() + "/d?connect_timeout=1",
		"no socket":            "postgres:///d?user=u&password=secret&host=" + t.TempDir(),
		"another kind of file": "sqlite://" + text,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := models.Open(t.Context(), url)
			if !errors.Is(err, models.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
	}
}

func TestEverySQLiteConnectionIsSetUp(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	for name, pool := range db.Pools() {
		// All connections of the pool at once, so that none is seen twice.
		size := pool.Stats().MaxOpenConnections
		if size < 1 {
			t.Fatalf("the %s pool has no limit", name)
		}
		want := map[string]string{
			"foreign_keys": "1", "journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000",
			"query_only": map[string]string{"read": "1", "write": "0"}[name],
		}
		for range size {
			conn, err := pool.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			got := map[string]string{}
			for pragma := range want {
				var value string
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&value); err != nil {
					t.Fatal(err)
				}
				got[pragma] = value
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the %s pool (-want +got):\n%s", name, diff)
			}
		}
	}
	if size := db.Pools()["write"].Stats().MaxOpenConnections; size != 1 {
		t.Errorf("%d writers, want 1", size)
	}
}

func TestSQLiteFilesAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a b?#%41.db") // also: no character of a path is special
	escaped := strings.NewReplacer("?", "%3F", "#", "%23", "%", "%25").Replace(path)
	db, err := models.Open(t.Context(), "sqlite://"+escaped)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Bun().ExecContext(t.Context(), "CREATE TABLE t (x)"); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Error(err)
			continue
		}
		if got, want := info.Mode(), os.FileMode(0o600); got != want {
			t.Errorf("%s: mode %v, want %v", filepath.Base(path+suffix), got, want)
		}
	}
}

func TestEveryPostgresConnectionIsSetUp(t *testing.T) {
	t.Parallel()
	url := modelstest.URL(t, models.Postgres)
	for name, test := range map[string]struct {
		option string
		conns  int
	}{
		"ten connections unless told": {"", 10},
		"as many as it is told":       {"&pool_max_conns=3", 3},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := models.Open(t.Context(), url+test.option)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if db.Pools()["read"] != db.Pools()["write"] {
				t.Error("reads and writes have pools of their own")
			}
			if got := db.Pools()["read"].Stats().MaxOpenConnections; got != test.conns {
				t.Errorf("%d connections, want %d", got, test.conns)
			}
			got := map[string]string{}
			want := map[string]string{"standard_conforming_strings": "on", "client_encoding": "UTF8", "TimeZone": "UTC"}
			for param := range want {
				var value string
				if err := db.Read().NewRaw("SHOW "+param).Scan(t.Context(), &value); err != nil {
					t.Fatal(err)
				}
				got[param] = value
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			var prepared int
			if err := db.Read().NewRaw("SELECT count(*) FROM pg_prepared_statements").Scan(t.Context(), &prepared); err != nil || prepared != 0 {
				t.Errorf("prepared statements: got %d, %v; want 0", prepared, err)
			}
		})
	}
}

// A database may have been told to read backslashes as escapes: bun would then
// write strings that can be broken out of.
func TestBackslashesAreNoEscapes(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		want := `\' OR 1=1 --` + "\\"
		if db.Dialect() == models.Postgres {
			_, err := db.Bun().ExecContext(t.Context(), `DO $$ BEGIN
				EXECUTE format('ALTER DATABASE %I SET standard_conforming_strings = off', current_database()); END $$`)
			if err != nil {
				t.Fatal(err)
			}
			db.Pools()["write"].SetMaxIdleConns(0) // what follows connects anew
		}
		var got string
		if err := db.Read().NewRaw("SELECT ?", want).Scan(t.Context(), &got); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	})
}

func TestTimesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for _, want := range []time.Time{
			time.Date(2026, 11, 21, 21, 3, 4, 567891000, time.UTC),
			time.Date(2026, 11, 21, 21, 3, 4, 500000000, time.UTC),
			time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		} {
			var got sql.NullTime
			ctx := t.Context()
			_, err := db.Bun().NewRaw("INSERT INTO replicas (id, lease_until, started_at) VALUES ('a', ?, ?)", want, want).Exec(ctx)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Read().NewRaw("SELECT lease_until FROM replicas WHERE lease_until = ?", want).Scan(ctx, &got)
			if err != nil || !got.Time.Equal(want) {
				t.Errorf("got %v, %v; want %v", got.Time, err, want)
			}
			if _, offset := got.Time.Zone(); offset != 0 {
				t.Errorf("got an offset of %d s", offset)
			}
			if _, err := db.Bun().NewRaw("DELETE FROM replicas").Exec(ctx); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestOpenOfOneFreshFileByMany(t *testing.T) {
	t.Parallel()
	url := "sqlite://" + filepath.Join(t.TempDir(), "parley.db")
	errs := make(chan error)
	const openers = 16
	for range openers {
		go func() {
			db, err := models.Open(t.Context(), url)
			if err == nil {
				err = db.Close()
			}
			errs <- err
		}()
	}
	for range openers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
