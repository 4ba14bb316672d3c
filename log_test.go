package main

import (
	"bytes"
	"log/slog"
	"os"
	"testing"
)

func TestLogFormat(t *testing.T) {
	t.Parallel()
	const (
		asJSON = `{"level":"WARN","msg":"said","n":1}` + "\n"
		asText = "level=WARN msg=said n=1\n"
	)
	for name, test := range map[string]struct{ environ, want string }{
		"a machine reads JSON":      {"LOG_FORMAT=", asJSON},
		"JSON may be asked for":     {"LOG_FORMAT=json", asJSON},
		"text may be asked for":     {"LOG_FORMAT=text", asText},
		"what is below is left out": {"LOG_LEVEL=error", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := newLogger(&out, &configure([]string{test.environ}, "").Config)
			record := slog.Record{Level: slog.LevelWarn, Message: "said"} // without a time
			record.Add("n", 1)
			if log.Enabled(t.Context(), record.Level) {
				if err := log.Handler().Handle(t.Context(), record); err != nil {
					t.Fatal(err)
				}
			}
			if got := out.String(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	t.Parallel()
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if isTerminal(f) || isTerminal(&bytes.Buffer{}) {
		t.Error("got a terminal")
	}
}
