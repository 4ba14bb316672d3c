package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"parley/auth"
	"parley/models"
	"parley/stream"
	"parley/voice"
)

// A recordingWish is what a client says of a recording besides the sound.
type recordingWish struct {
	ChatID int64  // 0: a chat begins with it
	Format string // "": told by its first bytes
	spokenAs
}

// sendRecording answers POST /voice/messages. What is refused leaves nothing
// behind; what is not can be asked for again by its upload_id.
func (s *server) sendRecording(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	wish, err := wishOf(r)
	if err != nil {
		return err
	}
	form, err := replyForm(r.Header)
	if err != nil {
		return err
	}
	name, err := keyName(r)
	if err != nil {
		return err
	}
	if r.ContentLength > maxRecordingBody(r.Header) {
		return voice.ErrTooLarge
	}
	known, err := s.keyKnown(r, caller, name)
	if err != nil {
		return err
	}
	if known {
		return s.repeatRecording(w, r, caller, wish, name, form)
	}
	if err := s.mayAnswer(r.Context(), caller, form, wish.ChatID); err != nil {
		return err
	}
	counted, err := s.throttle(w, r, messagesPolicy, errTooManyMessages, s.messagesOf(caller))
	if err != nil {
		return err
	}
	u, err := s.receiveRecording(w, r, caller, wish, name)
	if err != nil {
		s.takeBack(r.Context(), w.Header(), counted)
		return err
	}
	return s.answerRecording(w, r, caller, u, form)
}

// mayAnswer returns an error where it is known that a reply in that form cannot
// begin in a chat: what is said at length should not be said in vain.
func (s *server) mayAnswer(ctx context.Context, caller auth.Identity, form form, chatID int64) error {
	if form == asEvents {
		if err := s.hub.MayOpen(caller.UserID); err != nil {
			return err
		}
	}
	if chatID == 0 {
		return nil
	}
	if _, err := s.db.Chat(ctx, caller.UserID, chatID); err != nil {
		return err
	}
	return s.db.ChatIdle(ctx, chatID)
}

// receiveRecording keeps the body of r and has it transcribed as it arrives. It
// returns it complete, or deletes it.
func (s *server) receiveRecording(w http.ResponseWriter, r *http.Request, caller auth.Identity, wish recordingWish, key string) (models.Upload, error) {
	u, _, err := s.voice.Begin(r.Context(), models.NewUpload{UserID: caller.UserID, ChatID: wish.ChatID, Format: wish.Format})
	if err != nil {
		return u, err
	}
	id := u.ID
	hash := sha256.New()
	io.WriteString(hash, wish.String()) //nolint:errcheck // a hash takes all
	u, said, err := s.keep(r.Context(), u, openRecording(w, r, hash))
	if err == nil && said != nil {
		wish = *said
	}
	if err == nil && wish.Format != "" {
		if u.Sniffed && wish.Format != u.Format {
			err = voice.ErrFormatMismatch
		}
		u.Format = wish.Format
	}
	if err == nil {
		c := models.Completion{ChatID: wish.ChatID, Voice: wish.voice, Speed: wish.speed}
		if key != "" {
			c.Key = &models.IdempotencyKey{Route: infoOf(r).route.keyed, Key: key, BodyHash: hex.EncodeToString(hash.Sum(nil))}
		}
		u, err = s.voice.Complete(r.Context(), u, c)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), storeTimeout)
		defer cancel()
		if err := s.voice.Drop(ctx, caller.UserID, id); err != nil {
			s.log.WarnContext(ctx, "a recording that was refused is kept until it expires", "upload_id", id, "error", err)
		}
	}
	return u, err
}

// keep appends to u what it reads, and returns what was said with it, nil where
// the body is nothing but sound.
func (s *server) keep(ctx context.Context, u models.Upload, from *recordingReader) (models.Upload, *recordingWish, error) {
	buffer := make([]byte, pieceOfRecording)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			var kept error
			if u, kept = s.voice.Append(ctx, u, u.Size, buffer[:n]); kept != nil {
				return u, nil, kept
			}
		}
		if errors.Is(err, io.EOF) {
			said, err := from.said()
			return u, said, err
		}
		if err != nil {
			return u, nil, err
		}
	}
}

// repeatRecording answers with the reply that the same recording got before under
// the same key.
func (s *server) repeatRecording(w http.ResponseWriter, r *http.Request, caller auth.Identity, wish recordingWish, key string, form form) error {
	hash := sha256.New()
	io.WriteString(hash, wish.String()) //nolint:errcheck // a hash takes all
	if _, err := io.Copy(io.Discard, openRecording(w, r, hash)); err != nil {
		return err
	}
	ex, err := s.db.KeyedExchange(r.Context(), caller.UserID, models.IdempotencyKey{
		Route: infoOf(r).route.keyed, Key: key, BodyHash: hex.EncodeToString(hash.Sum(nil)),
	})
	if err != nil {
		return err
	}
	return s.answerReply(w, r, caller, ex, form)
}

// keyKnown reports whether the caller has used a key on the route of r.
func (s *server) keyKnown(r *http.Request, caller auth.Identity, key string) (bool, error) {
	if key == "" {
		return false, nil
	}
	_, err := s.db.KeyedExchange(r.Context(), caller.UserID, models.IdempotencyKey{Route: infoOf(r).route.keyed, Key: key})
	switch {
	case errors.Is(err, models.ErrKeyReused): // with another body than none at all
		return true, nil
	case errors.Is(err, models.ErrNotFound):
		return false, nil
	}
	return false, err
}

