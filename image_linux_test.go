package main_test

import (
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// imageVersion is what the tests build the image's program as.
const imageVersion = "v1.2.3-image"

// buildImage makes the program of the image with the command of the Dockerfile,
// once.
var buildImage = sync.OnceValues(func() (string, error) {
	text, err := os.ReadFile("deploy/Dockerfile")
	if err != nil {
		return "", err
	}
	command := regexp.MustCompile(`(?s)\n    (CGO_ENABLED=0 .*?go build .*? -o )/image/parley \.\n`).FindSubmatch(text)
	if command == nil {
		return "", fs.ErrNotExist
	}
	file := filepath.Join(programs, "parley-image")
	cmd := exec.Command("sh", "-c", string(command[1])+file+" .")
	cmd.Env = append(os.Environ(), "VERSION="+imageVersion, "TARGETOS=linux", "TARGETARCH=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(output), Err: err}
	}
	return file, nil
})

func imageProgram(t *testing.T) string {
	t.Helper()
	file, err := buildImage()
	if err != nil {
		t.Fatalf("the build command of the Dockerfile: %v", err)
	}
	return file
}

func TestTheImageNeedsNothingToRun(t *testing.T) {
	t.Parallel()
	program, err := elf.Open(imageProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	libraries, err := program.ImportedLibraries()
	if err != nil || len(libraries) > 0 {
		t.Errorf("it needs the libraries %v, %v", libraries, err)
	}
	if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("it needs an interpreter")
	}
}

// imageUser is the user of the Dockerfile.
const imageUser = 65532

// A chroot is the program of the image in a root of its own, as a user who is
// nobody in particular.
type chroot struct {
	dir  string
	user *syscall.SysProcAttr
}

// newChroot lays out a root. bare is one that has the program, a folder to be in,
// and nothing else; otherwise it is the image's, with what containers have of /proc
// and /dev.
func newChroot(t *testing.T, bare bool) chroot {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("another root takes root")
		}
		t.Skip("another root takes root")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(imageProgram(t), filepath.Join(dir, "parley")); err != nil {
		t.Fatal(err)
	}
	folder := func(name string, mode fs.FileMode, owner int) {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	folder("data", 0o700, imageUser)
	if !bare {
		folder("tmp", 0o777|fs.ModeSticky, 0)
		folder("dev", 0o755, 0)
		null := filepath.Join(dir, "dev", "null")
		if err := errors.Join(syscall.Mknod(null, syscall.S_IFCHR, 1<<8|3), os.Chmod(null, 0o666)); err != nil {
			t.Fatal(err)
		}
		folder("proc", 0o555, 0)
		if err := syscall.Mount("proc", filepath.Join(dir, "proc"), "proc", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(filepath.Join(dir, "proc"), syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	return chroot{dir: dir, user: &syscall.SysProcAttr{
		Chroot: dir, Credential: &syscall.Credential{Uid: imageUser, Gid: imageUser}, Pdeathsig: syscall.SIGKILL,
	}}
}

// command is the program with these settings, in /data as the image has it.
func (c chroot) command(settings []string, args ...string) *exec.Cmd {
	cmd := exec.Command("/parley", args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/data", settings, c.user
	return cmd
}

// In an empty root there are no time zones, no certificates, no users and no
// names of hosts: all that is there is the program.
func TestTheImageInAnEmptyRoot(t *testing.T) {
	t.Parallel()
	for name, bare := range map[string]bool{"the image's": false, "with the program alone": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newChroot(t, bare)
			if version, err := root.command(nil, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(version), "parley "+imageVersion+"\n") {
				t.Fatalf("version: %v\n%s", err, version)
			}
			settings := []string{"HOST=127.0.0.1", "PORT=0", "LOG_FORMAT=json", "DEMO_TOKEN_DELAY=0s", "PASSWORD_MEMORY_KIB=64", "PASSWORD_TIME=1"}
			s := startCommand(t, root.command(settings))
			health := root.command([]string{"HOST=127.0.0.1", portOf(t, s)}, "healthcheck")
			if output, err := health.CombinedOutput(); err != nil {
				t.Errorf("healthcheck: %v\n%s", err, output)
			}
			you := signUp(t, s)
			r := you.say(t, s, "I feel lonely")
			r.through()
			r.check(you, s, "complete")
			nobody.ask(t, s, "POST", "/api/v1/auth/login", credentials).want(t, 200)

			// The hashing process is one of its own where a program can find itself.
			if others := children(t, s.cmd.Process.Pid); (len(others) > 0) == bare {
				t.Errorf("it has started %v", others)
			}
			s.signal(t, syscall.SIGTERM)
			if code := s.exitCode(t); code != 0 {
				t.Errorf("it ended with %d", code)
			}
			for _, line := range s.log {
				if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, `"level":"WARN"`) {
					t.Errorf("it complains: %s", line)
				}
			}
			checkLeftovers(t, root.dir)
		})
	}
}

// checkLeftovers checks that all that was written is in /data: elsewhere an image
// may be read-only.
func checkLeftovers(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		inside, rerr := filepath.Rel(dir, path)
		switch {
		case err != nil || rerr != nil:
			return err
		case inside == "data" || inside == "proc" || inside == "dev":
			return fs.SkipDir
		case !entry.IsDir() && inside != "parley":
			t.Errorf("it left %s", inside)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
