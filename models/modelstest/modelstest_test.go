package modelstest_test

import (
	"context"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

func TestDatabasesAreMigratedAndPrivate(t *testing.T) {
	t.Parallel()
	const insert = "INSERT INTO replicas (id, lease_until, started_at) VALUES ('a', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')"
	modelstest.Each(t, func(t *testing.T, first *models.DB) {
		second := modelstest.New(t, first.Dialect())
		for _, db := range []*models.DB{first, second} {
			if _, err := db.Bun().ExecContext(t.Context(), insert); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAURLCanBeOpenedTwice(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{
		"SQLite":                      func(tb testing.TB) string { return modelstest.URL(tb, models.SQLite) },
		"PostgreSQL":                  func(tb testing.TB) string { return modelstest.URL(tb, models.Postgres) },
		"PostgreSQL behind PgBouncer": modelstest.PooledURL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := url(t)
			for range 2 {
				db, err := models.Open(context.Background(), url)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				if _, err := db.Bun().ExecContext(t.Context(), "DELETE FROM users"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
