// Package metricstest reads for tests what package metrics has counted, and says
// what its linter finds.
//
// It never knows what the metrics are about.
//
// Its invariant: it reads what a scrape would, and changes nothing.
package metricstest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"parley/metrics"
)

// Values are the values of all series whose name begins with prefix, by name and
// labels as Prometheus writes them. Of a histogram it is only how often something
// was observed, as name_count.
func Values(tb testing.TB, set *metrics.Set, prefix string) map[string]float64 {
	tb.Helper()
	values := make(map[string]float64)
	for _, family := range gather(tb, set) {
		if !strings.HasPrefix(family.GetName(), prefix) {
			continue
		}
		for _, m := range family.GetMetric() {
			name, value := family.GetName(), m.GetGauge().GetValue()+m.GetCounter().GetValue()
			if h := m.GetHistogram(); h != nil {
				name, value = name+"_count", float64(h.GetSampleCount())
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			if labels != nil {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			values[name] = value
		}
	}
	return values
}

// Changed are the values that are other ones than before.
func Changed(tb testing.TB, set *metrics.Set, prefix string, before map[string]float64) map[string]float64 {
	tb.Helper()
	after := Values(tb, set, prefix)
	maps.DeleteFunc(after, func(name string, value float64) bool { return value == before[name] })
	return after
}

// Labels are the names of the labels of each metric, as a query may use them: of a
// histogram or a summary those of its parts.
func Labels(tb testing.TB, set *metrics.Set) map[string][]string {
	tb.Helper()
	names := make(map[string][]string)
	for _, family := range gather(tb, set) {
		var labels []string
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
		}
		slices.Sort(labels)
		labels = slices.Compact(labels)
		name := family.GetName()
		switch family.GetType() {
		case dto.MetricType_HISTOGRAM:
			names[name+"_sum"], names[name+"_count"] = labels, labels
			names[name+"_bucket"] = append(slices.Clone(labels), "le")
		case dto.MetricType_SUMMARY:
			names[name+"_sum"], names[name+"_count"] = labels, labels
			names[name] = append(slices.Clone(labels), "quantile")
		default:
			names[name] = labels
		}
	}
	return names
}

// Lint fails the test for each metric that is not named or described as those of
// Prometheus are.
func Lint(tb testing.TB, set *metrics.Set) {
	tb.Helper()
	problems, err := promlint.NewWithMetricFamilies(gather(tb, set)).Lint()
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range problems {
		tb.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func gather(tb testing.TB, set *metrics.Set) []*dto.MetricFamily {
	tb.Helper()
	families, err := set.Gatherer().Gather()
	if err != nil {
		tb.Fatal(err)
	}
	return families
}
