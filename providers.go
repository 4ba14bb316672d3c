package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"

	"google.golang.org/grpc"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/demo"
	"parley/aigrpc/gemini"
	"parley/aigrpc/openai"
	"parley/aigrpc/provider"
	"parley/aigrpc/service"
)

// dialBackend returns the AI backend that is set. It need not be there yet.
func dialBackend(cfg *Config, log *slog.Logger, more ...grpc.DialOption) (*aigrpc.Client, error) {
	backend := cfg.backend()
	if cfg.AIProvider == "grpc" {
		return aigrpc.Dial(backend, more...)
	}
	ai, err := newProvider(cfg)
	if err != nil {
		return nil, err
	}
	return aigrpc.InProcess(ai, backend.Deadlines, log, more...)
}

// newProvider returns the provider that is set, of those that this program
// serves itself.
func newProvider(cfg *Config) (amandaai.AIServiceServer, error) {
	switch cfg.AIProvider {
	case "openai":
		return openai.New(cfg.openai())
	case "gemini":
		return gemini.New(cfg.gemini())
	default:
		return demo.New(demo.Config{TokenDelay: cfg.DemoTokenDelay}), nil
	}
}

// openai is how a server that speaks as OpenAI does is asked.
func (c *Config) openai() openai.Config {
	return openai.Config{
		BaseURL:      c.OpenAIBaseURL,
		APIKey:       c.OpenAIKey,
		Kind:         openai.Kind(c.OpenAIServer),
		Model:        c.AIModel,
		AnyModel:     c.AIAnyModel,
		SystemPrompt: provider.SystemPrompt(c.AISystemPrompt),
		Temperature:  c.AITemperature,
		MaxTokens:    int64(c.AIMaxTokens),
	}
}

// gemini is how Gemini is asked.
func (c *Config) gemini() gemini.Config {
	return gemini.Config{
		APIKey:       c.GeminiKey,
		BaseURL:      c.GeminiBaseURL,
		Model:        c.AIModel,
		AnyModel:     c.AIAnyModel,
		SystemPrompt: provider.SystemPrompt(c.AISystemPrompt),
		Temperature:  c.AITemperature,
		MaxTokens:    c.AIMaxTokens,
	}
}

// aiService is how parley ai is called.
func (c *Config) aiService(log *slog.Logger) service.Config {
	return service.Config{
		Token:        c.AIServiceToken,
		TLSCert:      c.AIServiceTLSCert,
		TLSKey:       c.AIServiceTLSKey,
		DrainTimeout: c.DrainTimeout,
		Log:          log,
	}
}

// checkProvider tries the settings of the provider that is set.
func (c *configuration) checkProvider() {
	if c.AIMaxTokens < 0 {
		c.fault("AI_MAX_TOKENS", "%d is less than nothing; use 0 for the provider's own bound", c.AIMaxTokens)
	}
	if c.AIMaxReplies < 0 {
		c.fault("AI_MAX_REPLIES", "%d is less than nothing; use 0 for any number", c.AIMaxReplies)
	}
	if t := c.AITemperature; t != nil && !(0 <= *t && *t <= 2) { // NaN is neither less nor more
		c.fault("AI_TEMPERATURE", "%v is not from 0 to 2", *t)
	}
	if c.AIServicePort < 0 || c.AIServicePort > 65535 {
		c.fault("AI_SERVICE_PORT", "%d is not a port; use 1 to 65535, or 0 for any that is free", c.AIServicePort)
	}
	switch err := c.aiService(nil).Check(); {
	case errors.Is(err, service.ErrToken):
		c.fault("AI_SERVICE_TOKEN", "holds a space, or what is no printable ASCII")
	case err != nil:
		c.fault("AI_SERVICE_TLS_CERT", "%s", withoutPackage(err))
	}
	switch c.AIProvider {
	case "demo", "grpc":
	case "openai":
		c.checkModel(c.openai().Check(), map[error]string{
			openai.ErrURL: "OPENAI_BASE_URL", openai.ErrKey: "OPENAI_API_KEY", openai.ErrModel: "AI_MODEL", openai.ErrKind: "OPENAI_SERVER",
		})
	case "gemini":
		c.checkModel(c.gemini().Check(), map[error]string{
			gemini.ErrURL: "GEMINI_BASE_URL", gemini.ErrKey: "GEMINI_API_KEY", gemini.ErrModel: "AI_MODEL",
		})
	default:
		c.fault("AI_PROVIDER", "%q is not there; use demo, openai, gemini or grpc", c.AIProvider)
	}
}

