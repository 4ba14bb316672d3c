package check_test

import (
	"path"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// all returns what the group of pattern matches in text, in order.
func all(text, pattern string) (found []string) {
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

// Who is woken by an alert finds what to do, in the order of the alerts.
func TestEveryAlertIsExplained(t *testing.T) {
	t.Parallel()
	alerts := all(read(t, "deploy/prometheus-alerts.yaml"), `(?m)^\s+- alert: (\w+)$`)
	explained := all(read(t, "docs/operations.md"), "(?m)^\\*\\*`(\\w+)`\\*\\* \\S")
	if diff := cmp.Diff(explained, alerts); diff != "" || len(alerts) == 0 {
		t.Errorf("docs/operations.md, and the alerts (-got +want):\n%s", diff)
	}
}

// What the page names is there: settings and files.
func TestThePageForOperatorsNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/operations.md")
	known := defaults(t)
	for _, name := range all(page, "`([A-Z]+_[A-Z_]+)(?:=\\w+)?`") {
		if _, ok := known[name]; !ok {
			t.Errorf("%s is no setting", name)
		}
	}
	for _, file := range all(page, `\]\(([^)]+)\)`) {
		if file = path.Join("docs", file); file != "deploy/kubernetes" {
			read(t, file)
		}
	}
}
