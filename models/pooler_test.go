package models_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"parley/migrations"
	"parley/models"
	"parley/models/modelstest"
)

// Behind a pooler in transaction mode every transaction may meet another session
// of the server, which other clients have used before.
func TestBehindAPoolerInTransactionMode(t *testing.T) {
	t.Parallel()
	url := modelstest.PooledURL(t)
	var done sync.WaitGroup
	const clients, each = 4, 30
	for client := range clients {
		done.Go(func() {
			db, err := models.Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			for i := range each {
				at := time.Date(2026, 1, 1, client, i, 0, 123456000, time.UTC)
				id := fmt.Sprintf(`%d\'%d`, client, i)
				err := db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
					_, err := tx.NewRaw("INSERT INTO replicas (id, lease_until, started_at) VALUES (?, ?, ?)", id, at, at).Exec(ctx)
					return err
				})
				if err != nil {
					t.Error(err)
				}
				type row struct {
					ID        string
					StartedAt time.Time
				}
				var got row
				err = db.Read().NewRaw("SELECT id, started_at FROM replicas WHERE id = ?", id).Scan(t.Context(), &got)
				if err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(row{id, at}, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if err := answer(t.Context(), db, client, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done.Wait()
}

// answer stores a reply to a new user, in pieces, and looks at it.
func answer(ctx context.Context, db *models.DB, client int, text string) error {
	u := models.User{Email: fmt.Sprintf("%s@example.com", text)}
	s := models.DeviceSession{SID: "session " + text, ExpiresAt: time.Now().Add(time.Hour)}
	if err := db.CreateUser(ctx, &u, &s, models.By{}); err != nil {
		return err
	}
	ex, err := db.AppendTurn(ctx, models.NewTurn{UserID: u.ID, Content: "question", Owner: fmt.Sprint("replica-", client)})
	if err != nil {
		return err
	}
	saved, err := db.SaveTexts(ctx, []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: text}})
	if err != nil || len(saved) != 1 {
		return fmt.Errorf("saved %v: %w", saved, err)
	}
	err = db.FinishReply(ctx, models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: text, Status: models.StatusComplete})
	if err != nil {
		return err
	}
	m, err := db.Message(ctx, u.ID, ex.Reply.ID)
	if err == nil && m.Content != text {
		err = fmt.Errorf("got %q, want %q", m.Content, text)
	}
	return err
}

func TestMigrationsBehindAPooler(t *testing.T) {
	t.Parallel()
	url := modelstest.EmptyPooledURL(t)
	var (
		done sync.WaitGroup
		mu   sync.Mutex
		runs int
	)
	for range 4 { // more than the pooler has sessions
		done.Go(func() {
			db, err := models.Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			ran := 0
			if err := migrations.Up(t.Context(), db.Bun(), func(string) { ran = 1 }); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			runs += ran
		})
	}
	done.Wait()
	if runs != 1 {
		t.Errorf("%d runs migrated, want 1", runs)
	}
}
