//go:build unix

package modelstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	// dirPrefix names the folders of the servers, so that a later run can find
	// those that were left behind.
	dirPrefix = "parley-pg-"
	// maxSocketDir leaves room for the file's name in the 103 bytes that a
	// Unix socket's path may have.
	maxSocketDir = 80
)

// folder is where one server keeps its files and its socket.
type folder struct {
	path  string
	owner *syscall.Credential // the account that the server runs as; nil: our own
	lock  *os.File            // locked until the last process that has it is gone
}

// newFolder makes a folder for a server, and removes those of servers that are gone.
func newFolder() (*folder, error) {
	owner, err := serverOwner()
	if err != nil {
		return nil, err
	}
	base := temporary()
	if len(base)+len(dirPrefix)+10 > maxSocketDir || (owner != nil && !isOpenToAll(base)) {
		base = "/tmp"
	}
	removeStale(base)
	path, err := os.MkdirTemp(base, dirPrefix)
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	if owner != nil {
		err = os.Chown(path, int(owner.Uid), int(owner.Gid))
	}
	return &folder{path, owner, lock}, err
}

// isOpenToAll says if every account can get to a folder.
func isOpenToAll(path string) bool {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&0o001 == 0 {
		return false
	}
	parent := filepath.Dir(path)
	return parent == path || isOpenToAll(parent)
}

// serverOwner is the account that servers run as, nil for our own: they refuse
// to run as root.
func serverOwner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// removeStale removes what servers left that could not tidy up: the machine
// went down, say.
func removeStale(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, dirPrefix+"*"))
	for _, dir := range dirs {
		// A young one may not have its lock yet.
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < 10*time.Minute {
			continue
		}
		lock, err := os.Open(filepath.Join(dir, "lock"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			_ = os.RemoveAll(dir)
		case err == nil:
			if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				_ = os.RemoveAll(dir)
			}
			_ = lock.Close()
		}
	}
}

// run runs a program to its end, as the owner.
func (f *folder) run(program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Dir = f.path
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: f.owner}
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, output)
	}
	return nil
}

// watchdog runs a server and reads a pipe whose other end this process holds
// and never writes to: the read ends when this process does. Its arguments are
// the folder and the server's command line. PostgreSQL ends at once by SIGQUIT,
// PgBouncer, which may ignore that, by SIGTERM.
const watchdog = `
dir=$1; shift
"$@" </dev/null &
server=$!
cat >/dev/null
kill -QUIT $server
kill -TERM $server
wait $server
cd / && rm -rf "$dir"
`

// serve starts a server as the owner, in a process group of its own so that
// Ctrl-C on a terminal does not reach it. It runs until the file that is returned
// is closed, by the end of this process at the latest, and takes the folder
// along.
func (f *folder) serve(command ...string) (alive *os.File, err error) {
	defer f.lock.Close() // the server has it too
	output, err := os.Create(filepath.Join(f.path, "log"))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	read, alive, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", watchdog, "sh", f.path}, command...)...)
	cmd.Dir = f.path
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, output, output
	cmd.ExtraFiles = []*os.File{f.lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: f.owner, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, alive.Close())
	}
	return alive, nil
}

// await asks until the server answers, and gives up when that takes too long.
func (f *folder) await(ask func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			output, _ := os.ReadFile(filepath.Join(f.path, "log"))
			return fmt.Errorf("the server does not start: %w\n%s", err, output)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
