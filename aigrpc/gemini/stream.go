package gemini

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strings"

	"google.golang.org/genai"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
)

// StreamChat answers m, always anew: the API does not promise to go on from an
// answer's beginning. It fails with a *provider.Fault, or as the call does that
// it answers. A chat that is too long for the model is asked about once more
// with the later half of its history.
func (s *Server) StreamChat(m *amandaai.ChatMessage, out grpc.ServerStreamingServer[amandaai.ChatChunk]) error {
	model := s.config.Model
	if s.config.AnyModel && m.GetModel() != "" {
		model = m.GetModel()
	}
	answer := provider.NewAnswer(out, s.config.MaxReplyBytes)
	err := s.ask(out.Context(), model, provider.Conversation(m.GetHistory(), m.GetMessage()), answer)
	var f *provider.Fault
	if errors.As(err, &f) && f.Reason == provider.ContextTooLong && !answer.Begun() && len(m.GetHistory()) > 0 {
		recent := provider.Recent(m.GetHistory())
		return s.ask(out.Context(), model, provider.Conversation(recent, m.GetMessage()), answer)
	}
	return err
}

func contents(turns []provider.Turn) []*genai.Content {
	all := make([]*genai.Content, len(turns))
	for i, t := range turns {
		role := genai.Role(genai.RoleUser)
		if t.Assistant {
			role = genai.RoleModel
		}
		all[i] = genai.NewContentFromText(t.Text, role)
	}
	return all
}

// generation is the SDK's configuration of one request. The SDK changes it.
func (s *Server) generation() *genai.GenerateContentConfig {
	c := &genai.GenerateContentConfig{
		SystemInstruction: s.system,
		MaxOutputTokens:   s.config.MaxTokens,
		// What is asked again is the business of whoever calls over gRPC.
		AutomaticContinuation: genai.Ptr(false),
	}
	if s.config.Temperature != nil {
		c.Temperature = genai.Ptr(float32(*s.config.Temperature))
	}
	return c
}

// ask asks the API once.
func (s *Server) ask(ctx context.Context, model string, turns []provider.Turn, answer *provider.Answer) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel() // ends the API's work on an answer that is as long as it may be
	asking, x := provider.Watch(asking)

	var end ending
	var broken error
	for response, err := range unpanicked(s.models.GenerateContentStream(asking, model, contents(turns), s.generation())) {
		if err != nil {
			broken = err
			break // the SDK would go on, and trip over it
		}
		x.Event()
		err := end.hear(response, answer)
		if errors.Is(err, provider.ErrFull) {
			return answer.End(provider.FinishLength, end.usage)
		}
		if err != nil {
			return err
		}
	}
	if end.reason != "" {
		return answer.End(end.reason, end.usage)
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	f := fault(x, broken)
	if answer.Begun() {
		return f.InMidAnswer()
	}
	return f
}

// responses are what the SDK makes of a stream.
type responses = iter.Seq2[*genai.GenerateContentResponse, error]

// errUnreadable stands for JSON that is no response.
var errUnreadable = errors.New("gemini: the SDK cannot read a response")

// unpanicked is all with an error at its end where all panics: the SDK takes it
// for certain that what is a list of objects in the documentation is one.
func unpanicked(all responses) responses {
	return func(yield func(*genai.GenerateContentResponse, error) bool) {
		ours := false
		defer func() {
			if p := recover(); p != nil {
				if ours {
					panic(p)
				}
				yield(nil, errUnreadable)
			}
		}()
		for response, err := range all {
			ours = true
			more := yield(response, err)
			ours = false
			if !more {
				return
			}
		}
	}
}

// An ending is what an answer's responses say of it beside its text.
type ending struct {
	reason string
	usage  *amandaai.Usage
}

func (e *ending) hear(r *genai.GenerateContentResponse, answer *provider.Answer) error {
	if u := r.UsageMetadata; u != nil && (u.PromptTokenCount != 0 || u.CandidatesTokenCount != 0) {
		e.usage = &amandaai.Usage{
			InputTokens:  int64(u.PromptTokenCount),
			OutputTokens: int64(u.CandidatesTokenCount) + int64(u.ThoughtsTokenCount),
		}
	}
	if r.PromptFeedback != nil && r.PromptFeedback.BlockReason != "" {
		e.reason = blocked(r.PromptFeedback.BlockReason)
	}
	for _, c := range r.Candidates {
		if c == nil {
			continue
		}
		if c.FinishReason != "" {
			e.reason = finished(c.FinishReason)
		}
		if c.Content == nil {
			continue
		}
		for _, p := range c.Content.Parts {
			if err := say(p, answer); err != nil {
				return err
			}
		}
	}
	return nil
}

// say sends a part's text, unless it is what the model thinks.
func say(p *genai.Part, answer *provider.Answer) error {
	switch {
	case p == nil || p.Text == "":
		return nil
	case p.Thought:
		return answer.Alive()
	}
	return answer.Write(p.Text)
}

// finished is how an answer ended: as elsewhere where there is a word for it,
// else Gemini's own, such as safety or recitation.
func finished(r genai.FinishReason) string {
	switch r {
	case genai.FinishReasonStop, genai.FinishReasonUnspecified:
		return provider.FinishStop
	case genai.FinishReasonMaxTokens:
		return provider.FinishLength
	}
	return strings.ToLower(string(r))
}

// blocked is how an answer ends that Gemini does not begin because of what was
// said.
func blocked(r genai.BlockedReason) string {
	switch r {
	case genai.BlockedReasonUnspecified, genai.BlockedReasonOther:
		return provider.FinishFilter
	}
	return strings.ToLower(string(r))
}

// fault is why a stream ended, with err or without, that did not say so.
func fault(x *provider.Exchange, err error) *provider.Fault {
	var told genai.APIError
	switch {
	case x.Fault() != nil:
		return x.Fault()
	case errors.As(err, &told):
		body, err := json.Marshal(told)
		if err != nil {
			return provider.NewFault(provider.Malformed)
		}
		return provider.Explain(0, nil, body)
	case err != nil:
		return provider.NewFault(provider.Malformed)
	}
	return provider.NewFault(provider.BrokeOff)
}