// checkModel blames the settings that the errors of a provider are about, which
// its Check has joined.
func (c *configuration) checkModel(err error, settings map[error]string) {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return
	}
	for _, wrong := range joined.Unwrap() {
		for of, name := range settings {
			if errors.Is(wrong, of) {
				c.fault(name, "%s", withoutPackage(wrong))
			}
		}
	}
}

// aiCommand is parley ai.
func aiCommand() command {
	return command{
		name:  "ai",
		does:  "serve the AI provider that is set as a gRPC service of its own",
		about: "It listens on HOST and AI_SERVICE_PORT until SIGTERM or SIGINT, and then goes on\nwith its answers for DRAIN_TIMEOUT. Another parley reaches it by AI_PROVIDER=grpc,\nGRPC_AI_BACKEND_HOST and GRPC_AI_BACKEND_PORT.",
		setup: func(*flag.FlagSet) action { return serveAI },
	}
}

// aiSettings are those that parley ai goes by.
var aiSettings = []string{
	"HOST", "AI_PROVIDER", "AI_MODEL", "AI_ANY_MODEL", "AI_SYSTEM_PROMPT", "AI_TEMPERATURE", "AI_MAX_TOKENS",
	"OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_SERVER", "GEMINI_API_KEY", "GEMINI_BASE_URL", "DEMO_TOKEN_DELAY",
	"AI_SERVICE_PORT", "AI_SERVICE_TOKEN", "AI_SERVICE_TLS_CERT", "AI_SERVICE_TLS_KEY",
	"VOICE_PROVIDER", "VOICE_NAME", "VOICE_GRAMMAR", "VOICE_LOCAL_CALLS", "OPENAI_TRANSCRIBE_MODEL", "OPENAI_SPEECH_MODEL",
	"DRAIN_TIMEOUT", "LOG_LEVEL", "LOG_FORMAT",
}

func serveAI(ctx context.Context, p process) error {
	c := configure(p.environ, p.dotenv)
	if c.AIProvider == "grpc" {
		c.fault("AI_PROVIDER", "grpc is a service elsewhere, and this one would only pass on to it; use demo, openai or gemini")
	}
	if c.VoiceProvider == "grpc" {
		c.fault("VOICE_PROVIDER", "grpc is a service elsewhere, and this one would only pass on to it; use openai, local or none")
	}
	if err := c.need(aiSettings...); err != nil {
		return err
	}
	log := newLogger(p.stderr, &c.Config)
	ai, err := newProvider(&c.Config)
	if err != nil {
		return err
	}
	voice, err := newVoiceProvider(ctx, &c.Config, log)
	if err != nil {
		return err
	}
	defer func() {
		for _, provider := range []any{ai, voice} {
			if closer, ok := provider.(io.Closer); ok {
				closer.Close()
			}
		}
	}()
	served := c.aiService(log)
	served.Voice = voice
	server, err := service.New(served, ai)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.AIServicePort)))
	if err != nil {
		return fmt.Errorf("cannot listen; set HOST and AI_SERVICE_PORT: %w", err)
	}
	if c.AIServiceToken == "" && !isLoopback(listener.Addr()) {
		log.Warn("anyone who reaches this port may have answers written; set AI_SERVICE_TOKEN")
	}
	log.Info("listening", "url", listener.Addr().String(), "provider", c.AIProvider, "voice", c.voiceProvider(), "tls", c.AIServiceTLSCert != "")
	return server.Serve(ctx, listener)
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
