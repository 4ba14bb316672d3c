package check_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pelletier/go-toml/v2"
)

// A flyApp is what fly.toml may say, as far as this one does
// (https://fly.io/docs/reference/configuration).
type flyApp struct {
	App           string `toml:"app"`
	PrimaryRegion string `toml:"primary_region"`
	KillSignal    string `toml:"kill_signal"`
	KillTimeout   int    `toml:"kill_timeout"` // seconds, 300 at the most
	Build         struct {
		Dockerfile string `toml:"dockerfile"`
	} `toml:"build"`
	Deploy struct {
		ReleaseCommand string  `toml:"release_command"`
		Strategy       string  `toml:"strategy"`
		MaxUnavailable float64 `toml:"max_unavailable"`
	} `toml:"deploy"`
	Env         map[string]string `toml:"env"`
	HTTPService struct {
		InternalPort       int    `toml:"internal_port"`
		ForceHTTPS         bool   `toml:"force_https"`
		AutoStopMachines   string `toml:"auto_stop_machines"`
		AutoStartMachines  bool   `toml:"auto_start_machines"`
		MinMachinesRunning int    `toml:"min_machines_running"`
		Concurrency        struct {
			Type      string `toml:"type"`
			SoftLimit int    `toml:"soft_limit"`
			HardLimit int    `toml:"hard_limit"`
		} `toml:"concurrency"`
		Checks []flyCheck `toml:"checks"`
	} `toml:"http_service"`
	Metrics struct {
		Port int    `toml:"port"`
		Path string `toml:"path"`
	} `toml:"metrics"`
	VM []struct {
		Size   string `toml:"size"`
		Memory string `toml:"memory"`
	} `toml:"vm"`
}

type flyCheck struct {
	Method      string `toml:"method"`
	Path        string `toml:"path"`
	Interval    string `toml:"interval"`
	Timeout     string `toml:"timeout"`
	GracePeriod string `toml:"grace_period"`
}

func decodeFly(text string) (app flyApp, err error) {
	err = toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields().Decode(&app)
	return app, err
}

func TestAMisspeltFlyAppIsFound(t *testing.T) {
	t.Parallel()
	if _, err := decodeFly(strings.Replace(read(t, "fly.toml"), "kill_timeout", "kill_timout", 1)); err == nil {
		t.Error("it is taken")
	}
}

func TestFly(t *testing.T) {
	t.Parallel()
	app, err := decodeFly(read(t, "fly.toml"))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		// fly secrets
		"DATABASE_URL": "postgres://parley:secret@db.internal/parley", "SMTP_URL": "smtp://user:password@smtp.example.org:587",
		"JWT_KEYS_FILE": "keys.json",
	}
	for name, value := range app.Env {
		settings[name] = value
	}
	accepts(t, settings)
	checkGrace(t, time.Duration(app.KillTimeout)*time.Second, settings, 0)
	checkMemory(t, settings, 2<<30)
	if len(app.VM) != 1 || app.VM[0].Memory != "2gb" || app.KillTimeout > 300 {
		t.Errorf("the machine is %+v, and killed after %d s", app.VM, app.KillTimeout)
	}
	s := app.HTTPService
	if app.KillSignal != "SIGTERM" || app.Build.Dockerfile != "deploy/Dockerfile" || app.Deploy.ReleaseCommand != "migrate up" || settings["MIGRATE_ON_START"] != "false" {
		t.Errorf("it ends by %s, is built by %s, and migrates by %q", app.KillSignal, app.Build.Dockerfile, app.Deploy.ReleaseCommand)
	}
	if settings["PORT"] != "8080" || s.InternalPort != 8080 || settings["METRICS_ADDR"] != ":9090" || app.Metrics.Port != 9090 || app.Metrics.Path != "/metrics" {
		t.Errorf("PORT is %s and asked at %d; METRICS_ADDR is %s and asked at %d", settings["PORT"], s.InternalPort, settings["METRICS_ADDR"], app.Metrics.Port)
	}
	c := s.Concurrency
	if c.Type != "connections" || c.SoftLimit >= c.HardLimit || settings["MAX_CONNECTIONS"] != "1800" || c.HardLimit > 1800-100 {
		t.Errorf("got %+v, and MAX_CONNECTIONS is %s; want connections, and room for others above the hard limit", c, settings["MAX_CONNECTIONS"])
	}
	if s.AutoStopMachines != "stop" || !s.AutoStartMachines || s.MinMachinesRunning < 1 || !s.ForceHTTPS {
		t.Errorf("got %+v", s)
	}
	if diff := cmp.Diff(s.Checks, []flyCheck{{"GET", "/readyz", "5s", "4s", "10s"}}); diff != "" {
		t.Errorf("checks (-got +want):\n%s", diff)
	}
	if !regexp.MustCompile(`^https://` + app.App + `\.fly\.dev$`).MatchString(settings["PUBLIC_URL"]) {
		t.Errorf("PUBLIC_URL is %s, and the app %s", settings["PUBLIC_URL"], app.App)
	}
}
