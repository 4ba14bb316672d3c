package stream

import (
	"runtime/metrics"
	"time"
)

// Waits are the times for which goroutines that could go on waited for a
// processor, as the runtime counts them.
type waits struct {
	read []metrics.Sample
	seen []uint64 // by bucket, as of the last call of mean
}

func newWaits() *waits {
	w := &waits{read: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.mean()
	return w
}

// mean is the mean since the last call; 0 if the runtime does not tell.
func (w *waits) mean() time.Duration {
	metrics.Read(w.read)
	if w.read[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	all := w.read[0].Value.Float64Histogram()
	if len(w.seen) != len(all.Counts) {
		w.seen = make([]uint64, len(all.Counts))
	}
	var waited, seconds float64
	for i, count := range all.Counts {
		n := float64(count - w.seen[i])
		w.seen[i] = count
		waited += n
		seconds += n * max(all.Buckets[i], 0) // the first one begins below 0
	}
	return time.Duration(seconds / max(waited, 1) * float64(time.Second))
}
