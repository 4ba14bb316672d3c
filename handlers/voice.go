package handlers

import (
	"net/http"
	"regexp"
	"strings"
	"unicode/utf8"

	"parley/auth"
	"parley/models"
	"parley/stream"
	"parley/voice"
)

// voiced makes h a handler that asks for a valid access token, and for somebody
// who hears and speaks.
func (s *server) voiced(h signedIn) open {
	return s.signedIn(func(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
		if s.voice == nil {
			return stream.ErrVoiceUnavailable
		}
		return h(w, r, caller)
	})
}

// A spokenAs is how a text is to be spoken.
type spokenAs struct {
	voice string  // "": the service's choice
	speed float64 // 0: as the voice speaks
}

// voiceName is what a voice may be called.
var voiceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// The bounds of speed.
const (
	minSpeed = 0.25
	maxSpeed = 4.0
)

// spokenIn returns how a text is to be spoken, nil standing for no wish.
func spokenIn(voice *string, speed *float64) (as spokenAs, err error) {
	if voice != nil {
		if !voiceName.MatchString(*voice) {
			return as, invalid("invalid_voice", "voice", "voice is 1 to 64 letters, digits, dots, hyphens and underscores of ASCII.")
		}
		as.voice = *voice
	}
	if speed != nil {
		if !(minSpeed <= *speed && *speed <= maxSpeed) { // also what is no number
			return as, invalid("invalid_speed", "speed", "speed must be a number from 0.25 to 4.")
		}
		as.speed = *speed
	}
	return as, nil
}

// How many texts are spoken at once by one replica, and for one user.
const (
	maxSpeeches     = 64
	maxSpeechesUser = 4
)

// speak answers POST /voice/speech.
func (s *server) speak(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		Text   *string  `json:"text"`
		Voice  *string  `json:"voice"`
		Speed  *float64 `json:"speed"`
		Format *string  `json:"format"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	switch {
	case in.Text == nil:
		return required("text", "")
	case strings.TrimSpace(*in.Text) == "":
		return invalid("empty_text", "text", "text holds nothing but white space.")
	case utf8.RuneCountInString(*in.Text) > maxMessage:
		return invalid("text_too_long", "text", "text may have 32000 characters at most.")
	}
	wish, err := newWish(nil, in.Format, in.Voice, in.Speed)
	if err != nil {
		return err
	}
	return s.sendSpeech(w, r, caller, *in.Text, wish)
}

// speakMessage answers GET /messages/{id}/audio.
func (s *server) speakMessage(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	wish, err := wishOf(r)
	if err != nil {
		return err
	}
	message, err := s.db.Message(r.Context(), caller.UserID, id)
	switch {
	case err != nil:
		return err
	case message.Status == models.StatusStreaming:
		return &models.ReplyInProgress{MessageID: id}
	case strings.TrimSpace(message.Content) == "":
		return errNothingToSay
	}
	return s.sendSpeech(w, r, caller, message.Content, wish)
}

// audioTypes are the media types of what is spoken.
var audioTypes = map[string]string{
	voice.WebM: "audio/webm", voice.MP3: "audio/mpeg", voice.WAV: "audio/wav", voice.Ogg: "audio/ogg",
}

// sendSpeech answers with a text as sound, as it is made. It is made anew each
// time and nobody knows how long it gets, so there are no parts of it to ask for:
// a Range is answered with all, as RFC 9110, section 14.2, lets a server do.
func (s *server) sendSpeech(w http.ResponseWriter, r *http.Request, caller auth.Identity, text string, wish recordingWish) error {
	if wish.Format == "" {
		wish.Format = voice.MP3
	}
	h := w.Header()
	begin := func() {
		h.Set("Content-Type", audioTypes[wish.Format])
		h.Set("Accept-Ranges", "none")
		h.Set("X-Accel-Buffering", "no")
		w.WriteHeader(http.StatusOK)
	}
	if r.Method == http.MethodHead {
		begin()
		return nil
	}
	if err := s.speeches.Enter(caller.UserID); err != nil {
		return err
	}
	defer s.speeches.Leave(caller.UserID)
	rc := http.NewResponseController(w)
	begun := false
	err := s.hub.Speak(r.Context(), stream.Speech{Text: text, Voice: wish.voice, Speed: wish.speed, Format: wish.Format}, func(audio []byte) error {
		if err := s.alive(r.Context(), caller); err != nil {
			return err
		}
		if !begun {
			begun = true
			begin()
		}
		if _, err := w.Write(audio); err != nil {
			return err
		}
		return rc.Flush()
	})
	switch {
	case err == nil && !begun:
		return errNothingToSay
	case err != nil && begun:
		// Sound that breaks off must not look whole.
		infoOf(r).err = err
		panic(http.ErrAbortHandler)
	}
	return err
}
