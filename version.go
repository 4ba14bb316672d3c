package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is the version of the module that this program was built from: a
// tag, a pseudo-version of the commit, or "devel" where the build knows
// neither.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

func showVersion(_ context.Context, p process) error {
	fmt.Fprintf(p.stdout, "parley %s\n", version())
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				fmt.Fprintf(p.stdout, "commit %s\n", s.Value)
			}
		}
	}
	_, err := fmt.Fprintf(p.stdout, "%s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
