package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	// practice is how many replies come before those that are timed: a server is
	// slower at its first ones.
	practice = 200
	// breather is the time between two replies, in which the one before is stored.
	breather = 3 * time.Millisecond
)

// first measures how long the first token takes where nothing else happens: one
// reply after the other, through the relay and through Parley in turn, so that
// what else the machine does falls on both.
func first(ctx context.Context, bin binaries, s settings) error {
	measured := time.Duration(s.seconds) * time.Second
	fmt.Printf("\nfirst: one reply after the other, %v\n", measured)
	relayed, stop, err := startBoth(ctx, "relay", bin, s, scenario{name: "first"})
	if err != nil {
		return err
	}
	defer stop()
	served, stop, err := startBoth(ctx, "parley", bin, s, scenario{name: "first"})
	if err != nil {
		return err
	}
	defer stop()
	servers := [...]running{relayed, served}
	var took [len(servers)][]float64
	var until time.Time
	for n := 0; n <= practice || time.Now().Before(until); n++ {
		if n == practice {
			until = time.Now().Add(measured)
		}
		for i, server := range servers {
			c := newClient()
			c.header = server.headers[n%len(server.headers)]
			if !c.ask(ctx, server.address, c.question(0, 1), func(int64) {}) {
				return fmt.Errorf("%s refused a reply or broke it off", [...]string{"the relay", "Parley"}[i])
			}
			if n >= practice {
				took[i] = append(took[i], c.first)
			}
			if err := pause(ctx, breather); err != nil {
				return err
			}
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	for _, q := range []float64{0.50, 0.99} {
		a, b := quantile(took[0], q), quantile(took[1], q)
		fmt.Printf("  first token p%-5.0f relay  %10.2f ms   parley %10.2f ms   %+.2f\n", q*100, a, b, b-a)
	}
	return nil
}
