package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A browser is a real one, Debian's Chromium, which does what the test says: by
// chromedriver and the W3C's WebDriver protocol. It shows one window at a time.
type browser struct {
	t       *testing.T
	session string // the URL of the session
}

// browsing is held by who has a browser. Each is several processes.
var browsing = make(chan struct{}, 2)

// watching notes, before any script of a page runs, what goes wrong there: what
// its policy forbids, and errors that nobody caught; and what is played.
const watching = `
	window.faults = [];
	addEventListener("securitypolicyviolation", (e) => faults.push("policy: " + e.violatedDirective + " " + e.blockedURI + " " + e.sample));
	addEventListener("error", (e) => faults.push("error: " + e.message));
	addEventListener("unhandledrejection", (e) => faults.push("rejection: " + (e.reason?.stack ?? e.reason)));
	window.alert = () => faults.push("alert");
	window.played = 0; // sounds that could be heard
	const play = HTMLMediaElement.prototype.play;
	HTMLMediaElement.prototype.play = function () {
		this.addEventListener("playing", () => played++, { once: true });
		return play.call(this);
	};`

// browse starts a browser with an empty profile. The test's end is its end too.
func browse(t *testing.T, flags ...string) *browser {
	t.Helper()
	driver, chromium := need(t, "chromedriver"), need(t, "chromium")
	browsing <- struct{}{}
	t.Cleanup(func() { <-browsing })
	b := &browser{t: t}
	address := ""
	for tries := 1; address == ""; tries++ { // the port that is free for IPv4 may be taken for IPv6: then it ends
		if address = startDriver(t, driver); address == "" && tries == 3 {
			t.Fatal("chromedriver does not start")
		}
	}
	options := map[string]any{"binary": mortal(t, chromium), "args": append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
		"--user-data-dir=" + t.TempDir(), "--window-size=1200,800",
	}, flags...)}
	var created struct {
		SessionID    string `json:"sessionId"`
		Capabilities struct {
			ProcessID int `json:"goog:processID"`
		}
	}
	b.session = address
	b.must("POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:chromeOptions": options,
		"goog:loggingPrefs":  map[string]string{"browser": "ALL"},
		"timeouts":           map[string]any{"implicit": patience.Milliseconds(), "script": patience.Milliseconds()},
	}}}, &created)
	b.session = address + "/session/" + created.SessionID
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the page shows:\n%s\nwhat went wrong there: %q", b.text("body"), b.faults())
		}
		if err := b.ask("DELETE", "", nil, nil); err != nil && created.Capabilities.ProcessID > 1 {
			_ = syscall.Kill(created.Capabilities.ProcessID, syscall.SIGKILL)
		}
	})
	b.watch()
	return b
}

// mortal returns a program that does not outlive who started it, whatever becomes
// of the test.
func mortal(t *testing.T, program string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mortal")
	script := "#!/bin/sh\nexec setpriv --pdeathsig KILL -- '" + program + "' \"$@\"\n"
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// startDriver starts chromedriver and returns its URL; "" if it has ended.
func startDriver(t *testing.T, program string) string {
	t.Helper()
	cmd := exec.Command(program, "--port=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its group: the browser too
		<-ended
	})
	address := make(chan string, 1)
	go func() {
		defer close(ended)
		defer close(address)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if _, port, found := strings.Cut(lines.Text(), "started successfully on port "); found {
				address <- "http://127.0.0.1:" + strings.TrimSuffix(port, ".")
			}
		}
		_ = cmd.Wait()
	}()
	return <-address
}

// ask sends a command and reads the value of its answer.
func (b *browser) ask(method, command string, parameters, into any) error {
	var body io.Reader
	if method == http.MethodPost {
		if parameters == nil {
			parameters = struct{}{}
		}
		sent, err := json.Marshal(parameters)
		if err != nil {
			return err
		}
		body = bytes.NewReader(sent)
	}
	r, err := http.NewRequest(method, b.session+command, body) // the client has a timeout
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		var refusal struct{ Error, Message string }
		_ = json.Unmarshal(answer.Value, &refusal)
		reason, _, _ := strings.Cut(refusal.Message, "\n")
		return fmt.Errorf("%s %s: %s: %s", method, command, refusal.Error, reason)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, into)
}

