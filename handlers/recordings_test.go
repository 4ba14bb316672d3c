package handlers_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// spoken is the outline of the reply to a recording.
func spoken(heard, answer string) []string {
	return []string{
		"voice_processing transcribing", "voice_transcribed " + heard, "voice_processing thinking", "message_start",
		"message_token " + answer, "voice_processing synthesizing", "voice_audio", "message_complete " + answer, "voice_response",
	}
}

// wantOutline compares outlines but for where the audio stands in the text's
// end: they do not wait for each other.
func wantOutline(t *testing.T, got []told, want []string) {
	t.Helper()
	order := func(names []string) []string {
		var text, audio []string
		for _, name := range names {
			if strings.HasPrefix(name, "voice_audio") || name == "voice_processing synthesizing" || name == "voice_response" {
				audio = append(audio, name)
			} else {
				text = append(text, name)
			}
		}
		return append(text, audio...)
	}
	if diff := cmp.Diff(order(want), order(outline(got))); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// counted hears how long a recording is.
func counted(recording []byte) (string, error) { return fmt.Sprintf("%d bytes", len(recording)), nil }

func TestARecordingInOneRequest(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := startVoiced(t, db, says("Fine, thanks."), listens(counted), spells{})
		ann := s.signup("ann@example.com")
		document := func(audio string) string { return `{"format":"wav","audio":"` + audio + `","speed":1.5}` }
		std := base64.StdEncoding.EncodeToString(wav(1001))
		for name, c := range map[string]call{
			"raw":                       raw(ann, "", wav(1001)),
			"raw, its format said":      raw(ann, "?format=wav&voice=slt&speed=0.5", wav(1001)),
			"JSON":                      {body: document(std)},
			"JSON without padding":      {body: document(strings.TrimRight(std, "="))},
			"JSON for URLs":             {body: document(base64.URLEncoding.EncodeToString(wav(1001)))},
			"JSON with escaped slashes": {body: document(strings.ReplaceAll(std, "/", `\/`))},
			"JSON in lines":             {body: document(std[:76] + `\r\n` + std[76:])},
			"JSON, the sound first":     {body: `{"x":["audio",{"audio":"no"}],"audio":"` + std + `","format":"wav"}`},
		} {
			c.method, c.path, c.token = "POST", "/api/v1/voice/messages"+strings.TrimPrefix(c.path, "/api/v1/voice/messages"), ann.Access
			events := s.listen(c)
			wantOutline(t, events, spoken("1001 bytes", "Fine, thanks."))
			if len(events) == 0 {
				t.Errorf("%s: no reply", name)
				continue
			}
			if last := events[len(events)-1]; last.data["audio"] != base64.StdEncoding.EncodeToString([]byte("mp3:Fine, thanks.")) {
				t.Errorf("%s: the audio is %v", name, last.data["audio"])
			}
		}
		if n := rows(t, db, "upload_chunks"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

func TestARecordingAnsweredInJSON(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := startVoiced(t, db, says("Fine."), listens(counted), spells{})
		ann := s.signup("ann@example.com")
		c := raw(ann, "", wav(600))
		c.header.Set("Accept", "application/json")
		want := `{"chat_id":1,"user_message":{"id":1,"chat_id":1,"role":"user","content":"600 bytes","timestamp":"<time>","status":"complete"},` +
			`"message":{"id":2,"chat_id":1,"role":"assistant","content":"Fine.","timestamp":"<time>","status":"complete","finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}}}`
		s.check(t, c, wanted{200, want, nil})
		c.header.Set("Prefer", "respond-async")
		if a := s.do(c); a.status != 202 || a.header.Get("Location") == "" {
			t.Errorf("respond-async: %d %s", a.status, a.body)
		}
	})
}

func TestARecordingThatIsNone(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		silence := func(recording []byte) (string, error) {
			if len(recording) == 700 {
				return " \n", nil
			}
			return counted(recording)
		}
		s := startVoiced(t, db, says("Fine."), listens(silence), spells{})
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/chats", token: bob.Access, body: `{}`})
		html := append([]byte("<!DOCTYPE html><html>"), bytes.Repeat([]byte("x"), 600)...)
		mp3 := append([]byte("\xff\xfb\x90\x64"), make([]byte, 600)...)
		json := func(c call) call { c.header.Set("Accept", "application/json"); return c }
		asJSON := func(body string) call {
			return call{method: "POST", path: "/api/v1/voice/messages", token: ann.Access, body: body}
		}
		unsupported := problem(415, "unsupported_audio", "This is no recording in WebM, MP3, WAV or Ogg.", "")
		mismatch := problem(415, "format_mismatch", "The recording has another format than format says.", "")
		invalidJSON := func(detail string) wanted { return problem(400, "invalid_json", detail, "") }
		for name, test := range map[string]struct {
			c    call
			want wanted
		}{
			"nothing at all":             {raw(ann, "", nil), problem(400, "empty_recording", "There is nothing in the recording.", "")},
			"HTML dressed as WAV":        {raw(ann, "", html), unsupported},
			"a few bytes of nothing":     {raw(ann, "", []byte("abc")), unsupported},
			"another format than said":   {raw(ann, "?format=ogg", wav(600)), mismatch},
			"likewise, and short":        {raw(ann, "?format=ogg", wav(60)), mismatch},
			"MP3 said to be WAV":         {raw(ann, "?format=wav", mp3), mismatch},
			"silence":                    {json(raw(ann, "", wav(700))), problem(422, "nothing_heard", "Nothing was understood. Speak again, closer to the microphone.", "")},
			"more than may be":           {raw(ann, "", wav(25<<20+1)), problem(413, "recording_too_large", "A recording may have 25 MiB at most.", "")},
			"a format that is not known": {raw(ann, "?format=flac", wav(60)), problem(400, "invalid_format", "format must be one of webm, mp3, wav, ogg.", field("format", "invalid_format", "format must be one of webm, mp3, wav, ogg."))},
			"a speed that is none":       {raw(ann, "?speed=fast", wav(60)), problem(400, "invalid_speed", "speed must be a number from 0.25 to 4.", field("speed", "invalid_speed", "speed must be a number from 0.25 to 4."))},
			"a query cut in two":         {raw(ann, "?chat_id=7%", wav(60)), unreadableQuery},
			"a query with a semicolon":   {raw(ann, "?format=wav;chat_id=7", wav(60)), unreadableQuery},
			"somebody else's chat":       {raw(ann, "?chat_id=1", wav(60)), problem(403, "forbidden", "This belongs to someone else.", "")},
			"a chat that is not there":   {raw(ann, "?chat_id=99", wav(60)), problem(404, "not_found", "There is no such thing.", "")},
			"JSON for that chat":         {asJSON(`{"chat_id":1,"audio":"` + base64.StdEncoding.EncodeToString(wav(60)) + `"}`), problem(403, "forbidden", "This belongs to someone else.", "")},
			"JSON of another format":     {asJSON(`{"audio":"` + base64.StdEncoding.EncodeToString(wav(60)) + `","format":"mp3"}`), mismatch},
			"JSON without sound":         {asJSON(`{"format":"wav"}`), problem(400, "missing_fields", "Fields are missing; errors names them.", field("audio", "required", "audio is required."))},
			"JSON with empty sound":      {asJSON(`{"audio":""}`), problem(400, "empty_recording", "There is nothing in the recording.", "")},
			"JSON with no base64":        {asJSON(`{"audio":"UklGR?"}`), problem(400, "invalid_audio", "audio must be base64.", field("audio", "invalid_audio", "audio must be base64."))},
			"JSON that breaks off":       {asJSON(`{"audio":"UklGRgA`), invalidJSON("The body is not valid JSON.")},
			"JSON with the sound twice":  {asJSON(`{"audio":"UklG","audio":"UklG"}`), invalidJSON("An object has the same key twice.")},
			"JSON with more behind it":   {asJSON(`{"audio":"UklG"} {}`), invalidJSON("The body is not valid JSON.")},
			"JSON, a number for sound":   {asJSON(`{"audio":7}`), problem(400, "invalid_json", "audio must be a string.", field("audio", "invalid_type", "audio must be a string."))},
			"JSON with a hidden name":    {asJSON(`{"\u0061udio":"UklG"}`), invalidJSON("The key audio is written without escapes.")},
			"no token":                   {call{method: "POST", path: "/api/v1/voice/messages"}, problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "")},
		} {
			t.Run(name, func(t *testing.T) {
				a := s.do(test.c)
				got := stable(a.body)
				got = uploadID.ReplaceAllString(got, "")
				if a.status != test.want.status || got != test.want.body {
					t.Errorf("got %d %s, want %d %s", a.status, got, test.want.status, test.want.body)
				}
			})
		}
		wantOutline(t, s.listen(raw(ann, "", wav(700))), []string{"voice_processing transcribing", "error nothing_heard false"})
		if n := []int{rows(t, db, "upload_chunks"), rows(t, db, "uploads WHERE NOT ended"), rows(t, db, "messages")}; !cmp.Equal(n, []int{0, 0, 0}) {
			t.Errorf("rows are left: %v", n)
		}
	})
}

