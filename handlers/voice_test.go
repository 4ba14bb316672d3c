package handlers_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// speaks is a service that speaks, as one function.
type speaks func(ctx context.Context, s stream.Speech, each func([]byte) error) error

func (f speaks) Synthesize(ctx context.Context, s stream.Speech, each func([]byte) error) error {
	return f(ctx, s, each)
}

func TestSpeech(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		down := &stream.BackendError{Code: stream.CodeVoiceUnavailable, Retryable: true, Err: io.ErrUnexpectedEOF}
		s := startVoiced(t, db, says("Fine, **thanks**."), listens(counted), speaks(func(ctx context.Context, s stream.Speech, each func([]byte) error) error {
			switch s.Text {
			case "down":
				return down
			case "汉字":
				return &stream.BackendError{Code: stream.CodeVoiceRefused, Err: io.ErrUnexpectedEOF}
			}
			if s.Voice != "" {
				s.Text += " by " + s.Voice
			}
			if s.Speed == 2 {
				s.Text += " fast"
			}
			return spells{}.Synthesize(ctx, s, each)
		}))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		say := func(body string) call {
			return call{method: "POST", path: "/api/v1/voice/speech", token: ann.Access, body: body}
		}
		audio := func(id, query string) call {
			return call{method: "GET", path: "/api/v1/messages/" + id + "/audio" + query, token: ann.Access}
		}
		sound := func(kind, text string) wanted {
			return wanted{200, text, map[string]string{"Content-Type": kind, "Accept-Ranges": "none", "Cache-Control": "no-store", "Content-Length": ""}}
		}
		bad := func(code, name, detail string) wanted { return problem(400, code, detail, field(name, code, detail)) }
		ranged := audio("2", "")
		ranged.header = http.Header{"Range": {"bytes=0-1"}}
		head := audio("2", "?format=wav")
		head.method = "HEAD"
		for name, test := range map[string]struct {
			c    call
			want wanted
		}{
			"a text":                     {say(`{"text":"Hello."}`), sound("audio/mpeg", "mp3:Hello.")},
			"as it is wished":            {say(`{"text":"Hello.","voice":"slt","speed":2,"format":"webm"}`), sound("audio/webm", "webm:Hello. by slt fast")},
			"in Ogg":                     {say(`{"text":"Hello.","format":"ogg"}`), sound("audio/ogg", "ogg:Hello.")},
			"an answer":                  {audio("2", ""), sound("audio/mpeg", "mp3:Fine, thanks.")},
			"a message of the user":      {audio("1", "?format=wav&speed=2"), sound("audio/wav", "wav:Hi fast")},
			"a part of it":               {ranged, sound("audio/mpeg", "mp3:Fine, thanks.")},
			"only its head":              {head, sound("audio/wav", "")},
			"no text":                    {say(`{}`), problem(400, "missing_fields", "Fields are missing; errors names them.", field("text", "required", "text is required."))},
			"white space":                {say(`{"text":" \n"}`), bad("empty_text", "text", "text holds nothing but white space.")},
			"too much text":              {say(`{"text":"` + strings.Repeat("a", 32_001) + `"}`), bad("text_too_long", "text", "text may have 32000 characters at most.")},
			"a voice that is none":       {say(`{"text":"Hi","voice":"../x"}`), bad("invalid_voice", "voice", "voice is 1 to 64 letters, digits, dots, hyphens and underscores of ASCII.")},
			"too fast":                   {say(`{"text":"Hi","speed":4.1}`), bad("invalid_speed", "speed", "speed must be a number from 0.25 to 4.")},
			"too slow":                   {audio("2", "?speed=0.1"), bad("invalid_speed", "speed", "speed must be a number from 0.25 to 4.")},
			"a speed that is none":       {audio("2", "?speed=NaN"), bad("invalid_speed", "speed", "speed must be a number from 0.25 to 4.")},
			"a text for speed":           {say(`{"text":"Hi","speed":"2"}`), problem(400, "invalid_json", "speed must be a number.", field("speed", "invalid_type", "speed must be a number."))},
			"a format that is not known": {audio("2", "?format=flac"), bad("invalid_format", "format", "format must be one of webm, mp3, wav, ogg.")},
			"a service that is down":     {say(`{"text":"down"}`), problem(503, "voice_unavailable", "What hears and speaks for this service does not answer at the moment. Try again soon.", "")},
			"a script that is not known": {say(`{"text":"汉字"}`), problem(422, "voice_refused", "What hears and speaks for this service cannot do this: it knows no such voice, format or script, or it is too long.", "")},
			"marks without words":        {say(`{"text":"***"}`), problem(422, "nothing_to_say", "There are no words in this text.", "")},
			"a query cut in two":         {audio("2", "?voice=slt%"), unreadableQuery},
			"somebody else's message":    {call{method: "GET", path: "/api/v1/messages/2/audio", token: bob.Access}, problem(403, "forbidden", "This belongs to someone else.", "")},
			"a message that is not":      {audio("99", ""), problem(404, "not_found", "There is no such thing.", "")},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, test.c, test.want) })
		}
	})
}

// A client that leaves ends what is spoken for it; sound that breaks off does not
// look whole; and nobody has more spoken at once than one may.
func TestSpeechThatEndsEarly(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ended := make(chan error, 8)
		s := startVoiced(t, db, says("Fine."), listens(counted), speaks(func(ctx context.Context, s stream.Speech, each func([]byte) error) error {
			if err := each([]byte("begin")); err != nil || s.Text == "broken" {
				return errors.Join(err, io.ErrUnexpectedEOF)
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		}))
		ann := s.signup("ann@example.com")
		say := func(text string) call {
			return call{method: "POST", path: "/api/v1/voice/speech", token: ann.Access, body: `{"text":"` + text + `"}`}
		}
		if a, err := s.send(say("broken")); err == nil {
			t.Errorf("sound that broke off was answered whole: %d %q", a.status, a.body)
		}
		var open []io.Closer
		for range 4 {
			body := s.open(say("long")).Body //nolint:bodyclose // it is, below
			if _, err := io.ReadFull(body, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			open = append(open, body)
		}
		s.check(t, say("long"), problem(429, "too_many_at_once", "You do too much of this at once. Wait for the end of one.", "").with("Retry-After", "5"))
		for _, body := range open {
			body.Close()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		}
	})
}

// Sound that is still being made is not for who has signed out meanwhile.
func TestSpeechEndsWithItsSession(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := startVoiced(t, db, says("Fine."), listens(counted), speaks(func(_ context.Context, _ stream.Speech, each func([]byte) error) error {
			if err := each([]byte("begin")); err != nil {
				return err
			}
			<-release
			return each([]byte("the rest"))
		}))
		ann := s.signup("ann@example.com")
		body := s.open(call{method: "POST", path: "/api/v1/voice/speech", token: ann.Access, body: `{"text":"long"}`}).Body
		defer body.Close()
		if _, err := io.ReadFull(body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		s.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access})
		close(release)
		if rest, err := io.ReadAll(body); len(rest) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("it ends with %q, %v, want an unexpected end", rest, err)
		}
	})
}
