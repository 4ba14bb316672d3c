package models_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"parley/models"
)

var unique atomic.Int64

// newUser adds a user with one device session.
func newUser(t testing.TB, db *models.DB) (models.User, models.DeviceSession) {
	t.Helper()
	n := unique.Add(1)
	u := models.User{
		Email: fmt.Sprintf("person%d@example.org", n), UserName: fmt.Sprintf("person%d", n),
		PasswordHash: "$argon2id$of-the-first-password",
	}
	s := models.DeviceSession{
		SID: fmt.Sprintf("session-%d", n), Name: "Firefox on Linux", IP: "192.0.2.7",
		ExpiresAt: time.Now().Add(time.Hour),
	}
	must(t, db.CreateUser(t.Context(), &u, &s))
	return u, s
}

// newChat adds a chat of a fresh user.
func newChat(t testing.TB, db *models.DB) models.Chat {
	t.Helper()
	u, _ := newUser(t, db)
	return value(t)(createChat(t, db, u.ID))
}

func createChat(t testing.TB, db *models.DB, userID int64) (models.Chat, error) {
	chat, _, err := db.CreateChat(t.Context(), userID, "New Chat", false, nil)
	return chat, err
}

// send appends a turn to a chat.
func send(t testing.TB, db *models.DB, chat models.Chat, content string) models.Exchange {
	t.Helper()
	ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, ChatID: chat.ID, Content: content, Owner: "replica-1"})
	must(t, err)
	return ex
}

// finish ends the reply of a turn with a text.
func finish(t testing.TB, db *models.DB, ex models.Exchange, content string) {
	t.Helper()
	must(t, db.FinishReply(t.Context(), models.ReplyEnd{
		MessageID: ex.Reply.ID, Fence: 1, Content: content, Status: models.StatusComplete, FinishReason: "stop",
	}))
}

// say is a whole turn.
func say(t testing.TB, db *models.DB, chat models.Chat, question, answer string) models.Exchange {
	t.Helper()
	ex := send(t, db, chat, question)
	finish(t, db, ex, answer)
	return ex
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value returns a function that passes a value on if there is no error.
func value(t testing.TB) func(models.Chat, error) models.Chat {
	return func(c models.Chat, err error) models.Chat {
		t.Helper()
		must(t, err)
		return c
	}
}

func wantError(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

func wantEqual(t testing.TB, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("got, want (-want +got):\n%s", diff)
	}
}

// together calls f n times at once and returns the results.
func together[T any](n int, f func(i int) T) []T {
	var (
		start   = make(chan struct{})
		callers sync.WaitGroup
		results = make([]T, n)
	)
	for i := range n {
		callers.Go(func() {
			<-start
			results[i] = f(i)
		})
	}
	close(start)
	callers.Wait()
	return results
}

// tally counts results by their names.
func tally[T any](results []T, name func(T) string) map[string]int {
	counts := make(map[string]int)
	for _, r := range results {
		counts[name(r)]++
	}
	return counts
}

// errorName names an error by its sentinel.
func errorName(err error) string {
	if err == nil {
		return "ok"
	}
	for _, known := range []error{
		models.ErrNotFound, models.ErrForbidden, models.ErrUserExists, models.ErrReplyInProgress, models.ErrKeyReused,
		models.ErrUnavailable, models.ErrStaleOwner, models.ErrInvalidCursor, models.ErrInvalidText,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "unexpected: " + err.Error()
}

// count counts rows.
func count(t testing.TB, db *models.DB, from string, args ...any) int {
	t.Helper()
	var n int
	must(t, db.Read().NewRaw("SELECT count(*) FROM "+from, args...).Scan(t.Context(), &n))
	return n
}

// bunName is a name in a statement.
func bunName(name string) bun.Name { return bun.Name(name) }