// What has the same key is the same recording.
func TestARecordingIsSentAgain(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := listens(counted)
		s := startVoiced(t, db, says("Fine."), heard, spells{})
		ann := s.signup("ann@example.com")
		keyed := func(data []byte, query string) call {
			c := raw(ann, query, data)
			c.header.Set("Idempotency-Key", "k1")
			return c
		}
		first := s.listen(keyed(wav(600), ""))
		again := s.listen(keyed(wav(600), ""))
		wantOutline(t, first, spoken("600 bytes", "Fine."))
		wantOutline(t, again, spoken("600 bytes", "Fine.")[1:])
		for _, c := range []call{keyed(wav(601), ""), keyed(wav(600), "?speed=2")} {
			if a := s.do(c); a.status != 422 || !strings.Contains(a.body, `"idempotency_key_reused"`) {
				t.Errorf("another body: %d %s", a.status, a.body)
			}
		}
		if heard.calls != 1 || rows(t, db, "messages") != 2 {
			t.Errorf("%d transcriptions and %d messages", heard.calls, rows(t, db, "messages"))
		}

		// At once, they are one message too.
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				c := raw(ann, "", wav(800))
				c.header.Set("Idempotency-Key", "k2")
				events := s.listen(c)
				if len(events) > 0 && events[0].data["status"] == "transcribing" { // it was not the last
					events = events[1:]
				}
				wantOutline(t, events, spoken("800 bytes", "Fine.")[1:])
			})
		}
		all.Wait()
		if n := rows(t, db, "messages"); n != 4 {
			t.Errorf("%d messages, want 4", n)
		}
		if n := rows(t, db, "upload_chunks"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// The service hears what is sent while it is being sent.
func TestARecordingIsHeardAsItArrives(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := listens(counted)
		s := startVoiced(t, db, says("Fine."), heard, spells{})
		ann := s.signup("ann@example.com")
		from, to := io.Pipe()
		r, err := s.request(raw(ann, "?format=wav", nil))
		if err != nil {
			t.Fatal(err)
		}
		r.Body, r.ContentLength = from, -1
		sent := make(chan *http.Response, 1)
		go func() {
			res, err := client.Do(r) //nolint:bodyclose // it is closed where it is read
			if err != nil {
				t.Error(err)
			}
			sent <- res
		}()
		data := wav(3000)
		for at := 0; at < len(data); at += 1000 {
			if _, err := to.Write(data[at : at+1000]); err != nil {
				t.Fatal(err)
			}
			heard.until(t, func() bool { return heard.bytes == at+1000 })
		}
		to.Close()
		res := <-sent
		defer res.Body.Close()
		wantOutline(t, readEvents(t, res.Body), spoken("3000 bytes", "Fine."))
		if heard.format != "wav" || heard.calls != 1 {
			t.Errorf("heard %q, %d times", heard.format, heard.calls)
		}
	})
}

