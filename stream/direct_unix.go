//go:build unix

package stream

import (
	"sync"
	"syscall"
)

// A directWrite is one write to a connection that never waits for its client, so
// that whoever has something to send need not start a goroutine for it.
type directWrite struct {
	p   []byte
	n   int
	err error
	do  func(fd uintptr) bool // once: a closure for each write would be garbage
}

var directWrites = sync.Pool{New: func() any {
	w := new(directWrite)
	w.do = w.once
	return w
}}

// writeDirectly writes as much of p as the system takes at once, and returns how
// much that was.
func writeDirectly(raw syscall.RawConn, p []byte) (int, error) {
	w := directWrites.Get().(*directWrite) //nolint:forcetypeassert // nothing else is put
	defer directWrites.Put(w)
	w.p, w.n, w.err = p, 0, nil
	err := raw.Write(w.do)
	w.p = nil
	if err != nil {
		return w.n, err
	}
	return w.n, w.err
}

// once is one write to a descriptor that does not block.
func (w *directWrite) once(fd uintptr) bool {
	n, err := syscall.Write(int(fd), w.p)
	switch err {
	case nil:
		w.n = n
	case syscall.EAGAIN, syscall.EINTR:
	default:
		w.err = err
	}
	return true
}
