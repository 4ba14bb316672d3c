//go:build unix

package modelstest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// pooler is a running PgBouncer in front of the server of this process.
type pooler struct {
	dir   string
	alive *os.File // closed by the end of this process
}

// errNoPooler: PgBouncer is not installed.
var errNoPooler = errors.New("PgBouncer is not installed")

// startPoolerOnce starts the pooler of this process.
var startPoolerOnce = sync.OnceValues(startPooler)

// pooled is the URL of the same database behind the pooler.
func pooled(tb testing.TB, direct string) string {
	tb.Helper()
	p, err := startPoolerOnce()
	switch {
	case errors.Is(err, errNoPooler) && os.Getenv("CI") == "":
		tb.Skipf("modelstest: %v", err)
	case err != nil:
		tb.Fatalf("modelstest: %v", err)
	}
	config, err := pgx.ParseConfig(direct)
	if err != nil {
		tb.Fatalf("modelstest: %v", err)
	}
	return p.url(config.Database)
}

func (p *pooler) url(database string) string {
	return socketURL(p.dir, database)
}

func startPooler() (*pooler, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // where Debian has it, and root alone looks
	}
	if !isProgram(program) {
		return nil, errNoPooler
	}
	s, err := startOnce()
	if err != nil {
		return nil, err
	}
	f, err := newFolder()
	if err != nil {
		return nil, err
	}
	settings := filepath.Join(f.path, "pgbouncer.ini")
	// Startup parameters that it does not know are refused, as they are by default.
	err = os.WriteFile(settings, []byte(`[databases]
* = host=`+s.dir+` user=parley
[pgbouncer]
listen_addr =
listen_port = 5432
unix_socket_dir = `+f.path+`
auth_type = any
pool_mode = transaction
default_pool_size = 2
max_client_conn = 500
query_wait_timeout = 10
`), 0o644)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.path))
	}
	p := &pooler{dir: f.path}
	if p.alive, err = f.serve(program, settings); err != nil {
		return nil, errors.Join(err, os.RemoveAll(f.path))
	}
	return p, f.await(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, p.url("postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}
