package stream_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/stream"
)

// signedOut is the event that ends the stream of a device that was signed out.
var signedOut = event{name: "error", data: `{"message":"This device was signed out.","code":"signed_out","retryable":false}`}

// A signOut is a set of sessions that were signed out.
type signOut struct{ sync.Map }

func (s *signOut) revoked(v stream.Viewer) bool {
	_, found := s.Load(v.SID)
	return found && v.UserID != 0 && !v.IssuedAt.IsZero()
}

func (s *signOut) config(c *stream.Config) { c.Revoked = s.revoked }

// openAs and feedAs open streams for one device session of a user.
func (r *replica) openAs(t *testing.T, sid string, userID, messageID int64, lastID string) *follow {
	t.Helper()
	return r.get(t, fmt.Sprintf("/%d?user=%d&sid=%s", messageID, userID, sid), lastID)
}

func (r *replica) feedAs(t *testing.T, sid string, userID int64) *follow {
	t.Helper()
	return r.get(t, fmt.Sprintf("/events?user=%d&sid=%s", userID, sid), "")
}

// The streams of a device that is signed out end; its reply, and what other
// devices of the user follow, go on.
func TestCutOff(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		var out signOut
		r, elsewhere := start(t, db, steps(words), out.config), start(t, db, says(), out.config)
		ex := r.send(t, user, chat, "hello")
		streams := make(map[string]*follow)
		for _, sid := range []string{"lost", "kept"} {
			streams[sid+" reply"] = r.openAs(t, sid, user, ex.Reply.ID, "")
			streams[sid+" reply elsewhere"] = elsewhere.openAs(t, sid, user, ex.Reply.ID, "")
			streams[sid+" feed"] = r.feedAs(t, sid, user)
		}
		words <- "so "
		got := make(map[string][]string)
		for name, f := range streams {
			for last := ""; last != "message_token"; {
				e, ok := f.next()
				if !ok {
					t.Fatalf("%s has ended", name)
				}
				last = e.name
			}
		}
		r.CutOff() // nobody
		out.Store("lost", true)
		r.CutOff()
		elsewhere.CutOff()
		end := signedOut
		for name, f := range streams {
			if !strings.HasPrefix(name, "lost") {
				continue
			}
			end.id = f.lastID
			if diff := cmp.Diff([]event{end}, f.all(), cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		words <- "what"
		close(words)
		want := make(map[string][]string)
		for name, f := range streams {
			if strings.HasPrefix(name, "lost") {
				continue
			}
			for e, ok := f.next(); ok; e, ok = f.next() {
				got[name] = append(got[name], e.name)
				if strings.HasPrefix(e.name, "message_complete") {
					break
				}
			}
			want[name] = []string{"message_token", "message_complete"}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("those who stay (-want +got):\n%s", diff)
		}
		if m := r.await(t, user, ex.Reply.ID); m.Content != "so what" || m.Status != models.StatusComplete {
			t.Errorf("saved: %q, %s", m.Content, m.Status)
		}
	})
}

// What was revoked while a stream was being opened is not missed.
func TestCutOffOfAStreamThatOpens(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		defer close(words)
		var out signOut
		r := start(t, db, steps(words), out.config)
		ex := r.send(t, user, chat, "hello")
		out.Store("lost", true)
		for name, f := range map[string]*follow{
			"reply": r.openAs(t, "lost", user, ex.Reply.ID, ""),
			"feed":  r.feedAs(t, "lost", user),
		} {
			events := f.all()
			if len(events) == 0 || events[len(events)-1].name != signedOut.name || events[len(events)-1].data != signedOut.data {
				t.Errorf("%s: it ends with %v", name, events)
			}
		}
		until(t, "both are closed", func() bool { return r.Streams() == 0 })
	})
}

