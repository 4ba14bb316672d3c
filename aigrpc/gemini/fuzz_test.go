package gemini_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/gemini"
)

// Whatever a server streams, the answer is text, and ends in a way that is
// told.
func FuzzStream(f *testing.F) {
	f.Add([]byte(event("Yes") + stops))
	f.Add([]byte(`data: {"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}` + "\n\n"))
	f.Add([]byte(`data: {"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":1}}` + "\n\n"))
	f.Add([]byte(`data: {"candidates":[{"content":{"parts":[{"text":"t","thought":true,"thoughtSignature":"AAAA"}]},"tokenCount":1}],"createTime":"2026-03-10T14:54:45Z"}` + "\r\n\r\n"))
	var body atomic.Pointer[[]byte]
	server := serve(f, func(n int, w http.ResponseWriter, r *http.Request) { says(string(*body.Load()))(n, w, r) })
	ai := newProvider(f, gemini.Config{BaseURL: server.URL})
	f.Fuzz(func(t *testing.T, stream []byte) {
		body.Store(&stream)
		var chunks []*amandaai.ChatChunk
		err := listen(t.Context(), t, ai, &amandaai.ChatMessage{Message: "Well?"}, func(c *amandaai.ChatChunk) {
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
