package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// binaries are the programs that are measured.
type binaries struct {
	parley, bench, folder string
	through               []string // the command that servers are started through
}

// server is a command that runs a server, which keeps the id of the process that
// through is: it must exec.
func (b binaries) server(ctx context.Context, program string, args ...string) *exec.Cmd {
	line := append(slices.Clone(b.through), append([]string{program}, args...)...)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

// build makes Parley's binary; this program is the other one.
func build(ctx context.Context, s settings) (binaries, func(), error) {
	folder, err := os.MkdirTemp("", "parley-bench-")
	if err != nil {
		return binaries{}, nil, err
	}
	b := binaries{parley: filepath.Join(folder, "parley"), folder: folder, through: strings.Fields(s.through)}
	if b.bench, err = os.Executable(); err != nil {
		return binaries{}, nil, err
	}
	out, err := exec.CommandContext(ctx, "go", "build", "-o", b.parley, "parley").CombinedOutput()
	if err != nil {
		return binaries{}, nil, fmt.Errorf("build parley: %w\n%s", err, out)
	}
	return b, func() { os.RemoveAll(folder) }, nil
}

// start runs a program and returns the address that it says it listens on.
func start(cmd *exec.Cmd, address func(line string) string) (string, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return "", err
	}
	lines := bufio.NewScanner(out)
	var said []string
	for lines.Scan() {
		if a := address(lines.Text()); a != "" {
			go func() {
				for lines.Scan() {
					if strings.Contains(lines.Text(), `"level":"ERROR"`) {
						fmt.Fprintln(os.Stderr, lines.Text())
					}
				}
			}()
			return a, nil
		}
		said = append(said, lines.Text())
	}
	return "", fmt.Errorf("%s did not start:\n%s", cmd.Path, strings.Join(said, "\n"))
}

func plain(line string) string { return line }

// listening reads the address from Parley's log line.
func listening(line string) string {
	var entry struct{ Msg, URL string }
	if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "listening" {
		return ""
	}
	return strings.TrimPrefix(entry.URL, "http://")
}

// end stops a process that start started, in order if it can. It may have ended
// by itself.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	killed := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
	defer killed.Stop()
	_ = cmd.Wait()
}

// measure runs one scenario through one server.
func measure(ctx context.Context, what string, bin binaries, s settings, sc scenario) (result, error) {
	server, stop, err := startBoth(ctx, what, bin, s, sc)
	if err != nil {
		return result{}, err
	}
	defer stop()
	return sc.load.run(ctx, server)
}

// A running is a server that listens.
type running struct {
	cmd     *exec.Cmd
	address string
	before  spent    // when nobody had asked it for anything
	headers []string // each account's
	parley  parley   // what it is a replica of
}

// listen starts a server that says where it listens.
func listen(cmd *exec.Cmd, address func(line string) string) (r running, err error) {
	r = running{cmd: cmd, headers: []string{""}}
	if r.address, err = start(cmd, address); err == nil {
		r.before, err = spentBy(cmd.Process.Pid)
	}
	return r, err
}

// startBoth starts a server with a source of its own; stop ends them.
func startBoth(ctx context.Context, what string, bin binaries, s settings, sc scenario) (server running, stop func(), err error) {
	source, err := listen(exec.CommandContext(ctx, bin.bench, "source"), plain)
	if err != nil {
		return running{}, nil, err
	}
	if what == "relay" {
		server, err = startRelay(ctx, bin, s, sc, source.address)
	} else {
		server, err = startParley(ctx, bin, s, sc, source.address)
	}
	if err != nil {
		end(source.cmd)
		return running{}, nil, err
	}
	fmt.Fprintf(os.Stderr, "  %s …\r", what)
	return server, func() { end(server.cmd); end(source.cmd) }, nil
}

func startRelay(ctx context.Context, bin binaries, s settings, sc scenario, backend string) (running, error) {
	args := []string{"relay", "-backend", backend}
	if s.profile != "" {
		args = append(args, "-profile", filepath.Join(s.profile, sc.name+"-relay.prof"))
	}
	return listen(bin.server(ctx, bin.bench, args...), plain)
}

