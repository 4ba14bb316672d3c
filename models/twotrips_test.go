package models_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// A transaction whose BEGIN and COMMIT stand behind statements is all or nothing,
// and leaves nothing behind where it fails: no row, no lock, no session that is in
// it still.
func TestATransactionInTwoRoundTrips(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func(testing.TB) string{
		"direct": func(tb testing.TB) string { tb.Helper(); return modelstest.URL(tb, models.Postgres) },
		"pooled": modelstest.PooledURL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testInTwoTrips(t, url(t))
		})
	}
}

const (
	first = `INSERT INTO replicas (id, lease_until, started_at) VALUES ('first', now(), now()) RETURNING id`
	last  = `INSERT INTO replicas (id, lease_until, started_at) VALUES ('last', now(), now()) RETURNING id`
)

func testInTwoTrips(t *testing.T, url string) {
	t.Helper()
	db, err := models.Open(t.Context(), url)
	must(t, err)
	defer db.Close()
	other, err := models.Open(t.Context(), url) // with sessions of its own
	must(t, err)
	defer other.Close()
	var (
		ours             = errors.New("ours")
		canceled, cancel = context.WithCancel(t.Context())
		then             = func(last string, err error) func(context.Context, bun.IDB) (string, error) {
			return func(ctx context.Context, tx bun.IDB) (string, error) {
				return last, errors.Join(note(ctx, tx, "between"), err)
			}
		}
	)
	defer cancel()
	for name, test := range map[string]struct {
		ctx   context.Context //nolint:containedctx // of the test
		first string
		then  func(context.Context, bun.IDB) (string, error)
		want  error // nil: any
		runs  bool
	}{
		"the first one fails":         {first: "SELECT 1/0", then: then(last, nil)},
		"the first one finds nothing": {first: "SELECT id FROM replicas WHERE FALSE", then: then(last, nil), want: models.ErrNotFound},
		"the first one raises that":   {first: "DO 'BEGIN RAISE no_data_found; END'", then: then(last, nil), want: models.ErrNotFound},
		"an error behind the first":   {first: first + "; SELECT 1/0", then: then(last, nil)},
		"what is between fails":       {first: first, then: then(last, ours), want: ours, runs: true},
		"what is between hides it": {first: first, then: func(ctx context.Context, tx bun.IDB) (string, error) {
			_, _ = tx.ExecContext(ctx, "SELECT 1/0")
			return last, nil
		}, runs: true},
		"the caller goes away": {ctx: canceled, first: first, then: func(ctx context.Context, _ bun.IDB) (string, error) {
			cancel()
			return last, ctx.Err()
		}, want: context.Canceled, runs: true},
		"the session ends": {first: first, then: func(ctx context.Context, tx bun.IDB) (string, error) {
			_, err := tx.ExecContext(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
			return last, err
		}, want: models.ErrUnavailable, runs: true},
		"the last one fails":         {first: first, then: then("SELECT 1/0", nil), runs: true},
		"the last one raises":        {first: first, then: then("DO 'BEGIN RAISE no_data_found; END'", nil), want: models.ErrNotFound, runs: true},
		"an error behind the last":   {first: first, then: then(last+"; SELECT 1/0", nil), runs: true},
		"a constraint at the commit": {first: first, then: then(last+"; INSERT INTO late VALUES (1)", nil), runs: true},
	} {
		_, err := other.Read().NewRaw(`DELETE FROM replicas; DROP TABLE IF EXISTS late;
			CREATE TABLE late (id int REFERENCES uploads (id) DEFERRABLE INITIALLY DEFERRED)`).Exec(t.Context())
		must(t, err)
		ctx := t.Context()
		if test.ctx != nil {
			ctx = test.ctx
		}
		var id string
		ran := false
		err = db.InTwoTrips(ctx, test.first, &id, func(ctx context.Context, tx bun.IDB) (string, error) {
			ran = true
			return test.then(ctx, tx)
		})
		if err == nil || test.want != nil && !errors.Is(err, test.want) || ran != test.runs {
			t.Errorf("%s: got %v, want %v; what is between was run: %v", name, err, test.want, ran)
		}
		// Who still holds these rows, or has stored them, keeps this from going on.
		timed, stop := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = other.Read().NewRaw(`INSERT INTO replicas (id, lease_until, started_at)
			VALUES ('first', now(), now()), ('between', now(), now()), ('last', now(), now())`).Exec(timed)
		stop()
		if err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		}
	}
	_, err = other.Read().NewRaw("DELETE FROM replicas").Exec(t.Context())
	must(t, err)
	var id string
	func() {
		defer func() {
			if got := recover(); got != "ours" {
				t.Errorf("recovered %v", got)
			}
		}()
		_ = db.InTwoTrips(t.Context(), first, &id, func(context.Context, bun.IDB) (string, error) { panic("ours") })
	}()
	if diff := cmp.Diff([]string{}, notes(t, other)); diff != "" {
		t.Errorf("after a panic (-want +got):\n%s", diff)
	}
	must(t, db.InTwoTrips(t.Context(), first, &id, then(last, nil)))
	if diff := cmp.Diff([]string{"between", "first", "last", "last"}, append(notes(t, other), id)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
