//go:build linux

package survival_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/models"
)

// stoppedWithin is how long a stop takes to cancel the call to the backend, by
// the contract. On a busy machine half of them take no longer.
const stoppedWithin = 300 * time.Millisecond

// A reply is stopped from a replica that does not write it. The call to the
// backend ends, what was shown is kept, every follower anywhere is told, and
// the next reply of the chat is none of its business.
func TestStopFromElsewhere(t *testing.T) {
	t.Parallel()
	s := newServiceOn(t, newBackend(t, goesOn), models.Postgres, 3)
	replicas := s.all()
	var delays []time.Duration
	for n := range 15 {
		owner, elsewhere := replicas[n%3], replicas[(n+1)%3]
		delays = append(delays, stopOne(t, s, n, owner, elsewhere))
	}
	slices.Sort(delays)
	t.Logf("the backend's call was cancelled after %v, p50, and %v at the most", delays[len(delays)/2], delays[len(delays)-1])
	if median, slowest := delays[len(delays)/2], delays[len(delays)-1]; median > stoppedWithin || slowest > stoppedWithin+slack {
		t.Errorf("a stop takes %v, p50, and %v at the most; want %v", median, slowest, stoppedWithin)
	}
}

// stopOne has a reply made by owner, stops it elsewhere, and returns how long
// that took.
func stopOne(t *testing.T, s *service, n int, owner, elsewhere *process) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sent := s.newReader(order{name: fmt.Sprintf("stop-%d", n), bytes: 1 << 20, size: 10, pace: 5 * time.Millisecond}, fmt.Sprintf("stop-%d", n), true)
	if err := sent.sendSurely(ctx, owner); err != nil {
		t.Fatal(err)
	}
	var (
		followers []*reader
		following sync.WaitGroup
	)
	for _, p := range s.all() {
		r := sent.clone()
		followers = append(followers, r)
		following.Go(func() {
			if err := r.follow(ctx, func() *process { return p }); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "all have text", func() bool {
		return t.Failed() || !slices.ContainsFunc(followers, func(r *reader) bool { return r.have.Load() == 0 })
	})
	began := time.Now()
	var m stored
	path := fmt.Sprintf("/messages/%d/stop", sent.messageID)
	if status, err := s.call(ctx, elsewhere, http.MethodPost, path, nil, &m); err != nil || status != http.StatusOK || m.Status != "stopped" {
		t.Fatalf("stop: %d %v, %+v", status, err, m)
	}
	following.Wait()
	for _, r := range followers {
		if err := r.check(0); err != nil || r.ending != "message_stopped" {
			t.Errorf("a follower was told %q: %v", r.ending, err)
		}
	}
	lateStop(ctx, t, s, m, elsewhere)
	calls := s.backend.of(sent.messageID)
	if len(calls) != 1 || calls[0].cancelled.IsZero() {
		t.Fatalf("calls to the backend: %+v", calls)
	}
	return calls[0].cancelled.Sub(began)
}

// lateStop stops a reply that has ended, while the next one of its chat runs.
func lateStop(ctx context.Context, t *testing.T, s *service, m stored, p *process) {
	t.Helper()
	o := order{name: fmt.Sprintf("after-%d", m.ID), bytes: 300, size: 10, pace: 5 * time.Millisecond}
	var next struct {
		Message stored `json:"message"`
	}
	status, err := http.StatusServiceUnavailable, error(nil)
	for status == http.StatusServiceUnavailable && err == nil {
		status, err = s.call(ctx, p, http.MethodPost, fmt.Sprintf("/chats/%d/messages", m.ChatID),
			map[string]string{"message": o.message()}, &next, "Prefer", "respond-async", "Accept", "application/json")
	}
	if err != nil || status != http.StatusAccepted {
		t.Fatalf("send again: %d %v", status, err)
	}
	for _, p := range s.all() {
		var again stored
		status, err := s.call(ctx, p, http.MethodPost, fmt.Sprintf("/messages/%d/stop", m.ID), nil, &again)
		if err != nil || status != http.StatusOK || again != m {
			t.Errorf("a late stop: %d %v, %+v, want 200 and %+v", status, err, again, m)
		}
	}
	if whole, err := s.stored(next.Message.ID); err != nil || whole.Status != "complete" || whole.Content != o.script() {
		t.Errorf("the next reply is %s (%v)\n%q, want\n%q", whole.Status, err, whole.Content, o.script())
	}
}
