package openai

import (
	"context"
	"errors"
	"io"
	"math"
	"mime/multipart"
	"unicode/utf8"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
	"parley/speech"
)

// ErrVoice says that a model of speech, or the voice, has no name.
var ErrVoice = errors.New("openai: no model for speech, or no voice, is named")

// VoiceConfig says which server hears and speaks.
type VoiceConfig struct {
	// BaseURL is where /audio/transcriptions and /audio/speech stand:
	// OPENAI_BASE_URL. Empty: DefaultURL.
	BaseURL string
	// APIKey is sent as a bearer credential if it is not empty: OPENAI_API_KEY.
	APIKey string
	// TranscribeModel and SpeechModel are the names that the server has for the
	// models: OPENAI_TRANSCRIBE_MODEL, OPENAI_SPEECH_MODEL.
	TranscribeModel, SpeechModel string
	// Voice speaks where a request names none: VOICE_NAME.
	Voice string
}

// Check says all that NewVoice would refuse, as errors.Join does: ErrURL, ErrKey
// and ErrVoice, or nothing.
func (c VoiceConfig) Check() error {
	var wrong []error
	if c.BaseURL != "" && !provider.IsAddress(c.BaseURL) {
		wrong = append(wrong, ErrURL)
	}
	if !provider.IsKey(c.APIKey) {
		wrong = append(wrong, ErrKey)
	}
	if c.TranscribeModel == "" || c.SpeechModel == "" || c.Voice == "" {
		wrong = append(wrong, ErrVoice)
	}
	return errors.Join(wrong...)
}

// A Voice hears and speaks by asking another server. It is safe for concurrent
// use. Close lets go of its connections when no call runs any more.
type Voice struct {
	amandaai.UnimplementedVoiceServiceServer
	config      VoiceConfig
	transcripts openai.AudioTranscriptionService
	speech      openai.AudioSpeechService
	close       func()
}

// NewVoice returns a voice of the server that c describes. It does not connect yet.
func NewVoice(c VoiceConfig) (*Voice, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.BaseURL == "" {
		c.BaseURL = DefaultURL
	}
	client := provider.NewClient()
	opts := options(c.BaseURL, c.APIKey, client)
	return &Voice{
		config:      c,
		transcripts: openai.NewAudioTranscriptionService(opts...),
		speech:      openai.NewAudioSpeechService(opts...),
		close:       client.CloseIdleConnections,
	}, nil
}

// Close lets go of the connections to the server.
func (v *Voice) Close() error {
	v.close()
	return nil
}

// audioTypes are the formats of recordings, as media types.
var audioTypes = map[string]string{"webm": "audio/webm", "mp3": "audio/mpeg", "wav": "audio/wav", "ogg": "audio/ogg"}

// Transcribe sends a recording on as it arrives, and its transcript when the
// server has it. It fails with a *provider.Fault, with InvalidArgument for a format
// that is none, or as the call does that it answers.
func (v *Voice) Transcribe(s grpc.BidiStreamingServer[amandaai.AudioChunk, amandaai.TranscriptChunk]) error {
	first, err := s.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	kind, known := audioTypes[first.GetFormat()]
	if !known {
		return status.Error(codes.InvalidArgument, "the format is none of webm, mp3, wav and ogg")
	}
	params := openai.AudioTranscriptionNewParams{
		Model:          v.config.TranscribeModel,
		ResponseFormat: openai.AudioResponseFormatJSON,
		File:           openai.File(&recording{stream: s, rest: first.GetData()}, "recording."+first.GetFormat(), kind),
	}
	if language := first.GetLanguage(); language != "" {
		params.Language = openai.String(language)
	}
	// The library would keep all of a body in memory that it makes itself.
	body, form := io.Pipe()
	defer func() { _ = body.Close() }() // ends the form, if the server wants no more of it
	fields := multipart.NewWriter(form)
	go func() {
		err := params.MarshalMultipartTo(fields)
		if err == nil {
			err = fields.Close()
		}
		form.CloseWithError(err)
	}()
	asking, x := provider.Watch(s.Context())
	answer, err := v.transcripts.New(asking, openai.AudioTranscriptionNewParams{}, option.WithRequestBody(fields.FormDataContentType(), body))
	switch {
	case s.Context().Err() != nil:
		return status.FromContextError(s.Context().Err()).Err()
	case x.Fault() != nil:
		return x.Fault()
	case err != nil, !answer.JSON.Text.Valid():
		return provider.NewFault(provider.Malformed)
	}
	return s.Send(&amandaai.TranscriptChunk{Text: answer.Text, Final: true})
}

