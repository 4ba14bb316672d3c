package main_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/aigrpc/amandaai"
	"parley/models"
)

// These tests are somebody who uses the console: a real browser, the real program.

// prompt is a dictation of several replies: an empty word ends each.
func prompt(t *testing.T) *dictation {
	t.Helper()
	d := &dictation{t: t, words: make(chan string)}
	d.settings = serveBackend(t, "127.0.0.1:0", func(_ *amandaai.ChatMessage, out chunks) error {
		for {
			select {
			case word := <-d.words:
				if word == "" {
					return out.Send(&amandaai.ChatChunk{Done: true, FinishReason: "stop"})
				}
				if err := out.Send(&amandaai.ChatChunk{Text: word}); err != nil {
					return err
				}
			case <-out.Context().Done():
				return out.Context().Err()
			}
		}
	})
	return d
}

// enter signs up at the console of s.
func (b *browser) enter(s *service) {
	b.t.Helper()
	b.visit(s.url + "/")
	b.click(".other .link")
	b.fill("[name=email]", "you@example.com")
	b.fill("[name=password]", "correct horse battery")
	b.click("form .primary")
	b.element(".composer")
}

// reader is who can read what the user of the console wrote.
func reader(t *testing.T, s *service) user {
	t.Helper()
	var u user
	nobody.ask(t, s, "POST", "/api/v1/auth/login", credentials).want(t, 200).decode(t, &u)
	return u
}

// ended waits until the last message is a reply with that status.
func (b *browser) ended(status string) {
	b.t.Helper()
	b.until(`document.querySelector(".message:last-child")?.dataset.status === arguments[0] && document.querySelector(".message:last-child.assistant")`, status)
}

// sameAs fails the test unless the page shows the chat as it is stored.
func (b *browser) sameAs(s *service, u user, chat int64) {
	b.t.Helper()
	var stored struct{ Messages []message }
	u.ask(b.t, s, "GET", fmt.Sprintf("/api/v1/chats/%d", chat), "").want(b.t, 200).decode(b.t, &stored)
	want := make([]string, 0, len(stored.Messages))
	for _, m := range stored.Messages {
		want = append(want, m.Role+": "+m.Content)
	}
	var got []string
	b.run(&got, `return [...document.querySelectorAll(".message")].map((m) => (m.classList.contains("user") ? "user: " : "assistant: ") + m.querySelector(".body").textContent)`)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("the page shows %q, stored is %q", got, want)
	}
}

// shown is the text of the last reply.
const shown = `document.querySelector(".message:last-child.assistant .body")?.textContent`

// shows waits until the last reply has that text.
func (b *browser) shows(text string) {
	b.t.Helper()
	b.until(shown+" === arguments[0]", text)
}

func TestConsoleChat(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, d.settings...)
	b.enter(s)
	u := reader(t, s)

	b.write("#message", "Hello\n")
	d.say("One ")
	d.say("two")
	b.shows("One two")
	eventually(t, "what there is of the reply is stored", func() bool { return u.message(t, s, 2).Content == "One two" })
	b.reload() // in the middle of the reply
	b.shows("One two")
	d.say(" three.")
	b.shows("One two three.")
	d.say("")
	b.ended("complete")
	b.sameAs(s, u, 1)

	b.click(".message:last-child [data-act=regenerate]")
	d.say("Another one")
	b.shows("Another one")
	b.click(".composer .stop")
	b.ended("stopped")
	b.sameAs(s, u, 1)

	b.click("[data-act=edit]")
	b.fill(".editing textarea", "Goodbye\n")
	d.say("Farewell.")
	d.say("")
	b.ended("complete")
	b.shows("Farewell.")
	b.sameAs(s, u, 1)

	b.write("#message", "And again\n")
	d.say("Once more.")
	d.say("")
	b.ended("complete")
	b.shows("Once more.")
	b.sameAs(s, u, 1)
	b.fine()

	b.click("header [popovertarget=chat-menu]")
	b.click("[data-act=rename]")
	b.fill("[name=title]", "A better title")
	b.click("dialog .primary")
	b.until(`document.title === "A better title · Parley" && document.querySelector(".chats").textContent === "A better title"`)
	b.click(".side .new")
	b.until(`location.hash === "#/" && document.querySelector(".welcome")`)
	eventually(t, "the title is found", func() bool { // the index follows
		return strings.Contains(string(u.ask(t, s, "GET", "/api/v1/chats?q=better", "").want(t, 200).body), "A better title")
	})
	b.write("[type=search]", "nothing of this")
	b.until(`document.querySelector(".chats").textContent === ""`)
	b.fill("[type=search]", "better")
	b.click(".chats a")
	b.shows("Once more.")
	b.click("header [popovertarget=chat-menu]")
	b.click("[data-act=delete]")
	b.click("dialog .danger")
	b.until(`location.hash === "#/" && document.querySelector(".chats").textContent === ""`)
	u.ask(t, s, "GET", "/api/v1/chats/1", "").want(t, 404)
	b.fine()
}

