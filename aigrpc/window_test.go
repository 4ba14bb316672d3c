package aigrpc_test

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"parley/aigrpc"
)

// Replies share one connection, which must not hold them back before the window of
// each does: RFC 9113, 6.9.2, has both begin at 65,535 bytes, and only
// WINDOW_UPDATE and SETTINGS change them.
func TestRepliesShareALargeWindow(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := aigrpc.Dial(aigrpc.Config{Target: listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	const first = 65_535
	all, each := uint32(first), uint32(first)
	frames := http2.NewFramer(conn, conn)
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for answered := false; !answered; {
		frame, err := frames.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				all += f.Increment
			}
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				each = v
			}
			answered = f.IsAck() // what it wants to begin with was said before that
		}
	}
	if all < 64*first {
		t.Errorf("all replies together may send %d bytes, one of them %d", all, each)
	}
	if each > 1<<20 {
		t.Errorf("one reply may send %d bytes that are not read", each)
	}
}
