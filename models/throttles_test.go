package models_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// countOne counts a hit under one key.
func countOne(t testing.TB, db *models.DB, limit models.Limit) models.Counted {
	t.Helper()
	counted, err := db.Count(t.Context(), []models.Limit{limit})
	must(t, err)
	wantEqual(t, len(counted), 1)
	return counted[0]
}

// passes makes time pass for a key, by setting back what is stored of it.
func passes(t testing.TB, db *models.DB, by time.Duration) {
	t.Helper()
	_, err := db.Bun().NewRaw("UPDATE throttles SET tat = tat - ?", by.Microseconds()).Exec(t.Context())
	must(t, err)
}

// Many callers name the same keys, in any order, over several handles: each
// quota lets in exactly what it holds, and nobody fails.
func TestExactlyTheQuotaGetsIn(t *testing.T) {
	t.Parallel()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			url := modelstest.URL(t, dialect)
			var replicas []*models.DB
			for range 3 {
				db, err := models.Open(t.Context(), url)
				must(t, err)
				t.Cleanup(func() { db.Close() })
				replicas = append(replicas, db)
			}
			limits := []models.Limit{
				{Key: "account", Quota: 7, Window: time.Hour},
				{Key: "network", Quota: 30, Window: time.Hour},
				{Key: "account and network", Quota: 1, Window: 24 * time.Hour},
				{Key: "everybody", Quota: 1000, Window: time.Hour},
			}
			const callers = 60
			// At once, exactly as many as one of the quotas holds.
			for _, err := range together(30, func(i int) error {
				counted, err := replicas[i%len(replicas)].Count(t.Context(), []models.Limit{{Key: "exact", Quota: 30, Window: time.Hour}})
				if err == nil && !counted[0].Allowed {
					return fmt.Errorf("refused: %+v", counted)
				}
				return err
			}) {
				must(t, err)
			}
			answers := together(callers, func(i int) []models.Counted {
				asked := append([]models.Limit(nil), limits...)
				rand.Shuffle(len(asked), func(i, j int) { asked[i], asked[j] = asked[j], asked[i] })
				counted, err := replicas[i%len(replicas)].Count(t.Context(), asked)
				if err != nil {
					t.Error(err)
				}
				for j, c := range counted {
					if c.Key != asked[j].Key {
						t.Errorf("got %s, want %s", c.Key, asked[j].Key)
					}
				}
				return counted
			})
			allowed, left := make(map[string]int), make(map[string]int64)
			for _, counted := range answers {
				for _, c := range counted {
					if c.Allowed {
						allowed[c.Key]++
						left[fmt.Sprint(c.Key, " ", c.Remaining)]++
					}
				}
			}
			wantEqual(t, allowed, map[string]int{"account": 7, "network": 30, "account and network": 1, "everybody": callers})
			for remaining, n := range left {
				if n != 1 && !strings.HasPrefix(remaining, "everybody") {
					t.Errorf("%d callers were told %s", n, remaining)
				}
			}
		})
	}
}

func TestWhatOneIsToldOfAQuota(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		// In days, beside which the time that the test takes is nothing.
		const day = 24 * time.Hour
		limit := models.Limit{Key: "k", Quota: 3, Window: 60 * day}
		steps := []struct {
			later time.Duration // since the step before
			want  models.Counted
		}{
			{0, models.Counted{Allowed: true, Remaining: 2, Reset: 20 * day}},
			{0, models.Counted{Allowed: true, Remaining: 1, Reset: 40 * day}},
			{0, models.Counted{Allowed: true, Remaining: 0, Reset: 60 * day, RetryAfter: 20 * day}},
			{0, models.Counted{Remaining: 0, Reset: 60 * day, RetryAfter: 20 * day}},
			{15 * day, models.Counted{Remaining: 0, Reset: 45 * day, RetryAfter: 5 * day}},
			{5 * day, models.Counted{Allowed: true, Remaining: 0, Reset: 60 * day, RetryAfter: 20 * day}},
			{50 * day, models.Counted{Allowed: true, Remaining: 1, Reset: 30 * day}},
			{100 * day, models.Counted{Allowed: true, Remaining: 2, Reset: 20 * day}},
		}
		for i, step := range steps {
			passes(t, db, step.later)
			got := countOne(t, db, limit)
			got.Reset, got.RetryAfter = got.Reset.Round(day), got.RetryAfter.Round(day)
			step.want.Key = "k"
			if got != step.want {
				t.Errorf("step %d: got %+v, want %+v", i, got, step.want)
			}
		}
	})
}