// What users and models write is text, whatever it looks like.
func TestConsoleTrustsNoText(t *testing.T) {
	t.Parallel()
	const hostile = `<img src=x onerror=alert(1)><script>alert(2)</script> [click](javascript:alert(3)) ` +
		`<a href="data:text/html,x">b</a> [mail](mailto:you@example.com) <svg onload=alert(4)> &lt;b&gt; **bold** ` + "`<i>`"
	d := prompt(t)
	b := browse(t)
	s := start(t, d.settings...)
	b.enter(s)
	b.write("#message", hostile+"\n")
	d.say(hostile)
	d.say("")
	b.ended("complete")
	var got struct {
		Said, Replied string
		Elements      []string
		Links         []string
	}
	b.run(&got, `return {
		Said: document.querySelector(".user .body").textContent,
		Replied: document.querySelector(".assistant .body").textContent,
		Elements: [...document.querySelectorAll(".message .body *")].map((e) => e.localName),
		Links: [...document.querySelectorAll(".message .body a")].map((e) => e.outerHTML),
	}`)
	want := strings.NewReplacer("**bold**", "bold", "`<i>`", "<i>", "[mail](mailto:you@example.com)", "mail").Replace(hostile)
	if got.Said != hostile || got.Replied != want {
		t.Errorf("the page shows %q and %q, want %q and %q", got.Said, got.Replied, hostile, want)
	}
	if want := []string{"p", "a", "strong", "code"}; !slices.Equal(got.Elements, want) {
		t.Errorf("the texts have the elements %q, want %q", got.Elements, want)
	}
	if want := []string{`<a href="mailto:you@example.com" target="_blank" rel="noopener noreferrer">mail</a>`}; !slices.Equal(got.Links, want) {
		t.Errorf("the links are %q, want %q", got.Links, want)
	}
	// A title is text too, and so is a name.
	b.until(`document.querySelector(".chats").textContent.startsWith("<img src=x")`)
	b.fine()
	// The browser would not make markup of a string if somebody asked it to.
	var refused bool
	b.run(&refused, `try { document.createElement("p").innerHTML = "<b>x</b>" } catch { return true }`)
	if !refused {
		t.Error("a string became markup")
	}
}

// A replica is killed in the middle of a reply, and comes back.
func TestConsoleOutlivesTheServer(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	settings := with(d.settings, database(t, models.SQLite)...)
	s := start(t, settings...)
	b.enter(s)
	b.write("#message", "Hello\n")
	d.say("Before ")
	d.say("the end")
	b.shows("Before the end")
	s.kill()
	b.until(`!document.querySelector(".assistant .note").hidden && !document.querySelector(".connection").hidden`)
	s = start(t, with(settings, "PORT="+s.url[strings.LastIndex(s.url, ":")+1:])...)
	d.say("A beginning")
	b.shows("A beginning")
	d.say(" anew.")
	d.say("")
	b.ended("complete")
	b.sameAs(s, reader(t, s), 1)
	b.until(`document.querySelector(".connection").hidden`)
	// The next reply is none of the last connection.
	b.write("#message", "And now?\n")
	d.say("All is well.")
	d.say("")
	b.ended("complete")
	b.shows("All is well.")
	b.fine("net::ERR_")
}

