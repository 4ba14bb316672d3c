package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/stream"
)

func TestAReplyArrivesAsItIsSaid(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words))
		ex := r.send(t, user, chat, "I need advice")
		f := r.open(t, user, ex.Reply.ID, "")

		head := map[string]string{}
		for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "Content-Encoding"} {
			head[name] = f.response.Header.Get(name)
		}
		wantHead := map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no", "Content-Encoding": "",
		}
		if diff := cmp.Diff(wantHead, head); diff != "" {
			t.Errorf("headers (-want +got):\n%s", diff)
		}

		var got []event
		read := func() {
			e, ok := f.next()
			if !ok {
				t.Fatal("the stream has ended")
			}
			got = append(got, e)
		}
		read()
		for _, w := range []string{"I \"see\"", ".\n", "Né \u2028\x01 😀"} {
			words <- w
			read()
		}
		close(words)
		read()
		if rest := f.all(); rest != nil {
			t.Errorf("events after the ending: %v", rest)
		}
		id := ex.Reply.ID
		want := []event{
			{"message_start", "1-0", fmt.Sprintf(`{"chat_id":%d,"user_message_id":%d,"message_id":%d,"title":"I need advice"}`, chat, ex.User.ID, id)},
			{"message_token", "1-7", `{"text":"I \"see\""}`},
			{"message_token", "1-9", `{"text":".\n"}`},
			{"message_token", "1-22", `{"text":"Né \u2028\u0001 😀"}`},
			{"message_complete", "1-22", fmt.Sprintf(`{"message_id":%d,"full_text":"I \"see\".\nNé \u2028\u0001 😀","finish_reason":"stop","usage":{"input_tokens":4,"output_tokens":6,"estimated":true}}`, id)},
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if f.retry != "1000" {
			t.Errorf("retry: %q, want 1000", f.retry)
		}
	})
}

// Wherever a client is cut, it has in the end the text as stored.
func TestAReplyResumesBehindEachEvent(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words))
		ex := r.send(t, user, chat, "hello")

		f := r.open(t, user, ex.Reply.ID, "")
		ids := []string{""}
		texts := []string{""}
		for _, w := range []string{"", "Ünïcode ", "in ", "☔ pieces", "."} {
			if w != "" {
				words <- w
			}
			e, _ := f.next()
			ids, texts = append(ids, e.id), append(texts, texts[len(texts)-1]+w)
		}
		running := make([]*follow, len(ids))
		for i, id := range ids {
			running[i] = r.open(t, user, ex.Reply.ID, id)
		}
		words <- " And on."
		close(words)
		stored := r.await(t, user, ex.Reply.ID)
		for i, id := range ids {
			for name, f := range map[string]*follow{"running": running[i], "finished": r.open(t, user, ex.Reply.ID, id)} {
				tr := transcript{text: texts[i]}
				for _, e := range f.all() {
					tr.take(t, e)
				}
				got := []string{tr.text, tr.ending.name, field[string](t, tr.ending, "full_text")}
				if diff := cmp.Diff([]string{stored.Content, "message_complete", stored.Content}, got); diff != "" {
					t.Errorf("%s, from %q (-want +got):\n%s", name, id, diff)
				}
			}
		}
		end := fmt.Sprintf("1-%d", len(stored.Content))
		if f := r.open(t, user, ex.Reply.ID, end); f.response.StatusCode != http.StatusNoContent {
			t.Errorf("from %s, which is the end: status %d, want 204", end, f.response.StatusCode)
		}
	})
}

func TestAnIDThatNoEventHadIsRefused(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words))
		ex := r.send(t, user, chat, "hello")
		f := r.open(t, user, ex.Reply.ID, "")
		f.next()
		words <- "añb" // ñ has two bytes
		f.next()

		refused := func(state string) {
			for _, id := range []string{
				"1", "-", "1-", "-1", "0-0", "1-5", "2-0", "1-2", "01-1", "1-01", "+1-1", "1-+1", "1--1", "1 -1",
				"1-99999999999999999999", "99999999999-0", "1-0x1", "1-1-1", "a-b", "١-1",
			} {
				f := r.open(t, user, ex.Reply.ID, id)
				body, err := io.ReadAll(f.response.Body)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := string(body), stream.ErrInvalidEventID.Error()+"\n"; got != want {
					t.Errorf("%s, id %q: got %q, want %q", state, id, got, want)
				}
			}
		}
		refused("running")
		close(words)
		r.await(t, user, ex.Reply.ID)
		refused("finished")
	})
}

