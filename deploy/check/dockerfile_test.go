package check_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// stages parses a Dockerfile as a build does, its warnings being errors.
func stages(t *testing.T, text string) []instructions.Stage {
	t.Helper()
	result, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range result.Warnings {
		t.Errorf("%s", warning.Short)
	}
	warn := func(rule, about, _, what string, _ []parser.Range) { t.Errorf("%s: %s: %s", rule, about, what) }
	all, _, err := instructions.Parse(result.AST, linter.New(&linter.Config{Warn: warn}))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheImage(t *testing.T) {
	t.Parallel()
	all := stages(t, read(t, "deploy/Dockerfile"))
	if len(all) != 2 || all[1].BaseName != "scratch" {
		t.Fatalf("got %d stages, want two, and the last one to begin with nothing", len(all))
	}
	build, image := all[0], all[1]

	// The compiler is of the release that go.mod asks for, or a later one of it.
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)\.(\d+)$`).FindStringSubmatch(read(t, "go.mod"))
	compiler := regexp.MustCompile(`^golang:(\d+\.\d+)\.(\d+)-`).FindStringSubmatch(build.BaseName)
	if version == nil || compiler == nil || compiler[1] != version[1] || len(compiler[2]) < len(version[2]) || compiler[2] < version[2] {
		t.Errorf("it is built by %s, and go.mod says %v", build.BaseName, version)
	}
	if !pinned.MatchString(build.BaseName) {
		t.Errorf("%s may be another one tomorrow", build.BaseName)
	}

	settings := make(map[string]string)
	said := make(map[string]string)
	for _, command := range image.Commands {
		switch c := command.(type) {
		case *instructions.EnvCommand:
			for _, pair := range c.Env {
				settings[pair.Key] = pair.Value
			}
		case *instructions.UserCommand:
			said["USER"] = c.User
		case *instructions.StopSignalCommand:
			said["STOPSIGNAL"] = c.Signal
		case *instructions.EntrypointCommand:
			said["ENTRYPOINT"] = strings.Join(c.CmdLine, " ")
		case *instructions.CmdCommand:
			said["CMD"] = strings.Join(c.CmdLine, " ")
		case *instructions.ExposeCommand:
			said["EXPOSE"] = strings.Join(c.Ports, " ")
		case *instructions.HealthCheckCommand:
			said["HEALTHCHECK"] = strings.Join(c.Health.Test, " ")
		case *instructions.RunCommand:
			t.Error("there is nothing in the image that could be run while it is made")
		}
	}
	want := map[string]string{
		"USER": "65532:65532", "STOPSIGNAL": "SIGTERM", "ENTRYPOINT": "/parley", "CMD": "serve",
		"EXPOSE": settings["PORT"], "HEALTHCHECK": "CMD /parley healthcheck",
	}
	if diff := cmp.Diff(said, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	accepts(t, settings)
}

// What is secret on a developer's machine is not sent to where an image is built.
func TestSecretsStayOutOfTheImage(t *testing.T) {
	t.Parallel()
	lines := strings.Split(read(t, ".dockerignore"), "\n")
	for _, secret := range []string{".git", ".env", "**/*.env", "**/keys.json", "**/*.keys.json", "**/*.db", "**/*.key"} {
		found := false
		for _, line := range lines {
			found = found || line == secret
		}
		if !found {
			t.Errorf(".dockerignore lets %s in", secret)
		}
	}
}
