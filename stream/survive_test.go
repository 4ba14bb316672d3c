package stream_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// script is what the backends below say, however often they are asked.
const script = "The quick brown fox jumps over the lazy dog, and the dog, who had been asleep under the old pear tree since noon, opens one eye, looks after it, and sleeps on."

// A teller says the script, a word for each token that it gets, and where it
// can go on it does.
func teller(words <-chan struct{}, text string, goesOn bool) backend {
	return func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
		rest, continued := strings.CutPrefix(text, p.ContinueFrom)
		if continued = continued && goesOn && p.ContinueFrom != ""; !continued {
			rest = text
		}
		for _, w := range strings.SplitAfter(rest, " ") {
			select {
			case <-words:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := each(stream.Chunk{Text: w, Continued: continued}); err != nil {
				return err
			}
			continued = false
		}
		return each(stream.Chunk{Done: true})
	}
}

func give(n int) chan struct{} {
	c := make(chan struct{}, n)
	for range n {
		c <- struct{}{}
	}
	return c
}

// leave begins n replies of a new user that owner does not write.
func leave(t *testing.T, db *models.DB, owner string, n int) {
	t.Helper()
	user, _ := newUser(t, db)
	for i := range n {
		if _, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: user, Content: fmt.Sprint("tell me ", i), Owner: owner}); err != nil {
			t.Fatal(err)
		}
	}
}

// A replica that finds more replies without an owner than it takes at once does
// not leave the others to its next look.
func TestManyRepliesAreTakenOverAtOnce(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		const n = 250
		leave(t, db, "", n)
		r := start(t, db, teller(nil, script, true), func(c *stream.Config) { c.PollEvery = time.Hour })
		until(t, "all replies run here", func() bool { return r.Replies() == n })
	})
}

// A replica that finds only replies which another one is about to take looks again
// for what that one leaves.
func TestTheLoserOfARaceLooksAgain(t *testing.T) {
	t.Parallel()
	url := modelstest.URL(t, models.Postgres)
	db, err := models.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	other, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	const n = 250
	leave(t, db, "", n)
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // it has been
	if _, err := tx.ExecContext(t.Context(), "SELECT 1 FROM replies FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	r := start(t, db, teller(nil, script, true), func(c *stream.Config) { c.Lease, c.PollEvery = time.Hour, time.Hour })
	leases := make(map[time.Time]bool) // it renews its own before each look
	until(t, "it has looked twice", func() bool {
		var lease sql.NullTime
		if err := other.QueryRowContext(t.Context(), "SELECT max(lease_until) FROM replicas").Scan(&lease); err != nil {
			t.Fatal(err)
		}
		if lease.Valid {
			leases[lease.Time] = true
		}
		return len(leases) > 2
	})
	if got := r.Replies(); got != 0 {
		t.Errorf("%d replies run here, and are another one's", got)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	until(t, "all replies run here", func() bool { return r.Replies() == n })
}

// A dead replica's replies are taken over when its lease lapses, and by one that
// has just begun once that knows the dead, and not at the next poll after that.
func TestALapsedLeaseIsNotWaitedForTwice(t *testing.T) {
	const lease = 5 * time.Second
	for name, leases := range map[string]map[string]time.Duration{
		// A replica trusts the leases that it sees once it has kept its own for as long.
		"it lapses": {"another that died": lease * 6 / 10, "dead": lease * 12 / 10},
		"it lapsed": {"another that died": lease * 6 / 10},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				leave(t, db, "dead", 1)
				for owner, left := range leases {
					if err := db.RenewReplica(t.Context(), owner, left); err != nil {
						t.Fatal(err)
					}
				}
				r := start(t, db, teller(nil, script, true), func(c *stream.Config) { c.Lease, c.PollEvery = lease, time.Hour })
				until(t, "the reply runs here", func() bool { return r.Replies() == 1 })
			})
		})
	}
}

