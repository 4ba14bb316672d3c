package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// elsewhere measures how far those who follow a reply on another replica are
// behind those who follow it where it is written, which is the yardstick.
func elsewhere(ctx context.Context, bin binaries, s settings) error {
	if !strings.HasPrefix(s.database, "postgres") {
		fmt.Fprintln(os.Stderr, "elsewhere is left out: two replicas need -database postgres://...")
		return nil
	}
	l := load{streams: s.followed, rate: s.rate, measured: time.Duration(s.seconds) * time.Second}
	fmt.Printf("\nelsewhere: %d replies, %s, %v, each followed on two replicas\n", l.streams, pace(l.rate), l.measured)
	owner, stop, err := startBoth(ctx, "parley", bin, s, scenario{name: "elsewhere", load: l})
	if err != nil {
		return err
	}
	defer stop()
	other, err := owner.parley.start(ctx)
	if err != nil {
		return err
	}
	defer end(other.cmd)

	following, cancel := context.WithCancel(ctx)
	l.address, l.headers, l.elsewhere = owner.address, owner.headers, other.address
	shared := newClient()
	clients, wait := l.start(following, shared)
	err = pause(ctx, l.warmUp()+settling)
	if err == nil {
		shared.window.Store(alone)
		err = pause(ctx, l.measured)
	}
	cancel()
	wait()
	if err != nil {
		return err
	}
	var here, there result
	for _, c := range clients {
		here.latencies = append(here.latencies, c.latencies[alone]...)
		there.latencies = append(there.latencies, c.away.latencies[alone]...)
	}
	slices.Sort(here.latencies)
	slices.Sort(there.latencies)
	for _, f := range []figure{latency50, latency99} {
		a, b := f.of(here), f.of(there)
		fmt.Printf("  %-18s owner %10.2f %-4s elsewhere %7.2f %-4s %+.2f\n", f.name, a, f.unit, b, f.unit, b-a)
	}
	fmt.Printf("  %-18s %d of %d, timed: %d and %d tokens\n", "streams refused", shared.refused.Load(), 2*l.streams, len(here.latencies), len(there.latencies))
	return nil
}