func TestOnlyTheUserReadsAReply(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		other, _ := newUser(t, db)
		words := make(chan string)
		r, elsewhere := start(t, db, steps(words)), start(t, db, says())
		ex := r.send(t, user, chat, "hello")
		for name, where := range map[string]*replica{"here": r, "elsewhere": elsewhere} {
			if _, err := where.Await(t.Context(), other, ex.Reply.ID); !errors.Is(err, models.ErrForbidden) {
				t.Errorf("%s, of somebody else's: %v, want ErrForbidden", name, err)
			}
			for _, id := range []int64{ex.Reply.ID + 1, ex.User.ID, 0, -1} {
				if _, err := where.Await(t.Context(), user, id); !errors.Is(err, models.ErrNotFound) {
					t.Errorf("%s, message %d: %v, want ErrNotFound", name, id, err)
				}
			}
		}
		close(words)
	})
}

func TestLeavingIsNotStopping(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words))
		ctx, leave := context.WithCancel(t.Context())
		ex, err := r.Send(ctx, models.NewTurn{UserID: user, ChatID: chat, Content: "hello"})
		if err != nil {
			t.Fatal(err)
		}
		leave()
		f := r.open(t, user, ex.Reply.ID, "")
		f.next()
		f.response.Body.Close()
		for _, w := range strings.SplitAfter("it goes on and on", " ") {
			words <- w
		}
		close(words)
		got := r.await(t, user, ex.Reply.ID)
		if got.Content != "it goes on and on" || got.Status != models.StatusComplete {
			t.Errorf("got %q, %s", got.Content, got.Status)
		}
	})
}

func TestABackendThatFails(t *testing.T) {
	t.Parallel()
	unavailable := &stream.BackendError{Code: stream.CodeBackendUnavailable, Retryable: true, Err: errors.New("no route to host")}
	for name, test := range map[string]struct {
		backend backend
		text    string
		code    string
		retry   bool
	}{
		"before the first word": {
			backend: func(context.Context, stream.Prompt, func(stream.Chunk) error) error { return unavailable },
			code:    "backend_unavailable",
			retry:   true,
		},
		"in the middle": {
			backend: func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
				return errors.Join(each(stream.Chunk{Text: "half a"}), &stream.BackendError{Code: stream.CodeBackendTimeout, Retryable: true, Err: io.EOF})
			},
			text:  "half a",
			code:  "backend_timeout",
			retry: true,
		},
		"for good": {
			backend: func(context.Context, stream.Prompt, func(stream.Chunk) error) error {
				return &stream.BackendError{Code: stream.CodeBackendRefused, Err: errors.New("a wrong key")}
			},
			code: "backend_refused",
		},
		"since the chat is too long": {
			backend: func(context.Context, stream.Prompt, func(stream.Chunk) error) error {
				return &stream.BackendError{Code: stream.CodeChatTooLong, Err: errors.New("4097 tokens")}
			},
			code: "chat_too_long",
		},
		"in a way that nobody foresaw": {
			backend: func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
				return errors.Join(each(stream.Chunk{Text: "?"}), io.ErrShortBuffer)
			},
			text:  "?",
			code:  "internal_error",
			retry: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				first := true
				r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
					if first {
						first = false
						return test.backend(ctx, p, each)
					}
					return says("well again")(ctx, p, each)
				}))
				ex := r.send(t, user, chat, "hello")
				var tr transcript
				for _, e := range r.open(t, user, ex.Reply.ID, "").all() {
					tr.take(t, e)
				}
				type outcome struct {
					text, event, code string
					retryable         bool
					messageID         int64
				}
				got := outcome{
					tr.text, tr.ending.name, field[string](t, tr.ending, "code"),
					field[bool](t, tr.ending, "retryable"), field[int64](t, tr.ending, "message_id"),
				}
				want := outcome{test.text, "error", test.code, test.retry, ex.Reply.ID}
				if got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				if m := r.await(t, user, ex.Reply.ID); m.Content != test.text || m.Status != models.StatusFailed || *m.ErrorCode != test.code {
					t.Errorf("saved: %+v", m)
				}
				again := r.send(t, user, chat, "hello?")
				if m := r.await(t, user, again.Reply.ID); m.Content != "well again" {
					t.Errorf("the next reply is %q", m.Content)
				}
			})
		})
	}
}

