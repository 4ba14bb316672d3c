// Package demo is an AI provider that needs no model and no network: a small
// companion that listens by rules. It reflects what was said, names feelings,
// remembers what was said earlier in the chat, and asks on; its first answer in
// a chat says what it is. It never knows more of a chat than a question brings
// along. Its one invariant: an answer is a function of the message and its
// history alone, so that it can be gone on with from any place in it.
package demo

import (
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
)

// DefaultTokenDelay is about the pace of somebody who reads aloud.
const DefaultTokenDelay = 30 * time.Millisecond

// Config is how the companion speaks.
type Config struct {
	// TokenDelay is the time between two words; none if it is 0.
	TokenDelay time.Duration
}

// A Server answers in chats. It is safe for concurrent use.
type Server struct {
	amandaai.UnimplementedAIServiceServer
	delay time.Duration
}

// New returns a companion.
func New(c Config) *Server { return &Server{delay: c.TokenDelay} }

// StreamChat answers m word by word. Where m.ContinueFrom is the beginning of
// the answer, what is streamed is the rest of it.
func (s *Server) StreamChat(m *amandaai.ChatMessage, out grpc.ServerStreamingServer[amandaai.ChatChunk]) error {
	text := answer(m.GetMessage(), m.GetHistory())
	rest, continued := text, false
	if given := m.GetContinueFrom(); given != "" {
		if after, ok := strings.CutPrefix(text, given); ok {
			rest, continued = after, true
		}
	}
	if err := s.say(rest, continued, out); err != nil {
		return err
	}
	return out.Send(&amandaai.ChatChunk{
		Done:         true,
		FinishReason: "stop",
		Usage: &amandaai.Usage{
			InputTokens:  inputTokens(m),
			OutputTokens: int64(len(strings.Fields(text))),
		},
		Continued: continued && rest == "",
	})
}

// say streams text, a word at a time and the space before it with it.
func (s *Server) say(text string, continued bool, out grpc.ServerStreamingServer[amandaai.ChatChunk]) error {
	var pace <-chan time.Time
	if s.delay > 0 {
		t := time.NewTicker(s.delay)
		defer t.Stop()
		pace = t.C
	}
	for first := true; text != ""; first = false {
		if pace != nil && !first {
			select {
			case <-pace:
			case <-out.Context().Done():
				return status.FromContextError(out.Context().Err()).Err()
			}
		}
		end := wordEnd(text)
		if err := out.Send(&amandaai.ChatChunk{Text: text[:end], Continued: continued && first}); err != nil {
			return err
		}
		text = text[end:]
	}
	return nil
}

// wordEnd returns where the first word of text ends.
func wordEnd(text string) int {
	start := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsSpace(r) })
	if start < 0 {
		return len(text)
	}
	if n := strings.IndexFunc(text[start:], unicode.IsSpace); n >= 0 {
		return start + n
	}
	return len(text)
}

func inputTokens(m *amandaai.ChatMessage) int64 {
	n := len(strings.Fields(m.GetMessage()))
	for _, t := range m.GetHistory() {
		n += len(strings.Fields(t.GetContent()))
	}
	return int64(n)
}
