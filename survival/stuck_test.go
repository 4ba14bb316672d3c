//go:build linux

package survival_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"parley/models"
)

var stuck = flag.Int("stuck", 100, "clients in each part of TestStuckReaders that read nothing")

const (
	// letGoWithin is how long a client may read nothing before it is let go of.
	letGoWithin = 30 * time.Second
	// What the process may grow by: for the reply, and for each stuck client,
	// which is far less than there is for it to read.
	growth, growthEach = 32 << 20, 128 << 10
)

// Many clients read nothing of a long reply: from its beginning, or, having
// come back, of its end. They cost the process next to no memory and other
// clients nothing, are let go of, and have lost nothing when they come back.
func TestStuckReaders(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]bool{"while it runs": false, "when it has ended": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServiceOn(t, newBackend(t, goesOn), models.SQLite, 1)
			p := s.any()
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			t.Cleanup(cancel)
			o := order{name: "long", bytes: 900_000, size: 4000, pace: 20 * time.Millisecond}
			first := s.newReader(o, o.name, true)
			if err := first.sendSurely(ctx, p); err != nil {
				t.Fatal(err)
			}
			witness := first.clone()
			if ended {
				if err := first.follow(ctx, s.any); err != nil {
					t.Fatal(err)
				}
			}
			c := &crowd{process: p, wake: make(chan struct{}), files: openFiles(t, p), memory: residentBytes(t, p)}
			t.Cleanup(c.waiting.Wait)
			t.Cleanup(cancel)
			c.gather(ctx, first)
			began := time.Now()
			if err := witness.follow(ctx, s.any); err != nil {
				t.Fatal(err)
			}
			// Whoever had to wait for them would wait until they are let go of.
			if took := time.Since(began); took > 225*o.pace+letGoWithin/2 {
				t.Errorf("one who reads had the reply after %v", took)
			}
			c.watch(t, began)
			c.comeBack(ctx, t, append(c.readers[:min(10, *stuck)], witness))
		})
	}
}

// A crowd is clients that read nothing.
type crowd struct {
	process *process
	files   int   // open before they came
	memory  int64 // used before they came, in bytes
	readers []*reader
	wake    chan struct{} // closed when they begin to read
	waiting sync.WaitGroup
	mu      sync.Mutex
	err     error
}

// gather has clients connect that follow the reply of like: from the last rune
// on, if like has read it all.
func (c *crowd) gather(ctx context.Context, like *reader) {
	for range *stuck {
		r := like.clone()
		if size := len(r.want); like.ending != "" {
			for size--; !utf8.RuneStart(r.want[size]); {
				size--
			}
			r.text, r.lastID = r.text[:size], fmt.Sprintf("1-%d", size)
		}
		c.readers = append(c.readers, r)
		c.waiting.Go(func() {
			if err := r.connect(ctx, c.process, cut{stuck: c.wake}); !errors.Is(err, errCut) {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.err = errors.Join(c.err, fmt.Errorf("a client that read nothing was not cut off: %w", err))
			}
		})
	}
}

// watch looks at what the crowd costs until it is let go of.
func (c *crowd) watch(t *testing.T, began time.Time) {
	t.Helper()
	const others = 10 // files that the process opens for itself
	if open := openFiles(t, c.process); open < c.files+len(c.readers)-others {
		t.Errorf("%d files are open, before %d clients came %d were: they are not stuck", open, len(c.readers), c.files)
	}
	var most int64
	until(t, "they are let go of", func() bool {
		most = max(most, residentBytes(t, c.process))
		return openFiles(t, c.process) <= c.files+others
	})
	took := time.Since(began)
	// A few may be left that came last: files are counted with some tolerance.
	// They too have gone when the limit has.
	time.Sleep(time.Until(began.Add(letGoWithin)))
	t.Logf("let go of after %.1f s; %d MiB before %d of them came, %d MiB at the most", took.Seconds(), c.memory>>20, len(c.readers), most>>20)
	if took > letGoWithin+slack {
		t.Errorf("let go of after %v, want %v", took, letGoWithin)
	}
	if limit := c.memory + growth + int64(len(c.readers))*growthEach; most > limit {
		t.Errorf("%d MiB with %d clients that read nothing, want at most %d", most>>20, len(c.readers), limit>>20)
	}
}

// comeBack has clients read what was sent to them, and then the rest.
func (c *crowd) comeBack(ctx context.Context, t *testing.T, readers []*reader) {
	t.Helper()
	close(c.wake)
	c.waiting.Wait()
	if c.err != nil {
		t.Fatal(c.err)
	}
	for _, r := range readers {
		if r.ending == "" {
			if err := r.follow(ctx, func() *process { return c.process }); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.check(0); err != nil {
			t.Fatal(err)
		}
	}
}

// openFiles is how many files and connections the process has open.
func openFiles(t *testing.T, p *process) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// residentBytes is how much memory the process uses.
func residentBytes(t *testing.T, p *process) int64 {
	t.Helper()
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