// A client that does not read is cut off too, and gets no event inside another
// one that it has a part of.
func TestCutOffInTheMiddleOfAnEvent(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		var out signOut
		text := strings.Repeat("more than the system keeps for a client ", 1<<18)
		r := start(t, db, says(text), out.config, func(c *stream.Config) {
			c.MaxReplyBytes, c.Stall = 16<<20, time.Hour
		})
		ex := r.send(t, user, chat, "hello")
		r.await(t, user, ex.Reply.ID)
		f := r.openAs(t, "lost", user, ex.Reply.ID, fmt.Sprintf("1-%d", len(text)-1))
		for line := ""; line != "event: message_complete\n"; {
			var err error
			if line, err = f.lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		out.Store("lost", true)
		r.CutOff()
		until(t, "it is closed", func() bool { return r.Streams() == 0 })
		rest, err := io.ReadAll(f.lines)
		if !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(fmt.Sprint(err), "reset") || strings.Contains(string(rest), "signed out") {
			t.Errorf("got %d bytes, of which the last are %q, and %v", len(rest), rest[max(0, len(rest)-100):], err)
		}
	})
}

// refused reports whether a stream was refused because of how many there are.
func (f *follow) refused(t *testing.T) bool {
	t.Helper()
	if f.response.StatusCode == http.StatusOK {
		return false
	}
	body, err := io.ReadAll(f.response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(body), stream.ErrTooManyStreams.Error()+"\n"; got != want {
		t.Errorf("refused: got %q, want %q", got, want)
	}
	return true
}

// Of streams that are opened at once, exactly as many as a user may have.
func TestAUsersStreamsAreCounted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		other, _ := newUser(t, db)
		words := make(chan string)
		defer close(words)
		const most, asked = 10, 40
		r := start(t, db, steps(words), func(c *stream.Config) {
			c.MaxStreams, c.Heartbeat = most, 20*time.Millisecond
		})
		ex := r.send(t, user, chat, "hello")
		open := func(i int) *follow {
			if i%2 == 0 {
				return r.feed(t, user, "")
			}
			return r.open(t, user, ex.Reply.ID, "")
		}
		streams := make([]*follow, asked)
		var wg sync.WaitGroup
		for i := range streams {
			wg.Go(func() { streams[i] = open(i) })
		}
		wg.Wait()
		var in []*follow
		for _, f := range streams {
			if !f.refused(t) {
				in = append(in, f)
			}
		}
		if len(in) != most || r.Streams() != most {
			t.Errorf("%d streams were let in, %d are open, want %d", len(in), r.Streams(), most)
		}
		if f := r.feed(t, other, ""); f.refused(t) {
			t.Error("a stream of another user's was refused")
		}
		if err := r.MayOpen(user); !errors.Is(err, stream.ErrTooManyStreams) {
			t.Errorf("may another one be opened? %v, want ErrTooManyStreams", err)
		}
		if err := r.MayOpen(other); err != nil {
			t.Errorf("may another user open one? %v", err)
		}
		// What is refused for another reason does not count.
		if f := r.open(t, user, ex.Reply.ID, "x"); f.response.StatusCode != http.StatusTeapot {
			t.Errorf("a wrong id: status %d", f.response.StatusCode)
		}
		if f := r.feed(t, user, "x"); f.response.StatusCode != http.StatusTeapot {
			t.Errorf("a wrong id: status %d", f.response.StatusCode)
		}
		in[0].response.Body.Close()
		until(t, "there is room for another one", func() bool { return !open(1).refused(t) })
		if !open(0).refused(t) {
			t.Error("there was room for two")
		}
	})
}

// What a user has open on one replica counts on the others.
func TestAUsersStreamsAreCountedElsewhere(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		few := func(c *stream.Config) { c.MaxStreams, c.Heartbeat = 4, 20*time.Millisecond }
		r, elsewhere := start(t, db, says(), few), start(t, db, says(), few)
		var here []*follow
		for range 4 {
			here = append(here, r.feed(t, user, ""))
		}
		until(t, "the other replica refuses a stream", func() bool {
			if elsewhere.Streams() > 0 {
				return false // the one before counts still
			}
			f := elsewhere.feed(t, user, "")
			defer f.response.Body.Close()
			return f.refused(t)
		})
		for _, f := range here {
			f.response.Body.Close()
		}
		until(t, "the other replica takes a stream", func() bool { return !elsewhere.feed(t, user, "").refused(t) })
	})
}

// A panicky listener's connections panic when an event is written to them.
type panicky struct {
	net.Listener
	armed  *atomic.Bool
	direct bool // they can be written to without waiting
}