// completeUpload answers POST /voice/uploads/{id}/complete.
func (s *server) completeUpload(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	c, form, err := readCompletion(r)
	if err != nil {
		return err
	}
	u, err := s.db.Upload(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	if c.Key != nil {
		ex, err := s.db.KeyedExchange(r.Context(), caller.UserID, *c.Key)
		if err == nil {
			return s.answerReply(w, r, caller, ex, form)
		}
		if !errors.Is(err, models.ErrNotFound) {
			return err
		}
	}
	if err := s.mayAnswer(r.Context(), caller, form, 0); err != nil {
		return err
	}
	// What is asked for once more is no other message.
	var counted tally
	if !u.Ended && (!u.Whole || u.Failure != "") {
		if counted, err = s.throttle(w, r, messagesPolicy, errTooManyMessages, s.messagesOf(caller)); err != nil {
			return err
		}
	}
	u, err = s.voice.Complete(r.Context(), u, c)
	if err != nil {
		s.takeBack(r.Context(), w.Header(), counted)
		return err
	}
	return s.answerRecording(w, r, caller, u, form)
}

// readCompletion reads what is wanted of a recording that is complete, and in
// which form the reply to it.
func readCompletion(r *http.Request) (c models.Completion, form form, err error) {
	var in struct {
		Voice *string  `json:"voice"`
		Speed *float64 `json:"speed"`
	}
	body, err := readOptionalJSON(r)
	if err != nil {
		return c, 0, err
	}
	if err := unmarshal(body, &in); err != nil {
		return c, 0, err
	}
	as, err := spokenIn(in.Voice, in.Speed)
	if err != nil {
		return c, 0, err
	}
	c.Voice, c.Speed = as.voice, as.speed
	form, c.Key, err = replyWish(r, body)
	return c, form, err
}

// answerRecording answers with the reply to a recording that is complete.
func (s *server) answerRecording(w http.ResponseWriter, r *http.Request, caller auth.Identity, u models.Upload, form form) error {
	if u.MessageID == 0 && form == asEvents {
		return s.hub.ServeAfter(w, r, viewer(caller), func(ctx context.Context, tell func(string, any) error) (int64, error) {
			if err := tell("voice_processing", processingJSON{"transcribing", u.ID}); err != nil {
				return 0, err
			}
			return s.voice.Await(ctx, caller.UserID, u.ID)
		}, func(err error) stream.Failure { return failureOf(err, u.ID) })
	}
	replyID := u.MessageID
	if replyID == 0 {
		var err error
		if replyID, err = s.voice.Await(r.Context(), caller.UserID, u.ID); err != nil {
			return ofUpload(err, u.ID)
		}
	}
	ex, err := s.db.Exchange(r.Context(), caller.UserID, replyID)
	if err != nil {
		return err
	}
	return s.answerReply(w, r, caller, ex, form)
}

// A processingJSON says where a recording is on its way.
type processingJSON struct {
	Status   string `json:"status"`
	UploadID int64  `json:"upload_id"`
}

// failureOf is what the error event says of a recording that came to nothing.
func failureOf(err error, uploadID int64) stream.Failure {
	p := problemOf(err)
	f := stream.Failure{Message: p.detail, Code: p.code, Retryable: p.mayPass(), UploadID: uploadID}
	if !f.Retryable {
		f.UploadID = 0
	}
	return f
}

// ofUpload says of which recording err is told.
func ofUpload(err error, uploadID int64) error {
	p := *problemOf(err)
	if p.status < http.StatusInternalServerError || p.foreseen {
		p.uploadID = uploadID
		return &p
	}
	return fmt.Errorf("upload %d: %w", uploadID, err)
}

// mayPass reports whether the same request may have another answer soon.
func (p *problem) mayPass() bool {
	return !p.lasts &&
		(p.retryAfter > 0 || p.status == http.StatusConflict || p.status == http.StatusInternalServerError)
}

// wishOf reads what the query of r says of a recording, or of speech.
func wishOf(r *http.Request) (recordingWish, error) {
	q, err := parameters(r)
	if err != nil {
		return recordingWish{}, err
	}
	var chatID *int64
	if q.Has("chat_id") {
		id, err := strconv.ParseInt(q.Get("chat_id"), 10, 64)
		if err != nil {
			id = 0
		}
		chatID = &id
	}
	var speed *float64
	if q.Has("speed") {
		f, err := strconv.ParseFloat(q.Get("speed"), 64)
		if err != nil {
			f = 0
		}
		speed = &f
	}
	return newWish(chatID, given(q, "format"), given(q, "voice"), speed)
}

// given is a parameter of a query, nil where it is not there.
func given(q url.Values, name string) *string {
	if !q.Has(name) {
		return nil
	}
	value := q.Get(name)
	return &value
}

func newWish(chatID *int64, format, as *string, speed *float64) (wish recordingWish, err error) {
	if wish.ChatID, err = oneChat(chatID, nil); err != nil {
		return wish, err
	}
	if format != nil {
		if wish.Format, err = oneFormat(*format); err != nil {
			return wish, err
		}
	}
	wish.spokenAs, err = spokenIn(as, speed)
	return wish, err
}

// String tells wishes apart.
func (wish recordingWish) String() string {
	return fmt.Sprintf("%d %s %s %g\n", wish.ChatID, wish.Format, wish.voice, wish.speed)
}

// messagesOf is the limit of what one user sends.
func (s *server) messagesOf(caller auth.Identity) models.Limit {
	return limitOn(s.limits.Messages, "messages", strconv.FormatInt(caller.UserID, 10))
}
