//go:build !linux

package modelstest

import "os"

// temporary is the folder for what need not survive.
func temporary() string { return os.TempDir() }