// die begins a reply on a replica that then dies: its client, who stands behind
// lastID, has more of the text than was saved.
func die(t *testing.T, db *models.DB) (user, id int64, lastID string, tr transcript) {
	t.Helper()
	user, chat := newUser(t, db)
	paced := give(20)
	first := start(t, db, teller(paced, script, true), hasty)
	id = first.send(t, user, chat, "tell me").Reply.ID
	f := first.open(t, user, id, "")
	for len(tr.text) < len(script)/2 {
		e, _ := f.next()
		tr.take(t, e)
	}
	saved := func() int {
		m, err := db.Message(t.Context(), user, id)
		if err != nil {
			t.Fatal(err)
		}
		return len(m.Content)
	}
	until(t, "text is saved", func() bool { return saved() > 0 })
	first.kill()
	lost := saved()
	// What is said after the last save is lost with the replica.
	for range 3 {
		paced <- struct{}{}
	}
	for len(tr.text) < lost+5 {
		e, _ := f.next()
		tr.take(t, e)
	}
	f.response.Body.Close()
	return user, id, f.lastID, tr
}

// A reply that is taken over can end before its text is as long as what the
// client of the dead replica has: that one is told to forget what is not stored,
// and how it ended.
func TestATakenOverReplyEndsShort(t *testing.T) {
	t.Parallel()
	mute := backend(func(ctx context.Context, _ stream.Prompt, _ func(stream.Chunk) error) error {
		<-ctx.Done()
		return ctx.Err()
	})
	stop := func(t *testing.T, second *replica, user, id int64) {
		until(t, "the reply is taken over", func() bool { return second.Replies() == 1 })
		if _, err := second.Stop(t.Context(), user, id); err != nil {
			t.Fatal(err)
		}
	}
	nothing := func(*testing.T, *replica, int64, int64) {}
	for name, test := range map[string]struct {
		backend func(sent string) backend
		end     func(t *testing.T, second *replica, user, id int64)
		ending  string
	}{
		"stopped before the backend says anything": {func(string) backend { return mute }, stop, "message_stopped"},
		"stopped while the backend repeats":        {func(string) backend { return teller(give(1), script, true) }, stop, "message_stopped"},
		"failed": {func(string) backend {
			return func(context.Context, stream.Prompt, func(stream.Chunk) error) error {
				return &stream.BackendError{Code: stream.CodeBackendUnavailable, Err: errors.New("away")}
			}
		}, nothing, "error"},
		"complete, since the backend has less to say": {func(sent string) backend {
			return wholeOf(strings.ToValidUTF8(sent[:len(sent)-4], ""))
		}, nothing, "message_complete"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, id, lastID, tr := die(t, db)
				second := start(t, db, test.backend(tr.text), hasty)
				test.end(t, second, user, id)
				stored := second.await(t, user, id)
				again := second.open(t, user, id, lastID)
				if again.response.StatusCode != http.StatusOK {
					t.Fatalf("the client that comes back gets %s", again.response.Status)
				}
				for _, e := range again.all() {
					tr.take(t, e)
				}
				if tr.text != stored.Content || tr.resets != 1 || tr.ending.name != test.ending {
					t.Errorf("the client has\n%q after %d resets, ended by %s, stored is\n%q", tr.text, tr.resets, tr.ending.name, stored.Content)
				}
				if code := second.open(t, user, id, tr.ending.id).response.StatusCode; code != http.StatusNoContent {
					t.Errorf("at the end a client gets %d", code)
				}
			})
		})
	}
}

// A backend that says a word again by chance is not one that repeats itself: it is
// to say again nearly all that is saved of a reply that had hardly begun. If it
// does, nobody notices; if not, who has more begins anew, and who has not goes on.
func TestATakenOverReplyHadHardlyBegun(t *testing.T) {
	t.Parallel()
	const saved = "I know "
	for name, test := range map[string]struct {
		choice string // what the backend says when it is asked with the first word
		want   map[string]string
	}{
		"it repeats itself": {"I know nothing.", map[string]string{"1-7": "nothing.", "1-10": "hing."}},
		"it does not":       {"I was not there.", map[string]string{"1-7": "nothing.", "1-10": "reset I know nothing."}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: user, ChatID: chat, Content: "Who was it?", Owner: "nobody"})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: saved}}); err != nil {
					t.Fatal(err)
				}
				second := start(t, db, backend(func(_ context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
					text := "I know nothing."
					if p.ContinueFrom == "I" {
						text = test.choice
					}
					return each(stream.Chunk{Text: strings.TrimPrefix(text, p.ContinueFrom), Continued: true, Done: true})
				}), hasty)
				second.await(t, user, ex.Reply.ID)
				for from, want := range test.want {
					got := ""
					for _, e := range second.open(t, user, ex.Reply.ID, from).all() {
						switch e.name {
						case "message_reset":
							got += "reset "
						case "message_token":
							got += field[string](t, e, "text")
						}
					}
					if got != want {
						t.Errorf("with id %s: got %q, want %q", from, got, want)
					}
				}
			})
		})
	}
}

