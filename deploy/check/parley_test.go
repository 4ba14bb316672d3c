package check_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// root is where Parley's own module is.
const root = "../.."

// afterwards is what an ending process may still do once DRAIN_TIMEOUT is over:
// save what is left, let go of it and of its clients, with a database that is slow.
const afterwards = 24 * time.Second

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parley is the program, built once.
var parley = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "parley-check-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "parley")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", file, ".")
	cmd.Dir = root
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: string(output), Err: err}
	}
	return file, nil
})

func TestMain(m *testing.M) {
	m.Run()
	if file, err := parley(); err == nil {
		_ = os.RemoveAll(filepath.Dir(file))
	}
}

// run runs the program with these settings alone.
func run(t *testing.T, settings map[string]string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	file, err := parley()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), file, args...)
	cmd.Dir, cmd.Env = t.TempDir(), []string{}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	return out.String(), complaints.String(), err
}

var settingRow = regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\| (?:`([^`]*)`)?")

// defaults are the settings of the program, with what they are where they are not
// set.
func defaults(t *testing.T) map[string]string {
	t.Helper()
	table, _, err := run(t, nil, "config", "--markdown")
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for _, row := range settingRow.FindAllStringSubmatch(table, -1) {
		values[row[1]] = row[2]
	}
	if values["DRAIN_TIMEOUT"] == "" || values["PORT"] == "" {
		t.Fatalf("these are no settings: %v", values)
	}
	return values
}

// notSettings are variables that the Go runtime reads.
var notSettings = []string{"GOMEMLIMIT", "GOMAXPROCS"}

// accepts checks that Parley knows all of the settings, and would start with them.
func accepts(t *testing.T, settings map[string]string) {
	t.Helper()
	known := defaults(t)
	keys := filepath.Join(t.TempDir(), "keys.json")
	set, _, err := run(t, nil, "keys", "new")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	given := make(map[string]string)
	for name, value := range settings {
		if _, ok := known[name]; !ok && !slices.Contains(notSettings, name) {
			t.Errorf("%s is no setting", name)
		}
		if name == "JWT_KEYS_FILE" {
			value = keys // there is no other one on this machine
		}
		given[name] = value
	}
	if _, complaints, err := run(t, given, "config"); err != nil {
		t.Errorf("Parley would not start: %v\n%s", err, complaints)
	}
}

// drain is DRAIN_TIMEOUT under these settings.
func drain(t *testing.T, settings map[string]string) time.Duration {
	t.Helper()
	value := settings["DRAIN_TIMEOUT"]
	if value == "" {
		value = defaults(t)["DRAIN_TIMEOUT"]
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkGrace checks that a platform waits for long enough before it kills.
func checkGrace(t *testing.T, grace time.Duration, settings map[string]string, before time.Duration) {
	t.Helper()
	if least := before + drain(t, settings) + afterwards; grace < least {
		t.Errorf("it is killed after %v, and may take %v to end", grace, least)
	}
}

// checkMemory checks that the runtime keeps below the limit of the container, in
// bytes, and not far below.
func checkMemory(t *testing.T, settings map[string]string, limit int64) {
	t.Helper()
	number, ok := strings.CutSuffix(settings["GOMEMLIMIT"], "MiB")
	mib, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil {
		t.Errorf("GOMEMLIMIT is %q, want a number of MiB", settings["GOMEMLIMIT"])
	}
	if part := float64(mib<<20) / float64(limit); part < 0.8 || part > 0.92 {
		t.Errorf("GOMEMLIMIT is %.2f of the container's limit, want about nine tenths", part)
	}
}

// pinned matches an image that names a version down to its last number.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+(\.\d+){1,2}(-[a-z0-9.]+)?$`)
