//go:build linux

package survival_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

var outage = flag.Duration("outage", 6*time.Second, "how long TestDatabaseOutage takes PostgreSQL away")

// recoveredWithin is how long after an outage all is as it was, at the latest.
const recoveredWithin = 5 * time.Second

// PostgreSQL is away under load: refuses connections as one does that is
// restarted, or says nothing as one does behind a broken network. Replies that
// run go on for those who read them where they are written; what is new is
// refused, to be tried again; and when the database is back, all that was
// acknowledged gets its end, without another owner.
//
// The other tests of this package wait for it: they keep dozens of processes busy
// at the same database, and then it is they that are measured.
func TestDatabaseOutage(t *testing.T) {
	for name, away := range map[string]func(*proxy) func() error{
		"that refuses connections": (*proxy).refuse,
		"that says nothing":        (*proxy).silence,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := modelstest.URL(t, models.Postgres)
			px := newProxy(t, direct)
			s := newService(t, newBackend(t, goesOn), px.url, 2)
			owner := s.any()
			// Half of the outage, and beyond it.
			size := int(*outage / (20 * time.Millisecond) * 10)
			short := s.newGroup(15, order{bytes: size/2 + 1000, size: 10, pace: 20 * time.Millisecond})
			long := s.newGroup(15, order{bytes: size*5/4 + 1500, size: 10, pace: 20 * time.Millisecond})
			groups := []*group{short, long}
			for _, g := range groups {
				g.begin(t, owner)
			}
			for _, g := range groups {
				until(t, "the replies run", func() bool { return g.haveAll(400) })
			}
			back := away(px)
			began := time.Now()
			newcomers := newcomers{service: s}
			newcomers.knock(t, began.Add(*outage))
			for i, r := range long.readers {
				if at := r.progress.Load(); long.kind(i) == readsThere && time.Since(time.Unix(0, at)) > slack {
					t.Errorf("message %d: nothing came for %v while the database was away", r.messageID, time.Since(time.Unix(0, at)))
				}
			}
			if err := back(); err != nil {
				t.Fatal(err)
			}
			restored := time.Now()
			newcomers.enter(t)
			entered := time.Since(restored)
			for _, r := range short.readers {
				if _, err := s.stored(r.messageID); err != nil {
					t.Error(err)
				}
			}
			ended := time.Since(restored)
			t.Logf("refused %d of %d, after %.1f s at the most; back to work %.1f s after the outage, ends told after %.1f s",
				newcomers.refused, len(newcomers.readers), newcomers.slowest.Seconds(), entered.Seconds(), ended.Seconds())
			if max(entered, ended) > recoveredWithin+slack {
				t.Errorf("recovered after %v and %v, want %v at the most", entered, ended, recoveredWithin)
			}
			for _, g := range groups {
				g.finish(t, 0)
				for _, r := range g.readers {
					if n, _ := s.takeovers(r.messageID); n > 0 {
						t.Errorf("message %d was taken over %d times from an owner that lives", r.messageID, n)
					}
				}
			}
			newcomers.finish(t)
		})
	}
}

// newcomers are clients whose messages come while the database is away.
type newcomers struct {
	service *service
	readers []*reader

	knocking sync.WaitGroup
	mu       sync.Mutex
	refused  int
	slowest  time.Duration
}

// knock sends messages until then. They are refused, or wait.
func (n *newcomers) knock(t *testing.T, until time.Time) {
	t.Helper()
	t.Cleanup(n.knocking.Wait)
	for i := 0; time.Now().Before(until); i++ {
		o := order{name: fmt.Sprintf("newcomer-%d", i), bytes: 300, size: 10, pace: time.Millisecond}
		r := n.service.newReader(o, o.name, true)
		n.readers = append(n.readers, r)
		n.knocking.Go(func() {
			began := time.Now()
			err := r.send(t.Context(), n.service.any())
			n.mu.Lock()
			defer n.mu.Unlock()
			switch {
			case errors.Is(err, errRefused):
				n.refused++
				n.slowest = max(n.slowest, time.Since(began))
			case err != nil:
				t.Errorf("a message while the database was away: %v", err)
			case time.Now().Before(until):
				t.Error("a message was acknowledged while the database was away")
			}
		})
		time.Sleep(250 * time.Millisecond)
	}
}

// enter sends again what was refused, under the same keys.
func (n *newcomers) enter(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n.knocking.Wait()
	for _, r := range n.readers {
		for r.messageID == 0 {
			if err := r.send(ctx, n.service.any()); err != nil && !errors.Is(err, errRefused) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// finish reads the replies and looks for what was stored twice, or lost.
func (n *newcomers) finish(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, r := range n.readers {
		if err := r.follow(ctx, n.service.any); err != nil {
			t.Fatal(err)
		}
		if err := r.check(0); err != nil {
			t.Error(err)
		}
	}
	said := n.service.exchanges(t)
	for _, r := range n.readers {
		if got := said[r.order.message()]; len(got) != 1 || got[0] != r.want {
			t.Errorf("message %d is stored %d times", r.messageID, len(got))
		}
	}
}