func (b *browser) must(method, command string, parameters, into any) {
	b.t.Helper()
	if err := b.ask(method, command, parameters, into); err != nil {
		b.t.Fatal(err)
	}
}

// watch has what goes wrong in this window noted.
func (b *browser) watch() {
	b.t.Helper()
	b.must("POST", "/goog/cdp/execute", map[string]any{
		"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": map[string]string{"source": watching},
	}, nil)
}

// visit loads a page.
func (b *browser) visit(url string) {
	b.t.Helper()
	b.must("POST", "/url", map[string]string{"url": url}, nil)
}

func (b *browser) reload() {
	b.t.Helper()
	b.must("POST", "/refresh", nil, nil)
}

// element waits for the first one that matches.
func (b *browser) element(css string) string {
	b.t.Helper()
	var found map[string]string
	b.must("POST", "/element", map[string]string{"using": "css selector", "value": css}, &found)
	for _, id := range found {
		return id
	}
	b.t.Fatalf("no element for %s", css)
	return ""
}

// click clicks as a user does: once the element is there and can be clicked.
func (b *browser) click(css string) {
	b.t.Helper()
	var last error
	eventually(b.t, "click "+css, func() bool {
		last = b.ask("POST", "/element/"+b.element(css)+"/click", nil, nil)
		return last == nil
	})
}

// write types text into a field; "\n" is the Enter key.
func (b *browser) write(css, text string) {
	b.t.Helper()
	text = strings.ReplaceAll(text, "\n", "\ue007")
	b.must("POST", "/element/"+b.element(css)+"/value", map[string]string{"text": text}, nil)
}

// fill types text into a field in place of what is there.
func (b *browser) fill(css, text string) {
	b.t.Helper()
	b.must("POST", "/element/"+b.element(css)+"/clear", nil, nil)
	b.write(css, text)
}

// run runs the body of a function in the page and reads what it returns.
func (b *browser) run(into any, script string, args ...any) {
	b.t.Helper()
	if args == nil {
		args = []any{}
	}
	b.must("POST", "/execute/sync", map[string]any{"script": script, "args": args}, into)
}

// text is that of the first element that matches, or empty.
func (b *browser) text(css string) string {
	b.t.Helper()
	var text string
	b.run(&text, `return document.querySelector(arguments[0])?.textContent ?? ""`, css)
	return text
}

// until waits for an expression to be true.
func (b *browser) until(expression string, args ...any) {
	b.t.Helper()
	eventually(b.t, expression, func() bool {
		var met bool
		b.run(&met, "return Boolean("+expression+")", args...)
		return met
	})
}

// window opens another window, as a user does who has one already, and returns how
// to go to and fro.
func (b *browser) window() (first, second func()) {
	b.t.Helper()
	var one string
	b.must("GET", "/window", nil, &one)
	var other struct{ Handle string }
	b.must("POST", "/window/new", map[string]string{"type": "window"}, &other)
	to := func(handle string) func() {
		return func() {
			b.t.Helper()
			b.must("POST", "/window", map[string]string{"handle": handle}, nil)
		}
	}
	first, second = to(one), to(other.Handle)
	second()
	b.watch()
	return first, second
}

// faults are what went wrong in the page that is shown, and what the browser logged
// since it was asked last. Only expected lines of the log are left out.
func (b *browser) faults(expected ...string) []string {
	b.t.Helper()
	var all []string
	b.run(&all, "return window.faults")
	var lines []struct{ Message string }
	b.must("POST", "/se/log", map[string]string{"type": "browser"}, &lines)
next:
	for _, line := range lines {
		for _, part := range expected {
			if strings.Contains(line.Message, part) {
				continue next
			}
		}
		all = append(all, line.Message)
	}
	return all
}

// fine fails the test if something went wrong in the page.
func (b *browser) fine(expected ...string) {
	b.t.Helper()
	if faults := b.faults(expected...); len(faults) > 0 {
		b.t.Error(errors.New(strings.Join(faults, "\n")))
	}
}
