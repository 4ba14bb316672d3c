package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/local"
	"parley/aigrpc/openai"
)

// voiceProvider is who hears and speaks: by itself who writes the replies, if that
// one does.
func (c *Config) voiceProvider() string {
	switch {
	case c.VoiceProvider != "":
		return c.VoiceProvider
	case c.AIProvider == "grpc", c.AIProvider == "openai":
		return c.AIProvider
	}
	return "none"
}

// dialVoice returns who hears and speaks, nil where there is nobody. It need not be
// there yet, unless it is this machine.
func dialVoice(ctx context.Context, cfg *Config, log *slog.Logger, more ...grpc.DialOption) (*aigrpc.Voice, error) {
	deadlines := aigrpc.Deadlines{FirstChunk: cfg.VoiceFirstTimeout, Chunk: cfg.VoiceChunkTimeout}
	if cfg.voiceProvider() == "grpc" {
		backend := cfg.backend()
		backend.Deadlines = deadlines
		return aigrpc.DialVoice(backend, more...)
	}
	voice, err := newVoiceProvider(ctx, cfg, log)
	if voice == nil || err != nil {
		return nil, err
	}
	return aigrpc.InProcessVoice(voice, deadlines, log, more...)
}

// newVoiceProvider returns the voice that is set, of those that this program serves
// itself: nil for none, and where programs are missing, of which the log is told.
func newVoiceProvider(ctx context.Context, cfg *Config, log *slog.Logger) (amandaai.VoiceServiceServer, error) {
	switch cfg.voiceProvider() {
	case "openai":
		return openai.NewVoice(cfg.openaiVoice())
	case "local":
		voice, err := local.New(ctx, cfg.localVoice())
		switch {
		case errors.Is(err, local.ErrPrograms):
			log.Warn("nobody hears or speaks here", "err", err)
			return nil, nil
		case errors.Is(err, local.ErrVoice):
			return nil, errors.New("VOICE_NAME: " + withoutPackage(err))
		case errors.Is(err, local.ErrGrammar):
			return nil, errors.New("VOICE_GRAMMAR: " + withoutPackage(err))
		case err != nil:
			return nil, err
		}
		return voice, nil
	}
	return nil, nil
}

// openaiVoice is how a server that speaks as OpenAI does hears and speaks.
func (c *Config) openaiVoice() openai.VoiceConfig {
	return openai.VoiceConfig{
		BaseURL:         c.OpenAIBaseURL,
		APIKey:          c.OpenAIKey,
		TranscribeModel: c.OpenAITranscribeModel,
		SpeechModel:     c.OpenAISpeechModel,
		Voice:           cmp.Or(c.VoiceName, "alloy"),
	}
}

// localVoice is how this machine hears and speaks.
func (c *Config) localVoice() local.Config {
	return local.Config{Voice: c.VoiceName, Grammar: c.VoiceGrammar, Calls: c.VoiceLocalCalls}
}

// checkVoice tries the settings of who hears and speaks.
func (c *configuration) checkVoice() {
	switch c.voiceProvider() {
	case "grpc", "local", "none":
	case "openai":
		c.checkModel(c.openaiVoice().Check(), map[error]string{openai.ErrURL: "OPENAI_BASE_URL", openai.ErrKey: "OPENAI_API_KEY"})
	default:
		c.fault("VOICE_PROVIDER", "%q is not there; use grpc, openai, local or none", c.VoiceProvider)
	}
	if c.VoiceLocalCalls < 0 {
		c.fault("VOICE_LOCAL_CALLS", "%d is less than nothing; use 0 to go by the processors, or more", c.VoiceLocalCalls)
	}
	if c.VoiceFirstTimeout < time.Millisecond {
		c.fault("VOICE_FIRST_CHUNK_TIMEOUT", "%v is too short; use %v or more", c.VoiceFirstTimeout, time.Millisecond)
	}
	if c.VoiceChunkTimeout < time.Millisecond {
		c.fault("VOICE_CHUNK_TIMEOUT", "%v is too short; use %v or more", c.VoiceChunkTimeout, time.Millisecond)
	}
}
