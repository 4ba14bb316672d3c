//go:build linux

package survival_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/models"
)

var cuts = flag.Int64("cuts", 4000, "connections that TestAnyCutAnyReplica breaks off")

// cutters is how many clients lose their connections at the same time.
const cutters = 48

// Clients lose their connections at any byte, come back to any replica with the
// last id that they have dispatched, and have in the end what is stored. Nobody
// died, so nothing is taken back.
func TestAnyCutAnyReplica(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect  string
		replicas int
		share    int64 // of the cuts, in quarters
	}{
		"three replicas on PostgreSQL": {models.Postgres, 3, 3},
		"one on SQLite":                {models.SQLite, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := newSeed(t)
			s := newServiceOn(t, newBackend(t, goesOn), test.dialect, test.replicas)
			c := cutting{service: s, limit: *cuts * test.share / 4}
			var clients sync.WaitGroup
			for i := range cutters {
				clients.Go(func() {
					if err := c.client(rand.New(rand.NewPCG(seed, uint64(i))), i); err != nil {
						c.over.Store(true)
						t.Error(err)
					}
				})
			}
			clients.Wait()
			t.Logf("%d cuts, %d replies, %d of them ended by 204", c.cuts.Load(), c.replies.Load(), c.silent.Load())
		})
	}
}

// cutting is a run of the test.
type cutting struct {
	service *service
	limit   int64
	over    atomic.Bool
	cuts    atomic.Int64
	replies atomic.Int64
	silent  atomic.Int64
}

// client has replies made, one after the other, until there were enough cuts.
func (c *cutting) client(rng *rand.Rand, number int) error {
	for n := 0; c.cuts.Load() < c.limit && !c.over.Load(); n++ {
		name := fmt.Sprintf("%d-%d", number, n)
		o := order{name: name, bytes: 1 + rng.IntN(4000), size: 1 + rng.IntN(40), pace: time.Duration(rng.IntN(12)) * time.Millisecond}
		o.pace = min(o.pace, patience/6*time.Duration(o.size)/time.Duration(o.bytes)) // a busy machine has its time
		r, err := c.read(rng, c.service.newReader(o, name, rng.IntN(2) == 0))
		if err != nil {
			return err
		}
		if err := r.check(0); err != nil {
			return err
		}
		if err := c.service.backend.askedOncePerOwner(r, 1, 1); err != nil {
			return err
		}
		c.replies.Add(1)
		if r.ending == "204" {
			c.silent.Add(1)
		}
	}
	return nil
}

// read reads a reply to its end, by connections that break, of which sometimes
// two exist at a time, and returns the client that came to the end.
func (c *cutting) read(rng *rand.Rand, r *reader) (*reader, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		var twin *reader
		done := make(chan error, 1)
		if r.messageID != 0 && rng.IntN(8) == 0 {
			twin = r.clone()
			where, how := c.choose(rng), someCut(rng)
			go func() { done <- twin.connect(ctx, where, how) }()
		}
		err := c.outcome(ctx, r.connect(ctx, c.choose(rng), someCut(rng)), r)
		if twin != nil {
			err = errors.Join(err, c.outcome(ctx, <-done, twin))
			if rng.IntN(2) == 0 {
				r = twin
			}
		}
		if err != nil || r.ending != "" {
			return r, err
		}
	}
}

// outcome counts a cut, and returns what is wrong.
func (c *cutting) outcome(ctx context.Context, err error, r *reader) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("message %d has not ended after %d bytes of %d, id %s", r.messageID, len(r.text), len(r.want), r.lastID)
	case errors.Is(err, errCut):
		c.cuts.Add(1)
		return nil
	case errors.Is(err, errRefused): // it is busy
		time.Sleep(100 * time.Millisecond)
		return nil
	}
	return err
}

// choose returns a replica.
func (c *cutting) choose(rng *rand.Rand) *process {
	all := c.service.all()
	return all[rng.IntN(len(all))]
}

// someCut is one of many kinds: in the head, in the first events, far behind,
// after a while; with a farewell or without.
func someCut(rng *rand.Rand) cut {
	c := cut{reset: rng.IntN(2) == 0}
	switch rng.IntN(8) {
	case 0:
		c.bytes = 1 + rng.Int64N(300)
	case 1:
		c.bytes = 1 + rng.Int64N(8000)
	case 2, 3:
		c.after = time.Duration(1+rng.IntN(200)) * time.Millisecond
	default:
		c.bytes = 250 + rng.Int64N(1200)
	}
	return c
}