// The first text of a reply is saved when it comes, of many that begin together too.
func TestAReplysFirstTextIsSaved(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		only := start(t, db, saysAndWaits("The "), func(c *stream.Config) { c.FlushEvery = time.Hour })
		for range 20 {
			id := only.send(t, user, 0, "tell me").Reply.ID
			until(t, "the first word is saved", func() bool {
				m, err := db.Message(t.Context(), user, id)
				return err == nil && m.Content == "The "
			})
		}
	})
}

// The beginning of a reply is saved as it comes, so that there soon is enough to
// go on from.
func TestAReplysBeginningIsSaved(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		paced := give(1)
		only := start(t, db, teller(paced, script, true), func(c *stream.Config) { c.SaveEvery = time.Hour })
		id := only.send(t, user, chat, "tell me").Reply.ID
		saved := 0
		for saved < 64 {
			before := saved
			until(t, fmt.Sprintf("more than %d bytes are saved", before), func() bool {
				m, err := db.Message(t.Context(), user, id)
				saved = len(m.Content)
				return err == nil && saved > before
			})
			paced <- struct{}{}
		}
	})
}

// What an earlier attempt shares with the text is gone on from where a character
// begins. An id that stands within one was never sent.
func TestATakenOverReplyIsSentInWholeCharacters(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		first := start(t, db, saysAndWaits("éééé"), hasty)
		id := first.send(t, user, chat, "hello").Reply.ID
		until(t, "the text is saved", func() bool {
			m, err := db.Message(t.Context(), user, id)
			return err == nil && m.Content == "éééé"
		})
		first.kill()
		second := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			// It never repeats what was there, which makes another attempt of it.
			return errors.Join(each(stream.Chunk{Text: "àà", Continued: true}), each(stream.Chunk{Done: true}))
		}), hasty)
		if m := second.await(t, user, id); m.Content != "ééééàà" || m.Attempt != 2 {
			t.Fatalf("got attempt %d, %q", m.Attempt, m.Content)
		}
		for from, want := range map[string][]string{
			"1-4": {`message_token {"text":"ééàà"}`},
			"1-3": {fmt.Sprintf(`message_reset {"message_id":%d,"attempt":2}`, id), `message_token {"text":"ééééàà"}`},
		} {
			var got []string
			for _, e := range second.open(t, user, id, from).all() {
				if e.name != "message_complete" {
					got = append(got, e.name+" "+e.data)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from %s (-want +got):\n%s", from, diff)
			}
		}
	})
}

// A replica takes over the reply of one that died, and does not learn that it did:
// the answer of the commit got lost. Who writes it then does not take what is saved
// for all that was sent.
func TestATakenOverReplyThatNobodyWrites(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, id, lastID, tr := die(t, db)
		second := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			return errors.Join(each(stream.Chunk{Text: "That is all there is to tell.", Continued: true}), each(stream.Chunk{Done: true}))
		}))
		var orphans []models.RunningReply
		until(t, "the replica is taken for dead", func() bool {
			var err error
			if orphans, err = db.OrphanedReplies(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			return len(orphans) == 1
		})
		if taken, err := db.TakeReplies(t.Context(), orphans, second.Replica()); err != nil || len(taken) != 1 {
			t.Fatalf("took %d replies, %v", len(taken), err)
		}
		for _, e := range second.open(t, user, id, lastID).all() {
			tr.take(t, e)
		}
		if stored := second.await(t, user, id); tr.text != stored.Content || tr.resets != 1 {
			t.Errorf("the client has\n%q after %d resets, stored is\n%q", tr.text, tr.resets, stored.Content)
		}
	})
}