// A recording is read as it arrives.
type recording struct {
	stream grpc.BidiStreamingServer[amandaai.AudioChunk, amandaai.TranscriptChunk]
	rest   []byte // of what has come
}

func (r *recording) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		chunk, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.rest = chunk.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

const (
	slowest = 0.25
	fastest = 4.0
	// maxInput is how many characters OpenAI speaks at once.
	maxInput = 4096
	// pieceBytes is how much audio goes out at once.
	pieceBytes = 16 << 10
)

// speechFormats are what the server calls the formats that it has. WebM is none.
var speechFormats = map[string]openai.AudioSpeechNewParamsResponseFormat{
	"mp3": openai.AudioSpeechNewParamsResponseFormatMP3,
	"ogg": openai.AudioSpeechNewParamsResponseFormatOpus,
	"wav": openai.AudioSpeechNewParamsResponseFormatWAV,
}

// Synthesize sends on what the server says, as it comes. It fails with a
// *provider.Fault, with InvalidArgument for what it cannot say, or as the call does
// that it answers. A text that is too long for one request makes several, whose
// recordings follow each other; WAV files cannot.
func (v *Voice) Synthesize(r *amandaai.SpeechRequest, s grpc.ServerStreamingServer[amandaai.AudioChunk]) error {
	format, known := speechFormats[r.GetFormat()]
	parts := inputs(r.GetText())
	switch pace := r.GetSpeed(); {
	case !known:
		return status.Error(codes.InvalidArgument, "the format is none of mp3, wav and ogg")
	case pace != 0 && (math.IsNaN(pace) || pace < slowest || pace > fastest):
		return status.Error(codes.InvalidArgument, "the speed is not from 0.25 to 4")
	case len(parts) == 0:
		return status.Error(codes.InvalidArgument, "there is nothing to say")
	case len(parts) > 1 && r.GetFormat() == "wav":
		return status.Error(codes.InvalidArgument, "the text is too long for a WAV file")
	}
	params := openai.AudioSpeechNewParams{Model: v.config.SpeechModel, ResponseFormat: format}
	params.Voice.OfString = openai.String(v.config.Voice)
	if r.GetVoice() != "" {
		params.Voice.OfString = openai.String(r.GetVoice())
	}
	if r.GetSpeed() != 0 {
		params.Speed = openai.Float(r.GetSpeed())
	}
	for said, part := range parts {
		params.Input = part
		err := v.say(s, params)
		var f *provider.Fault
		if errors.As(err, &f) && said > 0 {
			return f.InMidAnswer()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inputs are the parts of a text that are short enough to be said at once.
func inputs(text string) []string {
	var split speech.Splitter
	var parts []string
	for _, sentence := range append(split.Add(text), split.Rest()) {
		words := speech.Spoken(sentence)
		switch last := len(parts) - 1; {
		case words == "":
		case last >= 0 && utf8.RuneCountInString(parts[last])+1+utf8.RuneCountInString(words) <= maxInput:
			parts[last] += " " + words
		default:
			parts = append(parts, words)
		}
	}
	return parts
}

// say asks for one recording and sends it on.
func (v *Voice) say(s grpc.ServerStreamingServer[amandaai.AudioChunk], params openai.AudioSpeechNewParams) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	asking, x := provider.Watch(ctx)
	answer, err := v.speech.New(asking, params)
	sent := 0
	if err == nil {
		defer func() { _ = answer.Body.Close() }() // nothing is to be done about it
		for err == nil {
			var n int
			piece := make([]byte, pieceBytes) // gRPC may keep it
			n, err = answer.Body.Read(piece)
			x.Event()
			if n > 0 {
				if sending := s.Send(&amandaai.AudioChunk{Data: piece[:n]}); sending != nil {
					return sending
				}
				sent += n
			}
		}
	}
	f := x.Fault()
	switch {
	case s.Context().Err() != nil:
		return status.FromContextError(s.Context().Err()).Err()
	case f != nil && sent > 0:
		return f.InMidAnswer()
	case f != nil:
		return f
	case sent == 0:
		return provider.NewFault(provider.Malformed)
	}
	return nil
}
