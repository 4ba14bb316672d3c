package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"parley/aigrpc/amandaai"
)

// relay is the yardstick: what one writes in an afternoon. A handler for each
// request, a gRPC stream for each, a flush for each token, and nothing else.
func relay(listener net.Listener, backend, profile string) error {
	handler, _, err := relayHandler(backend)
	if err != nil {
		return err
	}
	if profile != "" {
		if err := profileUntilTerminated(profile); err != nil {
			return err
		}
	}
	return http.Serve(listener, handler) // no timeouts, as in an afternoon
}

// relayHandler is the relay's only handler, and what closes its connection to
// the backend.
func relayHandler(backend string) (http.Handler, func(), error) {
	conn, err := grpc.NewClient(backend, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	client := amandaai.NewAIServiceClient(conn)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Message string `json:"message"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		chat, err := client.StreamChat(r.Context(), &amandaai.ChatMessage{Message: in.Message})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flusher := http.NewResponseController(w)
		for {
			chunk, err := chat.Recv()
			if err != nil {
				return
			}
			if chunk.GetDone() {
				fmt.Fprint(w, "event: message_complete\ndata: {}\n\n")
				return
			}
			fmt.Fprintf(w, "event: message_token\ndata: {\"text\":%q}\n\n", chunk.GetText())
			if err := flusher.Flush(); err != nil {
				return
			}
		}
	})
	return handler, func() { conn.Close() }, nil
}

// profileUntilTerminated writes a CPU profile that ends with SIGTERM, and so
// does the process.
func profileUntilTerminated(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	go func() {
		<-ended
		pprof.StopCPUProfile()
		f.Close()
		os.Exit(0)
	}()
	return nil
}
