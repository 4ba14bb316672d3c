package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
)

// stream asks the server, as ChatCompletionService.NewStreaming does, and reads
// its events soberly. Who reads the stream closes it.
func (s *Server) stream(ctx context.Context, p openai.ChatCompletionNewParams) *ssestream.Stream[openai.ChatCompletionChunk] {
	var res *http.Response
	err := s.chat.Post(ctx, "chat/completions", p, &res, option.WithJSONSet("stream", true))
	if err != nil {
		return ssestream.NewStream[openai.ChatCompletionChunk](nil, err)
	}
	return ssestream.NewStream[openai.ChatCompletionChunk](sober{ssestream.NewDecoder(res)}, nil)
}

// sober reads events that say there is no error: "error": null. The SDK for Go
// takes that for one, those for other languages do not.
type sober struct{ ssestream.Decoder }

func (d sober) Event() ssestream.Event {
	event := d.Decoder.Event()
	if !bytes.Contains(event.Data, []byte(`"error"`)) {
		return event
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(event.Data, &fields) != nil || string(fields["error"]) != "null" {
		return event
	}
	delete(fields, "error")
	if data, err := json.Marshal(fields); err == nil {
		event.Data = data
	}
	return event
}
