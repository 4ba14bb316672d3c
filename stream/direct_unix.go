//go:build unix

package stream

import "syscall"

// A directWriter writes to a connection without ever waiting for its client,
// so that whoever has something to send need not start a goroutine for it.
type directWriter struct {
	raw syscall.RawConn

	p   []byte
	n   int
	err error
	do  func(fd uintptr) bool // set once: a closure for each write would be garbage
}

// try writes as much of p as the system takes at once, and returns how much
// that was.
func (d *directWriter) try(p []byte) (int, error) {
	if d.raw == nil {
		return 0, nil
	}
	if d.do == nil {
		d.do = d.once
	}
	d.p, d.n, d.err = p, 0, nil
	err := d.raw.Write(d.do)
	d.p = nil
	if err != nil {
		return d.n, err
	}
	return d.n, d.err
}

// once is one write to a descriptor that does not block.
func (d *directWriter) once(fd uintptr) bool {
	n, err := syscall.Write(int(fd), d.p)
	switch err {
	case nil:
		d.n = n
	case syscall.EAGAIN, syscall.EINTR:
	default:
		d.err = err
	}
	return true
}
