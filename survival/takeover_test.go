//go:build linux

package survival_test

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"parley/models"
)

// takenWithin is how long after the death of its owner a reply is taken over,
// by the contract. slack is how much longer anything may take on a machine that
// has other things to do.
const takenWithin, slack = 5 * time.Second, 3 * time.Second

// The replica that owns replies is killed. Its clients only reconnect, whoever
// reads elsewhere notices nothing, and what nobody reads is finished all the
// same.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect  string
		replicas int
		says     says
		resets   int
	}{
		"of three on PostgreSQL, and the backend goes on":      {models.Postgres, 3, goesOn, 0},
		"of three on PostgreSQL, and the backend begins anew":  {models.Postgres, 3, beginsAnew, 1},
		"the only one, on SQLite, and the backend goes on":     {models.SQLite, 1, goesOn, 0},
		"the only one, on SQLite, and the backend begins anew": {models.SQLite, 1, beginsAnew, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServiceOn(t, newBackend(t, test.says), test.dialect, test.replicas)
			owner := s.any()
			g := s.newGroup(12, order{bytes: 2500, size: 8, pace: 12 * time.Millisecond})
			g.begin(t, owner)
			until(t, "the replies run", func() bool { return g.haveAll(600) })
			died := owner.kill()
			if test.replicas == 1 {
				s.restart(owner)
			} else {
				s.leave(owner)
			}
			g.finish(t, test.resets)
			slowest := g.takenAfter(t, died)
			t.Logf("taken over %.1f s after the death", slowest.Seconds())
			if slowest > takenWithin+slack {
				t.Errorf("taken over %v after the death, want %v at the most", slowest, takenWithin)
			}
		})
	}
}

// A frozen owner loses its replies. Thawed, it writes nothing into what its
// successor writes or has written, and its clients, who stayed with it, have in
// the end what is stored.
func TestFrozenOwner(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		says   says
		resets int
	}{
		"and the backend goes on":                         {goesOn, 0},
		"and the backend begins anew, with other words":   {otherWords, 1},
		"and the backend goes on, with other words later": {otherEnding, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServiceOn(t, newBackend(t, test.says), models.Postgres, 2)
			owner := s.any()
			groups := []*group{
				s.newGroup(9, order{bytes: 5000, size: 8, pace: 12 * time.Millisecond}),
				s.newGroup(9, order{bytes: 1200, size: 8, pace: 12 * time.Millisecond}),
			}
			for _, g := range groups {
				for _, r := range g.readers {
					r.want = "" // it depends on when
				}
				g.begin(t, owner)
			}
			for _, g := range groups {
				until(t, "the replies run", func() bool { return g.haveAll(600) })
			}
			s.leave(owner)
			owner.signal(syscall.SIGSTOP)
			for _, r := range groups[1].readers {
				if _, err := s.stored(r.messageID); err != nil {
					t.Error(err)
				}
			}
			late := groups[0].comeLate(t, owner, test.resets)
			owner.signal(syscall.SIGCONT)
			late()
			for _, g := range groups {
				g.finish(t, test.resets)
			}
		})
	}
}

// comeLate has clients that read elsewhere ask a frozen owner for more than it has
// written. answered waits for what it says to them when it wakes up.
func (g *group) comeLate(t *testing.T, owner *process, resets int) (answered func()) {
	t.Helper()
	var asking sync.WaitGroup
	for i, r := range g.readers {
		if g.kind(i) != readsElsewhere {
			continue
		}
		path, id := fmt.Sprintf("/messages/%d/stream", r.messageID), fmt.Sprintf("%d-%d", resets+1, r.have.Load())
		asking.Go(func() {
			status, err := g.service.call(t.Context(), owner, http.MethodGet, path, nil, nil, "Last-Event-ID", id)
			if err != nil || status != http.StatusOK && status != http.StatusNoContent && status != http.StatusServiceUnavailable {
				t.Errorf("who comes late with id %s gets status %d, %v", id, status, err)
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // they wait in the system's queue
	return asking.Wait
}

// otherWords says something else to whoever asks again.
func otherWords(o order, n int, _ string) (string, bool) {
	if n > 1 {
		return o.variant("other words"), false
	}
	return o.script(), false
}

// otherEnding goes on from any text: for a while with the words that it would
// have said, and then with others, as a model may that is asked twice.
func otherEnding(o order, _ int, continueFrom string) (string, bool) {
	text, continued := goesOn(o, 1, continueFrom)
	same := 1500 // more than an owner sends before it saves
	if !continued || len(text) < same {
		return text, continued
	}
	for !utf8.RuneStart(text[same]) {
		same--
	}
	return text[:same] + o.variant("other ending"), true
}
