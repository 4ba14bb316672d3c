// Package gemini is an AI provider that asks Google's Gemini API: the whole
// history as contents, an answer as it is generated. It never knows who a user
// is, and reads no setting of the SDK's own from the environment. Its one
// invariant: an answer that ends without an error is whole, for the server said
// how it ended.
package gemini

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genai"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
)

// DefaultURL is Google's address.
const DefaultURL = "https://generativelanguage.googleapis.com/"

// Errors of Config.Check. None of them holds the key.
var (
	ErrURL   = errors.New("gemini: the base URL is no http or https URL")
	ErrKey   = errors.New("gemini: the key is empty, or not printable ASCII without spaces")
	ErrModel = errors.New("gemini: no model is named")
)

// Config says which model is asked, and how.
type Config struct {
	// APIKey is the key of the Gemini API: GEMINI_API_KEY.
	APIKey string
	// BaseURL is where the API stands: GEMINI_BASE_URL. Empty: DefaultURL.
	BaseURL string

	// Model is the model's name, such as gemini-2.5-flash: AI_MODEL.
	Model string
	// AnyModel lets a request name another one. Without it, Model answers
	// whatever a request names: AI_ANY_MODEL.
	AnyModel bool

	// SystemPrompt is what the model is told to be, none if empty: what
	// provider.SystemPrompt makes of AI_SYSTEM_PROMPT.
	SystemPrompt string
	// Temperature is how free the model is in its choice of words, 0 to 2:
	// AI_TEMPERATURE. nil is the model's own.
	Temperature *float64
	// MaxTokens bounds an answer: AI_MAX_TOKENS. 0: the model's own bound. A
	// model that thinks first uses some of them for that.
	MaxTokens int32
	// MaxReplyBytes bounds an answer too, which then ends as "length". 0: 1 MiB.
	MaxReplyBytes int
}

// Check says all that New would refuse, as errors.Join does: ErrURL, ErrKey and
// ErrModel, or nothing.
func (c Config) Check() error {
	var wrong []error
	if c.BaseURL != "" && !provider.IsAddress(c.BaseURL) {
		wrong = append(wrong, ErrURL) // without the URL, which may hold a password
	}
	if c.APIKey == "" || !provider.IsKey(c.APIKey) {
		wrong = append(wrong, ErrKey)
	}
	if c.Model == "" {
		wrong = append(wrong, ErrModel)
	}
	return errors.Join(wrong...)
}

// A Server answers in chats by asking Gemini. It is safe for concurrent use.
// Close lets go of its connections when no call runs any more.
type Server struct {
	amandaai.UnimplementedAIServiceServer
	config Config
	system *genai.Content
	models *genai.Models
	close  func()
}

// New returns a provider of the model that c names. It does not connect yet.
func New(c Config) (*Server, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.BaseURL == "" {
		c.BaseURL = DefaultURL
	}
	http := provider.NewClient()
	// What is given here keeps the SDK from looking for it in the environment.
	client, err := genai.NewClient(context.Background(), &genai.ClientConfig{
		APIKey:      c.APIKey,
		Backend:     genai.BackendGeminiAPI,
		HTTPClient:  http,
		HTTPOptions: genai.HTTPOptions{BaseURL: c.BaseURL},
	})
	if err != nil {
		return nil, fmt.Errorf("gemini: the client cannot be made (%T)", err) // its words may hold the key
	}
	s := &Server{config: c, models: client.Models, close: http.CloseIdleConnections}
	if c.SystemPrompt != "" {
		s.system = genai.NewContentFromText(c.SystemPrompt, genai.RoleUser)
	}
	return s, nil
}

// Close lets go of the connections to the API.
func (s *Server) Close() error {
	s.close()
	return nil
}

// Health asks the API about the model, which costs nothing: nil when the key
// may use it.
func (s *Server) Health(ctx context.Context) error {
	asking, x := provider.Watch(ctx)
	s.get(asking)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch f := x.Fault(); {
	case f == nil, f.Reason == provider.Busy, f.Reason == provider.OverQuota, f.Reason == provider.BrokeOff:
		return nil
	default:
		return f
	}
}

// get asks about the model. What comes of it, the exchange knows; the SDK also
// panics where a JSON is not as documented.
func (s *Server) get(ctx context.Context) {
	defer func() { _ = recover() }()
	_, _ = s.models.Get(ctx, s.config.Model, nil)
}
