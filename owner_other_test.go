//go:build !unix

package main

import (
	"io/fs"
	"testing"
)

func owner(*testing.T, fs.FileInfo) [2]uint32 { return [2]uint32{} }
