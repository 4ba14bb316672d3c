package main_test

import (
	"encoding/json"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

// A start that fails says on stderr, apart from its log, one line for each
// thing that is wrong.
func TestAStartThatFails(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "parley.db")
	missing := filepath.Join(t.TempDir(), "missing", "parley.db")
	const howToMakeKeys = "make a set, (umask 077; parley keys new > keys.json), and set JWT_KEYS_FILE=keys.json"

	for name, test := range map[string]struct {
		settings []string
		want     []string
	}{
		"one setting that is bad": {
			[]string{"PORT=http"},
			[]string{`PORT: "http" is not a whole number in range; write one such as 8080`},
		},
		"several settings that are bad": {
			[]string{"AI_PROVIDER=grpc", "GRPC_AI_BACKEND_PORT=0", "GRPC_AI_BACKEND_TOKEN=open sesame", "DRAIN_TIMEOUT=soon", "JWT_KEYS={}"},
			[]string{
				`JWT_KEYS: key set: keys is missing`,
				`GRPC_AI_BACKEND_PORT: 0 is not a port; use 1 to 65535`,
				`GRPC_AI_BACKEND_TOKEN: holds a space, or what is no printable ASCII`,
				`DRAIN_TIMEOUT: "soon" is not a duration; write one such as 20s`,
			},
		},
		"production without what it asks for": {
			[]string{"ENV=production", "CORS_ORIGINS=*"},
			[]string{
				`PUBLIC_URL: is not set, and ENV=production asks for it; give the address that clients use, such as https://chat.example.org`,
				`JWT_KEYS_FILE: is not set, and ENV=production signs with no key that was made up at start; ` + howToMakeKeys,
				`CORS_ORIGINS: * lets every page on the web call the API, which ENV=production refuses; name the origins`,
				`SMTP_URL: is not set, and ENV=production writes no mail to the log; give the mail server, such as smtp://user:password@smtp.example.org:587`,
			},
		},
		"PostgreSQL without keys": {
			[]string{"DATABASE_URL=postgres://db.example.org/parley"},
			[]string{`JWT_KEYS_FILE: is not set, and replicas on PostgreSQL must share their keys; ` + howToMakeKeys},
		},
		"a port that is taken": {
			[]string{"DATABASE_URL=sqlite://" + file, "PORT=" + port},
			[]string{"cannot listen; set HOST and PORT: listen tcp 127.0.0.1:" + port + ": bind: address already in use"},
		},
		"a database in a folder that is not there": {
			[]string{"DATABASE_URL=sqlite://" + missing},
			[]string{"DATABASE_URL: database file " + missing + ": its folder does not exist"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(t, append([]string{"LOG_FORMAT=json"}, test.settings...))
			if diff := cmp.Diff(complaints(got.Stderr), test.want); got.Code != 1 || diff != "" {
				t.Errorf("got exit code %d, want 1, and complaints (-got +want):\n%s", got.Code, diff)
			}
		})
	}
}

// What PostgreSQL says is its own; that it is said once, on one line, and
// without the password, is ours.
func TestAStartWithoutItsPostgreSQL(t *testing.T) {
	t.Parallel()
	there, err := url.Parse(modelstest.URL(t, models.Postgres))
	if err != nil {
		t.Fatal(err)
	}
	there.Path = "/nobody_made_this"
	for name, test := range map[string]struct{ url, reason string }{
		"a server that is not there":   {"postgres://parley:open-sesame@127.0.0.1:1/parley", "connection refused"},
		"a database that is not there": {there.String(), `database "nobody_made_this" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(t, withKeys(t, models.Postgres, test.url))
			lines := complaints(got.Stderr)
			if got.Code != 1 || len(lines) != 1 || !strings.HasPrefix(lines[0], "DATABASE_URL: database unavailable: ") ||
				strings.Count(lines[0], test.reason) != 1 || strings.Contains(got.Stderr, "open-sesame") {
				t.Errorf("got %+v, want one line with %q", got, test.reason)
			}
		})
	}
}

// complaints are the lines that are no log.
func complaints(stderr string) []string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if !json.Valid([]byte(line)) {
			lines = append(lines, strings.TrimSuffix(strings.TrimPrefix(line, "parley: "), "\n"))
		}
	}
	return lines
}

func TestMigrationsByHand(t *testing.T) {
	t.Parallel()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			settings := withKeys(t, dialect, modelstest.EmptyURL(t, dialect))
			migrate := func(what string) []string {
				t.Helper()
				got := run(t, settings, "migrate", what)
				if got.Code != 0 || got.Stderr != "" {
					t.Fatalf("migrate %s: got %+v", what, got)
				}
				return strings.Split(strings.TrimSpace(got.Stdout), "\n")
			}
			pending := func() (n int) {
				for _, line := range migrate("status")[1:] {
					if strings.HasSuffix(line, "pending") {
						n++
					}
				}
				return n
			}
			all := pending()
			s := start(t, with(settings, "MIGRATE_ON_START=false")...)
			checkReady(t, s, 503, migrationsPending(all))

			if up := migrate("up"); len(up) != all || pending() != 0 {
				t.Errorf("up: got %q, want %d lines, and nothing pending", up, all)
			}
			checkReady(t, s, 200, "ok")
			signUp(t, s)

			if down := migrate("down"); len(down) != 1 || pending() != 1 {
				t.Errorf("down: got %q, want one line, and one pending", down)
			}
			checkReady(t, s, 503, migrationsPending(1))
		})
	}
}

func TestAStartMigrates(t *testing.T) {
	t.Parallel()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			settings := withKeys(t, dialect, modelstest.EmptyURL(t, dialect))
			s := start(t, settings...)
			checkReady(t, s, 200, "ok")
			s.signal(t, syscall.SIGINT)
			if got := s.exitCode(t); got != 0 {
				t.Errorf("after SIGINT: got exit code %d, want 0", got)
			}
			if got := run(t, with(settings, portOf(t, s)), "healthcheck"); got.Code != 1 {
				t.Errorf("the health of nobody: got %+v, want exit code 1", got)
			}
		})
	}
}

// checkReady waits until /readyz says that of the migrations, and looks what a
// container's health check makes of it.
func checkReady(t *testing.T, s *service, status int, migrations string) {
	t.Helper()
	eventually(t, "/readyz says "+migrations, func() bool {
		var ready struct{ Checks map[string]string }
		got := nobody.ask(t, s, "GET", "/readyz", "")
		got.decode(t, &ready)
		return got.status == status && ready.Checks["migrations"] == migrations
	})
	want := 0
	if status != 200 {
		want = 1
	}
	eventually(t, "healthcheck says so too", func() bool {
		got := run(t, []string{portOf(t, s)}, "healthcheck")
		return got.Code == want && (got.Stderr == "") == (want == 0)
	})
}

// portOf is the setting of the port that s listens on.
func portOf(t *testing.T, s *service) string {
	t.Helper()
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	return "PORT=" + u.Port()
}

func migrationsPending(n int) string { return strconv.Itoa(n) + " pending" }
