package main_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"parley/models"
)

// proxies are the programs that deploy has a file for, with what runs each one on
// that file: listening on address, in front of the replicas.
var proxies = map[string]func(t *testing.T, file, address string, replicas []string) *exec.Cmd{
	"nginx": func(t *testing.T, file, address string, replicas []string) *exec.Cmd {
		file = replace(t, file, "server 172.30.0.11:8080", "server "+replicas[0])
		file = replace(t, file, "server 172.30.0.12:8080", "server "+replicas[1])
		file = replace(t, file, "\n    listen 8080;", "\n    listen "+address+";")
		dir := t.TempDir()
		config := "daemon off; pid nginx.pid; worker_processes 2; events {}\nhttp {\naccess_log off;\n"
		if os.Geteuid() == 0 {
			config = "user root;\n" + config // the folder is root's
		}
		for _, what := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			config += what + "_temp_path " + what + ";\n"
		}
		write(t, filepath.Join(dir, "nginx.conf"), []byte(config+file+"}\n"))
		return exec.Command("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	},
	"Caddyfile": func(t *testing.T, file, address string, replicas []string) *exec.Cmd {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(t.TempDir(), "Caddyfile")
		write(t, config, []byte("{\n\tadmin off\n\tdefault_bind "+host+"\n}\n"+file))
		cmd := exec.Command("caddy", "run", "--adapter", "caddyfile", "--config", config)
		cmd.Env = []string{"SITE=http://" + address, "UPSTREAMS=" + strings.Join(replicas, " "), "HOME=" + t.TempDir()}
		return cmd
	},
}

// replace puts after in the one place of text where before stands.
func replace(t *testing.T, text, before, after string) string {
	t.Helper()
	if strings.Count(text, before) != 1 {
		t.Fatalf("it has %q %d times", before, strings.Count(text, before))
	}
	return strings.Replace(text, before, after, 1)
}

// behind starts a proxy in front of two replicas, until the test's end. Clients
// reach it from 127.8.8.8.
func behind(t *testing.T, name string, one, other *service) *service {
	t.Helper()
	files := map[string]string{"nginx": "deploy/nginx.conf", "Caddyfile": "deploy/Caddyfile"}
	programs := map[string]string{"nginx": "nginx", "Caddyfile": "caddy"}
	if _, err := exec.LookPath(programs[name]); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	text, err := os.ReadFile(files[name])
	if err != nil {
		t.Fatal(err)
	}
	// Nobody else listens on an address of that kind.
	address := fmt.Sprintf("127.%d.%d.%d:8080", 10+rand.IntN(200), rand.IntN(256), 1+rand.IntN(250))
	host := func(s *service) string { return strings.TrimPrefix(s.url, "http://") }
	cmd := proxies[name](t, string(text), address, []string{host(one), host(other)})
	var said buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("%s has ended: %v", name, err)
		}
		_ = cmd.Wait() // by a signal, as it was told
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said.String())
		}
	})
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 8, 8, 8)}}
	transport := &http.Transport{DialContext: from.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	s := &service{url: "http://" + address, web: &http.Client{Transport: transport, Timeout: patience}}
	eventually(t, name+" passes requests on", func() bool {
		res, err := s.web.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == 200
	})
	return s
}

// A buffer may be written to while it is read.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// finish reads a reply to its end, and comes back as often as it is sent elsewhere.
// Who has all of the text by then is told so, and not how it ended.
func (r *reading) finish(u user, s *service) {
	r.tb.Helper()
	for {
		err := r.until(func() bool { return r.end != "" })
		if r.end != "" {
			return
		}
		if err != io.EOF || r.retry == "" {
			r.tb.Fatalf("the stream ended after %q: %v", r.text, err)
		}
		path := fmt.Sprintf("/api/v1/messages/%d/stream", r.messageID)
		status, header, body := u.send(r.tb, s, "GET", path, "", "Last-Event-ID: "+r.lastID)
		if status == 204 {
			return
		}
		r.open(status, header, body)
	}
}

// streams is how many streams a replica has open.
func streams(t *testing.T, s *service) (n int) {
	t.Helper()
	var ready struct{ Checks map[string]string }
	nobody.ask(t, s, "GET", "/readyz", "").decode(t, &ready)
	_, load, _ := strings.Cut(ready.Checks["load"], "replies, ")
	if _, err := fmt.Sscanf(load, "%d streams", &n); err != nil {
		t.Fatalf("%v in %q", err, ready.Checks["load"])
	}
	return n
}

// Two replicas behind the proxies of deploy: each word arrives as it is said, a
// reply is followed on the replica that does not write it, one is ended and the
// clients have every byte, and in the end there is none.
func TestBehindAProxy(t *testing.T) {
	t.Parallel()
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := dictate(t)
			settings := with(with(database(t, models.Postgres), d.settings...), "TRUSTED_PROXIES=127.0.0.1", "DRAIN_TIMEOUT=5s")
			one, other := start(t, settings...), start(t, settings...)
			s := behind(t, name, one, other)
			you := signUp(t, s)
			checkAddress(t, s)
			nobody.ask(t, s, "GET", "/metrics", "").want(t, 404)

			r := you.say(t, s, "Count to four")
			d.say("One, ")
			r.has(len("One, "))
			writer, reader := one, other
			if streams(t, other) == 1 {
				writer, reader = other, one
			}
			f := you.follow(t, s, r.messageID)
			for streams(t, reader) == 0 { // it is for the proxy to choose
				f.resume(you, s)
			}
			f.has(len("One, "))
			for _, word := range []string{"two, ", "three, "} {
				d.say(word)
				f.has(len(f.text) + len(word))
				r.has(len(r.text) + len(word))
			}

			writer.signal(t, syscall.SIGTERM)
			var err error
			if err = r.until(func() bool { return r.end != "" }); err != io.EOF || r.end != "" || r.retry == "" {
				t.Fatalf("got %v after %q, want to be sent elsewhere", err, r.text)
			}
			r.resume(you, s)
			d.say("four.")
			close(d.words)
			for _, reading := range []*reading{r, f} {
				reading.finish(you, s)
				if reading.text != "One, two, three, four." {
					t.Errorf("got %q", reading.text)
				}
				reading.check(you, s, "complete")
			}
			if code := writer.exitCode(t); code != 0 {
				t.Errorf("it ended with %d", code)
			}
			// What is asked finds the replica that is left.
			for range 4 {
				you.ask(t, s, "GET", "/api/v1/user/profile", "").want(t, 200)
			}
			reader.kill()
			var away struct{ Code string }
			got := you.ask(t, s, "GET", "/api/v1/user/profile", "").want(t, 503)
			if got.decode(t, &away); away.Code != "unavailable" || got.header.Get("Retry-After") == "" || got.header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("without a replica: got %v %s", got.header, got.body)
			}
		})
	}
}

// checkAddress checks that the address of a client is the one that the proxy saw,
// whatever the client claims.
func checkAddress(t *testing.T, s *service) {
	t.Helper()
	var you user
	nobody.ask(t, s, "POST", "/api/v1/auth/login", credentials, "X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-Ip: 203.0.113.9").want(t, 200).decode(t, &you)
	var list struct {
		Devices []struct{ IP string }
	}
	you.ask(t, s, "GET", "/api/v1/auth/devices", "").want(t, 200).decode(t, &list)
	for _, device := range list.Devices {
		if device.IP != "127.8.8.8" {
			t.Errorf("a device signed in from %s, want 127.8.8.8", device.IP)
		}
	}
	if len(list.Devices) != 2 {
		t.Errorf("got %d devices, want 2", len(list.Devices))
	}
}
