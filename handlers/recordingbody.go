package handlers

import (
	"bufio"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"time"

	"parley/voice"
)

const (
	// pieceOfRecording is how much of a recording is in memory at a time, in bytes.
	pieceOfRecording = 256 << 10
	// recordingTimeout is how long a recording may take to arrive in one request:
	// it may be spoken meanwhile.
	recordingTimeout = 15 * time.Minute
	// chunkTimeout is how long a chunk may take, and stallTimeout how long any body
	// of sound may pause.
	chunkTimeout = 2 * time.Minute
	stallTimeout = bodyTimeout
	// storeTimeout bounds what is written after a client has gone.
	storeTimeout = 5 * time.Second
)

// maxRecordingBody is how long a body with a recording may be.
func maxRecordingBody(h http.Header) int64 {
	if saysJSON(h) {
		return int64(base64.StdEncoding.EncodedLen(voice.MaxBytes)) + maxSaid
	}
	return voice.MaxBytes
}

// A timedBody is the body of a request that may take long, but not stall.
type timedBody struct {
	body io.Reader
	rc   *http.ResponseController
	end  time.Time
}

func newTimedBody(w http.ResponseWriter, r *http.Request, within time.Duration) timedBody {
	return timedBody{r.Body, http.NewResponseController(w), time.Now().Add(within)}
}

// Read fails with errBodyTimeout, errIncomplete, or what refuses the caller; io.EOF
// is the end.
func (b timedBody) Read(p []byte) (int, error) {
	deadline := time.Now().Add(stallTimeout)
	if b.end.Before(deadline) {
		deadline = b.end
	}
	// What is no connection (a recorder in a test) has none.
	b.rc.SetReadDeadline(deadline) //nolint:errcheck // see above
	n, err := b.body.Read(p)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return n, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, errBodyTimeout
	}
	if refused, ok := errors.AsType[bodyRefused](err); ok {
		return n, refused.error
	}
	return n, errIncomplete
}

// A recordingReader reads the sound of a request, raw or in JSON.
type recordingReader struct {
	sound io.Reader
	json  *soundJSON // nil: raw
}

// openRecording returns the sound of r. All that is read of the body goes to sum
// too.
func openRecording(w http.ResponseWriter, r *http.Request, sum hash.Hash) *recordingReader {
	body := io.TeeReader(newTimedBody(w, r, recordingTimeout), sum)
	if !saysJSON(r.Header) {
		return &recordingReader{sound: body}
	}
	document := &soundJSON{from: bufio.NewReaderSize(body, 32<<10)}
	return &recordingReader{base64.NewDecoder(base64.RawStdEncoding, document), document}
}

// Read returns raw sound as soon as there is some, and decoded sound as p is
// full.
func (r *recordingReader) Read(p []byte) (n int, err error) {
	if r.json == nil {
		return r.sound.Read(p)
	}
	n, err = io.ReadFull(r.sound, p)
	var corrupt base64.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && r.json.ended:
		err = io.EOF
	case errors.As(err, &corrupt), errors.Is(err, io.ErrUnexpectedEOF):
		err = errNotBase64
	}
	return n, err
}

// said is what stands beside the sound, once all is read; nil where nothing can.
func (r *recordingReader) said() (*recordingWish, error) {
	if r.json == nil {
		return nil, nil
	}
	var in struct {
		ChatID *int64   `json:"chat_id"`
		Audio  *string  `json:"audio"`
		Format *string  `json:"format"`
		Voice  *string  `json:"voice"`
		Speed  *float64 `json:"speed"`
	}
	if err := unmarshal(r.json.rest, &in); err != nil {
		return nil, err
	}
	switch {
	case in.Audio == nil:
		return nil, required("audio", "")
	case *in.Audio != "": // its name was written in a way that was not understood
		return nil, malformed("The key audio is written without escapes.")
	}
	wish, err := newWish(in.ChatID, in.Format, in.Voice, in.Speed)
	return &wish, err
}

// maxSaid is how much JSON there may be around a recording, in bytes.
const maxSaid = 64 << 10

// A soundJSON reads a JSON object and gives out what stands in its string audio,
// as base64 without padding. All else is kept in rest, to be checked when it has
// ended.
type soundJSON struct {
	from *bufio.Reader
	rest []byte

	depth  int
	key    string // the last string at the top, or the key before the colon
	colon  bool   // behind a key, at the top
	inside bool   // the string audio
	padded bool   // and behind the first padding in it
	seen   bool   // it was there
	ended  bool   // the body was
}

// Read fails with a *problem where the document is too large or breaks off in its
// sound.
func (j *soundJSON) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if !j.inside {
			if n > 0 && j.from.Buffered() == 0 {
				return n, nil
			}
			if err := j.seek(); err != nil {
				return n, err
			}
			continue
		}
		c, err := j.from.ReadByte()
		if err != nil {
			return n, brokenOff(err)
		}
		if c == '"' {
			j.inside = false
			j.rest = append(j.rest, c)
			continue
		}
		c, some, err := j.digit(c)
		if err != nil {
			return n, err
		}
		if some {
			p[n] = c
			n++
		}
	}
	return n, nil
}

// digit is a digit of base64 that begins with c in a JSON string; none where that
// is padding or a line's end. Both alphabets of RFC 4648 are understood.
func (j *soundJSON) digit(c byte) (digit byte, some bool, err error) {
	if c == '\\' {
		if c, err = j.from.ReadByte(); err != nil {
			return 0, false, brokenOff(err)
		}
		switch c {
		case 'n', 'r':
			return 0, false, nil
		case '/':
		default:
			return 0, false, errNotBase64
		}
	}
	switch {
	case c == '=':
		j.padded = true
		return 0, false, nil
	case j.padded:
		return 0, false, errNotBase64
	case c == '-':
		c = '+'
	case c == '_':
		c = '/'
	case c < ' ':
		return 0, false, malformed("The body is not valid JSON.")
	}
	return c, true, nil
}

// seek reads up to the sound, or to the end, which is io.EOF.
func (j *soundJSON) seek() error {
	for {
		c, err := j.from.ReadByte()
		if errors.Is(err, io.EOF) {
			j.ended = true
		}
		if err != nil {
			return err
		}
		if err := j.keep(c); err != nil {
			return err
		}
		switch c {
		case '"':
			if j.depth == 1 && j.colon && j.key == "audio" && !j.seen {
				j.inside, j.seen, j.colon = true, true, false
				return nil
			}
			if err := j.text(); err != nil {
				return err
			}
		case '{', '[':
			j.depth++
		case '}', ']':
			j.depth--
		case ':':
			j.colon = j.depth == 1
		case ',':
			j.colon = false
		}
	}
}

// text reads a string that is not the sound, behind its first quote.
func (j *soundJSON) text() error {
	start := len(j.rest)
	for escaped := false; ; {
		c, err := j.from.ReadByte()
		if err != nil {
			return brokenOff(err)
		}
		if err := j.keep(c); err != nil {
			return err
		}
		switch {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			if j.depth == 1 && !j.colon {
				j.key = string(j.rest[start : len(j.rest)-1])
			}
			return nil
		}
	}
}

func (j *soundJSON) keep(c byte) error {
	if len(j.rest) == maxSaid {
		return errBodyTooLarge
	}
	j.rest = append(j.rest, c)
	return nil
}

// brokenOff is err of a document that should go on.
func brokenOff(err error) error {
	if errors.Is(err, io.EOF) {
		return malformed("The body is not valid JSON.")
	}
	return err
}
