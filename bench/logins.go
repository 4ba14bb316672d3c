package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// settling is how long what was begun in one window may go on before the next.
const settling = time.Second

// logins measures what the streams of Parley notice of clients that do nothing
// but sign in. The yardstick is Parley without them.
func logins(ctx context.Context, bin binaries, s settings) error {
	measured := time.Duration(s.seconds) * time.Second
	l := load{streams: s.streams / 2, rate: s.rate, measured: measured + windows*settling}
	fmt.Printf("\nlogins: %d streams, %s, %v, alone and beside %d logins at once\n", l.streams, pace(l.rate), measured, s.logins)
	server, end, err := startBoth(ctx, "parley", bin, s, scenario{name: "logins", load: l})
	if err != nil {
		return err
	}
	defer end()
	crowd, err := newCrowd(ctx, server.address, bin.bench, s.logins)
	if err != nil {
		return err
	}

	following, cancel := context.WithCancel(ctx)
	l.address, l.headers = server.address, server.headers
	shared := newClient()
	clients, wait := l.start(following, shared)
	err = crowd.alternate(ctx, shared, l.warmUp()+settling, measured/windows)
	cancel()
	wait()
	if err != nil {
		return err
	}
	each := measured.Seconds() / 2
	fmt.Printf("  %-18s %.1f a second, and %.1f were told to come back\n", "logins", float64(crowd.in)/each, float64(crowd.away)/each)
	compare(clients)
	return nil
}

// compare prints the latencies without and beside the crowd: the middle one of
// the rounds, and of what each round says of the other.
func compare(clients []*client) {
	var rounds [1 + windows]result
	for w := range rounds {
		for _, c := range clients {
			rounds[w].latencies = append(rounds[w].latencies, c.latencies[w]...)
		}
		slices.Sort(rounds[w].latencies)
	}
	for _, f := range []figure{latency50, latency99} {
		var without, with, more []float64
		for w := alone; w < windows; w += 2 {
			a, b := f.of(rounds[w]), f.of(rounds[w+1])
			without, with, more = append(without, a), append(with, b), append(more, (b/a-1)*100)
		}
		fmt.Printf("  %-18s alone  %10.2f %-4s beside %10.2f %-4s %+.0f %% (rounds: %+.0f)\n",
			f.name, middle(without), f.unit, middle(with), f.unit, middle(slices.Clone(more)), more)
	}
}

// middle is the median of all, which it sorts.
func middle(all []float64) float64 {
	slices.Sort(all)
	return quantile(all, 0.5)
}

// A crowd is clients that sign in, each to an account of its own. They are a process
// of their own that gives way to all others: they would be elsewhere, and what
// they cost is not Parley's.
type crowd struct {
	address  string
	program  string
	size     int
	in, away int64 // logins, and those that were told to come back
}

func newCrowd(ctx context.Context, address, program string, size int) (*crowd, error) {
	for i := range size {
		if _, err := enter(ctx, address, "signup", member(i)); err != nil {
			return nil, err
		}
	}
	return &crowd{address: address, program: program, size: size}, nil
}

// member is the address of one of a crowd.
func member(i int) string { return fmt.Sprintf("login-%d@example.com", i) }

// alternate waits for the streams and then measures them in turn without the
// crowd and beside it, for so long each.
func (c *crowd) alternate(ctx context.Context, shared *client, warmUp, each time.Duration) error {
	if err := pause(ctx, warmUp); err != nil {
		return err
	}
	for w := int32(alone); w <= windows; w++ {
		stop := func() error { return nil }
		if w%2 == 0 {
			var err error
			if stop, err = c.come(ctx); err != nil {
				return err
			}
		}
		shared.window.Store(w)
		err := pause(ctx, each)
		shared.window.Store(0)
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		if err := pause(ctx, settling); err != nil {
			return err
		}
	}
	return nil
}

// come has the crowd sign in until stop, which counts what became of that.
func (c *crowd) come(ctx context.Context) (stop func() error, err error) {
	cmd := exec.CommandContext(ctx, c.program, "crowd", c.address, strconv.Itoa(c.size))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	var said bytes.Buffer
	cmd.Stdout = &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		end(cmd)
		var in, away int64
		if _, err := fmt.Sscan(said.String(), &in, &away); err != nil {
			return fmt.Errorf("the crowd said %q: %w", said.String(), err)
		}
		c.in += in
		c.away += away
		return nil
	}, nil
}

// signIn is what a crowd does: all sign in at once, again and again, as soon as each
// may, until SIGTERM. It prints how many did, and how many were told to come back. args
// are the address and the crowd's size.
func signIn(args []string) error {
	if len(args) != 2 {
		return errors.New("a crowd needs an address and a size")
	}
	address := args[0]
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		return fmt.Errorf("give way to others: %w", err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	var (
		all      sync.WaitGroup
		in, away atomic.Int64
	)
	for i := range size {
		all.Go(func() {
			for ctx.Err() == nil {
				_, err := enter(ctx, address, "login", member(i))
				var refused *refusal
				switch {
				case err == nil:
					in.Add(1)
				case errors.As(err, &refused):
					away.Add(1)
					_ = pause(ctx, refused.comeBack) // the loop sees why it ended
				}
			}
		})
	}
	all.Wait()
	fmt.Println(in.Load(), away.Load())
	return nil
}
