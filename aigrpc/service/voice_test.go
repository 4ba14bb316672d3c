package service_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/service"
	"parley/stream"
)

// An echo hears how long a recording is and says what it is told.
type echo struct {
	amandaai.UnimplementedVoiceServiceServer
}

func (echo) Transcribe(s grpc.BidiStreamingServer[amandaai.AudioChunk, amandaai.TranscriptChunk]) error {
	var heard string
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.Send(&amandaai.TranscriptChunk{Text: heard, Final: true})
		}
		if err != nil {
			return err
		}
		heard += string(chunk.GetData())
	}
}

func (echo) Synthesize(r *amandaai.SpeechRequest, s grpc.ServerStreamingServer[amandaai.AudioChunk]) error {
	return s.Send(&amandaai.AudioChunk{Data: []byte(r.GetText())})
}

func TestAVoiceIsServed(t *testing.T) {
	t.Parallel()
	const token = "s3cret"
	voice := func(t *testing.T, c service.Config, given string) (heard, said string, err error) {
		t.Helper()
		l := listen(t)
		serve(t, c, says("Yes."), l)
		client, err := aigrpc.DialVoice(aigrpc.Config{Target: l.Addr().String(), Token: given})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		pieces := []string{"Do you ", "hear me?"}
		heard, err = client.Transcribe(t.Context(), "ogg", "en", func(context.Context) ([]byte, error) {
			if len(pieces) == 0 {
				return nil, io.EOF
			}
			piece := pieces[0]
			pieces = pieces[1:]
			return []byte(piece), nil
		})
		if err != nil {
			return heard, said, err
		}
		err = client.Synthesize(t.Context(), stream.Speech{Text: "I do."}, func(audio []byte) error {
			said += string(audio)
			return nil
		})
		return heard, said, err
	}
	t.Run("to one who has the credential", func(t *testing.T) {
		t.Parallel()
		heard, said, err := voice(t, service.Config{Token: token, Voice: echo{}}, token)
		if heard != "Do you hear me?" || said != "I do." || err != nil {
			t.Errorf("got %q, %q, %v", heard, said, err)
		}
	})
	t.Run("to nobody else", func(t *testing.T) {
		t.Parallel()
		_, _, err := voice(t, service.Config{Token: token, Voice: echo{}}, "another")
		var failed *stream.BackendError
		if !errors.As(err, &failed) || failed.Code != stream.CodeVoiceError || failed.Retryable {
			t.Errorf("got %v, want %s", err, stream.CodeVoiceError)
		}
	})
	t.Run("by nobody where there is none", func(t *testing.T) {
		t.Parallel()
		_, _, err := voice(t, service.Config{}, "")
		var failed *stream.BackendError
		if !errors.As(err, &failed) || failed.Code != stream.CodeVoiceUnavailable || failed.Retryable {
			t.Errorf("got %v, want %s", err, stream.CodeVoiceUnavailable)
		}
	})
}

func TestAVoiceHasItsHealth(t *testing.T) {
	t.Parallel()
	l := listen(t)
	serve(t, service.Config{Voice: echo{}}, says("Yes."), l)
	if got, err := healthOf(t.Context(), dial(t, l), "amanda.ai.VoiceService"); err != nil || got != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", got, err)
	}
}