// proxyOf passes requests on to s, and each byte of the answers as it comes.
func proxyOf(t *testing.T, s *service) *httputil.ReverseProxy {
	t.Helper()
	target, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	return proxy
}

// A connection that breaks again and again, at any byte, costs nothing.
func TestConsoleOutlivesConnections(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, d.settings...)
	var pages, lists, streams atomic.Int64
	proxy := proxyOf(t, s)
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			pages.Add(1)
		case r.URL.Path == "/console/chat.js" && pages.Load() == 1:
			http.NotFound(w, r) // a replica of another version has no such module
			return
		case r.URL.Path == "/api/v1/chats" && lists.Add(1) == 1:
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"chats":[`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case strings.Contains(r.URL.Path, "/messages"):
			w = &breaking{ResponseWriter: w, left: 250 + 97*streams.Add(1)}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		_ = broken.Config.Close() // the browser is still there, and comes again
		broken.Close()
	})
	direct := *s
	s.url = broken.URL
	b.enter(s) // once the page has noticed that it is not whole
	b.until(`document.querySelector(".side .state").textContent === "No chats yet."`)
	b.write("#message", "Hello\n")
	var want strings.Builder
	for i := range 24 {
		word := fmt.Sprintf("%d-Ünïcödé-😀 ", i)
		want.WriteString(word)
		d.say(word)
		b.shows(strings.TrimSpace(want.String()))
	}
	d.say("end.")
	d.say("")
	b.ended("complete")
	b.shows(want.String() + "end.")
	b.sameAs(&direct, reader(t, &direct), 1)
	if n := streams.Load(); n < 4 {
		t.Errorf("%d streams, want that some broke", n)
	}
	b.fine("net::ERR_", "/console/chat.js")
}

// A breaking answer is cut off after so many bytes of events.
type breaking struct {
	http.ResponseWriter
	left int64
}

func (w *breaking) Write(p []byte) (int, error) {
	if w.Header().Get("Content-Type") != "text/event-stream" {
		return w.ResponseWriter.Write(p)
	}
	n, err := w.ResponseWriter.Write(p[:min(int64(len(p)), w.left)])
	if w.left -= int64(n); w.left == 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (w *breaking) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Two windows of one user, and a device that is elsewhere.
func TestConsoleOfSeveralWindows(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, d.settings...)
	b.enter(s)
	first, second := b.window()
	b.visit(s.url + "/") // is signed in
	b.element(".composer")
	first()
	b.write("#message", "Hello\n")
	d.say("One ")
	d.say("two")
	b.shows("One two")
	second()
	b.until(`document.querySelector(".chats .running")`)
	b.click(".chats a")
	b.shows("One two")
	d.say(" three.")
	d.say("")
	b.ended("complete")
	b.shows("One two three.")

	// What the other window asks for comes without being asked for.
	first()
	b.ended("complete")
	b.write("#message", "More\n")
	d.say("Four")
	b.shows("Four")
	second()
	b.shows("Four")
	d.say(" five.")
	d.say("")
	b.ended("complete")
	b.shows("Four five.")
	u := reader(t, s)
	b.sameAs(s, u, 1)
	first()
	b.click(".message:last-child [data-act=regenerate]")
	d.say("Six.")
	d.say("")
	b.ended("complete")
	second()
	b.shows("Six.")
	b.sameAs(s, u, 1)
	b.fine()

	u.ask(t, s, "PATCH", "/api/v1/chats/1", `{"title":"From elsewhere"}`).want(t, 200)
	b.until(`document.title === "From elsewhere · Parley"`)
	u.ask(t, s, "DELETE", "/api/v1/chats/1", "").want(t, 204)
	b.until(`location.hash === "#/" && document.querySelector(".chats").textContent === ""`)
	first()
	b.until(`location.hash === "#/"`)
	b.fine()

	b.click("[popovertarget=user-menu]")
	b.click("[data-act=sign-out]")
	b.element(".door")
	second()
	b.until(`document.querySelector(".door .said").textContent === "You signed out in another window."`)
	b.fine("401") // its stream ended, and it asked why
}

// Tokens that are valid for a moment, and a device that is signed out from
// elsewhere.
func TestConsoleSession(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, with(d.settings, "ACCESS_TOKEN_TTL=2s")...)
	b.visit(s.url + "/")
	b.click(".other .link")
	b.fill("[name=email]", "you@example")
	b.fill("[name=password]", "short")
	b.click("form .primary")
	b.until(`document.querySelector("[aria-invalid=true]") && [...document.querySelectorAll(".field .wrong")].some((p) => p.textContent)`)
	b.faults() // the browser logs each refusal
	b.enter(s)
	for range 2 {
		expired := time.Now().Add(2 * time.Second)
		eventually(t, "the token expires", func() bool { return time.Now().After(expired) })
		b.write("#message", "Hello\n")
		d.say("Here I am.")
		d.say("")
		b.ended("complete")
		b.shows("Here I am.")
	}
	b.fine() // nobody was told that a token is too old
	var refreshed int
	b.run(&refreshed, `return performance.getEntriesByType("resource").filter((e) => e.name.endsWith("/auth/refresh")).length`)
	if refreshed < 2 {
		t.Errorf("tokens were refreshed %d times, want twice at least", refreshed)
	}
	reader(t, s).ask(t, s, "POST", "/api/v1/auth/logout-all", "").want(t, 200)
	b.element(".door")
	b.fine("401")
}

// Who signs out is signed out at once, with a token that is too old and a server
// that does not answer, and nothing is left of the chat.
func TestConsoleSignsOutAtOnce(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, with(d.settings, "ACCESS_TOKEN_TTL=2s")...)
	b.enter(s)
	b.write("#message", "A secret\n")
	d.say("Kept.")
	b.shows("Kept.")
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Signal(syscall.SIGCONT) })
	var left string
	b.run(&left, `
		document.querySelector("[data-act=sign-out]").click();
		return [document.querySelectorAll(".door").length, localStorage.length, location.hash, document.title, document.body.textContent.includes("secret")].join();`)
	if left != "1,0,#/,Parley,false" {
		t.Errorf("after signing out there is %q", left)
	}
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the device session ends", func() bool {
		var devices struct{ Devices []struct{ Name string } }
		reader(t, s).ask(t, s, "GET", "/api/v1/auth/devices", "").want(t, 200).decode(t, &devices)
		return !slices.ContainsFunc(devices.Devices, func(d struct{ Name string }) bool { return strings.HasPrefix(d.Name, "Mozilla/") })
	})
	b.fine("net::ERR_")
}

func TestConsoleAdministration(t *testing.T) {
	t.Parallel()
	b := browse(t)
	s := start(t, "ADMIN_EMAIL=you@example.com", "ADMIN_PASSWORD=correct horse battery")
	nobody.ask(t, s, "POST", "/api/v1/auth/signup", `{"email":"ann@example.com","password":"correct horse battery"}`).want(t, 201)
	b.visit(s.url + "/#/admin")
	b.fill("[name=email]", "you@example.com")
	b.fill("[name=password]", "correct horse battery")
	b.click("form .primary")
	b.click("[popovertarget=user-menu]")
	b.click("#user-menu [href='#/admin']")
	b.until(`document.querySelector(".figures dd")?.textContent === "2"`)
	b.click("tbody tr:first-child .acts button:first-child")
	b.until(`document.querySelector(".tag.bad")?.textContent === "Disabled"`)
	nobody.ask(t, s, "POST", "/api/v1/auth/login", `{"email":"ann@example.com","password":"correct horse battery"}`).want(t, 403)
	b.reload()
	b.until(`document.body.textContent.includes("account.disabled")`)
	b.click("tbody tr:first-child .danger")
	b.click("dialog .danger")
	b.until(`document.querySelectorAll(".acts").length === 1`)

	b.click("[popovertarget=user-menu]")
	b.click("#user-menu [href='#/account']")
	b.fill("[name=user_name]", "The Boss")
	b.click(".panel .primary")
	b.until(`document.querySelector(".who .name").textContent === "The Boss"`)
	b.until(`document.querySelectorAll(".rows li").length === 1`)
	b.fine()
}

// Somebody who becomes an administrator elsewhere is one here; who is none sees
// nothing of the administration.
func TestConsoleKnowsWhoIsAnAdministrator(t *testing.T) {
	t.Parallel()
	b := browse(t)
	s := start(t, "ADMIN_EMAIL=root@example.com", "ADMIN_PASSWORD=correct horse battery")
	b.enter(s)
	b.run(nil, `location.hash = "#/admin"`)
	b.until(`document.querySelector("main .state")?.textContent === "Only an administrator may do this." && !document.querySelector("main .panel")`)
	var root user
	nobody.ask(t, s, "POST", "/api/v1/auth/login", `{"email":"root@example.com","password":"correct horse battery"}`).want(t, 200).decode(t, &root)
	root.ask(t, s, "PATCH", "/api/v1/admin/users/2", `{"is_admin":true}`).want(t, 200)
	b.reload()
	b.until(`!document.querySelector("#user-menu [href='#/admin']").hidden && document.querySelector(".figures")`)
	b.fine("403")

	// A page that the browser had laid aside has not heard who signed out meanwhile.
	b.run(nil, `localStorage.clear(); dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }))`)
	b.element(".door")
}

// A user speaks, and is answered in words and aloud.
func TestConsoleVoice(t *testing.T) {
	t.Parallel()
	flite, _, _ := need(t, "flite"), need(t, "ffmpeg"), need(t, "pocketsphinx_continuous")
	spoken := filepath.Join(t.TempDir(), "spoken.wav")
	pipe(t, nil, flite, "-voice", "slt", "-t", "I would like to talk about my mother.", "-o", spoken)
	b := browse(t, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--use-file-for-fake-audio-capture="+spoken+"%noloop")
	s := start(t, "AI_PROVIDER=demo", "DEMO_TOKEN_DELAY=1ms", "VOICE_PROVIDER=local", "PATH="+os.Getenv("PATH"))
	b.enter(s)
	b.click(".composer .record")
	b.until(`document.querySelector(".clock")?.textContent >= "0:04"`)
	b.click(".composer .done")
	b.until(`document.querySelector(".message:last-child .speak[aria-pressed]") && played > 0`)
	b.ended("complete")
	u := reader(t, s)
	b.sameAs(s, u, 1)
	if heard := b.text(".message.user .body"); !strings.Contains(heard, "mother") {
		t.Errorf("it heard %q", heard)
	}
	b.click(".message:last-child .speak") // quiet
	b.until(`!document.querySelector(".speak[aria-pressed]")`)
	b.run(nil, "played = 0")
	b.click(".message:last-child .speak") // read it aloud
	b.until(`document.querySelector(".speak[aria-pressed]") && played > 0`)
	b.click(".message:last-child .speak")
	b.until(`!document.querySelector(".speak[aria-pressed]")`)
	b.fine()
}

// Where nobody hears or speaks, the console says so.
func TestConsoleWithoutVoice(t *testing.T) {
	t.Parallel()
	b := browse(t, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
	s := start(t, "AI_PROVIDER=demo")
	b.enter(s)
	b.click(".composer .record")
	b.until(`document.querySelector(".composer .record").title === "There is nobody here who hears or speaks."`)
	b.write("#message", "Hello\n")
	b.ended("complete")
	b.fine("503")
}

// What was written is never lost when it cannot be sent, and a stop is one however
// early it is.
func TestConsoleLosesNothingWritten(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, d.settings...)
	proxy := proxyOf(t, s)
	answers := make(chan bool) // to what begins a reply; false: refused
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && (strings.HasSuffix(r.URL.Path, "/messages") || strings.HasSuffix(r.URL.Path, "/edit")) && !<-answers {
			http.Error(w, "", http.StatusConflict)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		_ = slow.Config.Close() // the browser is still there, and comes again
		close(answers)
		slow.Close()
	})
	direct := *s
	s.url = slow.URL
	b.enter(s)
	u := reader(t, &direct)

	// It is stopped before it is known.
	b.write("#message", "Hello\n")
	b.click(".composer .stop")
	answers <- true
	b.ended("stopped")
	b.sameAs(&direct, u, 1)

	// It is refused while the next one is written, and the reader is elsewhere.
	b.write("#message", "One\n")
	b.write("#message", "Two")
	answers <- false
	b.until(`document.querySelector("#message").value === "One\n\nTwo"`)
	b.write("#message", "\n")
	b.click(".side .new")
	b.until(`document.querySelector(".welcome")`)
	b.click(".chats a")
	b.element(".message")
	b.write("#message", "Three")
	answers <- false
	b.until(`document.querySelector("#message").value === "One\n\nTwo\n\nThree"`)
	b.fill("#message", "")

	// An edit is refused, by the server and then by the page, while a reply runs.
	b.click("[data-act=edit]")
	b.fill(".editing textarea", "Goodbye\n")
	answers <- false
	b.until(`document.querySelector(".editing textarea")?.value === "Goodbye"`)
	b.write("#message", "Four\n")
	answers <- true
	d.say("Here.")
	b.shows("Here.")
	b.write(".editing textarea", "!\n")
	b.until(`document.querySelector(".editing textarea")?.value === "Goodbye!" && document.querySelector("#said").textContent.includes("Wait")`)
	d.say("")
	b.ended("complete")
	b.write(".editing textarea", "\n")
	answers <- true
	d.say("Farewell.")
	d.say("")
	b.ended("complete")
	b.shows("Farewell.")
	b.sameAs(&direct, u, 1)
	b.fine("409")
}

// Who uses the keyboard is never left without a place in the page.
func TestConsoleKeepsTheFocus(t *testing.T) {
	t.Parallel()
	d := prompt(t)
	b := browse(t)
	s := start(t, d.settings...)
	b.enter(s)
	at := func(css string) {
		t.Helper()
		b.until(`document.activeElement.matches(arguments[0])`, css)
	}
	b.write("#message", "Hello")
	b.click(".composer .send")
	at("#message")
	d.say("Hi.")
	b.shows("Hi.")
	b.click(".composer .stop")
	b.ended("stopped")
	at("#message")
	b.click(".message:last-child [data-act=regenerate]")
	at("#message")
	d.say("")
	b.ended("complete")
	b.click("[data-act=edit]")
	at(".editing textarea")
	b.write(".editing textarea", "\ue00c") // Escape
	at("[data-act=edit]")
	b.click("[data-act=edit]")
	b.write(".editing textarea", "Again\n")
	at("#message")
	d.say("")
	b.ended("complete")
	b.click("header [popovertarget=chat-menu]")
	b.click("[data-act=rename]")
	at("dialog *")
	b.click("dialog .primary")
	at("header [popovertarget=chat-menu]")

	b.must("POST", "/goog/cdp/execute", map[string]any{"cmd": "Emulation.setDeviceMetricsOverride", "params": map[string]any{
		"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": false,
	}}, nil)
	var wide []string
	b.run(&wide, `return [...document.querySelectorAll(".stage *")].filter((e) => e.getBoundingClientRect().right > innerWidth || e.matches("button.quiet") && e.offsetWidth > 60).map((e) => e.outerHTML)`)
	if len(wide) > 0 {
		t.Errorf("on a small screen these are too wide: %q", wide)
	}
	b.click("[aria-controls=side]")
	at("[type=search]")
	b.write("[type=search]", "\ue00c")
	at("[aria-controls=side]")
	b.fine()
}
