package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v2"

	"parley/aigrpc"
	"parley/aigrpc/demo"
	"parley/auth"
	"parley/metrics/metricstest"
	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// exported are the names of the metrics that a replica tells once each thing has
// happened, with those of their labels.
func exported(t *testing.T, dialect string) map[string][]string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	db := modelstest.New(t, dialect)
	o, err := observe(t.Context(), &Config{}, db, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.end(); err != nil {
			t.Error(err)
		}
	})
	backend, err := aigrpc.InProcess(demo.New(demo.Config{}), aigrpc.Deadlines{}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	revoked := auth.NewRevoked(time.Now)
	passwords := auth.NewPasswordPool((&Config{PasswordMemory: 8, PasswordTime: 1, PasswordThreads: 1}).argon2(), o.hashers([]auth.Hasher{auth.HashJob.Do}))
	o.replica(stream.NewHub(db, backend, stream.Config{Replica: "r", Metrics: o.metrics.Replies}, log), backend, revoked, passwords)

	o.metrics.Requests.Began()
	o.metrics.Requests.Answered("/livez", "GET", 200, 0)
	o.metrics.Requests.Problem("busy")
	o.metrics.Requests.Login("ok")
	o.metrics.Requests.Throttled("login")
	o.metrics.Replies.BackendFailed("backend_error")
	o.metrics.Replies.Ended("complete", 0, 1, 1)
	metricstest.Lint(t, o.metrics)
	return metricstest.Labels(t, o.metrics)
}

// added are the labels that Prometheus adds to what it scrapes, and the names of
// which it makes series itself.
var added = []string{"job", "instance"}

// A query is what is asked of Prometheus somewhere, and where that is.
type query struct{ where, text string }

func TestQueriesNameWhatThereIs(t *testing.T) {
	t.Parallel()
	dashboard, alerts := dashboardQueries(t), alertQueries(t)
	if len(dashboard) < 30 || len(alerts) < 10 {
		t.Errorf("%d queries of the dashboard and %d alerts are there, want most of what is exported", len(dashboard), len(alerts))
	}
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			names := exported(t, dialect)
			used := make(map[string]bool)
			for _, q := range slices.Concat(dashboard, alerts) {
				for _, fault := range checkQuery(q.text, names, used) {
					t.Errorf("%s: %s: %s", q.where, q.text, fault)
				}
			}
			for name := range names {
				base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
				if strings.HasPrefix(name, "parley_") && !used[base] && !used[base+"_bucket"] && !used[name] {
					t.Errorf("nothing asks for %s", name)
				}
			}
		})
	}
}

// The check of queries finds what it is there for.
func TestQueriesThatNameWhatIsNotThere(t *testing.T) {
	t.Parallel()
	names := map[string][]string{"a_total": {"x"}, "h_bucket": {"le", "x"}}
	for text, want := range map[string]string{
		`sum by (x) (rate(a_total{x=~"1|2",job="j"}[5m])) / 2 > 0.5`:              "",
		`histogram_quantile(0.9, sum by (le) (rate(h_bucket[$__rate_interval])))`: "",
		`b_total`:                           "there is no metric b_total",
		`rate(b_total[5m])`:                 "there is no metric b_total",
		`a_total{y="1"}`:                    "a_total has no label y",
		`sum by (y) (a_total)`:              "no metric of the query has a label y",
		`sum by (le) (rate(a_total[5m]))`:   "no metric of the query has a label le",
		`rates(a_total[5m])`:                "there is no function rates",
		`sum(a_total`:                       "the brackets do not match",
		`a_total{x="1}`:                     "there is something wrong at \"1}",
		`a_total[5 minutes]`:                "there is something wrong at [5 minutes]",
		`sum by (x) (a_total) unless c[1m]`: "there is no metric c",
	} {
		if got := strings.Join(checkQuery(text, names, map[string]bool{}), "; "); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func dashboardQueries(t *testing.T) []query {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
		Templating struct {
			List []struct {
				Name  string
				Query any
			}
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "deploy/grafana/parley.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []query
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries = append(queries, query{p.Title, target.Expr})
			for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				// A legend names a label by which the query keeps series apart, or any
				// where it puts none together.
				if grouping := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(target.Expr); grouping != nil {
					if !slices.Contains(strings.Split(grouping[1], ", "), label[1]) {
						t.Errorf("%s: the legend names %s, by which nothing is told apart in %s", p.Title, label[1], target.Expr)
					}
				}
			}
		}
	}
	for _, v := range dashboard.Templating.List {
		if of, ok := v.Query.(map[string]any); ok {
			values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(fmt.Sprint(of["query"]))
			if values == nil {
				t.Errorf("the variable %s is made of %v", v.Name, of["query"])
				continue
			}
			queries = append(queries, query{v.Name, "sum by (" + values[2] + ") (" + values[1] + ")"})
		}
	}
	return queries
}