func TestTheBackendIsAskedWithTheHistory(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		prompts := make(chan stream.Prompt, 3)
		r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			prompts <- p
			return says("and ", p.Message)(ctx, p, each)
		}), func(c *stream.Config) { c.Model = "small" })
		ex := r.send(t, user, chat, "one")
		r.await(t, user, ex.Reply.ID)
		ex = r.send(t, user, chat, "two")
		r.await(t, user, ex.Reply.ID)
		<-prompts
		want := stream.Prompt{
			UserID: user, ChatID: chat, MessageID: ex.Reply.ID, Message: "two", Model: "small",
			History: []stream.Turn{{Role: "user", Content: "one"}, {Role: "assistant", Content: "and one"}},
		}
		if diff := cmp.Diff(want, <-prompts); diff != "" {
			t.Errorf("prompt (-want +got):\n%s", diff)
		}
	})
}

func TestAnAnswerWithoutEndIsCutOff(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			for {
				if err := each(stream.Chunk{Text: "é "}); err != nil {
					return err
				}
			}
		}), func(c *stream.Config) { c.MaxReplyBytes = 1000 })
		ex := r.send(t, user, chat, "hello")
		m := r.await(t, user, ex.Reply.ID)
		if want := strings.Repeat("é ", 333); m.Content != want || *m.FinishReason != "length" || m.Status != models.StatusComplete {
			t.Errorf("got %d bytes, %s, %s", len(m.Content), *m.FinishReason, m.Status)
		}
	})
}

func TestASendThatIsRepeatedIsOneReply(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		calls := make(chan struct{}, 10)
		b := backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			calls <- struct{}{}
			return steps(words)(ctx, p, each)
		})
		r, elsewhere := start(t, db, b), start(t, db, b)
		turn := models.NewTurn{UserID: user, ChatID: chat, Content: "hello", Key: &models.IdempotencyKey{Route: "send", Key: "k", BodyHash: "h"}}
		ex, err := r.Send(t.Context(), turn)
		if err != nil {
			t.Fatal(err)
		}
		words <- "once"
		for _, where := range []*replica{r, elsewhere} {
			again, err := where.Send(t.Context(), turn)
			if err != nil || !again.Replayed || again.Reply.ID != ex.Reply.ID {
				t.Errorf("got %+v, %v", again, err)
			}
		}
		f := elsewhere.open(t, user, ex.Reply.ID, "")
		close(words)
		var tr transcript
		for _, e := range f.all() {
			tr.take(t, e)
		}
		if tr.text != "once" || len(calls) != 1 {
			t.Errorf("got %q by %d calls to the backend", tr.text, len(calls))
		}
	})
}

// full is a backend that takes no call.
type full struct{ backend }

var errFull = errors.New("the backend is full")

func (full) Admit() error { return errFull }