// A replica dies without a word; its client comes back to another one.
func TestAReplyIsTakenOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		goesOn bool
		text   string // of the second backend
		resets int
	}{
		"by a backend that goes on":                     {true, script, 0},
		"by a backend that begins anew":                 {false, script, 1},
		"by a backend that goes on, but says it anew":   {true, strings.ReplaceAll(script, "e", "ë"), 1},
		"by a backend that begins anew, with new words": {false, "Another story altogether, without a fox.", 1},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, id, lastID, tr := die(t, db)
				second := start(t, db, teller(give(100), test.text, test.goesOn), hasty)
				again := second.open(t, user, id, lastID)
				for _, e := range again.all() {
					tr.take(t, e)
				}
				stored := second.await(t, user, id)
				if tr.text != stored.Content {
					t.Errorf("the client has\n%q, stored is\n%q", tr.text, stored.Content)
				}
				if tr.resets != test.resets {
					t.Errorf("%d resets, want %d", tr.resets, test.resets)
				}
				if tr.ending.name != "message_complete" || field[string](t, tr.ending, "full_text") != stored.Content {
					t.Errorf("ended by %+v", tr.ending)
				}
			})
		})
	}
}

// An owner that was thought dead and wakes up writes nothing any more, and its
// clients follow the new one.
func TestAPausedOwnerIsFenced(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		paced := give(10)
		paused := start(t, db, teller(paced, script, true), func(c *stream.Config) {
			c.PollEvery = time.Second // its lease lapses between two renewals
			c.Lease = 100 * time.Millisecond
		})
		ex := paused.send(t, user, chat, "tell me")
		f := paused.open(t, user, ex.Reply.ID, "")
		second := start(t, db, teller(give(100), script, true), hasty)
		stored := second.await(t, user, ex.Reply.ID)
		for range cap(paced) {
			select {
			case paced <- struct{}{}:
			default: // it knows already, and writes no more
			}
		}
		var tr transcript
		for _, e := range f.all() {
			tr.take(t, e)
		}
		if stored.Content != script || tr.text != script || tr.resets != 0 {
			t.Errorf("stored %q, the first owner's client has %q after %d resets", stored.Content, tr.text, tr.resets)
		}
	})
}

func TestDrain(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		paced := give(10)
		ending := start(t, db, teller(paced, script, true))
		staying := start(t, db, teller(give(1000), script, true))
		short := ending.send(t, user, chat, "a short one")
		another, _, err := db.CreateChat(t.Context(), user, "New Chat", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		long := ending.send(t, user, another.ID, "a long one")
		f := ending.open(t, user, long.Reply.ID, "")
		var tr transcript
		e, _ := f.next()
		tr.take(t, e)

		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			ending.Drain(ctx)
		}()
		for _, e := range f.all() {
			tr.take(t, e)
		}
		if f.retry == "1000" || tr.ending.name != "" {
			t.Errorf("the client is sent elsewhere with retry %q and ending %q", f.retry, tr.ending.name)
		}
		if _, err := ending.Send(t.Context(), models.NewTurn{UserID: user, Content: "x"}); !errors.Is(err, stream.ErrDraining) {
			t.Errorf("a send to an ending replica: %v", err)
		}
		elsewhere := staying.open(t, user, long.Reply.ID, f.lastID)
		for _, e := range elsewhere.all() {
			tr.take(t, e)
		}
		<-drained
		for name, ex := range map[string]models.Exchange{"short": short, "long": long} {
			if m := staying.await(t, user, ex.Reply.ID); m.Content != script {
				t.Errorf("the %s reply is %q", name, m.Content)
			}
		}
		if tr.text != script || tr.resets != 0 {
			t.Errorf("the client has %q after %d resets", tr.text, tr.resets)
		}
	})
}

// A reply that is stored and that nobody writes, since the answer of the
// commit got lost, is found and written.
func TestAReplyThatNobodyWrites(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: user, ChatID: chat, Content: "hello", Owner: "nobody"})
		if err != nil {
			t.Fatal(err)
		}
		r := start(t, db, says("found"), hasty)
		if m := r.await(t, user, ex.Reply.ID); m.Content != "found" || m.Status != models.StatusComplete {
			t.Errorf("got %q, %s", m.Content, m.Status)
		}
	})
}

// The same where the replica that is to write it lives, and a client who asked for
// the reply again follows it there.
func TestAReplyOfAReplicaThatDoesNotKnow(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, says("found"))
		ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: user, ChatID: chat, Content: "hello", Owner: r.Replica()})
		if err != nil {
			t.Fatal(err)
		}
		var tr transcript
		for _, e := range r.open(t, user, ex.Reply.ID, "").all() {
			tr.take(t, e)
		}
		if tr.text != "found" || tr.ending.name != "message_complete" {
			t.Errorf("got %q, %s", tr.text, tr.ending.name)
		}
	})
}
