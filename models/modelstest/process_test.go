//go:build unix

package modelstest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/models"
	"parley/models/modelstest"
)

// asServer makes this test binary another program: it starts what the tests of a
// package start, tells where it is, and does nothing until it is killed.
const asServer = "PARLEY_TEST_AS_SERVER"

func TestServer(t *testing.T) {
	if os.Getenv(asServer) == "" {
		return
	}
	for _, url := range []string{modelstest.URL(t, models.Postgres), modelstest.PooledURL(t)} {
		fmt.Println("server in " + socketDir(t, url))
	}
	time.Sleep(time.Hour)
}

func socketDir(t *testing.T, url string) string {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return config.Host
}

func TestNothingOutlivesAKilledProcess(t *testing.T) {
	t.Parallel()
	modelstest.PooledURL(t) // or there is nothing to test
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(program, "-test.run=^TestServer$", "-test.v")
	process.Env = append(os.Environ(), asServer+"=1")
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	locks := map[string]*os.File{}
	for lines := bufio.NewScanner(output); len(locks) < 2 && lines.Scan(); {
		if _, dir, ok := strings.Cut(lines.Text(), "server in "); ok {
			lock, err := os.Open(filepath.Join(dir, "lock"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = lock.Close() })
			locks[dir] = lock
		}
	}
	if len(locks) != 2 {
		t.Errorf("%d servers started, want 2", len(locks))
	}
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait() // says that it was killed
	for dir, lock := range locks {
		// Every process of the server has the lock, so this waits for all of them.
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}
