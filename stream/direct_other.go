//go:build !unix

package stream

import "syscall"

// writeDirectly writes nothing: what is there to be sent is sent by a goroutine.
func writeDirectly(syscall.RawConn, []byte) (int, error) { return 0, nil }
