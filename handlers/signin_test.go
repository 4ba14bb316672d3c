package handlers_test

import (
	"strconv"
	"testing"

	"parley/handlers"
)

func TestGenerationsThatWereNoted(t *testing.T) {
	t.Parallel()
	var g handlers.Generations
	for name, tt := range map[string]struct {
		generation int64
		want       bool
	}{
		"the one that was noted": {7, true},
		"one before it":          {6, true},
		"one after it":           {8, false},
	} {
		g.Add("sid", 7)
		g.Add("sid", 5) // late
		if got := g.Has("sid", tt.generation); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if g.Has("other", 1) {
		t.Error("a session that was never seen is known")
	}
	// Whoever comes back is kept, and the rest makes room.
	for i := range 200_000 {
		g.Add(strconv.Itoa(i), 1)
		if !g.Has("sid", 7) {
			t.Fatalf("an active session is forgotten after %d others", i)
		}
	}
	if size := g.Size(); size > 1<<16 {
		t.Errorf("%d sessions are remembered, want 65,536 at most", size)
	}
	if g.Has("0", 1) {
		t.Error("the oldest session is remembered still")
	}
}
