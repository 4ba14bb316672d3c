package metrics_test

import (
	"testing"
	"time"

	"parley/metrics"
)

// BenchmarkToken is what counting costs one token; the whole of its way is in
// package bench.
func BenchmarkToken(b *testing.B) {
	r := metrics.New("test").Replies
	b.RunParallel(func(pb *testing.PB) {
		last := time.Now()
		for pb.Next() {
			now := time.Now()
			r.Token(false, now.Sub(last)+30*time.Millisecond)
			last = now
		}
	})
}