// A client that leaves before the end of a recording leaves nothing behind.
func TestARecordingThatBreaksOff(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := listens(counted)
		s := startVoiced(t, db, says("Fine."), heard, spells{})
		ann := s.signup("ann@example.com")
		from, to := io.Pipe()
		r, err := s.request(raw(ann, "", nil))
		if err != nil {
			t.Fatal(err)
		}
		r.Body, r.ContentLength = from, -1
		left := make(chan error, 1)
		go func() {
			_, err := client.Do(r) //nolint:bodyclose // there is none
			left <- err
		}()
		if _, err := to.Write(wav(1000)); err != nil {
			t.Fatal(err)
		}
		heard.until(t, func() bool { return heard.bytes == 1000 })
		to.CloseWithError(io.ErrClosedPipe)
		if err := <-left; err == nil {
			t.Error("a broken body was answered")
		}
		heard.until(t, func() bool { return heard.ended == 1 })
		eventually(t, func() bool { return rows(t, db, "uploads") == 0 })
	})
}

// Leaving is not stopping.
func TestTheClientOfARecordingLeaves(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := startVoiced(t, db, says("Fine."), listens(func(r []byte) (string, error) { <-release; return counted(r) }), spells{})
		ann := s.signup("ann@example.com")
		res := s.open(raw(ann, "", wav(600)))
		if _, err := io.ReadFull(res.Body, make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		close(release)
		eventually(t, func() bool { return rows(t, db, "messages WHERE status = 'complete' AND content = 'Fine.'") == 1 })
	})
}

