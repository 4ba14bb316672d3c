package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// These tests are the rules of the house: who may know whom, and what every
// room owes its readers.

// mayImport says which of our packages a package may import, test files aside.
// An entry ending in /... stands for a whole tree. A package that is not here
// has no place yet: give it one, and say in the README what it is for.
var mayImport = map[string][]string{
	"parley":                     {"parley/..."},
	"parley/aigrpc":              {"parley/aigrpc/...", "parley/stream"},
	"parley/aigrpc/amandaai":     {},
	"parley/aigrpc/demo":         {"parley/aigrpc/amandaai"},
	"parley/aigrpc/gemini":       {"parley/aigrpc/amandaai", "parley/aigrpc/provider"},
	"parley/aigrpc/local":        {"parley/aigrpc/amandaai", "parley/speech"},
	"parley/aigrpc/openai":       {"parley/aigrpc/amandaai", "parley/aigrpc/provider", "parley/speech"},
	"parley/aigrpc/provider":     {"parley/aigrpc/amandaai"},
	"parley/aigrpc/service":      {"parley/aigrpc/amandaai"},
	"parley/auth":                {},
	"parley/bench":               {"parley/..."},
	"parley/handlers":            {"parley/auth", "parley/handlers/...", "parley/mail", "parley/metrics", "parley/models", "parley/stream", "parley/voice"},
	"parley/importer":            {"parley/models"},
	"parley/mail":                {"parley/metrics", "parley/models"},
	"parley/metrics":             {},
	"parley/metrics/metricstest": {"parley/metrics"},
	"parley/migrations":          {},
	"parley/models":              {},
	"parley/models/modelstest":   {"parley/migrations", "parley/models"},
	"parley/speech":              {},
	"parley/stream":              {"parley/metrics", "parley/models", "parley/speech"},
	"parley/survival":            {},
	"parley/voice":               {"parley/models", "parley/stream"},
	"parley/tracing":             {},
}

// onlyIn says who may import what, test files aside.
var onlyIn = []struct {
	why   string
	is    func(imported string) bool
	rooms []string
}{
	{
		"all SQL is in models",
		func(p string) bool {
			return within("github.com/uptrace/bun", p) || within("database/sql", p) || within("github.com/jackc/pgx/v5", p)
		},
		[]string{"parley", "parley/models/...", "parley/migrations", "parley/importer", "parley/bench/...", "parley/tracing"},
	},
	{
		"the AI backend is one room's business",
		func(p string) bool {
			return within("google.golang.org/grpc", p) || within("google.golang.org/protobuf", p)
		},
		[]string{"parley", "parley/aigrpc/...", "parley/bench/...", "parley/tracing"},
	},
	{
		"what the service knows does not depend on how it is asked",
		func(p string) bool { return within("net/http", p) },
		[]string{"parley", "parley/handlers/...", "parley/stream", "parley/bench/...", "parley/aigrpc/openai", "parley/aigrpc/provider", "parley/metrics", "parley/tracing"},
	},
	{
		"tokens are auth's business",
		func(p string) bool { return within("github.com/golang-jwt/jwt/v5", p) },
		[]string{"parley/auth"},
	},
	{
		"what is counted is named in one place",
		func(p string) bool { return within("github.com/prometheus", p) },
		[]string{"parley/metrics/..."},
	},
	{
		"what is traced is said in one place",
		func(p string) bool { return within("go.opentelemetry.io", p) },
		[]string{"parley/tracing"},
	},
	{
		"what is for tests has no place in the program",
		func(p string) bool { return p == "testing" || within("parley", p) && strings.HasSuffix(p, "test") },
		[]string{"parley/models/modelstest", "parley/metrics/metricstest"},
	},
}

func TestImportsKeepTheirDirection(t *testing.T) {
	t.Parallel()
	for _, pkg := range listPackages(t) {
		allowed, known := mayImport[pkg.ImportPath]
		if !known {
			t.Errorf("%s has no place in mayImport", pkg.ImportPath)
		}
		for _, imported := range pkg.Imports {
			if within("parley", imported) && !anyWithin(allowed, imported) {
				t.Errorf("%s imports %s, which is not its direction", pkg.ImportPath, imported)
			}
			for _, rule := range onlyIn {
				if rule.is(imported) && !anyWithin(rule.rooms, pkg.ImportPath) {
					t.Errorf("%s imports %s, and only %v may: %s", pkg.ImportPath, imported, rule.rooms, rule.why)
				}
			}
		}
	}
}

