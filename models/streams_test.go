package models_test

import (
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

func TestReplicasTellEachOtherOfOpenStreams(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		type counts = map[int64]int64
		for _, replica := range []string{"a", "b", "c"} {
			must(t, db.RenewReplica(t.Context(), replica, time.Hour))
		}
		for i, step := range []struct {
			replica string
			open    counts
			want    counts
		}{
			{"a", counts{1: 150, 2: 120}, counts{}},
			{"b", counts{1: 100, 3: 110}, counts{1: 150, 2: 120}},
			{"c", nil, counts{1: 250, 2: 120, 3: 110}},
			{"a", counts{1: 151, 4: 0, 5: -1}, counts{1: 100, 3: 110}},
			{"c", counts{}, counts{1: 251, 3: 110}},
			{"a", nil, counts{1: 100, 3: 110}},
			{"c", nil, counts{1: 100, 3: 110}},
			{"b", counts{1: 100, 3: 110}, counts{}},
		} {
			got, err := db.ShareStreamCounts(t.Context(), step.replica, step.open)
			must(t, err)
			if i >= 0 {
				wantEqual(t, got, step.want)
			}
		}
		must(t, db.RenewReplica(t.Context(), "b", -time.Second))
		got, err := db.ShareStreamCounts(t.Context(), "a", counts{1: 1})
		must(t, err)
		wantEqual(t, got, counts{})
		must(t, db.RemoveReplica(t.Context(), "b"))
		wantEqual(t, count(t, db, "stream_counts"), 1)

		_, err = db.ShareStreamCounts(t.Context(), "unknown", counts{1: 1})
		wantError(t, err, models.ErrNotFound)
		got, err = db.ShareStreamCounts(t.Context(), "unknown", nil)
		must(t, err)
		wantEqual(t, got, counts{1: 1})
	})
}

func TestStreamCountsAreWrittenOnlyWhenTheyChange(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		must(t, db.RenewReplica(t.Context(), "a", time.Hour))
		for i, step := range []struct {
			open   map[int64]int64
			writes bool
		}{
			{nil, false},
			{map[int64]int64{1: 100, 2: 0}, true},
			{map[int64]int64{1: 100}, false},
			{map[int64]int64{1: 101}, true},
			{nil, true},
			{nil, false},
		} {
			var r recorder
			hooked := *db
			hooked.Hook(&r)
			_, err := hooked.ShareStreamCounts(t.Context(), "a", step.open)
			must(t, err)
			if got := len(r.statements) > 1; got != step.writes {
				t.Errorf("step %d: got %d statements, want that it writes: %v", i, len(r.statements), step.writes)
			}
		}
	})
}