func TestARefundIsOneHit(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		limits := []models.Limit{
			{Key: "a", Quota: 2, Window: time.Hour}, {Key: "b", Quota: 20, Window: time.Hour}, {Key: "none"},
		}
		count := func() []bool {
			t.Helper()
			counted, err := db.Count(t.Context(), limits)
			must(t, err)
			return []bool{counted[0].Allowed, counted[1].Allowed, counted[2].Allowed}
		}
		wantEqual(t, count(), []bool{true, true, true})
		wantEqual(t, count(), []bool{true, true, true})
		wantEqual(t, count(), []bool{false, true, true})
		must(t, db.Refund(t.Context(), limits))
		wantEqual(t, count(), []bool{true, true, true})
		wantEqual(t, count(), []bool{false, true, true})

		// As many refunds as hits at once leave nothing, and what was never
		// counted gives no credit.
		must(t, db.Refund(t.Context(), []models.Limit{{Key: "unseen", Quota: 1, Window: time.Hour}}))
		for _, err := range together(60, func(i int) error {
			asked := []models.Limit{{Key: "y", Quota: 1000, Window: time.Hour}, {Key: "x", Quota: 1000, Window: time.Hour}}
			if i%2 == 0 {
				asked[0], asked[1] = asked[1], asked[0]
			}
			if _, err := db.Count(t.Context(), asked); err != nil {
				return err
			}
			return db.Refund(t.Context(), asked)
		}) {
			must(t, err)
		}
		for _, key := range []string{"x", "y"} {
			wantEqual(t, countOne(t, db, models.Limit{Key: key, Quota: 1000, Window: time.Hour}).Remaining, int64(999))
		}
		wantEqual(t, countOne(t, db, models.Limit{Key: "unseen", Quota: 1, Window: time.Hour}).Allowed, true)
		wantEqual(t, countOne(t, db, models.Limit{Key: "unseen", Quota: 1, Window: time.Hour}).Allowed, false)
	})
}

func TestAnyKeyCanBeCounted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		none, err := db.Count(t.Context(), nil)
		wantEqual(t, []any{len(none), err}, []any{0, nil})
		must(t, db.Refund(t.Context(), nil))
		var limits []models.Limit
		for _, key := range []string{"", "a", "A", "a\x00b", "\xff", "ß", strings.Repeat("long", 1<<16), strings.Repeat("long", 1<<16) + "er", "?0 ?key '"} {
			limits = append(limits, models.Limit{Key: key, Quota: 1, Window: time.Hour})
		}
		limits = append(limits, models.Limit{Key: "a", Quota: 5, Window: time.Hour}, models.Limit{Key: "off", Quota: 0}, models.Limit{Key: "off", Quota: -1})
		vast := models.Limit{Key: "vast", Quota: math.MaxInt64, Window: 1000 * time.Hour}
		for range 2 {
			wantEqual(t, countOne(t, db, vast).Allowed, true)
		}
		must(t, db.Refund(t.Context(), []models.Limit{vast}))
		for _, first := range []bool{true, false} {
			counted, err := db.Count(t.Context(), limits)
			must(t, err)
			wantEqual(t, len(counted), len(limits))
			for i, c := range counted {
				if want := first || limits[i].Quota < 1; c.Allowed != want || c.Key != limits[i].Key {
					t.Errorf("key %d: got %v for %.10q, want %v", i, c.Allowed, c.Key, want)
				}
			}
		}
		wantEqual(t, count(t, db, "throttles"), 10)
		wantEqual(t, count(t, db, "throttles WHERE length(key) <> 43"), 0)
	})
}

// Quotas that are whole are purged while others are counted: no count is lost,
// and none waits for a purge that waits for it.
func TestCountingGoesOnDuringAPurge(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var limits []models.Limit
		for i := range 100 {
			limits = append(limits, models.Limit{Key: fmt.Sprint(i), Quota: 1000, Window: 1000 * time.Hour})
		}
		for range 5 {
			// One by one, so that the table has them in an order of its own, which
			// is that of a purge.
			for _, limit := range limits {
				countOne(t, db, limit)
			}
			passes(t, db, 2*time.Hour) // one hit is an hour
			for _, err := range together(12, func(i int) error {
				if i%3 == 0 {
					return db.PurgeExpired(t.Context(), time.Now(), time.Hour)
				}
				_, err := db.Count(t.Context(), limits)
				return err
			}) {
				must(t, err)
			}
			counted, err := db.Count(t.Context(), limits)
			must(t, err)
			for _, c := range counted {
				wantEqual(t, c.Remaining, int64(1000-9))
			}
			_, err = db.Bun().NewRaw("DELETE FROM throttles").Exec(t.Context())
			must(t, err)
		}
	})
}
