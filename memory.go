package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is what may be allocated between two collections, in bytes. By
	// itself Go takes as much as there lives already, stacks included: of ten
	// thousand streams that is a third of all their memory, and of few so little
	// that it collects for nothing.
	headroom = 48 << 20

	leastPercent, mostPercent = 40, 200 // of what lives

	// The collector is set anew this often, and only if its percentage is off by
	// more than a tenth: each time all goroutines stop for a moment.
	readMemoryEvery = 2 * time.Second
)

// keepHeadroom has the garbage collector leave so much room, until ctx ends. Where
// GOGC says something else than Go's own 100, it does nothing.
func keepHeadroom(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}}
	percent := uint64(100)
	metrics.Read(sample)
	if sample[0].Value.Uint64() != percent {
		return
	}
	defer debug.SetGCPercent(int(percent))
	every(ctx, readMemoryEvery, func() {
		metrics.Read(sample)
		want := collectAt(sample[1].Value.Uint64() + sample[2].Value.Uint64())
		if 10*max(want, percent) > 11*min(want, percent) {
			percent = want
			debug.SetGCPercent(int(percent))
		}
	})
}

// collectAt is by how many percent of what lives, in bytes, the heap may grow until
// it is collected.
func collectAt(live uint64) (percent uint64) {
	return min(max(100*headroom/max(live, 1), leastPercent), mostPercent)
}
