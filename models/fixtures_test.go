package models_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"parley/models"
)

// accessTTL is how long the access tokens are valid that a session gives out, and
// lapse how long after its end they are refused.
const (
	accessTTL = 15 * time.Minute
	lapse     = accessTTL + time.Minute
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
	must(t, db.CreateUser(t.Context(), &u, &s, models.By{}))
	return u, s
}

// awaitLock waits until a session of PostgreSQL waits for what another one has locked.
func awaitLock(t testing.TB, db *models.DB) {
	t.Helper()
	for waiting := false; !waiting; {
		must(t, db.Read().NewRaw(`SELECT count(*) > 0 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(t.Context(), &waiting))
	}
}

// newSession adds a device session of a user.
func newSession(t testing.TB, db *models.DB, userID int64) models.DeviceSession {
	t.Helper()
	s := models.DeviceSession{
		SID: fmt.Sprintf("session-%d", unique.Add(1)), UserID: userID, Name: "Safari on iOS", IP: "192.0.2.8",
		ExpiresAt: time.Now().Add(time.Hour),
	}
	must(t, db.CreateSession(t.Context(), &s, models.By{}))
	return s
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
		models.ErrUnavailable, models.ErrStaleOwner, models.ErrInvalidCursor, models.ErrInvalidText, models.ErrDailyLimit,
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

// audited is what the audit says, in order, without ids and times.
func audited(t testing.TB, db *models.DB) []models.AuditEntry {
	t.Helper()
	entries, _, err := db.AuditEntries(t.Context(), models.Page{Limit: 200})
	must(t, err)
	slices.Reverse(entries)
	for i := range entries {
		entries[i].ID, entries[i].At = 0, time.Time{}
	}
	return entries
}

// actions are the entries of the audit with one of these actions.
func actions(entries []models.AuditEntry, actions ...string) []models.AuditEntry {
	return slices.DeleteFunc(entries, func(e models.AuditEntry) bool { return !slices.Contains(actions, e.Action) })
}

// outbox is what is in the outbox, in order, without ids and times.
func outbox(t testing.TB, db *models.DB) []models.Mail {
	t.Helper()
	var mails []models.Mail
	must(t, db.Read().NewRaw("SELECT kind, user_id, recipient, data, attempts FROM mails ORDER BY id").Scan(t.Context(), &mails))
	return mails
}

// revoked is what the feed of revocations says, in order: sids, or users. Each
// must hold for as long as an access token may.
func revoked(t testing.TB, db *models.DB) []string {
	t.Helper()
	rs, err := db.Revocations(t.Context(), 0)
	must(t, err)
	var names []string
	for _, r := range rs {
		name := r.SID
		if r.UserID != 0 {
			name = fmt.Sprint("user ", r.UserID)
		}
		names = append(names, name)
		wantEqual(t, r.ExpiresAt.Sub(r.RevokedAt), lapse)
	}
	return names
}

// sessions are the sids of a user's device sessions, in order.
func sessions(t testing.TB, db *models.DB, userID int64) []string {
	t.Helper()
	var sids []string
	must(t, db.Read().NewRaw("SELECT sid FROM device_sessions WHERE user_id = ? ORDER BY sid", userID).Scan(t.Context(), &sids))
	return sids
}

// bunName is a name in a statement.
func bunName(name string) bun.Name { return bun.Name(name) }

// takeReply takes one reply over: models.ErrStaleOwner where it is somebody else's,
// models.ErrNotFound where it is no longer written.
func takeReply(t testing.TB, db *models.DB, messageID int64, fence int, owner string) (models.RunningReply, string, error) {
	t.Helper()
	for range 1000 {
		taken, err := db.TakeReplies(t.Context(), []models.RunningReply{{MessageID: messageID, Fence: fence}}, owner)
		if err != nil {
			return models.RunningReply{}, "", err
		}
		if len(taken) == 1 {
			return *taken[0].Running, taken[0].Text, nil
		}
		p, err := db.ReplyProgress(t.Context(), messageID, 0)
		switch {
		case err != nil:
			return models.RunningReply{}, "", err
		case p.Running == nil:
			return models.RunningReply{}, "", models.ErrNotFound
		case p.Running.Fence != fence:
			return models.RunningReply{}, "", models.ErrStaleOwner
		}
		// Its owner lives, or somebody was about to change it.
	}
	return models.RunningReply{}, "", models.ErrStaleOwner
}