func TestPackagesHaveNamesThatSaySomething(t *testing.T) {
	t.Parallel()
	empty := []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "base", "shared", "lib"}
	for _, pkg := range listPackages(t) {
		if slices.Contains(empty, path.Base(pkg.ImportPath)) {
			t.Errorf("%s: a name such as %s holds anything and says nothing", pkg.ImportPath, path.Base(pkg.ImportPath))
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	for _, pkg := range listPackages(t) {
		var comments []string
		for _, name := range pkg.GoFiles {
			if doc := parseFile(t, filepath.Join(pkg.Dir, name)).Doc; doc != nil {
				comments = append(comments, strings.TrimSpace(doc.Text()))
			}
		}
		if len(comments) != 1 {
			t.Errorf("%s has %d package comments, want one", pkg.ImportPath, len(comments))
			continue
		}
		if lines := strings.Count(comments[0], "\n") + 1; lines < 3 {
			t.Errorf("%s: its comment has %d lines; say what it is for, what it never knows, and its invariant", pkg.ImportPath, lines)
		}
	}
}

func TestTestsStandOutside(t *testing.T) {
	t.Parallel()
	for _, pkg := range listPackages(t) {
		for _, name := range pkg.TestGoFiles {
			// Of main nothing is exported; elsewhere a file export_… may open what
			// tests need.
			if pkg.Name != "main" && !strings.HasPrefix(name, "export_") {
				t.Errorf("%s/%s: want package %s_test", pkg.ImportPath, name, pkg.Name)
			}
		}
	}
}

func TestTheEnvironmentIsReadInConfigAlone(t *testing.T) {
	t.Parallel()
	for _, pkg := range listPackages(t) {
		if strings.HasSuffix(pkg.Name, "test") || within("parley/bench", pkg.ImportPath) {
			continue // no part of the program
		}
		for _, name := range pkg.GoFiles {
			if pkg.ImportPath == "parley" && name == "config.go" {
				continue
			}
			for _, use := range environmentUses(parseFile(t, filepath.Join(pkg.Dir, name))) {
				t.Errorf("%s/%s calls %s: only config.go reads the environment", pkg.ImportPath, name, use)
			}
		}
	}
}

func TestFilesFitAScreenfulOfScreens(t *testing.T) {
	t.Parallel()
	const most = 400
	generated := regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
	for _, file := range repositoryFiles(t, ".go") {
		text := readFile(t, file)
		lines := strings.Count(text, "\n")
		if !strings.HasSuffix(file, "_test.go") && !generated.MatchString(text) && lines > most {
			t.Errorf("%s has %d lines, want at most %d", file, lines, most)
		}
	}
}

func TestTheREADMEListsTheSettings(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- settings -->\n", "\n<!-- /settings -->"
	readme := readFile(t, "README.md")
	_, rest, found := strings.Cut(readme, begin)
	got, _, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("README.md has no table of settings between %q and %q", begin, end)
	}
	if want := strings.TrimSpace(settingsTable()); strings.TrimSpace(got) != want {
		t.Errorf("the README's table of settings is old; put the output of `go run . config --markdown` there:\n%s", want)
	}
}

func TestTextsNameNoPlaceOnOneMachine(t *testing.T) {
	t.Parallel()
	place := regexp.MustCompile(`(^|[\s"'(=` + "`" + `])(/(tmp|root|work|home|Users)/|[A-Z]:\\)`)
	for _, file := range repositoryFiles(t, ".md") {
		for number, line := range strings.Split(readFile(t, file), "\n") {
			if place.MatchString(line) {
				t.Errorf("%s:%d names a place on one machine: %s", file, number+1, strings.TrimSpace(line))
			}
		}
	}
}

// A goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Name, Dir string
	GoFiles, TestGoFiles  []string
	Imports               []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Name,Dir,GoFiles,TestGoFiles,Imports", "./...")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg goPackage
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, pkg)
	}
}

// environmentUses lists the calls in f that read or change the environment.
func environmentUses(f *ast.File) []string {
	functions := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv"}
	var uses []string
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.SelectorExpr); ok {
			pkg, ok := call.X.(*ast.Ident)
			if ok && (pkg.Name == "os" || pkg.Name == "syscall") && slices.Contains(functions, call.Sel.Name) {
				uses = append(uses, pkg.Name+"."+call.Sel.Name)
			}
		}
		return true
	})
	return uses
}

// within reports whether an import path is tree or below it; tree may end in
// /... to say so.
func within(tree, path string) bool {
	tree = strings.TrimSuffix(tree, "/...")
	return path == tree || strings.HasPrefix(path, tree+"/")
}

// anyWithin reports whether path is one of the list, whose entries stand for
// themselves, or for a tree if they end in /...
func anyWithin(list []string, path string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		return entry == path || strings.HasSuffix(entry, "/...") && within(entry, path)
	})
}

// repositoryFiles lists the files with that ending, but those in hidden folders.
// A test runs in the folder of its package, here the root.
func repositoryFiles(t *testing.T, ending string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != "." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case !entry.IsDir() && filepath.Ext(file) == ending:
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func parseFile(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
