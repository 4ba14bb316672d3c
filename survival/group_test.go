//go:build linux

package survival_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// A group is several replies of one replica, in turn with a client that reads
// there, one that reads elsewhere, and one that only sends and never reads.
type group struct {
	service *service
	readers []*reader

	reading sync.WaitGroup
	mu      sync.Mutex
	err     error
}

// newGroup makes the clients of n replies like o.
func (s *service) newGroup(n int, o order) *group {
	g := &group{service: s}
	for i := range n {
		o.name = fmt.Sprintf("%d-of-%d-bytes", i, o.bytes)
		g.readers = append(g.readers, s.newReader(o, o.name, g.kind(i) != readsThere))
	}
	return g
}

// The kinds of clients in a group.
const (
	readsThere = iota
	readsElsewhere
	readsNothing
	kinds
)

func (g *group) kind(i int) int { return i % kinds }

// begin has the replies made by owner, and reads them.
func (g *group) begin(t *testing.T, owner *process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(g.reading.Wait)
	t.Cleanup(cancel)
	for i, r := range g.readers {
		if g.kind(i) != readsThere {
			if err := r.sendSurely(ctx, owner); err != nil {
				t.Fatal(err)
			}
		}
		choose := g.service.but(owner)
		switch g.kind(i) {
		case readsThere:
			choose = func() *process {
				if slices.Contains(g.service.all(), owner) {
					return owner
				}
				return g.service.any()
			}
		case readsNothing:
			continue
		}
		g.reading.Go(func() { g.note(r.follow(ctx, choose)) })
	}
}

// note remembers what went wrong.
func (g *group) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = errors.Join(g.err, err)
}

// haveAll reports whether every client that reads has so many bytes, or
// nothing can come any more.
func (g *group) haveAll(bytes int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, r := range g.readers {
		if g.kind(i) != readsNothing && r.have.Load() < bytes {
			return g.err != nil
		}
	}
	return true
}

// finish waits for the ends of the replies and compares them with what is
// stored and what the backend said last. Each owner has asked it once.
func (g *group) finish(t *testing.T, resets int) {
	t.Helper()
	g.reading.Wait()
	if g.err != nil {
		t.Fatal(g.err)
	}
	for i, r := range g.readers {
		if g.kind(i) != readsNothing {
			if err := r.check(resets); err != nil {
				t.Error(err)
			}
		}
		m, err := g.service.stored(r.messageID)
		calls := g.service.backend.of(r.messageID)
		if said := calls[len(calls)-1].whole; err != nil || m.Status != "complete" || m.Content != said {
			t.Errorf("message %d: stored (%v) is %s\n%q, the backend said\n%q", r.messageID, err, m.Status, m.Content, said)
		}
		taken, most := g.service.takeovers(r.messageID)
		if err := g.service.backend.askedOncePerOwner(r, 1+taken, max(most, 1)); err != nil {
			t.Error(err)
		}
	}
}

// takenAfter returns when the last of the replies was taken over, after that
// time.
func (g *group) takenAfter(t *testing.T, died time.Time) time.Duration {
	t.Helper()
	var slowest time.Duration
	for _, r := range g.readers {
		calls := g.service.backend.of(r.messageID)
		if len(calls) != 2 {
			t.Errorf("message %d: %d calls to the backend, want 2", r.messageID, len(calls))
			continue
		}
		slowest = max(slowest, calls[1].began.Sub(died))
	}
	return slowest
}
