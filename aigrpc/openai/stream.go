package openai

import (
	"context"
	"errors"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
)

// StreamChat answers m. It fails with a *provider.Fault, or as the call does
// that it answers.
//
// A chat that is too long for the model is asked about once more with the later
// half of its history. A server that refuses to go on from a text is asked to
// answer anew.
func (s *Server) StreamChat(m *amandaai.ChatMessage, out grpc.ServerStreamingServer[amandaai.ChatChunk]) error {
	q := question{message: m.GetMessage(), history: m.GetHistory(), model: s.config.Model}
	if s.config.AnyModel && m.GetModel() != "" {
		q.model = m.GetModel()
	}
	if s.dialect.continues {
		q.goOnFrom = m.GetContinueFrom()
	}
	answer := provider.NewAnswer(out, s.config.MaxReplyBytes)
	for cut := false; ; {
		err := s.ask(out.Context(), q, answer)
		var f *provider.Fault
		switch {
		case !errors.As(err, &f) || answer.Begun():
			return err
		case f.Reason == provider.ContextTooLong && !cut && len(q.history) > 0:
			q.history, cut = provider.Recent(q.history), true
		case f.Reason == provider.BadRequest && q.goOnFrom != "":
			q.goOnFrom = ""
		default:
			return err
		}
	}
}

// A question is what the server is asked.
type question struct {
	message  string
	history  []*amandaai.Turn
	goOnFrom string
	model    string
}

func (s *Server) params(q question) openai.ChatCompletionNewParams {
	p := openai.ChatCompletionNewParams{
		Model:         q.model,
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	}
	if s.config.SystemPrompt != "" {
		p.Messages = append(p.Messages, openai.SystemMessage(s.config.SystemPrompt))
	}
	for _, t := range provider.Conversation(q.history, q.message) {
		if t.Assistant {
			p.Messages = append(p.Messages, openai.AssistantMessage(t.Text))
		} else {
			p.Messages = append(p.Messages, openai.UserMessage(t.Text))
		}
	}
	if q.goOnFrom != "" {
		p.Messages = append(p.Messages, openai.AssistantMessage(q.goOnFrom))
		if s.dialect.continueFields {
			p.SetExtraFields(map[string]any{"continue_final_message": true, "add_generation_prompt": false})
		}
	}
	if s.config.Temperature != nil {
		p.Temperature = openai.Float(*s.config.Temperature)
	}
	switch {
	case s.config.MaxTokens <= 0:
	case s.dialect.maxTokens:
		p.MaxTokens = openai.Int(s.config.MaxTokens)
	default:
		p.MaxCompletionTokens = openai.Int(s.config.MaxTokens)
	}
	return p
}

// lastWords is how long a server that has said how its answer ended has to say what
// it cost. The answer is whole without that.
const lastWords = 5 * time.Second

// ask asks the server once.
func (s *Server) ask(ctx context.Context, q question, answer *provider.Answer) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel() // ends the server's work on an answer that is as long as it may be
	asking, x := provider.Watch(asking)
	stream := s.stream(asking, s.params(q))
	defer func() { _ = stream.Close() }() // nothing is to be done about it

	answer.GoOn(q.goOnFrom)
	var end ending
	hung := time.AfterFunc(lastWords, cancel)
	hung.Stop() // before the answer has ended it is not this that counts
	defer hung.Stop()
	for stream.Next() {
		x.Event()
		err := end.hear(stream.Current(), answer)
		if errors.Is(err, provider.ErrFull) {
			return answer.End(provider.FinishLength, end.usage)
		}
		if err != nil {
			return err
		}
		if end.reason != "" {
			hung.Reset(lastWords)
		}
	}
	if end.reason != "" {
		return answer.End(end.reason, end.usage)
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	f := fault(x, stream.Err())
	switch {
	case f.Reason == provider.Refused:
		return answer.End(provider.FinishFilter, end.usage)
	case answer.Begun():
		return f.InMidAnswer()
	}
	return f
}

// An ending is what the last events of a stream say: how the answer ended, and
// after that, in an event without text, what it cost.
type ending struct {
	reason string
	usage  *amandaai.Usage
}

func (e *ending) hear(chunk openai.ChatCompletionChunk, answer *provider.Answer) error {
	if u := chunk.Usage; u.PromptTokens != 0 || u.CompletionTokens != 0 {
		e.usage = &amandaai.Usage{InputTokens: u.PromptTokens, OutputTokens: u.CompletionTokens}
	}
	for _, choice := range chunk.Choices {
		if choice.FinishReason != "" {
			e.reason = choice.FinishReason
		}
		switch text := choice.Delta.Content + choice.Delta.Refusal; {
		case text != "":
			return answer.Write(text)
		case thinks(choice.Delta):
			return answer.Alive()
		}
	}
	return nil
}

// thinks reports whether a delta is what a model thinks before it answers:
// reasoning for Ollama and vLLM, reasoning_content for llama.cpp and others.
func thinks(delta openai.ChatCompletionChunkChoiceDelta) bool {
	for _, name := range []string{"reasoning", "reasoning_content"} {
		switch delta.JSON.ExtraFields[name].Raw() {
		case "", "null", `""`:
		default:
			return true
		}
	}
	return false
}

// fault is why a stream ended, with err or without, that did not say so.
func fault(x *provider.Exchange, err error) *provider.Fault {
	var told *ssestream.StreamError
	switch {
	case x.Fault() != nil:
		return x.Fault()
	case errors.As(err, &told):
		return provider.Explain(0, nil, told.Event.Data)
	case err != nil:
		return provider.NewFault(provider.Malformed)
	}
	return provider.NewFault(provider.BrokeOff)
}
