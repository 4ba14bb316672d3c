package stream_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/stream"
)

// tellKind is an Encode that says what changed and nothing more of it.
func tellKind(e models.UserEvent) (string, any, bool) {
	return e.Kind, map[string]int64{"chat": e.ChatID, "message": e.MessageID}, true
}

// feed follows all that happens to a user.
func (r *replica) feed(t *testing.T, userID int64, lastID string) *follow {
	t.Helper()
	return r.get(t, fmt.Sprintf("/events?user=%d", userID), lastID)
}

// told reads events until n of them are there, each as its name and data.
func told(t *testing.T, f *follow, n int) (events []string) {
	t.Helper()
	for range n {
		e, ok := f.next()
		if !ok {
			t.Fatalf("the feed has ended after %q", events)
		}
		events = append(events, e.name+" "+e.data)
	}
	return events
}

func TestAFeedTellsAllThatHappens(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		words := make(chan string)
		r, elsewhere := start(t, db, steps(words)), start(t, db, says())
		here, there := r.feed(t, user, ""), elsewhere.feed(t, user, "")
		for name, f := range map[string]*follow{"here": here, "there": there} {
			if diff := cmp.Diff([]string{"ready {}"}, told(t, f, 1)); diff != "" {
				t.Errorf("%s it begins with (-want +got):\n%s", name, diff)
			}
		}
		ex := r.send(t, user, 0, "hello")
		chat, reply := ex.Chat.ID, ex.Reply.ID
		change := func(kind string, message int64) string {
			return fmt.Sprintf(`%s {"chat":%d,"message":%d}`, kind, chat, message)
		}
		want := []string{
			change("chat_created", 0),
			change("message_created", ex.User.ID),
			fmt.Sprintf(`message_start {"chat_id":%d,"user_message_id":%d,"message_id":%d,"title":"hello"}`, chat, ex.User.ID, reply),
		}
		got := map[*follow][]string{here: told(t, here, 3), there: told(t, there, 3)}
		for _, w := range []string{"one ", "two"} {
			words <- w
			token := fmt.Sprintf(`message_token {"message_id":%d,"text":%q}`, reply, w)
			want = append(want, token)
			for f := range got {
				got[f] = append(got[f], told(t, f, 1)...)
			}
		}
		close(words)
		want = append(want,
			fmt.Sprintf(`message_complete {"message_id":%d,"full_text":"one two","finish_reason":"stop","usage":{"input_tokens":2,"output_tokens":2,"estimated":true}}`, reply),
			change("chat_updated", 0), change("chat_deleted", 0))
		for f := range got {
			got[f] = append(got[f], told(t, f, 1)...)
		}
		if _, err := db.RenameChat(t.Context(), user, chat, "Greetings"); err != nil {
			t.Fatal(err)
		}
		r.Changed(t.Context(), user)
		for f := range got {
			got[f] = append(got[f], told(t, f, 1)...)
		}
		if _, err := db.DeleteChat(t.Context(), user, chat); err != nil {
			t.Fatal(err)
		}
		r.Changed(t.Context(), user)
		for f, name := range map[*follow]string{here: "here", there: "there"} {
			if diff := cmp.Diff(want, append(got[f], told(t, f, 1)...)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// Wherever a feed is cut, what it sent and what comes behind its last id is all
// that happened, and each reply's text as stored.
func TestAFeedResumesBehindEachEvent(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		first, second := make(chan string), make(chan string)
		byMessage := map[string]chan string{"first": first, "second": second}
		r := start(t, db, backendOf(byMessage))
		whole := r.feed(t, user, "")
		type state struct {
			id     string
			events int
		}
		var states []state
		var all []event
		read := func(n int) {
			for range n {
				e, ok := whole.next()
				if !ok {
					t.Fatal("the feed has ended")
				}
				all = append(all, e)
				states = append(states, state{e.id, len(all)})
			}
		}
		read(1)
		one := r.send(t, user, 0, "first")
		read(4 - 1)
		first <- "a"
		read(1)
		two := r.send(t, user, 0, "second")
		read(3)
		second <- "é"
		read(1)
		first <- "b"
		read(1)
		close(first)
		read(1)
		second <- "ô"
		read(1)
		close(second)
		read(1)

		for _, s := range states {
			f := r.feed(t, user, s.id)
			texts, ends := make(map[int64]string), 0
			note := func(e event) {
				switch e.name {
				case "message_token":
					texts[field[int64](t, e, "message_id")] += field[string](t, e, "text")
				case "message_complete":
					ends++
				}
			}
			for _, e := range all[:s.events] {
				note(e)
			}
			for ends < 2 {
				e, ok := f.next()
				if !ok {
					t.Fatalf("from %s: the feed has ended", s.id)
				}
				note(e)
			}
			want := map[int64]string{one.Reply.ID: "ab", two.Reply.ID: "éô"}
			if diff := cmp.Diff(want, texts); diff != "" {
				t.Errorf("from %s (-want +got):\n%s", s.id, diff)
			}
			f.response.Body.Close()
		}
	})
}

func TestAFeedJoinsTheRepliesThatRun(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words))
		ex := r.send(t, user, chat, "hello")
		words <- "so far"
		f := r.feed(t, user, "")
		got := told(t, f, 3)
		want := []string{
			"ready {}",
			fmt.Sprintf(`message_start {"chat_id":%d,"user_message_id":%d,"message_id":%d,"title":"hello"}`, chat, ex.User.ID, ex.Reply.ID),
			fmt.Sprintf(`message_token {"message_id":%d,"text":"so far"}`, ex.Reply.ID),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		close(words)
	})
}

