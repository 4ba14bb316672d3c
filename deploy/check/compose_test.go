package check_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

// compose loads the file as docker compose does: interpolated by the example of its
// settings, and held to the schema.
func compose(t *testing.T, file string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions(
		[]string{file},
		cli.WithEnvFiles(filepath.Join(root, "deploy/compose.env.example")), cli.WithDotEnv,
	)
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func TestCompose(t *testing.T) {
	t.Parallel()
	p, err := compose(t, filepath.Join(root, "deploy/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var upstreams []string
	for _, name := range []string{"parley-1", "parley-2"} {
		upstreams = append(upstreams, checkReplica(t, p, p.Services[name]))
	}
	one, other := p.Services["parley-1"], p.Services["parley-2"]
	one.Name, one.Networks = other.Name, other.Networks
	if diff := cmp.Diff(one, other); diff != "" {
		t.Errorf("the replicas are not alike:\n%s", diff)
	}
	migrate := p.Services["migrate"]
	if strings.Join(migrate.Command, " ") != "migrate up" || one.DependsOn["migrate"].Condition != types.ServiceConditionCompletedSuccessfully {
		t.Error("the replicas do not wait for the migration")
	}

	// The proxy asks those two, and is the one whose word on addresses counts.
	proxy := p.Services["proxy"]
	text := read(t, "deploy/nginx.conf")
	var asked []string
	for _, server := range regexp.MustCompile(`(?m)^\s+server (\S+:\d+)`).FindAllStringSubmatch(text, -1) {
		asked = append(asked, server[1])
	}
	if diff := cmp.Diff(asked, upstreams); diff != "" {
		t.Errorf("the servers in nginx.conf, and the replicas' addresses (-got +want):\n%s", diff)
	}
	if got, want := *one.Environment["TRUSTED_PROXIES"], proxy.Networks["default"].Ipv4Address; got != want {
		t.Errorf("TRUSTED_PROXIES is %s, and the proxy's address %s", got, want)
	}
	if !strings.Contains(text, "\n    listen 8080;\n") || proxy.Ports[0].Target != 8080 || proxy.Ports[0].HostIP != "127.0.0.1" {
		t.Errorf("nginx listens elsewhere than at %+v", proxy.Ports)
	}
	if p.Services["db"].Environment["POSTGRES_PASSWORD"] == nil || len(p.Services["db"].Ports) != 0 {
		t.Error("the database has no password, or a port outside")
	}
	for _, name := range []string{"proxy", "db"} {
		if s := p.Services[name]; !pinned.MatchString(s.Image) {
			t.Errorf("%s may be another one tomorrow", s.Image)
		}
	}
}

// checkReplica checks one of the two, and returns where it is asked.
func checkReplica(t *testing.T, p *types.Project, s types.ServiceConfig) string {
	t.Helper()
	settings := make(map[string]string)
	for name, value := range s.Environment {
		settings[name] = *value
	}
	accepts(t, settings)
	checkGrace(t, time.Duration(*s.StopGracePeriod), settings, 0)
	checkMemory(t, settings, int64(s.MemLimit))
	if strings.Join(s.HealthCheck.Test, " ") != "CMD /parley healthcheck" {
		t.Errorf("%s is asked %v", s.Name, s.HealthCheck.Test)
	}
	if s.Build.Dockerfile != "deploy/Dockerfile" || !s.ReadOnly || len(s.Tmpfs) != 1 || s.Tmpfs[0] != "/tmp" || strings.Join(s.CapDrop, " ") != "ALL" || s.User != "" {
		t.Errorf("%s is not the image of the Dockerfile, with as little as it needs: %+v", s.Name, s)
	}
	if len(s.Secrets) != 1 || s.Secrets[0].Target != settings["JWT_KEYS_FILE"] || p.Secrets[s.Secrets[0].Source].File == "" {
		t.Errorf("%s: the keys are at %+v, and JWT_KEYS_FILE is %s", s.Name, s.Secrets, settings["JWT_KEYS_FILE"])
	}
	return s.Networks["default"].Ipv4Address + ":" + settings["PORT"]
}