func alertQueries(t *testing.T) []query {
	t.Helper()
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalStrict([]byte(readFile(t, "deploy/prometheus-alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	var queries []query
	for _, group := range rules.Groups {
		for _, r := range group.Rules {
			queries = append(queries, query{r.Alert, r.Expr})
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s lacks a severity, a summary or a description", r.Alert)
			}
			for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(r.Annotations["summary"], -1) {
				grouping := regexp.MustCompile(`by \(([^)]*)\)`).FindStringSubmatch(r.Expr)
				if strings.Contains(r.Expr, "sum") && (grouping == nil || !slices.Contains(strings.Split(grouping[1], ", "), label[1])) {
					t.Errorf("%s: the summary names %s, which the query drops", r.Alert, label[1])
				}
			}
		}
	}
	return queries
}

// The words of PromQL that these queries may use, beside names.
var (
	functions = []string{
		"rate", "increase", "histogram_quantile", "sum", "max", "min", "avg", "count", "topk", "clamp_max", "clamp_min", "abs", "time", "vector",
	}
	operators = []string{"and", "or", "unless", "bool"}
	groupings = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	// Not a grammar of PromQL: a check of words, which Prometheus's own promtool
	// would complete.
	words = regexp.MustCompile(`^(?:\s+|"(?:[^"\\]|\\.)*"|\[(?:\d+[smhd]|\$__rate_interval)\]|\d+(?:\.\d+)?|[a-zA-Z_:][\w:]*|[=!<>]=|=~|!~|[-+*/%^=<>(){},])`)
)

// checkQuery says what is wrong with a query, given the metrics that there are with
// their labels, and notes which of them it uses.
func checkQuery(text string, names map[string][]string, used map[string]bool) (faults []string) {
	var tokens []string
	for rest := text; rest != ""; {
		word := words.FindString(rest)
		if word == "" {
			return []string{"there is something wrong at " + rest}
		}
		if strings.TrimSpace(word) != "" {
			tokens = append(tokens, word)
		}
		rest = rest[len(word):]
	}
	tokens = append(tokens, "") // there is always a next one
	identifier := regexp.MustCompile(`^[a-zA-Z_]`)
	var grouped, found []string
	metric, within, depth := "", "", 0
	for i, token := range tokens[:len(tokens)-1] {
		next := tokens[i+1]
		switch {
		case token == "(" || token == "{":
			depth++
			if token == "{" {
				within = "{"
			}
		case token == ")" || token == "}":
			depth--
			within = ""
		case !identifier.MatchString(token):
		case within == "{":
			if !slices.Contains(names[metric], token) && !slices.Contains(added, token) {
				faults = append(faults, metric+" has no label "+token)
			}
		case within == "by":
			grouped = append(grouped, token)
		case slices.Contains(groupings, token):
			within = "by"
		case slices.Contains(operators, token):
		case slices.Contains(functions, token) && (next == "(" || slices.Contains(groupings, next)):
		case next == "(":
			faults = append(faults, "there is no function "+token)
		default:
			metric = token
			found, used[token] = append(found, token), true
			if _, there := names[token]; !there && token != "up" {
				faults = append(faults, "there is no metric "+token)
			}
		}
	}
	for _, label := range grouped {
		if !slices.Contains(added, label) && !slices.ContainsFunc(found, func(name string) bool { return slices.Contains(names[name], label) }) {
			faults = append(faults, "no metric of the query has a label "+label)
		}
	}
	if depth != 0 {
		faults = append(faults, "the brackets do not match")
	}
	return faults
}

// What the database says is said again for a while, and is no number where it
// says nothing.
func TestAReadingOfTheDatabase(t *testing.T) {
	t.Parallel()
	asked := 0
	r := &reading{read: func(ctx context.Context) (float64, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the database may take any time")
		}
		asked++
		if asked == 2 {
			return 0, models.ErrUnavailable
		}
		return float64(asked), nil
	}}
	told := func() string { return fmt.Sprint(r.value(), r.value(), asked) }
	if got, want := told(), "1 1 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, want := range []string{"NaN NaN 2", "3 3 3"} {
		r.asked = r.asked.Add(-readingKept)
		if got := told(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