func TestAReplicaThatTakesNoReplyRepeatsWhatWasSent(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		r := start(t, db, says("once"))
		key := func(route, body string) *models.IdempotencyKey {
			return &models.IdempotencyKey{Route: route, Key: "k", BodyHash: body}
		}
		sent := func(body string) models.NewTurn {
			return models.NewTurn{UserID: user, Content: "hello", Key: key("send", body)}
		}
		first, err := r.Send(t.Context(), sent("h"))
		if err != nil {
			t.Fatal(err)
		}
		r.await(t, user, first.Reply.ID)
		rewrite := models.Rewrite{UserID: user, MessageID: first.Reply.ID, Key: key("regenerate", "h")}
		second, err := r.Regenerate(t.Context(), rewrite)
		if err != nil {
			t.Fatal(err)
		}
		r.await(t, user, second.Reply.ID)

		ending := start(t, db, says("twice"))
		ending.Drain(t.Context())
		for name, c := range map[string]struct {
			*replica
			refused error
		}{
			"one that is ending":            {ending, stream.ErrDraining},
			"one whose backend has no room": {start(t, db, full{says("twice")}), errFull},
		} {
			for what, repeat := range map[string]func() (models.Exchange, error){
				"what was sent":      func() (models.Exchange, error) { return c.Send(t.Context(), sent("h")) },
				"what was rewritten": func() (models.Exchange, error) { return c.Regenerate(t.Context(), rewrite) },
			} {
				if ex, err := repeat(); err != nil || !ex.Replayed || ex.Reply.ID != second.Reply.ID || ex.Reply.Content != "once" {
					t.Errorf("%s, %s: got %+v, %v", name, what, ex, err)
				}
			}
			if _, err := c.Send(t.Context(), sent("another")); !errors.Is(err, models.ErrKeyReused) {
				t.Errorf("%s, the key with another body: got %v", name, err)
			}
			for what, k := range map[string]*models.IdempotencyKey{"another key": key("send elsewhere", "h"), "no key": nil} {
				if _, err := c.Send(t.Context(), models.NewTurn{UserID: user, Content: "hello", Key: k}); !errors.Is(err, c.refused) {
					t.Errorf("%s, %s: got %v, want %v", name, what, err, c.refused)
				}
			}
		}
	})
}

func TestAReplyIsFollowedElsewhere(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r, elsewhere := start(t, db, steps(words)), start(t, db, says("not asked"))
		ex := r.send(t, user, chat, "hello")
		here, there := r.open(t, user, ex.Reply.ID, ""), elsewhere.open(t, user, ex.Reply.ID, "")
		here.next()
		there.next()
		var tr transcript
		for _, w := range []string{"word ", "by ", "☔ ", "word"} {
			words <- w
			e, _ := here.next()
			// What was sent here may not be saved yet: an id from here holds
			// there all the same.
			resumed := elsewhere.open(t, user, ex.Reply.ID, e.id)
			if resumed.response.StatusCode != http.StatusOK {
				t.Fatalf("from %s: status %d", e.id, resumed.response.StatusCode)
			}
			resumed.response.Body.Close()
			e, _ = there.next()
			tr.take(t, e)
		}
		close(words)
		for _, e := range there.all() {
			tr.take(t, e)
		}
		if tr.text != "word by ☔ word" || tr.ending.name != "message_complete" {
			t.Errorf("got %q, ended by %q", tr.text, tr.ending.name)
		}
	})
}

// Replies that are read together elsewhere each keep what is theirs: one ends,
// one is deleted, and the others go on.
func TestManyRepliesAreFollowedElsewhere(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		const replies = 12
		words := make(map[string]chan string)
		for i := range replies {
			words[fmt.Sprint("reply ", i)] = make(chan string)
		}
		r, elsewhere := start(t, db, backendOf(words)), start(t, db, says())
		var exchanges [replies]models.Exchange
		var follows [replies]*follow
		for i := range replies {
			exchanges[i] = r.send(t, user, 0, fmt.Sprint("reply ", i))
			follows[i] = elsewhere.open(t, user, exchanges[i].Reply.ID, "")
		}
		for _, said := range []string{"I am", " number "} {
			for i := range replies {
				words[fmt.Sprint("reply ", i)] <- said + fmt.Sprint(i)
			}
		}
		if _, err := db.DeleteChat(t.Context(), user, exchanges[0].Chat.ID); err != nil {
			t.Fatal(err)
		}
		for i := range replies {
			if i > 0 {
				close(words[fmt.Sprint("reply ", i)])
			}
			var tr transcript
			for _, e := range follows[i].all() {
				tr.take(t, e)
			}
			got, want := []string{tr.text, tr.ending.name}, []string{fmt.Sprintf("I am%d number %d", i, i), "message_complete"}
			if i == 0 {
				got, want = got[1:], []string{"error"}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("reply %d (-want +got):\n%s", i, diff)
			}
		}
	})
}

