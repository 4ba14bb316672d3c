// Package main measures what Parley costs: it streams the same tokens, from the
// same source to the same clients, through Parley and through a bare relay, in
// turn and in one run, and prints both with their ratio.
//
// It knows Parley only as a client does: a binary, its settings, HTTP.
//
// The invariant: the yardstick stands beside every figure. The relay has no
// accounts, no storage and no resumption; what Parley costs more is their
// price.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `bench streams tokens through Parley and through a bare relay, in turn.

  go run ./bench [flags] [scenario ...]

Scenarios (all of them by default):
  paced      -streams at -rate tokens/s: CPU time a token, added latency, first token
  half       the same at half the streams
  memory     -idle streams at one token a second: resident memory a stream
  saturated  -fast streams as fast as flow control lets: tokens/s
  first      one reply after the other, through both in turn: time to the first token
  overload   twice -streams: what is delivered, against paced
  logins     half of -streams, Parley alone: latency while -logins clients do nothing but sign in
  elsewhere  -followed replies, each followed where it is written and on another replica: latency (PostgreSQL only)
  voice      -speakers clients that speak and are answered aloud, Parley alone: latency beyond what hears and speaks

Flags:
`

type settings struct {
	database string
	streams  int
	rate     int
	idle     int
	fast     int
	logins   int
	followed int
	speakers int
	seconds  int
	profile  string
	through  string
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "source", "relay":
			exit(child(os.Args[1], os.Args[2:]))
		case "crowd":
			exit(signIn(os.Args[2:]))
		}
	}
	var s settings
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.StringVar(&s.database, "database", "", "Parley's DATABASE_URL, which is emptied; none: an SQLite file of its own")
	flag.IntVar(&s.streams, "streams", 1500, "streams of the paced scenarios")
	flag.IntVar(&s.rate, "rate", 20, "tokens a second and stream")
	flag.IntVar(&s.idle, "idle", 10000, "streams of the memory scenario")
	flag.IntVar(&s.fast, "fast", 100, "streams of the saturated scenario")
	flag.IntVar(&s.logins, "logins", 100, "clients that sign in, all at once, in the logins scenario")
	flag.IntVar(&s.followed, "followed", 100, "replies of the elsewhere scenario")
	flag.IntVar(&s.speakers, "speakers", 8, "clients of the voice scenario")
	flag.IntVar(&s.seconds, "seconds", 15, "seconds that a scenario measures")
	flag.StringVar(&s.profile, "profile", "", "folder for CPU profiles of the relay")
	flag.StringVar(&s.through, "through", "", "command that Parley and the relay are started through, such as nice -n 10: what is short is then short for them, and not for source and clients")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, s, flag.Args()))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A scenario is a load, and what is printed of it.
type scenario struct {
	name    string
	load    load
	figures []figure
}

// A figure is one line of the output; ratio says if Parley's part of it is
// given as a multiple of the relay's, or as what it adds.
type figure struct {
	name  string
	of    func(result) float64
	unit  string
	ratio bool
}

var (
	cpuPerToken = figure{"CPU time a token", func(r result) float64 { return r.cpu.Seconds() * 1e6 / float64(r.tokens) }, "µs", true}
	latency50   = figure{"latency p50", func(r result) float64 { return r.quantile(0.50) }, "ms", false}
	latency99   = figure{"latency p99", func(r result) float64 { return r.quantile(0.99) }, "ms", false}
	first50     = figure{"first token p50", func(r result) float64 { return r.firstQuantile(0.50) }, "ms", false}
	perSecond   = figure{"tokens/s", func(r result) float64 { return float64(r.tokens) / r.took.Seconds() }, "", true}
	memory      = figure{"memory a stream", func(r result) float64 { return float64(r.rss) / float64(r.streams) / 1024 }, "KiB", true}
	refused     = figure{"streams refused", func(r result) float64 { return float64(r.refused) }, "", false}
)

func (s settings) scenarios() []scenario {
	measured := time.Duration(s.seconds) * time.Second
	return []scenario{
		{"paced", load{streams: s.streams, rate: s.rate, measured: measured}, []figure{cpuPerToken, latency50, latency99, first50, perSecond}},
		{"half", load{streams: s.streams / 2, rate: s.rate, measured: measured}, []figure{cpuPerToken, latency50, latency99, first50}},
		{"memory", load{streams: s.idle, rate: 1, measured: measured}, []figure{memory}},
		{"saturated", load{streams: s.fast, measured: measured}, []figure{perSecond, cpuPerToken}},
		{"overload", load{streams: 2 * s.streams, rate: s.rate, measured: measured}, []figure{perSecond, latency99, refused}},
	}
}

func run(ctx context.Context, s settings, names []string) error {
	wanted := make(map[string]bool)
	for _, n := range names {
		wanted[n] = true
	}
	bin, remove, err := build(ctx, s)
	if err != nil {
		return err
	}
	defer remove()
	for _, of := range []struct {
		name    string
		measure func(context.Context, binaries, settings) error
	}{{"first", first}, {"logins", logins}, {"elsewhere", elsewhere}, {"voice", voice}} {
		if len(wanted) > 0 && !wanted[of.name] {
			continue
		}
		if err := of.measure(ctx, bin, s); err != nil {
			return err
		}
	}
	for _, sc := range s.scenarios() {
		if len(wanted) > 0 && !wanted[sc.name] {
			continue
		}
		fmt.Printf("\n%s: %d streams, %s, %v\n", sc.name, sc.load.streams, pace(sc.load.rate), sc.load.measured)
		relay, err := measure(ctx, "relay", bin, s, sc)
		if err != nil {
			return err
		}
		parley, err := measure(ctx, "parley", bin, s, sc)
		if err != nil {
			return err
		}
		for _, f := range sc.figures {
			a, b := f.of(relay), f.of(parley)
			if f.ratio {
				fmt.Printf("  %-18s relay %10.2f %-4s parley %10.2f %-4s %.2f ×\n", f.name, a, f.unit, b, f.unit, b/a)
			} else {
				fmt.Printf("  %-18s relay %10.2f %-4s parley %10.2f %-4s %+.2f\n", f.name, a, f.unit, b, f.unit, b-a)
			}
		}
	}
	return nil
}

func pace(rate int) string {
	if rate == 0 {
		return "as fast as flow control lets"
	}
	return fmt.Sprintf("%d tokens/s each", rate)
}
