//go:build linux

package survival_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
)

var kills = flag.Int("kills", 200, "replicas that TestKillAnywhere kills")

// A replica is killed at any moment between a request and the end of its reply.
// The client sends again under the same key, somewhere else: what was
// acknowledged is stored once, with one reply, for which each owner has asked
// the backend once.
func TestKillAnywhere(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect  string
		replicas int
		share    int // of the kills, in quarters
	}{
		"one of three on PostgreSQL": {models.Postgres, 3, 3},
		"the only one, on SQLite":    {models.SQLite, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(newSeed(t), uint64(test.replicas)))
			s := newServiceOn(t, newBackend(t, goesOn), test.dialect, test.replicas)
			var (
				readers   []*reader
				following sync.WaitGroup
			)
			// The only one makes no headway as long as it is killed again and again.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for i := range *kills * test.share / 4 {
				o := order{name: fmt.Sprintf("kill-%d", i), bytes: 300 + rng.IntN(1500), size: 10, pace: 4 * time.Millisecond}
				r := s.newReader(o, o.name, rng.IntN(2) == 0)
				readers = append(readers, r)
				target := s.any()
				following.Go(func() {
					if err := r.follow(ctx, first(target, s.any)); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(time.Duration(rng.IntN(400_000)) * time.Microsecond)
				target.kill()
				s.restart(target)
			}
			defer time.AfterFunc(2*patience, cancel).Stop()
			following.Wait()
			if !t.Failed() {
				s.checkAll(t, readers, test.dialect == models.SQLite)
			}
		})
	}
}

// first chooses p, and then as then does.
func first(p *process, then func() *process) func() *process {
	return func() *process {
		if p == nil {
			return then()
		}
		chosen := p
		p = nil
		return chosen
	}
}

// checkAll compares all that the user has with what the readers sent, and what
// each reader got with what is stored for it. The backend is asked while a message
// is stored; where idsReturn, one that was not has had the id of the next.
func (s *service) checkAll(t *testing.T, readers []*reader, idsReturn bool) {
	t.Helper()
	want := make(map[string][]string) // by what was said: the answers
	takeovers, resets := 0, 0
	for _, r := range readers {
		want[r.order.message()] = []string{r.want}
		taken, most := s.takeovers(r.messageID)
		takeovers, resets = takeovers+taken, resets+r.resets
		owners := 1 + taken
		if idsReturn {
			owners += r.sends - 1 // who sent again: the one before may have asked, and stored nothing
		}
		if err := s.backend.askedOncePerOwner(r, owners, max(most, 1)); err != nil {
			t.Error(err)
		}
		if err := r.check(r.resets); err != nil {
			t.Error(err)
		}
		// Where nothing was saved there is nothing to go on from.
		anew := -1
		for _, c := range s.backend.of(r.messageID) {
			if c.continueFrom == "" {
				anew++
			}
		}
		if r.resets > max(anew, 0) {
			t.Errorf("message %d: %d times message_reset, and the backend began anew %d times", r.messageID, r.resets, anew)
		}
	}
	if diff := cmp.Diff(want, s.exchanges(t)); diff != "" {
		t.Errorf("messages and their answers (-sent +stored):\n%s", diff)
	}
	t.Logf("%d replies, taken over %d times, %d times message_reset", len(readers), takeovers, resets)
}

// exchanges returns what the user has in all chats: by what was said, the
// answers to it.
func (s *service) exchanges(t *testing.T) map[string][]string {
	t.Helper()
	said := make(map[string][]string)
	for cursor := "?limit=200"; cursor != ""; {
		var page struct {
			Chats []struct {
				ID int64 `json:"id"`
			} `json:"chats"`
			NextCursor string `json:"next_cursor"`
		}
		status, err := s.call(t.Context(), s.any(), http.MethodGet, "/chats"+cursor, nil, &page)
		if err != nil || status != http.StatusOK {
			t.Fatalf("list the chats: %d %v", status, err)
		}
		for _, chat := range page.Chats {
			var answer struct {
				Messages []stored `json:"messages"`
			}
			status, err := s.call(t.Context(), s.any(), http.MethodGet, fmt.Sprintf("/chats/%d/messages", chat.ID), nil, &answer)
			if err != nil || status != http.StatusOK || len(answer.Messages) != 2 {
				t.Fatalf("list chat %d: %d %v, %d messages", chat.ID, status, err, len(answer.Messages))
			}
			message, reply := answer.Messages[0], answer.Messages[1]
			said[message.Content] = append(said[message.Content], reply.Content)
		}
		if cursor = page.NextCursor; cursor != "" {
			cursor = "?limit=200&cursor=" + cursor
		}
	}
	return said
}
