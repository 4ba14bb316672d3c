// Package openai is an AI provider that asks a server which speaks as OpenAI
// does: OpenAI itself, Ollama, llama.cpp's server, vLLM, Gemini at its
// compatible address, and others; for replies, and to hear and speak. It never
// knows who a user is, and tells the server nothing but what was said. Its one
// invariant: an answer that ends without an error is whole, for the server said
// how it ended.
package openai

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
)

// DefaultURL is OpenAI's own address.
const DefaultURL = "https://api.openai.com/v1"

// Errors of Config.Check. None of them holds the key.
var (
	ErrURL   = errors.New("openai: the base URL is no http or https URL")
	ErrKey   = errors.New("openai: the key is not printable ASCII without spaces")
	ErrModel = errors.New("openai: no model is named")
	ErrKind  = errors.New("openai: the kind of server is none of openai, compatible, ollama, llamacpp and vllm")
)

// A Kind says which server it is, where that makes a difference: how the bound
// of tokens is named, and how the server is asked to go on from a text.
type Kind string

// The kinds of servers. What is none of them is Compatible, as Gemini is at its
// compatible address.
const (
	OpenAI     Kind = "openai"
	Compatible Kind = "compatible"
	Ollama     Kind = "ollama"
	LlamaCPP   Kind = "llamacpp"
	VLLM       Kind = "vllm"
)

// A dialect is what a kind of server understands.
type dialect struct {
	// max_tokens, which OpenAI's newer models refuse; else
	// max_completion_tokens, which Ollama ignores.
	maxTokens bool
	// The server goes on from an answer's beginning, if that is the last
	// message.
	continues bool
	// It does so only where it is told to by fields of its own.
	continueFields bool
}

var dialects = map[Kind]dialect{
	OpenAI:     {},
	Compatible: {maxTokens: true},
	Ollama:     {maxTokens: true, continues: true},
	LlamaCPP:   {maxTokens: true, continues: true},
	VLLM:       {maxTokens: true, continues: true, continueFields: true},
}

// Config says which server is asked, and how.
type Config struct {
	// BaseURL is where the server's /chat/completions stands, such as
	// http://localhost:11434/v1: OPENAI_BASE_URL. Empty: DefaultURL.
	BaseURL string
	// APIKey is sent as a bearer credential if it is not empty: OPENAI_API_KEY.
	APIKey string
	// Kind is the kind of server: OPENAI_SERVER. Empty: OpenAI where BaseURL is
	// DefaultURL or empty, else Compatible.
	Kind Kind

	// Model is the name that the server has for its model: AI_MODEL.
	Model string
	// AnyModel lets a request name another one. Without it, Model answers
	// whatever a request names: AI_ANY_MODEL.
	AnyModel bool

	// SystemPrompt is what the model is told to be, none if empty: what
	// provider.SystemPrompt makes of AI_SYSTEM_PROMPT.
	SystemPrompt string
	// Temperature is how free the model is in its choice of words, 0 to 2:
	// AI_TEMPERATURE. nil is the server's choice, and the only one that
	// OpenAI's reasoning models take.
	Temperature *float64
	// MaxTokens bounds an answer: AI_MAX_TOKENS. 0: the server's choice. A
	// model that thinks first uses some of them for that.
	MaxTokens int64
	// MaxReplyBytes bounds an answer too, which then ends as "length". 0: 1 MiB.
	MaxReplyBytes int
}

// Check says all that New would refuse, as errors.Join does: ErrURL, ErrKey,
// ErrModel and ErrKind, or nothing.
func (c Config) Check() error {
	var wrong []error
	if c.BaseURL != "" && !provider.IsAddress(c.BaseURL) {
		wrong = append(wrong, ErrURL) // without the URL, which may hold a password
	}
	if !provider.IsKey(c.APIKey) {
		wrong = append(wrong, ErrKey)
	}
	if c.Model == "" {
		wrong = append(wrong, ErrModel)
	}
	if _, known := dialects[c.kind()]; !known {
		wrong = append(wrong, fmt.Errorf("%w: %q", ErrKind, c.Kind))
	}
	return errors.Join(wrong...)
}

func (c Config) kind() Kind {
	switch {
	case c.Kind != "":
		return c.Kind
	case c.BaseURL == "" || strings.TrimSuffix(c.BaseURL, "/") == DefaultURL:
		return OpenAI
	}
	return Compatible
}

// A Server answers in chats by asking another server. It is safe for concurrent
// use. Close lets go of its connections when no call runs any more.
type Server struct {
	amandaai.UnimplementedAIServiceServer
	config  Config
	dialect dialect
	chat    openai.Client // its options alone
	models  openai.ModelService
	close   func()
}

// New returns a provider of the server that c describes. It does not connect
// yet.
func New(c Config) (*Server, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.BaseURL == "" {
		c.BaseURL = DefaultURL
	}
	client := provider.NewClient()
	opts := options(c.BaseURL, c.APIKey, client)
	return &Server{
		config:  c,
		dialect: dialects[c.kind()],
		chat:    openai.Client{Options: opts},
		models:  openai.NewModelService(opts...),
		close:   client.CloseIdleConnections,
	}, nil
}

// options are for services of their own, since openai.NewClient reads the
// environment. What is asked again is the business of whoever calls over gRPC.
func options(baseURL, key string, client option.HTTPClient) []option.RequestOption {
	opts := []option.RequestOption{
		option.WithBaseURL(baseURL),
		option.WithHTTPClient(client),
		option.WithMaxRetries(0),
	}
	if key != "" {
		opts = append(opts, option.WithAPIKey(key))
	}
	return opts
}

// Close lets go of the connections to the server.
func (s *Server) Close() error {
	s.close()
	return nil
}

// Health asks the server which models it has, which costs nothing: nil when it
// answers that, or does not know the question.
func (s *Server) Health(ctx context.Context) error {
	asking, x := provider.Watch(ctx)
	// What the list says is of no interest, nor whether the library can read it.
	_, _ = s.models.List(asking)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch f := x.Fault(); {
	case f == nil:
	case f.Reason == provider.Unreachable, f.Reason == provider.ServerDown, f.Reason == provider.BadKey:
		return f
	}
	return nil
}