func TestADeletedChatEndsItsReply(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		for _, where := range []string{"here", "elsewhere"} {
			user, chat := newUser(t, db)
			words, left := make(chan string), make(chan struct{})
			r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
				defer close(left)
				return steps(words)(ctx, p, each)
			}))
			elsewhere := start(t, db, says())
			ex := r.send(t, user, chat, "hello")
			here, there := r.open(t, user, ex.Reply.ID, ""), elsewhere.open(t, user, ex.Reply.ID, "")
			words <- "some"
			id, err := db.DeleteChat(t.Context(), user, chat)
			if err != nil || id != ex.Reply.ID {
				t.Fatalf("delete: %d, %v", id, err)
			}
			if where == "here" {
				r.Forget(t.Context(), id)
			}
			for name, f := range map[string]*follow{"here": here, "there": there} {
				events := f.all()
				last := events[len(events)-1]
				if last.name != "error" || field[string](t, last, "code") != "chat_deleted" {
					t.Errorf("deleted %s: %s it ends with %+v", where, name, last)
				}
			}
			<-left
		}
	})
}

// Who follows elsewhere a reply that another one takes the place of, or that an
// edit drops, may hear of that before its end. It is not told that its chat is gone.
func TestAReplyThatWasDroppedFromItsChat(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r, elsewhere := start(t, db, steps(nil)), start(t, db, says())
		ex := r.send(t, user, chat, "hello")
		follow := elsewhere.open(t, user, ex.Reply.ID, "")
		if _, err := db.Bun().NewRaw("DELETE FROM messages WHERE id = ?", ex.Reply.ID).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		events := follow.all()
		last := events[len(events)-1]
		if last.name != "error" || field[string](t, last, "code") != "message_deleted" {
			t.Errorf("it ends with %+v", last)
		}
	})
}

// A backend's reason is a word. One that is a book is not sent with every list of
// messages.
func TestAReasonIsShort(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			return each(stream.Chunk{Text: "Fine.", Done: true, FinishReason: "x" + strings.Repeat("é", 1<<20)})
		}))
		m := r.await(t, user, r.send(t, user, chat, "hello").Reply.ID)
		if got, want := m.FinishReason, "x"+strings.Repeat("é", 31); got == nil || *got != want {
			t.Errorf("got %.80q, want %q", *got, want)
		}
	})
}

// A stream outlives the deadline of each of its writes.
func TestAStreamHasNoTimeLimit(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words), func(c *stream.Config) { c.Stall = 50 * time.Millisecond })
		ex := r.send(t, user, chat, "hello")
		f := r.open(t, user, ex.Reply.ID, "")
		f.next()
		for range 4 {
			time.Sleep(60 * time.Millisecond) // longer than a write may take
			words <- "word "
			f.next()
		}
		close(words)
		if e, ok := f.next(); !ok || e.name != "message_complete" {
			t.Errorf("it ends with %+v", e)
		}
	})
}

// Who reads nothing is let go, harms nobody, and loses nothing.
func TestAStuckReader(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words), func(c *stream.Config) {
			c.Stall, c.MaxReplyBytes = 2*time.Second, 64<<20
		})
		ex := r.send(t, user, chat, "hello")
		stuck, well := r.open(t, user, ex.Reply.ID, ""), r.open(t, user, ex.Reply.ID, "")
		var tr transcript
		e, _ := stuck.next()
		lastID := e.id
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, e := range well.all() {
				tr.take(t, e)
			}
		}()
		word := strings.Repeat("more than the system keeps for a client ", 1<<13)
		for range 24 {
			words <- word
		}
		until(t, "the stuck reader is let go", func() bool { return r.Streams() == 1 })
		close(words)
		<-done
		if want := strings.Repeat(word, 24); tr.text != want || tr.ending.name != "message_complete" {
			t.Errorf("the other reader has %d bytes of %d", len(tr.text), len(want))
		}
		again := transcript{}
		for _, e := range r.open(t, user, ex.Reply.ID, lastID).all() {
			again.take(t, e)
		}
		if again.text != tr.text {
			t.Errorf("the stuck reader has %d bytes after it came back", len(again.text))
		}
	})
}

