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
			}
		})
	}
	done.Wait()
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