// startParley starts Parley on an empty database, and makes accounts.
func startParley(ctx context.Context, bin binaries, s settings, sc scenario, backend string) (running, error) {
	database := s.database
	if database == "" {
		database = "sqlite://" + filepath.Join(bin.folder, sc.name+".db")
	}
	p, err := newParley(ctx, bin, database, backend)
	if err != nil {
		return running{}, err
	}
	r, err := p.start(ctx)
	if err != nil {
		return running{}, err
	}
	if r.headers, err = signUpAll(ctx, r.address); err != nil {
		end(r.cmd)
	}
	return r, err
}

// A parley is the settings that all of its replicas have.
type parley struct {
	bin      binaries
	database string
	keys     string
	backend  string
}

// newParley makes keys and empties the database.
func newParley(ctx context.Context, bin binaries, database, backend string) (parley, error) {
	keys, err := exec.CommandContext(ctx, bin.parley, "keys", "new").Output()
	if err != nil {
		return parley{}, fmt.Errorf("parley keys new: %w", err)
	}
	return parley{bin, database, string(keys), backend}, empty(ctx, bin, database)
}

// start starts a replica.
func (p parley) start(ctx context.Context) (running, error) {
	host, port, err := net.SplitHostPort(p.backend)
	if err != nil {
		return running{}, err
	}
	cmd := p.bin.server(ctx, p.bin.parley)
	cmd.Dir = p.bin.folder
	cmd.Env = append(os.Environ(), "PORT=0", "LOG_FORMAT=json", "LOG_LEVEL=info", "DATABASE_URL="+p.database, "JWT_KEYS="+p.keys,
		"AI_PROVIDER=grpc", "GRPC_AI_BACKEND_HOST="+host, "GRPC_AI_BACKEND_PORT="+port, "DRAIN_TIMEOUT=1s")
	r, err := listen(cmd, listening)
	r.parley = p
	return r, err
}

// signUpAll makes the accounts and returns a header for each.
func signUpAll(ctx context.Context, address string) (headers []string, err error) {
	for range accounts {
		token, err := signUp(ctx, address)
		if err != nil {
			return nil, err
		}
		headers = append(headers, "Authorization: Bearer "+token+"\r\n")
	}
	return headers, nil
}

// accounts is how many users the streams belong to.
const accounts = 40

// empty undoes every migration: what another load has left running would be
// taken over and measured.
func empty(ctx context.Context, bin binaries, database string) error {
	for {
		cmd := exec.CommandContext(ctx, bin.parley, "migrate", "down")
		cmd.Dir = bin.folder
		cmd.Env = append(os.Environ(), "DATABASE_URL="+database)
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "no migration to undo") {
			return nil
		}
		if err != nil {
			return fmt.Errorf("parley migrate down: %w: %s", err, out)
		}
	}
}

// password is that of every account.
const password = "correct horse battery"

// signUp makes an account and returns its access token.
func signUp(ctx context.Context, address string) (string, error) {
	return enter(ctx, address, "signup", fmt.Sprintf("bench-%d@example.com", time.Now().UnixNano()))
}

// A refusal is an answer other than that which was asked for.
type refusal struct {
	what, detail string
	comeBack     time.Duration // after which the client is told to try again; 0: it is not
}

func (r *refusal) Error() string { return r.what + ": " + r.detail }

// enter signs up or in, and returns the access token, or a *refusal.
func enter(ctx context.Context, address, how, email string) (string, error) {
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/api/v1/auth/"+how, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var out struct {
		AccessToken string `json:"access_token"`
		Detail      string `json:"detail"`
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return "", err
	}
	if out.AccessToken == "" {
		after, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return "", &refusal{what: how, detail: out.Detail, comeBack: time.Duration(after) * time.Second}
	}
	return out.AccessToken, nil
}

// usage is what a process has used so far.
type spent struct {
	cpu time.Duration
	rss int64 // bytes, now
}

// spentBy reads /proc; the kernel counts time in hundredths of a second.
func spentBy(pid int) (spent, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return spent{}, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return spent{}, err
		}
		ticks += n
	}
	pages, err := strconv.ParseInt(fields[21], 10, 64)
	if err != nil {
		return spent{}, err
	}
	return spent{
		cpu: time.Duration(ticks) * 10 * time.Millisecond,
		rss: pages * int64(os.Getpagesize()),
	}, nil
}
