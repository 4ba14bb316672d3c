package local_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/aigrpc"
	"parley/aigrpc/local"
	"parley/stream"
)

// speak returns the recording of a text.
func speak(t *testing.T, voice *aigrpc.Voice, s stream.Speech) ([]byte, error) {
	t.Helper()
	var recording []byte
	err := voice.Synthesize(t.Context(), s, func(audio []byte) error {
		recording = append(recording, audio...)
		return nil
	})
	return recording, err
}

// seconds are how long samples play.
func seconds(samples []byte) float64 { return float64(len(samples)) / 32000 }

func TestWhatIsSpokenCanBePlayedAndUnderstood(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	heads := map[string]string{"webm": "\x1a\x45\xdf\xa3", "ogg": "OggS", "wav": "RIFF", "mp3": "\xff"}
	for format, head := range heads {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			text := said[1]
			recording, err := speak(t, voice, stream.Speech{Text: text, Format: format})
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(recording, []byte(head)) {
				t.Errorf("it begins with %x, want %x", recording[:8], head)
			}
			samples := decode(t, recording, format)
			if got := seconds(samples); got < 1.5 || got > 5 {
				t.Errorf("it plays for %.1f s, want 1.5 to 5", got)
			}
			understood, err := voice.Transcribe(t.Context(), format, "en", pieces(recording, 4096))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := words(understood), words(text); distance(got, want) > len(want)/4 {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestMP3FilesCanBeJoined(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	var joined []byte
	var apart float64
	for _, sentence := range said[:3] {
		recording, err := speak(t, voice, stream.Speech{Text: sentence, Format: "mp3"})
		if err != nil {
			t.Fatal(err)
		}
		joined = append(joined, recording...)
		apart += seconds(decode(t, recording, "mp3"))
	}
	if got := seconds(decode(t, joined, "mp3")); math.Abs(got-apart) > 0.3 {
		t.Errorf("joined they play for %.2f s, apart for %.2f s", got, apart)
	}
}

func TestVoicesAndSpeeds(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{Voice: "rms"}, patient)
	play := func(s stream.Speech) []byte {
		s.Text, s.Format = said[3], "wav"
		recording, err := speak(t, voice, s)
		if err != nil {
			t.Fatal(err)
		}
		return decode(t, recording, "wav")
	}
	normal := play(stream.Speech{})
	if diff := cmp.Diff(play(stream.Speech{Voice: "rms", Speed: 1}), normal); diff != "" {
		t.Error("the voice that is set is not the one that speaks where none is named")
	}
	if cmp.Equal(play(stream.Speech{Voice: "slt"}), normal) {
		t.Error("two voices are one")
	}
	if got, want := seconds(play(stream.Speech{Speed: 2})), seconds(normal)/2; math.Abs(got-want) > 0.2 {
		t.Errorf("twice as fast: got %.2f s, want %.2f s", got, want)
	}
}

func TestWhatIsSpoken(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	for name, text := range map[string]string{
		"an option":                "-voice /etc/passwd",
		"a text of one word":       "Yes",
		"accents and typography":   "“Café” — naïve… 5 € for Zoë’s Straße",
		"a word without end":       strings.Repeat("a", 2000),
		"marks and one word":       strings.Repeat("?!... ", 50) + "so",
		"Markdown":                 "# Title\n\n- **one**\n- [two](https://example.com)\n",
		"numbers":                  "3.14159 and 1234567890123456789012345678901234567890.",
		"other scripts and a word": "你好 hello мир",
		"what looks like SSML":     "<speak><audio src='/etc/passwd'/></speak> so <",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recording, err := speak(t, voice, stream.Speech{Text: text, Format: "mp3"})
			if err != nil {
				t.Fatal(err)
			}
			if len(decode(t, recording, "mp3")) == 0 {
				t.Error("it is silent")
			}
		})
	}
}

func TestWhatIsNotSpoken(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	for name, s := range map[string]stream.Speech{
		"nothing":                       {Format: "mp3"},
		"no words":                      {Text: " ... 😀 ", Format: "mp3"},
		"another script":                {Text: "你好。", Format: "mp3"},
		"a voice that is not there":     {Text: "Yes.", Voice: "alloy", Format: "mp3"},
		"a path to a voice":             {Text: "Yes.", Voice: "/etc/passwd", Format: "mp3"},
		"an option instead of a voice":  {Text: "Yes.", Voice: "-lv", Format: "mp3"},
		"a format that is none":         {Text: "Yes.", Format: "flac"},
		"an option instead of a format": {Text: "Yes.", Format: "-f"},
		"no format":                     {Text: "Yes."},
		"too slow":                      {Text: "Yes.", Speed: 0.1, Format: "mp3"},
		"too fast":                      {Text: "Yes.", Speed: 5, Format: "mp3"},
		"backwards":                     {Text: "Yes.", Speed: -1, Format: "mp3"},
		"a speed that is no number":     {Text: "Yes.", Speed: math.NaN(), Format: "mp3"},
		"too much":                      {Text: strings.Repeat("Yes. ", 7000), Format: "mp3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			recording, err := speak(t, voice, s)
			if got, want := failureOf(err), (failed{stream.CodeVoiceRefused, false}); got != want || recording != nil {
				t.Errorf("got %+v and %d bytes, want %+v: %v", got, len(recording), want, err)
			}
		})
	}
}

// The first sentence is heard while the others are spoken.
func TestSpeechIsStreamed(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	for _, format := range []string{"mp3", "ogg", "webm", "wav"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			var sizes []int
			err := voice.Synthesize(t.Context(), stream.Speech{Text: strings.Join(said, " "), Format: format}, func(audio []byte) error {
				sizes = append(sizes, len(audio))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(sizes) < 5 {
				t.Errorf("it comes in pieces of %d bytes, want five or more", sizes)
			}
		})
	}
}
