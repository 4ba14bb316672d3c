//go:build unix

package modelstest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// template is the migrated database that those of the tests are copies of.
const template = "parley_template"

// server is a running PostgreSQL, reached by a Unix socket alone.
type server struct {
	dir       string
	alive     *os.File // closed by the end of this process
	databases atomic.Int64
}

// errNoPrograms: PostgreSQL is not installed.
var errNoPrograms = errors.New("PostgreSQL's programs initdb and postgres are not installed")

// startOnce starts the server of this process.
var startOnce = sync.OnceValues(start)

func cluster(tb testing.TB) *server {
	tb.Helper()
	s, err := startOnce()
	switch {
	case errors.Is(err, errNoPrograms) && os.Getenv("CI") == "":
		tb.Skipf("modelstest: %v", err)
	case err != nil:
		tb.Fatalf("modelstest: %v", err)
	}
	return s
}

// database copies from under a new name, drops it after the test, and returns
// its URL.
func (s *server) database(tb testing.TB, from string) string {
	tb.Helper()
	name := fmt.Sprintf("test_%d", s.databases.Add(1))
	if err := s.exec("CREATE DATABASE " + name + " TEMPLATE " + from); err != nil {
		tb.Fatalf("modelstest: %v", err)
	}
	tb.Cleanup(func() {
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			tb.Errorf("modelstest: %v", err)
		}
	})
	return s.url(name)
}

func (s *server) url(database string) string { return socketURL(s.dir, database) }

// socketURL is the URL of a database of the server whose socket is in dir.
func socketURL(dir, database string) string {
	return "postgres:///" + database + "?user=parley&port=5432&host=" + url.QueryEscape(dir)
}

// exec runs a statement as the superuser.
func (s *server) exec(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// start makes a server in a folder of its own and waits until it answers.
func start() (*server, error) {
	initdb, postgres, err := programs()
	if err != nil {
		return nil, err
	}
	f, err := newFolder()
	if err != nil {
		return nil, err
	}
	err = f.run(initdb, "--pgdata="+filepath.Join(f.path, "data"), "--username=parley",
		"--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.path))
	}
	s := &server{dir: f.path}
	if s.alive, err = f.serve(serverCommand(postgres, f.path)...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.path))
	}
	if err := f.await(func() error { return s.exec("SELECT 1") }); err != nil {
		return nil, err
	}
	if err := s.exec("CREATE DATABASE " + template + " TEMPLATE template0"); err != nil {
		return nil, err
	}
	if err := migrate(s.url(template)); err != nil {
		return nil, fmt.Errorf("migrate the template: %w", err)
	}
	return s, nil
}

// programs finds initdb and postgres in the PATH or where Debian has them.
func programs() (initdb, postgres string, err error) {
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", "", err
	}
	slices.SortFunc(folders, func(a, b string) int { return versionIn(b) - versionIn(a) })
	folders = append(filepath.SplitList(os.Getenv("PATH")), folders...)
	for _, folder := range folders {
		initdb, postgres := filepath.Join(folder, "initdb"), filepath.Join(folder, "postgres")
		if isProgram(initdb) && isProgram(postgres) {
			return initdb, postgres, nil
		}
	}
	return "", "", errNoPrograms
}

// versionIn is the number in /usr/lib/postgresql/15/bin.
func versionIn(folder string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
	return n
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// serverCommand is for many small databases that need not survive anything.
func serverCommand(postgres, dir string) []string {
	command := []string{postgres, "-D", filepath.Join(dir, "data"), "-k", dir}
	for _, setting := range []string{
		"listen_addresses=", "port=5432", "max_connections=400", "shared_buffers=64MB",
		"fsync=off", "full_page_writes=off", "synchronous_commit=off",
		"wal_level=minimal", "max_wal_senders=0", "max_wal_size=512MB",
		"deadlock_timeout=100ms", "jit=off", "autovacuum=off", "log_min_messages=fatal",
	} {
		command = append(command, "-c", setting)
	}
	return command
}
