package openai_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/openai"
)

// Whatever a server streams, the answer is text, and ends in a way that is
// told.
func FuzzStream(f *testing.F) {
	f.Add([]byte(event("Yes") + stops + costs + ends))
	f.Add([]byte(`data: {"error":{"message":"m","type":"t","code":500}}` + "\n\n"))
	f.Add([]byte(`data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning":"r"},"finish_reason":null}],"usage":null}` + "\n\n"))
	f.Add([]byte("event: x\r\ndata: {}\r\n\r\n: ping\n\ndata:\n\ndata: 17\n\n"))
	var body atomic.Pointer[[]byte]
	server := serve(f, func(n int, w http.ResponseWriter, r *http.Request) { says(string(*body.Load()))(n, w, r) })
	ai := newProvider(f, openai.Config{BaseURL: server.URL, Kind: openai.Ollama})
	f.Fuzz(func(t *testing.T, stream []byte) {
		body.Store(&stream)
		var chunks []*amandaai.ChatChunk
		err := listen(t.Context(), t, ai, &amandaai.ChatMessage{Message: "Well?", ContinueFrom: "And so it was"}, func(c *amandaai.ChatChunk) {
			chunks = append(chunks, c)
		})
		switch status.Code(err) {
		case codes.OK:
			if len(chunks) == 0 || !chunks[len(chunks)-1].GetDone() || chunks[len(chunks)-1].GetFinishReason() == "" {
				t.Errorf("got an end without a reason: %v", chunks)
			}
		case codes.Unavailable, codes.ResourceExhausted, codes.FailedPrecondition, codes.InvalidArgument, codes.Aborted:
			if toldBy(err).Reason == "" {
				t.Errorf("got %v without a reason", err)
			}
		default:
			t.Errorf("got %v", err)
		}
		for _, c := range chunks {
			if !utf8.ValidString(c.GetText()) {
				t.Errorf("got %q", c.GetText())
			}
		}
	})
}
