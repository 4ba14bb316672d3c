//go:build !unix

package stream

import "syscall"

// A directWriter never writes: what is there to be sent is sent by a goroutine.
type directWriter struct{ raw syscall.RawConn }

func (directWriter) try([]byte) (int, error) { return 0, nil }
