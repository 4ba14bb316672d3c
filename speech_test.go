package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"parley/aigrpc/amandaai"
	"parley/models"
)

// encodings are how ffmpeg makes the four formats, as browsers and recorders do:
// written to a pipe, so that WebM says nothing of its length.
var encodings = map[string][]string{
	"webm": {"-c:a", "libopus", "-f", "webm"},
	"mp3":  {"-c:a", "libmp3lame", "-f", "mp3", "-id3v2_version", "0", "-write_xing", "0"},
	"wav":  {"-c:a", "pcm_s16le", "-f", "wav"},
	"ogg":  {"-c:a", "libopus", "-f", "ogg"},
}

// need returns the path of a program. Without it the test is skipped, or fails
// when CI is set.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatal(err)
	}
	t.Skip(err)
	return ""
}

// pipe runs a program with that input and returns what it writes.
func pipe(t *testing.T, input []byte, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, stderr.String())
	}
	return output
}

// seconds is how long sound plays, as ffmpeg decodes it.
func seconds(t *testing.T, sound []byte) float64 {
	t.Helper()
	const rate = 8000
	pcm := pipe(t, sound, need(t, "ffmpeg"), "-v", "error", "-i", "pipe:0", "-f", "s16le", "-ac", "1", "-ar", strconv.Itoa(rate), "pipe:1")
	return float64(len(pcm)) / 2 / rate
}