// What is known before is told before: that the chat is busy, or that there is no
// voice here.
func TestARecordingThatCannotBeAnswered(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		defer close(release)
		s := startVoiced(t, db, hangs(release), listens(counted), spells{})
		ann := s.signup("ann@example.com")
		res := s.open(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		defer res.Body.Close()
		busy := problem(409, "reply_in_progress", "The last message of this chat is still being answered.", "")
		busy.body = strings.TrimSuffix(busy.body, "}") + `,"message_id":2}`
		s.check(t, raw(ann, "?chat_id=1", wav(600)), busy)
		id := s.begin(ann, `{"format":"wav","chat_id":1}`)
		s.check(t, chunk(ann, id, 0, wav(600)), wanted{200, `{"offset":600}`, map[string]string{"Upload-Offset": "600"}})
		s.check(t, complete(ann, id), busy)

		mute := start(t, db, says("Fine."))
		none := problem(503, "voice_unavailable", "There is nobody here who hears or speaks.", "").with("Retry-After", "60")
		for _, c := range []call{
			raw(ann, "", wav(60)),
			{method: "POST", path: "/api/v1/voice/uploads", token: ann.Access, body: `{"format":"wav"}`},
			{method: "GET", path: "/api/v1/voice/uploads/1", token: ann.Access},
			{method: "DELETE", path: "/api/v1/voice/uploads/1", token: ann.Access},
			chunk(ann, id, 0, wav(60)), complete(ann, id),
			{method: "POST", path: "/api/v1/voice/speech", token: ann.Access, body: `{"text":"Hi"}`},
			{method: "GET", path: "/api/v1/messages/1/audio", token: ann.Access},
		} {
			mute.check(t, c, none)
		}
	})
}

// A service that fails is told of, and the recording is kept for another try.
func TestATranscriptionThatFails(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var calls int
		s := startVoiced(t, db, says("Fine."), listens(func(r []byte) (string, error) {
			if calls++; calls < 3 {
				return "", &stream.BackendError{Code: stream.CodeVoiceTimeout, Retryable: true, Err: io.ErrUnexpectedEOF}
			}
			return counted(r)
		}), spells{})
		ann := s.signup("ann@example.com")
		events := s.listen(raw(ann, "", wav(600)))
		wantOutline(t, events, []string{"voice_processing transcribing", "error voice_timeout true"})
		id := int64(events[1].data["upload_id"].(float64))
		if id == 0 || events[0].data["upload_id"] != events[1].data["upload_id"] {
			t.Errorf("the events name %v", events)
		}
		wantOutline(t, s.listen(complete(ann, id)), []string{"voice_processing transcribing", "error voice_timeout true"})
		if rows(t, db, "upload_chunks") == 0 || rows(t, db, "messages") != 0 {
			t.Error("the recording is not kept, or there is a message")
		}
		wantOutline(t, s.listen(complete(ann, id)), spoken("600 bytes", "Fine."))
		wantOutline(t, s.listen(complete(ann, id)), spoken("600 bytes", "Fine.")[1:])
		if calls != 3 || rows(t, db, "messages") != 2 || rows(t, db, "upload_chunks") != 0 {
			t.Errorf("%d calls, %d messages, %d rows", calls, rows(t, db, "messages"), rows(t, db, "upload_chunks"))
		}
	})
}

// sumOf is a Digest of data.
func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}
