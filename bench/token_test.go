package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// BenchmarkToken is one token's way from the backend's gRPC connection to the
// client's socket: through Parley, with storage, and through the relay.
// Allocations are those of the whole process, so of the backend too.
func BenchmarkToken(b *testing.B) {
	b.Run("relay", func(b *testing.B) {
		address := serveSource(b)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { listener.Close() })
		handler, closeConn, err := relayHandler(address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(closeConn)
		server := httptest.NewUnstartedServer(handler)
		server.Listener.Close()
		server.Listener = listener
		server.Start()
		b.Cleanup(server.Close)
		read(b, listener.Addr().String(), "POST /", fmt.Sprintf(`{"message":"0 %d"}`, b.N))
	})
	for _, dialect := range modelstest.Dialects {
		b.Run("parley/"+dialect, func(b *testing.B) {
			db := modelstest.New(b, dialect)
			client, err := aigrpc.Dial(aigrpc.Config{Target: serveSource(b)})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { client.Close() })
			hub := stream.NewHub(db, client, stream.Config{Replica: "bench", MaxReplyBytes: 1 << 30}, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(b.Context())
			go hub.Run(ctx)
			b.Cleanup(cancel)
			u := models.User{Email: "bench@example.com", UserName: "bench", PasswordHash: "x"}
			if err := db.CreateUser(ctx, &u, &models.DeviceSession{SID: "bench", ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
				b.Fatal(err)
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ex, err := hub.Send(r.Context(), models.NewTurn{UserID: u.ID, Content: fmt.Sprintf("0 %d", b.N)})
				if err == nil {
					err = hub.Serve(w, r, stream.Viewer{UserID: u.ID}, ex.Reply.ID, "")
				}
				if err != nil {
					b.Error(err)
				}
			}))
			b.Cleanup(server.Close)
			read(b, server.Listener.Addr().String(), "POST /", "")
		})
	}
}

func serveSource(b *testing.B) (address string) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	amandaai.RegisterAIServiceServer(server, source{})
	go func() { _ = server.Serve(listener) }() // until it is stopped
	b.Cleanup(server.Stop)
	return listener.Addr().String()
}

// read asks for a reply of b.N tokens and takes the time until it is whole.
func read(b *testing.B, address, request, body string) {
	b.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	b.ReportAllocs()
	b.ResetTimer()
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s", request, len(body), body)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	c := newClient()
	if !c.read(res.Body, time.Now(), func(int64) {}) {
		b.Fatal("the stream broke off")
	}
	b.StopTimer()
	if got := c.tokens.Load(); got != int64(b.N) {
		b.Errorf("%d tokens arrived, want %d", got, b.N)
	}
}
