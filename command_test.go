package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// ended is how a run of the program ended.
type ended struct {
	Code           int
	Stdout, Stderr string
}

// runParley runs the program with the environment and the arguments given,
// without a .env file, and waits for its end. Where it serves against all
// expectation it is ended.
func runParley(t *testing.T, environ []string, args ...string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, process{args: args, environ: environ, stdout: &stdout, stderr: &stderr})
	return ended{code, stdout.String(), stderr.String()}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args string
		want ended
	}{
		"an unknown command is refused": {
			"dance",
			ended{2, "", "parley: there is no command \"dance\"; see parley --help\n"},
		},
		"an unknown flag is refused": {
			"--dance",
			ended{2, "", "parley: flag provided but not defined: -dance; see parley --help\n"},
		},
		"an unknown flag of a command is refused": {
			"config --dance",
			ended{2, "", "parley config: flag provided but not defined: -dance; see parley config --help\n"},
		},
		"a group of commands asks for one of them": {
			"keys",
			ended{2, "", "parley keys: a further word is needed; see parley keys --help\n"},
		},
		"an unknown command of a group is refused": {
			"migrate sideways",
			ended{2, "", "parley migrate: there is no command \"sideways\"; see parley migrate --help\n"},
		},
		"a word too many is refused": {
			"version 2",
			ended{2, "", "parley version: takes no \"2\"; see parley version --help\n"},
		},
		"help goes to stdout": {
			"healthcheck --help",
			ended{0, `parley healthcheck: ask the service on this machine if it is ready, for containers.

It asks /readyz at HOST and PORT; the exit code is 0 if the answer is 200.

Flags:

  -live
    	ask /livez: is the process there at all
`, ""},
		},
		"help of a group lists its commands": {
			"keys -h",
			ended{0, `parley keys: make, list and rotate the keys that sign tokens.

Commands (each with --help):

  parley keys new      print a new key set
  parley keys list     show the keys that are set, without their private parts
  parley keys rotate   have the key that stands by sign from now on
`, ""},
		},
		"a word that is missing is asked for": {
			"keys rotate",
			ended{2, "", "parley keys rotate: FILE is missing; see parley keys rotate --help\n"},
		},
		"a word too many behind another is refused": {
			"keys rotate keys.json other.json",
			ended{2, "", "parley keys rotate: takes no \"other.json\"; see parley keys rotate --help\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runParley(t, nil, strings.Fields(test.args)...)
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("parley %s (-got +want):\n%s", test.args, diff)
			}
		})
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	var try func(c command, words []string)
	try = func(c command, words []string) {
		got := runParley(t, []string{"PORT=bad settings are no hindrance"}, append(words, "--help")...)
		if got.Code != 0 || got.Stderr != "" || !strings.HasPrefix(got.Stdout, "parley") || !strings.Contains(got.Stdout, c.does) {
			t.Errorf("%v --help: got %+v", words, got)
		}
		for _, sub := range c.sub {
			try(sub, append(words[:len(words):len(words)], sub.name))
		}
	}
	try(parley(), nil)
	if got, want := runParley(t, nil, "help"), runParley(t, nil, "--help"); got != want {
		t.Errorf("parley help: got %+v, want %+v", got, want)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	got := runParley(t, nil, "version")
	if got.Code != 0 || got.Stderr != "" || !strings.HasPrefix(got.Stdout, "parley "+version()+"\n") {
		t.Errorf("got %+v", got)
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "{\n  \"detail\": \"draining\"\n}\n")
		}
	}))
	t.Cleanup(service.Close)
	host, port, err := net.SplitHostPort(service.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ready := "http://" + host + ":" + port + "/readyz"

	for name, test := range map[string]struct {
		environ []string
		args    []string
		want    ended
	}{
		"a process that is there is live": {
			[]string{"HOST=" + host, "PORT=" + port},
			[]string{"--live"},
			ended{0, "", ""},
		},
		"a service on every address is asked on this machine": {
			[]string{"HOST=0.0.0.0", "PORT=" + port},
			[]string{"--live"},
			ended{0, "", ""},
		},
		"a service that is not ready says why": {
			[]string{"HOST=" + host, "PORT=" + port},
			nil,
			ended{1, "", "parley: GET " + ready + ": 503 Service Unavailable { \"detail\": \"draining\" }\n"},
		},
		"settings of no concern may be bad": {
			[]string{"HOST=" + host, "PORT=" + port, "ENV=production", "DATABASE_URL=nonsense"},
			[]string{"--live"},
			ended{0, "", ""},
		},
		"a bad port is told": {
			[]string{"PORT=70000"},
			nil,
			ended{1, "", "parley: PORT: 70000 is not a port; use 0 to 65535\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runParley(t, test.environ, append([]string{"healthcheck"}, test.args...)...)
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}

func TestHealthcheckOfNobody(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	got := runParley(t, []string{"PORT=" + port}, "healthcheck")
	if got.Code != 1 || got.Stdout != "" || !strings.HasPrefix(got.Stderr, "parley: GET http://127.0.0.1:"+port+"/readyz: ") {
		t.Errorf("got %+v", got)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	environ := []string{"DATABASE_URL=sqlite://" + filepath.Join(t.TempDir(), "parley.db")}
	applied := func(status ended) (applied, pending int) {
		for line := range strings.Lines(status.Stdout) {
			switch {
			case strings.HasSuffix(line, "pending\n"):
				pending++
			case strings.HasSuffix(line, "Z\n"):
				applied++
			}
		}
		return applied, pending
	}
	fresh := runParley(t, environ, "migrate", "status")
	done, all := applied(fresh)
	if fresh.Code != 0 || fresh.Stderr != "" || done != 0 || all == 0 {
		t.Fatalf("status of an empty database: got %+v", fresh)
	}
	up := runParley(t, environ, "migrate", "up")
	if up.Code != 0 || up.Stderr != "" || strings.Count(up.Stdout, "apply ") != all {
		t.Errorf("up: got %+v, want %d applied", up, all)
	}
	if got, want := runParley(t, environ, "migrate", "up"), (ended{0, "nothing to apply\n", ""}); got != want {
		t.Errorf("up again: got %+v, want %+v", got, want)
	}
	if down := runParley(t, environ, "migrate", "down"); down.Code != 0 || strings.Count(down.Stdout, "undo ") != 1 {
		t.Errorf("down: got %+v", down)
	}
	if done, pending := applied(runParley(t, environ, "migrate", "status")); done != all-1 || pending != 1 {
		t.Errorf("status: got %d applied and %d pending, want %d and 1", done, pending, all-1)
	}
}

func TestMigrateWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	got := runParley(t, []string{"DATABASE_URL=postgres://u:open-sesame@127.0.0.1:1/x?connect_timeout=1"}, "migrate", "up")
	if got.Code != 1 || got.Stdout != "" || !strings.HasPrefix(got.Stderr, "parley: ") || strings.Contains(got.Stderr, "open-sesame") {
		t.Errorf("got %+v", got)
	}
}

func TestServeUntilTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log, stderr := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, process{
			environ: []string{"PORT=0", "DATABASE_URL=sqlite://" + filepath.Join(t.TempDir(), "parley.db")},
			stdout:  t.Output(),
			stderr:  stderr,
		})
		_ = stderr.Close()
	}()
	listening := false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if !json.Valid(lines.Bytes()) {
			t.Errorf("got a log line that is no JSON: %s", lines.Text())
		}
		if strings.Contains(lines.Text(), `"msg":"listening"`) {
			listening = true
			cancel()
		}
	}
	if got := <-code; got != 0 || !listening {
		t.Errorf("got code %d, listening %t; want 0, true", got, listening)
	}
}
