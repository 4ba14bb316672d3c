// Package main lints an OpenAPI document: it prints each finding, and ends with
// 1 if there is one. It is a module of its own, so that what it stands on is
// pinned and no part of the service. It never knows what the document describes.
//
// The invariant: a finding of any severity fails, so what is not wanted is
// turned off by name in the settings, and there alone.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/speakeasy-api/openapi/linter"
	"github.com/speakeasy-api/openapi/openapi"
	rules "github.com/speakeasy-api/openapi/openapi/linter"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: lint SETTINGS DOCUMENT")
		os.Exit(2)
	}
	found, err := lint(context.Background(), os.Stdout, os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	}
	if found > 0 {
		os.Exit(1)
	}
}

// lint writes what is wrong with the document at path to w, and returns how much
// that is.
func lint(ctx context.Context, w io.Writer, settings, path string) (int, error) {
	config, err := linter.LoadConfigFromFile(settings)
	if err != nil {
		return 0, fmt.Errorf("settings: %w", err)
	}
	l, err := rules.NewLinter(config)
	if err != nil {
		return 0, fmt.Errorf("settings: %w", err)
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close() //nolint:errcheck // it is only read
	document, wrong, err := openapi.Unmarshal(ctx, file)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	out, err := l.Lint(ctx, linter.NewDocumentInfo(document, path), wrong, nil)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	if len(out.Results) > 0 {
		fmt.Fprintln(w, out.FormatText())
	}
	return len(out.Results), nil
}
