package stream_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// A replica with many replies has more to do than it can long before its timers are
// late. It takes no reply then, and takes them again when that is over; a few replies
// are not what others wait for. All of the process feels it, so it does not run in parallel.
func TestAFullReplicaTakesNoReply(t *testing.T) {
	procs := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	db := modelstest.New(t, models.SQLite)
	user, _ := newUser(t, db)
	words := make(chan string)
	t.Cleanup(func() { close(words) })
	crowd := func(n int) *replica {
		return start(t, db, steps(words), func(c *stream.Config) { c.MaxLateness, c.Crowd = time.Hour, n })
	}
	many, few := crowd(1), crowd(30)
	send := func(r *replica) error {
		_, err := r.Send(t.Context(), models.NewTurn{UserID: user, Content: "hello"})
		return err
	}
	for _, r := range []*replica{many, many, few, few} {
		if err := send(r); err != nil {
			t.Fatal(err)
		}
	}

	rest := keepBusy()
	t.Cleanup(rest)
	until(t, "it is full, for a while", func() bool { return many.Pressure() >= 1.1 })
	if err := send(many); !errors.Is(err, stream.ErrOverloaded) {
		t.Errorf("a full replica says %v, want %v", err, stream.ErrOverloaded)
	}
	if err := send(few); err != nil {
		t.Errorf("one with few replies says %v", err)
	}
	rest()
	until(t, "it has room again", func() bool { return many.Pressure() < 1 })
	if err := send(many); err != nil {
		t.Errorf("a replica that has room again says %v", err)
	}
}

// keepBusy gives the processors more to do than they can, until rest.
func keepBusy() (rest func()) {
	var all sync.WaitGroup
	var stop atomic.Bool
	for range 200 {
		all.Go(func() {
			for began := time.Now(); !stop.Load(); {
				if time.Since(began) > time.Millisecond {
					runtime.Gosched()
					began = time.Now()
				}
			}
		})
	}
	return func() { stop.Store(true); all.Wait() }
}
