package stream_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

func run(t *testing.T, db *models.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Bun().NewRaw(s).Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The commit waits here for the backend to be asked: if one of them came after
// the other, both would wait in vain.
func TestTheBackendIsAskedBesideTheCommit(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	user, chat := newUser(t, db)
	run(t, db,
		`CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'`,
		`CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON replies DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()`)
	held, err := db.Bun().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.NewRaw("SELECT pg_advisory_xact_lock(1)").Exec(t.Context()); err != nil {
		t.Fatal(err)
	}

	asked := make(chan stream.Prompt, 1)
	r := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
		asked <- p
		return says("at ", "once")(ctx, p, each)
	}))
	sent := make(chan models.Exchange)
	go func() {
		ex, err := r.Send(t.Context(), models.NewTurn{UserID: user, ChatID: chat, Content: "hello"})
		if err != nil {
			t.Error(err)
		}
		sent <- ex
	}()
	prompt := <-asked
	if f := r.open(t, user, prompt.MessageID, ""); f.response.StatusCode == http.StatusOK {
		t.Error("a reply can be followed before the commit")
	}
	if err := held.Rollback(); err != nil {
		t.Fatal(err)
	}
	ex := <-sent
	if prompt.MessageID != ex.Reply.ID || prompt.ChatID != chat {
		t.Errorf("asked for message %d of chat %d, want %d of %d", prompt.MessageID, prompt.ChatID, ex.Reply.ID, chat)
	}
	if m := r.await(t, user, ex.Reply.ID); m.Content != "at once" {
		t.Errorf("the reply is %q", m.Content)
	}
}

func TestAReplyWhoseCommitFailsIsNotWritten(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		// What a deferred constraint refuses, the commit refuses.
		run(t, db,
			`CREATE TABLE absent (id bigint PRIMARY KEY)`,
			`CREATE TABLE refused (id bigint REFERENCES absent (id) DEFERRABLE INITIALLY DEFERRED)`)
		if db.Dialect() == models.SQLite {
			run(t, db, `CREATE TRIGGER refuse AFTER INSERT ON replies BEGIN INSERT INTO refused VALUES (NEW.message_id); END`)
		} else {
			run(t, db,
				`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO refused VALUES (NEW.message_id); RETURN NULL; END'`,
				`CREATE TRIGGER refuse AFTER INSERT ON replies FOR EACH ROW EXECUTE FUNCTION refuse()`)
		}
		said := make(chan error, 1)
		r := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			err := each(stream.Chunk{Text: "nobody reads this"})
			said <- err
			return err
		}))
		_, err := r.Send(t.Context(), models.NewTurn{UserID: user, ChatID: chat, Content: "hello"})
		if !errors.Is(err, models.ErrNotFound) {
			t.Errorf("got %v, want %v", err, models.ErrNotFound)
		}
		if err := <-said; err == nil {
			t.Error("a chunk was taken of a reply that does not exist")
		}
		page, _, err := db.Messages(t.Context(), user, chat, models.Page{Limit: 10})
		if err != nil || len(page) != 0 {
			t.Errorf("the chat has %d messages (%v), want none", len(page), err)
		}
	})
}

func TestAPanicFailsOneReply(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			if err := each(stream.Chunk{Text: "so far"}); err != nil {
				return err
			}
			panic("a fault of ours")
		}))
		ex := r.send(t, user, chat, "hello")
		m := r.await(t, user, ex.Reply.ID)
		if m.Content != "so far" || m.Status != models.StatusFailed || *m.ErrorCode != "internal_error" {
			t.Errorf("the reply is %+v", m)
		}
	})
}

// away is a backend that is known to be down.
type away struct{ backend }

func (away) Admit() error {
	return &stream.BackendError{Code: stream.CodeBackendUnavailable, Retryable: true, Err: errors.New("it is down")}
}

func TestNothingIsStoredForABackendThatIsDown(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, away{says("never")})
		_, err := r.Send(t.Context(), models.NewTurn{UserID: user, ChatID: chat, Content: "hello"})
		var failed *stream.BackendError
		if !errors.As(err, &failed) || failed.Code != stream.CodeBackendUnavailable {
			t.Errorf("got %v, want %s", err, stream.CodeBackendUnavailable)
		}
		page, _, err := db.Messages(t.Context(), user, chat, models.Page{Limit: 10})
		if err != nil || len(page) != 0 {
			t.Errorf("the chat has %d messages (%v), want none", len(page), err)
		}
	})
}

func TestNoMoreRepliesRunThanMay(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		words := make(chan string)
		r := start(t, db, steps(words), func(c *stream.Config) { c.MaxReplies = 1 })
		send := func() (models.Exchange, error) {
			return r.Send(t.Context(), models.NewTurn{UserID: user, Content: "hello"})
		}
		ex, err := send()
		if err != nil {
			t.Fatal(err)
		}
		queued := make(chan error)
		go func() {
			_, err := send()
			queued <- err
		}()
		until(t, "one waits, and is no reply that runs", func() bool { return r.Queued() == 1 && r.Replies() == 1 })
		// One waits for a place, and for a second one there is no room.
		if _, err := send(); !errors.Is(err, stream.ErrOverloaded) {
			t.Errorf("got %v, want %v", err, stream.ErrOverloaded)
		}
		close(words)
		r.await(t, user, ex.Reply.ID)
		if err := <-queued; err != nil && !errors.Is(err, stream.ErrOverloaded) {
			t.Errorf("the one that waited: %v", err)
		}
		// Every place is given back, also of what was not stored.
		for range 3 {
			if _, err := r.Send(t.Context(), models.NewTurn{UserID: user, ChatID: 1 << 40, Content: "hello"}); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("got %v, want %v", err, models.ErrNotFound)
			}
			ex, err := send()
			if err != nil {
				t.Fatal(err)
			}
			r.await(t, user, ex.Reply.ID)
		}
	})
}