func (l panicky) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if l.direct {
		return panickyRawConn{panickyConn{c, l.armed}}, err
	}
	return panickyConn{c, l.armed}, err
}

type panickyConn struct {
	net.Conn
	armed *atomic.Bool
}

func (c panickyConn) Write(p []byte) (int, error) {
	if c.armed.Load() {
		panic("the connection is not what it seemed")
	}
	return c.Conn.Write(p)
}

type panickyRawConn struct{ panickyConn }

func (panickyRawConn) SyscallConn() (syscall.RawConn, error) { return panickyDescriptor{}, nil }

type panickyDescriptor struct{}

func (panickyDescriptor) Control(func(uintptr)) error    { panic("nor is what is under it") }
func (panickyDescriptor) Read(func(uintptr) bool) error  { panic("nor is what is under it") }
func (panickyDescriptor) Write(func(uintptr) bool) error { panic("nor is what is under it") }

// A panic while one client is sent something ends that client's stream.
func TestAPanicEndsOneStream(t *testing.T) {
	t.Parallel()
	for name, direct := range map[string]bool{"in a goroutine of its own": false, "in the reply's": true} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				words := make(chan string)
				r := start(t, db, steps(words))
				ex := r.send(t, user, chat, "hello")
				var armed atomic.Bool
				broken := *r
				broken.server = httptest.NewUnstartedServer(r.server.Config.Handler)
				broken.server.Listener = panicky{broken.server.Listener, &armed, direct}
				broken.server.Start()
				defer broken.server.Close()

				f, feed, well := broken.open(t, user, ex.Reply.ID, ""), broken.feed(t, user, ""), r.feed(t, user, "")
				for _, f := range []*follow{f, feed, well} {
					f.next()
				}
				armed.Store(true)
				words <- "one "
				for name, f := range map[string]*follow{"reply": f, "feed": feed} {
					if rest, err := io.ReadAll(f.lines); err == nil {
						t.Errorf("the %s ends well, after %q", name, rest)
					}
				}
				words <- "two"
				close(words)
				if m := r.await(t, user, ex.Reply.ID); m.Content != "one two" || m.Status != models.StatusComplete {
					t.Errorf("saved: %q, %s", m.Content, m.Status)
				}
				for e, ok := well.next(); e.name != "message_complete"; e, ok = well.next() {
					if !ok {
						t.Fatal("another stream has ended")
					}
				}
			})
		})
	}
}

// Over HTTP/2, where net/http keeps the connection, a stream ends as it does over
// HTTP/1.1.
func TestStreamsOverHTTP2(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		var out signOut
		r := start(t, db, steps(words), out.config)
		ex := r.send(t, user, chat, "hello")
		server := httptest.NewUnstartedServer(r.server.Config.Handler)
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		get := func(path string) *follow {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if res.ProtoMajor != 2 {
				t.Fatalf("the protocol is %s", res.Proto)
			}
			t.Cleanup(func() { res.Body.Close() })
			return &follow{t: t, response: res, lines: bufio.NewReader(res.Body)}
		}
		names := func(f *follow) (names []string) {
			for _, e := range f.all() {
				names = append(names, e.name)
			}
			return names
		}
		kept := get(fmt.Sprintf("/%d?user=%d&sid=kept", ex.Reply.ID, user))
		lost := get(fmt.Sprintf("/%d?user=%d&sid=lost", ex.Reply.ID, user))
		feed := get(fmt.Sprintf("/events?user=%d&sid=lost", user))
		until(t, "all are open", func() bool { return r.Streams() == 3 })
		out.Store("lost", true)
		r.CutOff()
		if diff := cmp.Diff([]string{"message_start", "error"}, names(lost)); diff != "" {
			t.Errorf("cut off (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"ready", "message_start", "error"}, names(feed)); diff != "" {
			t.Errorf("a feed that is cut off (-want +got):\n%s", diff)
		}
		time.Sleep(2 * 250 * time.Millisecond) // what ends those who do not read does no harm
		words <- "word"
		close(words)
		if diff := cmp.Diff([]string{"message_start", "message_token", "message_complete"}, names(kept)); diff != "" {
			t.Errorf("to the end (-want +got):\n%s", diff)
		}
	})
}
