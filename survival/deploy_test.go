//go:build linux

package survival_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/models"
)

// movedWithin is how long after SIGTERM a replica's clients are sent elsewhere
// at the latest.
const movedWithin = 2 * time.Second

// Three replicas are restarted, one after the other, under 200 live streams.
// Half of the replies are over within DRAIN_TIMEOUT, half are not. Each client
// is sent elsewhere once for each restart that it meets, and notices nothing
// else.
func TestDeploy(t *testing.T) {
	t.Parallel()
	const streams, drain = 200, 4 * time.Second
	s := newServiceOn(t, newBackend(t, goesOn), models.Postgres, 3, "DRAIN_TIMEOUT="+drain.String())
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	d := deploy{service: s}
	var clients sync.WaitGroup
	for i := range streams {
		o := order{bytes: 160, size: 8, pace: 100 * time.Millisecond}
		if i%2 == 1 {
			o.bytes = 640
		}
		clients.Go(func() {
			for n := 0; !d.over.Load(); n++ {
				o.name = fmt.Sprintf("%d-%d", i, n)
				if err := d.client(ctx, s.newReader(o, o.name, false)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	until(t, "the streams run", func() bool { return s.backend.running.Load() >= streams*9/10 || t.Failed() })
	for _, p := range s.all() {
		began := time.Now()
		s.leave(p) // as a load balancer does that is told of it, or asks /readyz
		p.signal(syscall.SIGTERM)
		select {
		case <-p.exited:
		case <-time.After(drain + 3*slack):
			t.Errorf("a replica is there %v after SIGTERM", drain+3*slack)
			p.kill()
		}
		took := time.Since(began)
		t.Logf("ended %.1f s after SIGTERM, with %v", took.Seconds(), p.cmd.ProcessState)
		if took > drain+slack || !p.cmd.ProcessState.Success() {
			t.Errorf("ended %v after SIGTERM, with %v; want %v at the most, and 0", took, p.cmd.ProcessState, drain)
		}
		s.restart(p)
	}
	d.over.Store(true)
	clients.Wait()
	t.Logf("%d replies, %d reconnects, the slowest %.2f s after SIGTERM", d.replies.Load(), d.moves.Load(),
		time.Duration(d.slowest.Load()).Seconds())
	if d.moves.Load() == 0 {
		t.Error("nobody was sent elsewhere")
	}
}

// deploy is what all clients of the test see together.
type deploy struct {
	service *service
	over    atomic.Bool
	replies atomic.Int64
	moves   atomic.Int64
	slowest atomic.Int64 // from SIGTERM to a client that is sent elsewhere, in ns
}

// client reads one reply to its end.
func (d *deploy) client(ctx context.Context, r *reader) error {
	for {
		p := d.service.any()
		err := r.connect(ctx, p, cut{})
		switch {
		case err == nil:
			d.replies.Add(1)
			return r.check(0)
		case errors.Is(err, errRefused) && r.messageID == 0:
			// It was told to end as the request came, or it is busy: nothing was
			// taken.
			time.Sleep(20 * time.Millisecond)
			continue
		case !errors.Is(err, errMoved):
			return fmt.Errorf("message %d at %d bytes: %w", r.messageID, len(r.text), err)
		}
		told := p.toldAt()
		after := time.Since(told)
		switch {
		case told.IsZero():
			return fmt.Errorf("message %d was sent away by a replica that stays", r.messageID)
		case after > movedWithin+slack:
			return fmt.Errorf("message %d was sent elsewhere %v after SIGTERM", r.messageID, after)
		case r.retry > 2*time.Second:
			return fmt.Errorf("message %d is to come back after %v", r.messageID, r.retry)
		}
		d.moves.Add(1)
		for slowest := d.slowest.Load(); int64(after) > slowest && !d.slowest.CompareAndSwap(slowest, int64(after)); {
			slowest = d.slowest.Load()
		}
		time.Sleep(r.retry)
	}
}
