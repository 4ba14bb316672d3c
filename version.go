package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version that the linker was told, with -X main.release=v1.2.3:
// an image is built without the history that a build could learn it from.
var release string

// version is the version of the module that this program was built from: the
// release, or a tag, a pseudo-version of the commit, or "devel" where the build
// knows none of them.
func version() string {
	if release != "" && release != "devel" {
		return release
	}
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