func TestHeartbeats(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words), func(c *stream.Config) { c.Heartbeat = 20 * time.Millisecond })
		ex := r.send(t, user, chat, "hello")
		f, talking := r.open(t, user, ex.Reply.ID, ""), r.open(t, user, ex.Reply.ID, "1-0")
		go func() {
			time.Sleep(200 * time.Millisecond)
			close(words)
		}()
		f.all()
		talking.all()
		if f.comments < 2 || talking.comments < 2 {
			t.Errorf("%d and %d comments in ten heartbeats", f.comments, talking.comments)
		}
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"here", "elsewhere"} {
		t.Run(where, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				words, left := make(chan string), make(chan struct{}, 2)
				r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
					defer func() { left <- struct{}{} }()
					return steps(words)(ctx, p, each)
				}))
				other := start(t, db, says())
				stopper := map[string]*replica{"here": r, "elsewhere": other}[where]
				ex := r.send(t, user, chat, "hello")
				follows := map[string]*follow{
					"here": r.open(t, user, ex.Reply.ID, ""), "elsewhere": other.open(t, user, ex.Reply.ID, ""),
				}
				transcripts := map[string]*transcript{"here": {}, "elsewhere": {}}
				words <- "as far "
				words <- "as this"
				// What is kept is what was shown, so it has to be shown first.
				transcripts["here"].until(t, follows["here"], "as far as this")
				m, err := stopper.Stop(t.Context(), user, ex.Reply.ID)
				if err != nil {
					t.Fatal(err)
				}
				if m.Content != "as far as this" || m.Status != models.StatusStopped {
					t.Errorf("saved: %q, %s", m.Content, m.Status)
				}
				<-left
				for name, f := range follows {
					tr := transcripts[name]
					for _, e := range f.all() {
						tr.take(t, e)
					}
					if tr.text != m.Content || tr.ending.name != "message_stopped" || field[string](t, tr.ending, "full_text") != m.Content {
						t.Errorf("a follower %s has %q, ended by %+v", name, tr.text, tr.ending)
					}
				}
				// A late stop changes nothing, and does not hit the next reply.
				next := r.send(t, user, chat, "go on")
				again, err := stopper.Stop(t.Context(), user, ex.Reply.ID)
				if diff := cmp.Diff(m, again); diff != "" || err != nil {
					t.Errorf("stopped twice: %v\n%s", err, diff)
				}
				words <- "all of it"
				close(words)
				if m := r.await(t, user, next.Reply.ID); m.Content != "all of it" || m.Status != models.StatusComplete {
					t.Errorf("the next reply: %q, %s", m.Content, m.Status)
				}
			})
		})
	}
}

func TestAnotherReply(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		prompts := make(chan stream.Prompt, 4)
		r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			prompts <- p
			return says("to ", p.Message)(ctx, p, each)
		}))
		one := r.send(t, user, chat, "one")
		r.await(t, user, one.Reply.ID)
		<-prompts
		regenerated, err := r.Regenerate(t.Context(), models.Rewrite{UserID: user, MessageID: one.Reply.ID})
		if err != nil {
			t.Fatal(err)
		}
		if m := r.await(t, user, regenerated.Reply.ID); m.Content != "to one" || len((<-prompts).History) != 0 {
			t.Errorf("regenerated: %q", m.Content)
		}
		two := r.send(t, user, chat, "two")
		r.await(t, user, two.Reply.ID)
		<-prompts
		edited, err := r.Edit(t.Context(), models.Rewrite{UserID: user, MessageID: one.User.ID, Content: "eins"})
		if err != nil {
			t.Fatal(err)
		}
		m := r.await(t, user, edited.Reply.ID)
		if p := <-prompts; m.Content != "to eins" || p.Message != "eins" || len(p.History) != 0 {
			t.Errorf("edited: %q, to %+v", m.Content, p)
		}
	})
}