// A reply goes on while a feed that follows it is being opened: reading where the
// client stands in the others takes a while.
func TestAFeedOpensUnderTokens(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			for p.Message == "without end" {
				if err := each(stream.Chunk{Text: "x"}); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(50 * time.Microsecond):
				}
			}
			return each(stream.Chunk{Done: true})
		}))
		last := "0"
		running := r.send(t, user, chat, "without end").Reply.ID
		last += fmt.Sprintf("~%d.1-0", running)
		for range 10 {
			id := r.send(t, user, 0, "at once").Reply.ID
			r.await(t, user, id)
			last += fmt.Sprintf("~%d.1-0", id)
		}
		for range 20 {
			f := r.feed(t, user, last)
			if f.response.StatusCode != http.StatusOK {
				t.Fatalf("the feed is answered with %s", f.response.Status)
			}
			told(t, f, 1)
			f.response.Body.Close()
		}
		if _, err := r.Stop(t.Context(), user, running); err != nil {
			t.Error(err)
		}
	})
}

// Who is told that what followed a message is gone forgets it all. A reply that it
// had a part of, because it was followed before that event was read, is then told
// from its start.
func TestAFeedTellsDeletionsInOrder(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string, 1)
		r := start(t, db, backendOf(map[string]chan string{"hello": words, "hello again": words}))
		first := r.send(t, user, chat, "hello")
		if _, err := r.Stop(t.Context(), user, first.Reply.ID); err != nil {
			t.Fatal(err)
		}
		_, before, err := db.EventBounds(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		words <- "so far"
		second, err := r.Edit(t.Context(), models.Rewrite{UserID: user, MessageID: first.User.ID, Content: "hello again"})
		if err != nil {
			t.Fatal(err)
		}
		change := func(kind string, message int64) string {
			return fmt.Sprintf(`%s {"chat":%d,"message":%d}`, kind, chat, message)
		}
		want := []string{
			change("message_updated", first.User.ID),
			change("messages_deleted", first.User.ID),
			change("chat_updated", 0),
			fmt.Sprintf(`message_start {"chat_id":%d,"user_message_id":%d,"message_id":%d,"title":"hello"}`, chat, first.User.ID, second.Reply.ID),
			fmt.Sprintf(`message_token {"message_id":%d,"text":"so far"}`, second.Reply.ID),
		}
		until(t, "the text is there", func() bool {
			p, err := db.ReplyProgress(t.Context(), second.Reply.ID, 0)
			return err == nil && p.Text == "so far"
		})
		for _, place := range []string{"", fmt.Sprintf("~%d", second.Reply.ID), fmt.Sprintf("~%d.1-3", second.Reply.ID)} {
			f := r.feed(t, user, fmt.Sprint(before, place))
			if diff := cmp.Diff(want, told(t, f, len(want))); diff != "" {
				t.Errorf("from %d%s (-want +got):\n%s", before, place, diff)
			}
			f.response.Body.Close()
		}
		close(words)
	})
}

