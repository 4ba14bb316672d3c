package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// loginRounds is how often the two are measured in turn: what else the
	// machine does then falls on both.
	loginRounds = 4
	// settling is how long what was begun in one window may go on before the
	// next.
	settling = time.Second
)

// logins measures what the streams of Parley notice of clients that do nothing
// but sign in. The yardstick is Parley without them.
func logins(ctx context.Context, bin binaries, s settings) error {
	measured := time.Duration(s.seconds) * time.Second
	l := load{streams: s.streams / 2, rate: s.rate, measured: measured + 2*loginRounds*settling}
	fmt.Printf("\nlogins: %d streams, %s, %v, alone and beside %d logins at once\n", l.streams, pace(l.rate), measured, s.logins)
	server, end, err := startBoth(ctx, "parley", bin, s, scenario{name: "logins", load: l})
	if err != nil {
		return err
	}
	defer end()
	crowd, err := newCrowd(ctx, server.address, s.logins)
	if err != nil {
		return err
	}

	following, cancel := context.WithCancel(ctx)
	l.address, l.headers = server.address, server.headers
	shared := newClient()
	clients, wait := l.start(following, shared)
	err = crowd.alternate(ctx, shared, l.warmUp()+settling, measured/(2*loginRounds))
	cancel()
	wait()
	if err != nil {
		return err
	}
	each := measured.Seconds() / 2
	fmt.Printf("  %-18s %.1f a second, and %.1f were told to come back\n", "logins", float64(crowd.in.Load())/each, float64(crowd.away.Load())/each)
	compare(clients)
	return nil
}

// compare prints the latencies of both windows.
func compare(clients []*client) {
	var in [windows + 1]result
	for w := range in {
		for _, c := range clients {
			in[w].latencies = append(in[w].latencies, c.latencies[w]...)
		}
		slices.Sort(in[w].latencies)
	}
	for _, f := range []figure{latency50, latency99} {
		a, b := f.of(in[alone]), f.of(in[beside])
		fmt.Printf("  %-18s alone  %10.2f %-4s beside %10.2f %-4s %+.0f %%\n", f.name, a, f.unit, b, f.unit, (b/a-1)*100)
	}
}

// A crowd is clients that sign in, each to an account of its own.
type crowd struct {
	address  string
	emails   []string
	in, away atomic.Int64 // logins, and those that were told to come back
}

func newCrowd(ctx context.Context, address string, size int) (*crowd, error) {
	c := &crowd{address: address}
	for i := range size {
		email := fmt.Sprintf("login-%d@example.com", i)
		if _, err := enter(ctx, address, "signup", email); err != nil {
			return nil, err
		}
		c.emails = append(c.emails, email)
	}
	return c, nil
}

// alternate waits for the streams and then measures them in turn without the
// crowd and beside it, for so long each.
func (c *crowd) alternate(ctx context.Context, shared *client, warmUp, each time.Duration) error {
	if err := pause(ctx, warmUp); err != nil {
		return err
	}
	for range loginRounds {
		for _, window := range []int32{alone, beside} {
			stop := func() {}
			if window == beside {
				stop = c.signIn(ctx)
			}
			shared.window.Store(window)
			err := pause(ctx, each)
			shared.window.Store(0)
			stop()
			if err == nil {
				err = pause(ctx, settling)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// signIn has everybody sign in at once, again and again, as soon as each may, until
// stop, which waits for the last ones.
func (c *crowd) signIn(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, email := range c.emails {
		all.Go(func() {
			for ctx.Err() == nil {
				_, err := enter(ctx, c.address, "login", email)
				var refused *refusal
				switch {
				case err == nil:
					c.in.Add(1)
				case errors.As(err, &refused):
					c.away.Add(1)
					_ = pause(ctx, refused.comeBack) // the loop sees why it ended
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}