// wrongWords is how many words have to be changed, left out or added to make one
// text the other (Levenshtein's distance).
func wrongWords(said, heard []string) int {
	row := make([]int, len(heard)+1)
	for j := range row {
		row[j] = j
	}
	for i, word := range said {
		before := row[0]
		row[0] = i + 1
		for j, other := range heard {
			cost := before
			if word != other {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(heard)]
}

// An aloud is what a client gets of a voice reply.
type aloud struct {
	transcript, text string
	pieces           [][]byte // of its sound, in order
	whole            []byte
}

// listen reads a voice reply to its end, as a client that trusts nothing.
func listen(t *testing.T, status int, body io.ReadCloser) aloud {
	t.Helper()
	r := &reading{tb: t}
	r.open(status, map[string][]string{"Content-Type": {"text/event-stream"}}, body)
	r.lines.Buffer(nil, 64<<20)
	var a aloud
	for {
		event, err := r.next()
		if errors.Is(err, io.EOF) {
			return a
		}
		if err != nil {
			t.Fatalf("the stream broke off: %v", err)
		}
		var data struct {
			Text     string `json:"text"`
			FullText string `json:"full_text"`
			Seq      int    `json:"seq"`
			Audio    []byte `json:"audio"`
		}
		if event["event"] == "" {
			continue
		}
		if err := json.Unmarshal([]byte(event["data"]), &data); err != nil {
			t.Fatalf("%v in %v", err, event)
		}
		switch event["event"] {
		case "voice_transcribed":
			a.transcript = data.Text
		case "message_token":
			a.text += data.Text
		case "message_complete":
			if data.FullText != a.text {
				t.Errorf("full_text is %q, and the events were %q", data.FullText, a.text)
			}
		case "voice_audio":
			if a.pieces = append(a.pieces, data.Audio); data.Seq != len(a.pieces) {
				t.Errorf("piece %d comes as the one with number %d", len(a.pieces), data.Seq)
			}
		case "voice_response":
			a.whole = data.Audio
		case "error":
			t.Fatalf("the reply failed: %v", event)
		}
	}
}

// Words are spoken by flite, encoded by ffmpeg, sent in chunks to one replica and
// the other, understood by pocketsphinx, answered, and the answer spoken and
// decoded again.
func TestSpeechFromEndToEnd(t *testing.T) {
	t.Parallel()
	flite, ffmpeg := need(t, "flite"), need(t, "ffmpeg")
	need(t, "pocketsphinx_continuous")
	settings := with(database(t, models.Postgres), "AI_PROVIDER=demo", "DEMO_TOKEN_DELAY=1ms", "VOICE_PROVIDER=local", "PATH="+os.Getenv("PATH"))
	replicas := []*service{start(t, settings...), start(t, settings...)}
	u := signUp(t, replicas[0])
	const sentence = "i am worried about my brother because he does not sleep well"
	spoken := filepath.Join(t.TempDir(), "spoken.wav")
	pipe(t, nil, flite, "-voice", "slt", "-t", sentence, "-o", spoken)
	said, wrong := 0, 0
	for format, as := range encodings {
		recording := pipe(t, nil, ffmpeg, append(append([]string{"-nostdin", "-v", "error", "-i", spoken, "-ar", "16000"}, as...), "pipe:1")...)
		got := u.speak(t, replicas, format, recording)
		said += len(strings.Fields(sentence))
		errs := wrongWords(strings.Fields(sentence), strings.Fields(strings.ToLower(got.transcript)))
		wrong += errs
		t.Logf("%s, %d KiB: %q, %d words of %d are wrong", format, len(recording)>>10, got.transcript, errs, len(strings.Fields(sentence)))
		if got.text == "" || len(got.pieces) == 0 {
			t.Fatalf("%s: the reply is %q, in %d pieces of sound", format, got.text, len(got.pieces))
		}
		if joined := bytes.Join(got.pieces, nil); !bytes.Equal(joined, got.whole) {
			t.Errorf("%s: the pieces are %d bytes, and the whole is %d", format, len(joined), len(got.whole))
		}
		all := seconds(t, got.whole)
		var sum float64
		for _, piece := range got.pieces {
			sum += seconds(t, piece)
		}
		// MP3 has frames of some 26 ms, and each file some of them in front.
		if slack := 0.2 * float64(len(got.pieces)); all < 1 || all < sum-slack || all > sum+slack {
			t.Errorf("%s: it plays for %.2f s, and its pieces for %.2f s", format, all, sum)
		}
	}
	t.Logf("%d %% of the words are wrong", 100*wrong/said)
	if wrong*2 > said {
		t.Errorf("%d of %d words are wrong", wrong, said)
	}

	for format := range encodings {
		status, header, body := u.send(t, replicas[1], "POST", "/api/v1/voice/speech", fmt.Sprintf(`{"text":"This is spoken twice as fast.","speed":2,"format":%q}`, format))
		sound, err := io.ReadAll(body)
		if status != 200 || err != nil || !strings.HasPrefix(header.Get("Content-Type"), "audio/") {
			t.Fatalf("%s: %d %s (%v)", format, status, sound, err)
		}
		if s := seconds(t, sound); s < 0.3 || s > 5 {
			t.Errorf("%s plays for %.2f s", format, s)
		}
	}
}

// speak sends a recording in chunks to one replica after the other, and hears the
// reply.
func (u user) speak(t *testing.T, replicas []*service, format string, recording []byte) aloud {
	t.Helper()
	var made struct {
		UploadID int64 `json:"upload_id"`
	}
	u.ask(t, replicas[0], "POST", "/api/v1/voice/uploads", fmt.Sprintf(`{"format":%q}`, format)).want(t, 201).decode(t, &made)
	upload := fmt.Sprintf("/api/v1/voice/uploads/%d/", made.UploadID)
	size := len(recording)/5 + 1
	for i, at := 0, 0; at < len(recording); i, at = i+1, at+size {
		chunk := recording[at:min(at+size, len(recording))]
		u.ask(t, replicas[i%2], "POST", upload+"chunks", string(chunk), "Upload-Offset: "+strconv.Itoa(at), "Content-Type: audio/"+format).want(t, 200)
	}
	status, _, body := u.send(t, replicas[1], "POST", upload+"complete", "")
	return listen(t, status, body)
}

// A recorder is a backend that hears how long a recording is, and answers and
// speaks in one word.
type recorder struct {
	amandaai.UnimplementedAIServiceServer
	amandaai.UnimplementedVoiceServiceServer

	pieces chan int // of each piece of a recording that it is sent
}

func (recorder) StreamChat(_ *amandaai.ChatMessage, out chunks) error {
	return out.Send(&amandaai.ChatChunk{Text: "Fine.", Done: true})
}

func (r recorder) Transcribe(recording grpc.BidiStreamingServer[amandaai.AudioChunk, amandaai.TranscriptChunk]) error {
	size := 0
	for {
		piece, err := recording.Recv()
		if errors.Is(err, io.EOF) {
			return recording.Send(&amandaai.TranscriptChunk{Text: fmt.Sprint(size, " bytes"), Final: true})
		}
		if err != nil {
			return err
		}
		size += len(piece.GetData())
		select {
		case r.pieces <- len(piece.GetData()):
		case <-recording.Context().Done():
			return recording.Context().Err()
		}
	}
}

func (recorder) Synthesize(_ *amandaai.SpeechRequest, audio grpc.ServerStreamingServer[amandaai.AudioChunk]) error {
	return audio.Send(&amandaai.AudioChunk{Data: []byte("sound")})
}

// The replica that listens to a recording is killed, and nothing of it is lost:
// the rest goes to another replica, which listens to all of it.
func TestARecordingOutlivesItsReplica(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := recorder{pieces: make(chan int)}
	server := grpc.NewServer()
	amandaai.RegisterAIServiceServer(server, heard)
	amandaai.RegisterVoiceServiceServer(server, heard)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		running.Wait()
	})
	settings := with(database(t, models.Postgres), backendAt(t, listener.Addr().String())...)
	one, other := start(t, settings...), start(t, settings...)
	u := signUp(t, one)
	recording := append([]byte("RIFF\x24\x00\x00\x00WAVEfmt "), make([]byte, 5000)...)
	var made struct {
		UploadID int64 `json:"upload_id"`
	}
	u.ask(t, one, "POST", "/api/v1/voice/uploads", `{"format":"wav"}`).want(t, 201).decode(t, &made)
	upload := fmt.Sprintf("/api/v1/voice/uploads/%d/", made.UploadID)
	u.ask(t, one, "POST", upload+"chunks", string(recording[:3000]), "Upload-Offset: 0").want(t, 200)
	if n := <-heard.pieces; n != 3000 {
		t.Fatalf("the first replica has sent %d bytes on", n)
	}
	one.kill()
	u.ask(t, other, "POST", upload+"chunks", string(recording[3000:]), "Upload-Offset: 3000").want(t, 200)
	running.Go(func() {
		for size := 0; size < len(recording); {
			select {
			case n := <-heard.pieces:
				size += n
			case <-t.Context().Done():
				return
			}
		}
	})
	status, _, body := u.send(t, other, "POST", upload+"complete", "")
	got := listen(t, status, body)
	if want := fmt.Sprint(len(recording), " bytes"); got.transcript != want || got.text != "Fine." || string(got.whole) != "sound" {
		t.Errorf("got %q, %q, %q, want %q", got.transcript, got.text, got.whole, want)
	}
	var upto struct {
		Complete  bool
		MessageID int64 `json:"message_id"`
	}
	u.ask(t, other, "GET", strings.TrimSuffix(upload, "/"), "").want(t, 200).decode(t, &upto)
	if !upto.Complete || upto.MessageID == 0 {
		t.Errorf("the upload is %+v", upto)
	}
}