// A feed follows so many replies at once. Of those that run when it is opened the
// others wait, wherever the client goes on from.
func TestAFeedTellsOfMoreRepliesThanItFollowsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words))
		const replies = 40
		for range replies {
			r.send(t, user, 0, "hello")
		}
		fresh := r.feed(t, user, "")
		told(t, fresh, 1)
		resumed := r.feed(t, user, fresh.lastID)
		close(words)
		for name, f := range map[string]*follow{"from the start": fresh, "from its first id": resumed} {
			started := make(map[int64]bool)
			for ended := 0; ended < replies; {
				e, ok := f.next()
				if !ok {
					t.Fatalf("%s: the feed has ended after %d replies", name, ended)
				}
				switch e.name {
				case "message_start":
					started[field[int64](t, e, "message_id")] = true
				case "message_complete":
					ended++
				}
			}
			if len(started) != replies {
				t.Errorf("%s: got %d replies, want %d", name, len(started), replies)
			}
		}
	})
}

func TestAFeedsIDsAreItsOwn(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, says("done"))
		ex := r.send(t, user, chat, "hello")
		r.await(t, user, ex.Reply.ID)
		for _, id := range []string{
			"x", "-1", "01", "1~", "1~x", "1~1.", "1~1.1", "1~01.1-0", "99999", "1.1-0", "~1", "1~1~",
			"1" + strings.Repeat("~1.1-0", 40),
		} {
			if f := r.feed(t, user, id); f.response.StatusCode != http.StatusTeapot {
				t.Errorf("id %q: status %d, want it refused", id, f.response.StatusCode)
			}
		}
		if f := r.feed(t, user+1, ""); f.response.StatusCode != http.StatusTeapot {
			t.Errorf("nobody's feed: status %d", f.response.StatusCode)
		}
		if _, err := db.Bun().NewRaw("DELETE FROM user_events").Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"resync {}"}, told(t, r.feed(t, user, "1"), 1)); diff != "" {
			t.Errorf("from an id that is not kept any more (-want +got):\n%s", diff)
		}
	})
}

// A reply that was taken over may end short of what was sent of it: a client that
// stood behind its end, or in an attempt that came to nothing, is told to forget
// that, and all else.
func TestAFeedResumesBehindTheEndOfAReply(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, says("done"))
		id := r.send(t, user, chat, "hello").Reply.ID
		r.await(t, user, id)
		want := []string{
			fmt.Sprintf(`message_reset {"message_id":%d,"attempt":1}`, id),
			fmt.Sprintf(`message_token {"message_id":%d,"text":"done"}`, id),
			fmt.Sprintf(`message_complete {"message_id":%d,"full_text":"done","finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":1}}`, id),
		}
		for _, place := range []string{"1-5", "2-0"} {
			var got []string
			f := r.feed(t, user, fmt.Sprintf("1~%d.%s", id, place))
			if f.response.StatusCode != http.StatusOK {
				t.Fatalf("from %s: %s", place, f.response.Status)
			}
			for len(got) < len(want) {
				if told := told(t, f, 1)[0]; !strings.HasPrefix(told, "message_created") && !strings.HasPrefix(told, "chat_") {
					got = append(got, told)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from %s (-want +got):\n%s", place, diff)
			}
			f.response.Body.Close()
		}
	})
}

func TestADrainMovesFeeds(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		r := start(t, db, says())
		f := r.feed(t, user, "")
		told(t, f, 1)
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			r.Drain(t.Context())
		}()
		if rest := f.all(); rest != nil || f.retry == "1000" {
			t.Errorf("it is sent elsewhere with %v, retry %s", rest, f.retry)
		}
		<-drained
	})
}

// Whoever learns of a reply the moment it is stored, before its writer has
// begun, is told all of it too.
func TestNoReplyIsMissedAsItBegins(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		r := start(t, db, says("all ", "of ", "it"))
		feeds := []*follow{r.feed(t, user, ""), r.feed(t, user, "")}
		const replies = 50
		for range replies {
			go func() {
				turn := models.NewTurn{UserID: user, Content: "hello"}
				if _, err := r.Send(t.Context(), turn); err != nil {
					t.Error(err)
				}
			}()
		}
		for i, f := range feeds {
			for n := 0; n < replies; {
				e, ok := f.next()
				if !ok {
					t.Fatalf("feed %d has ended after %d replies", i, n)
				}
				if e.name == "message_complete" {
					n++
				}
			}
			f.response.Body.Close()
		}
	})
}

// backendOf is a backend that says for each message what comes on its channel.
func backendOf(words map[string]chan string) backend {
	return func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
		return steps(words[p.Message])(ctx, p, each)
	}
}
