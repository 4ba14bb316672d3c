package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"parley/aigrpc/amandaai"
)

// A voiceSource hears and speaks in a time that it tells: what it hears is when
// the recording had arrived and when it says so, and what it speaks is when it
// began to and when it had.
type voiceSource struct {
	amandaai.UnimplementedVoiceServiceServer
}

const (
	// hearing is how long a transcript takes once the recording is whole.
	hearing = 40 * time.Millisecond
	// speaking is how long a sentence takes.
	speaking = 60 * time.Millisecond
	// aloud begins a transcript, and so a message that is answered in sentences.
	aloud = "aloud"
)

// Transcribe hears "aloud", and two moments.
func (voiceSource) Transcribe(recording amandaai.VoiceService_TranscribeServer) error {
	for {
		_, err := recording.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	arrived := time.Now().UnixNano()
	time.Sleep(hearing)
	return recording.Send(&amandaai.TranscriptChunk{Text: fmt.Sprintf("%s %d %d", aloud, arrived, time.Now().UnixNano()), Final: true})
}

// moment is one in a text.
var moment = regexp.MustCompile(`\d{19}`)

// Synthesize speaks three moments: the last one in the text, which is when that
// was said, and those between which it was spoken.
func (voiceSource) Synthesize(s *amandaai.SpeechRequest, audio amandaai.VoiceService_SynthesizeServer) error {
	said := moment.FindAllString(s.GetText(), -1)
	if len(said) == 0 {
		return fmt.Errorf("there is no moment in %q", s.GetText())
	}
	began := time.Now().UnixNano()
	time.Sleep(speaking)
	return audio.Send(&amandaai.AudioChunk{Data: fmt.Appendf(nil, "%s %d %d ", said[len(said)-1], began, time.Now().UnixNano())})
}

// speakAloud answers in three sentences, each of which ends with the moment at
// which it is sent.
func speakAloud(out amandaai.AIService_StreamChatServer) error {
	for range 3 {
		for range 4 {
			if err := out.Send(&amandaai.ChatChunk{Text: "ten words that say nothing at all "}); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := out.Send(&amandaai.ChatChunk{Text: fmt.Sprintf("and the time %d ends. ", time.Now().UnixNano())}); err != nil {
			return err
		}
	}
	return out.Send(&amandaai.ChatChunk{Text: strings.Repeat(" ", 1), Done: true, FinishReason: "stop"})
}
