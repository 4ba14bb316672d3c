package stream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/stream"
)

// A before is what is done before a reply.
type before func(ctx context.Context, tell func(string, any) error) (int64, error)

// after serves what follows do, over HTTP/1.1 or HTTP/2 without TLS, and returns
// what opens it.
func (r *replica) after(t *testing.T, major int, userID int64, do before) func(ctx context.Context) (*follow, error) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(major == 1)
	protocols.SetUnencryptedHTTP2(major == 2)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		viewer := stream.Viewer{UserID: userID, IssuedAt: time.Now()}
		err := r.ServeAfter(w, req, viewer, do, func(err error) stream.Failure {
			return stream.Failure{Message: "It went wrong.", Code: err.Error(), Retryable: true}
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
		}
	}))
	server.Config.Protocols = &protocols
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return func(ctx context.Context) (*follow, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, http.NoBody)
		if err != nil {
			return nil, err
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { res.Body.Close() })
		return &follow{t: t, response: res, lines: bufio.NewReader(res.Body)}, nil
	}
}

// overBoth runs a test over both versions of HTTP, on both databases.
func overBoth(t *testing.T, test func(t *testing.T, db *models.DB, major int)) {
	t.Helper()
	t.Parallel()
	for _, major := range []int{1, 2} {
		t.Run(fmt.Sprint("HTTP/", major), func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) { test(t, db, major) })
		})
	}
}

func opened(t *testing.T, open func(context.Context) (*follow, error)) *follow {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	f, err := open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAReplyFollowsWhatIsDoneBefore(t *testing.T) {
	overBoth(t, func(t *testing.T, db *models.DB, major int) {
		user, chat := newUser(t, db)
		goOn := make(chan struct{})
		r := start(t, db, says(said), voice(speaks), func(c *stream.Config) { c.Heartbeat = 40 * time.Millisecond })
		f := opened(t, r.after(t, major, user, func(ctx context.Context, tell func(string, any) error) (int64, error) {
			if err := tell("voice_processing", map[string]string{"status": "transcribing"}); err != nil {
				return 0, err
			}
			<-goOn
			ex, err := r.Send(ctx, models.NewTurn{UserID: user, ChatID: chat, Content: "Was that a fox?", Voice: &models.Voice{Format: "mp3"}})
			return ex.Reply.ID, err
		}))
		first, _ := f.next()
		if diff := cmp.Diff(event{"voice_processing", "", `{"status":"transcribing"}`}, first, cmp.AllowUnexported(event{})); diff != "" {
			t.Errorf("the first event (-want +got):\n%s", diff)
		}
		for f.comments == 0 { // it is kept alive meanwhile
			line, err := f.lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if line == ":\n" {
				f.comments++
			}
		}
		close(goOn)
		var rec record
		rec.rest(t, f)
		rec.wantWhole(t, "the client", said, heard)
		if diff := cmp.Diff([]string{"Was that a fox?", "thinking"}, rec.greeted); diff != "" || f.retry != "1000" {
			t.Errorf("retry %q, greeted (-want +got):\n%s", f.retry, diff)
		}
		until(t, "its stream is not counted any more", func() bool { return r.Streams() == 0 })
	})
}

func TestWhatFailsBeforeAReplyIsTold(t *testing.T) {
	overBoth(t, func(t *testing.T, db *models.DB, major int) {
		user, _ := newUser(t, db)
		r := start(t, db, says())
		for name, do := range map[string]before{
			"nothing_heard": func(context.Context, func(string, any) error) (int64, error) { return 0, errors.New("nothing_heard") },
			"not found":     func(context.Context, func(string, any) error) (int64, error) { return 1 << 40, nil },
		} {
			want := []event{{"error", "", fmt.Sprintf(`{"message":"It went wrong.","code":%q,"retryable":true}`, name)}}
			if diff := cmp.Diff(want, opened(t, r.after(t, major, user, do)).all(), cmp.AllowUnexported(event{})); diff != "" {
				t.Errorf("%s: events (-want +got):\n%s", name, diff)
			}
		}
		until(t, "no stream is counted", func() bool { return r.Streams() == 0 })
	})
}

// Whoever waits for what is done before a reply learns that the client has left, or
// is not to be answered here.
func TestThePrefaceEndsWithItsStream(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end   func(r *replica, leave func())
		retry bool
		want  []event
	}{
		"since the client leaves": {func(_ *replica, leave func()) { leave() }, false, nil},
		"since the replica is ending": {func(r *replica, _ func()) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			r.Drain(ctx)
		}, true, nil},
		"since the device was signed out": {func(r *replica, _ func()) { r.CutOff() }, false, []event{
			{"error", "", `{"message":"This device was signed out.","code":"signed_out","retryable":false}`},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, func(t *testing.T, db *models.DB, major int) {
				user, _ := newUser(t, db)
				began, signedOut, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
				r := start(t, db, says(), func(c *stream.Config) {
					c.Revoked = func(stream.Viewer) bool {
						select {
						case <-signedOut:
							return true
						default:
							return false
						}
					}
				})
				open := r.after(t, major, user, func(ctx context.Context, tell func(string, any) error) (int64, error) {
					defer close(ended)
					err := tell("voice_processing", struct{}{})
					close(began)
					<-ctx.Done()
					return 0, errors.Join(err, ctx.Err())
				})
				ctx, leave := context.WithTimeout(t.Context(), patience)
				defer leave()
				f, err := open(ctx)
				if err != nil {
					t.Fatal(err)
				}
				<-began
				f.next()
				close(signedOut)
				test.end(r, leave)
				<-ended
				if name != "since the client leaves" {
					if diff := cmp.Diff(test.want, f.all(), cmp.AllowUnexported(event{})); diff != "" {
						t.Errorf("events (-want +got):\n%s", diff)
					}
				}
				if (f.retry != "1000") != test.retry {
					t.Errorf("retry is %q", f.retry)
				}
				until(t, "no stream is counted", func() bool { return r.Streams() == 0 })
			})
		})
	}
}

func TestAPanicBeforeAReplyEndsItsStream(t *testing.T) {
	overBoth(t, func(t *testing.T, db *models.DB, major int) {
		user, _ := newUser(t, db)
		r := start(t, db, says())
		open := r.after(t, major, user, func(context.Context, func(string, any) error) (int64, error) { panic("a fault of ours") })
		f, err := open(t.Context())
		if err == nil {
			if rest, err := f.lines.ReadString(0); err == nil || rest != "" {
				t.Errorf("got %q, %v", rest, err)
			}
		}
		until(t, "no stream is counted", func() bool { return r.Streams() == 0 })
	})
}
