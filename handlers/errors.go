package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/auth"
	"parley/models"
	"parley/stream"
	"parley/voice"
)

// A problem is an error that says how it is answered: the document of RFC 9457
// that Parley sends. Its Error is its code, which holds nothing a client sent.
type problem struct {
	status int
	code   string // a stable word
	detail string // a sentence for a person
	fields []fieldError

	challenge  string // 401: the error of RFC 6750; empty if no token was sent
	retryAfter int    // seconds; 429 and 503
	messageID  int64  // of the reply that is in the way
	checks     map[string]string
	foreseen   bool   // 503: the replica does what it should, and says so
	dailyQuota int64  // 429: how much there is of what is used up, in a day
	lasts      bool   // 429: until the next day
	offset     *int64 // 409: where an upload goes on
	uploadID   int64  // of the recording that can be completed once more
}

// A fieldError says what is wrong with one field or parameter.
type fieldError struct {
	Field  string `json:"field"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string { return p.code }

// Where no sentinel of another package says it, these do.
var (
	errNoRoute          = &problem{status: http.StatusNotFound, code: "not_found", detail: "There is nothing at this path."}
	errMethodNotAllowed = &problem{status: http.StatusMethodNotAllowed, code: "method_not_allowed", detail: "This path does not take that method; Allow names those it takes."}
	errNotAcceptable    = &problem{status: http.StatusNotAcceptable, code: "not_acceptable", detail: "A reply is sent as text/event-stream or as application/json."}
	errNoSuchExport     = &problem{status: http.StatusNotAcceptable, code: "not_acceptable", detail: "A chat is exported as application/json or as text/markdown."}
	errBodyTooLarge     = &problem{status: http.StatusRequestEntityTooLarge, code: "body_too_large", detail: "The body may have 1 MiB at most."}
	errNotJSON          = &problem{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", detail: "Send the body as application/json in UTF-8, without a content coding."}
	errNotForm          = &problem{status: http.StatusBadRequest, code: "invalid_form", detail: "Send token and password, once each, as a form."}
	errBodyTimeout      = &problem{status: http.StatusRequestTimeout, code: "request_timeout", detail: "The body did not arrive in time."}

	errIncomplete     = &problem{status: http.StatusBadRequest, code: "incomplete_body", detail: "The body could not be read to its end."}
	errNotBase64      = invalid("invalid_audio", "audio", "audio must be base64.")
	errChunkTooLarge  = &problem{status: http.StatusRequestEntityTooLarge, code: "chunk_too_large", detail: "A chunk may have 1 MiB at most."}
	errEmptyChunk     = &problem{status: http.StatusBadRequest, code: "empty_chunk", detail: "A chunk has one byte at least."}
	errDigestMismatch = &problem{status: http.StatusBadRequest, code: "digest_mismatch", detail: "The body is not what its digest is of. Nothing was stored; send it again."}
	errVoiceRefused   = &problem{status: http.StatusUnprocessableEntity, code: stream.CodeVoiceRefused, detail: "What hears and speaks for this service cannot do this: it knows no such voice, format or script, or it is too long."}
	errNothingToSay   = &problem{status: http.StatusUnprocessableEntity, code: "nothing_to_say", detail: "There are no words in this text."}

	errNoToken       = &problem{status: http.StatusUnauthorized, code: "missing_token", detail: "Send an access token: Authorization: Bearer ..."}
	errInvalidToken  = &problem{status: http.StatusUnauthorized, code: "invalid_token", detail: "The access token is not valid.", challenge: "invalid_token"}
	errExpiredToken  = &problem{status: http.StatusUnauthorized, code: "invalid_token", detail: "The access token has expired.", challenge: "invalid_token"}
	errInvalidTicket = &problem{status: http.StatusUnauthorized, code: "invalid_ticket", detail: "The ticket does not open this stream, or has expired. Ask for another one.", challenge: "invalid_token"}
	errSignedOut     = &problem{status: http.StatusUnauthorized, code: "invalid_token", detail: "This device was signed out.", challenge: "invalid_token"}

	errInvalidCredentials = &problem{status: http.StatusUnauthorized, code: "invalid_credentials", detail: "The email address or the password is wrong."}
	errAccountDisabled    = &problem{status: http.StatusForbidden, code: "account_disabled", detail: "This account is disabled."}
	errInvalidRefresh     = &problem{status: http.StatusUnauthorized, code: "invalid_refresh_token", detail: "The refresh token is not valid; sign in again.", challenge: "invalid_token"}
	errReusedRefresh      = &problem{status: http.StatusUnauthorized, code: "refresh_token_reused", detail: "The refresh token was used before, so this device was signed out; sign in again.", challenge: "invalid_token"}

	errAdminRequired = &problem{status: http.StatusForbidden, code: "admin_required", detail: "Only an administrator may do this."}

	errWrongPassword = &problem{
		status: http.StatusForbidden, code: "wrong_password", detail: "The current password is wrong.",
		fields: []fieldError{{Field: "current_password", Code: "wrong_password", Detail: "The current password is wrong."}},
	}
	errInvalidReset    = &problem{status: http.StatusBadRequest, code: "invalid_reset_token", detail: "This link is not valid, was used, or has expired. Ask for another one."}
	errTooManyAttempts = &problem{status: http.StatusTooManyRequests, code: "too_many_attempts", detail: "That was tried too often. Try again later."}
	errTooManyMessages = &problem{status: http.StatusTooManyRequests, code: "too_many_messages", detail: "Those are too many messages in a short time. Try again soon."}

	errNoPlace  = &problem{status: http.StatusServiceUnavailable, code: "unavailable", detail: "This replica has as many connections as it can serve. Try again in a moment.", retryAfter: 2, foreseen: true}
	errTimeout  = &problem{status: http.StatusServiceUnavailable, code: "unavailable", detail: "The service took too long. Try again soon.", retryAfter: 2}
	errInternal = &problem{status: http.StatusInternalServerError, code: "internal_error", detail: "Something went wrong on our side."}
)

// sentinels are the errors of the other rooms and their answers. The first
// that matches counts.
var sentinels = []struct {
	is     error
	answer *problem
}{
	{models.ErrUnavailable, &problem{status: http.StatusServiceUnavailable, code: "unavailable", detail: "The service cannot reach its data at the moment. Try again soon.", retryAfter: 2}},
	{models.ErrNotFound, &problem{status: http.StatusNotFound, code: "not_found", detail: "There is no such thing."}},
	{models.ErrForbidden, &problem{status: http.StatusForbidden, code: "forbidden", detail: "This belongs to someone else."}},
	{models.ErrUserExists, &problem{status: http.StatusBadRequest, code: "user_exists", detail: "There is an account with this email address."}},
	{models.ErrLastAdmin, &problem{status: http.StatusConflict, code: "last_admin", detail: "This is the last administrator. Make another one first."}},
	{models.ErrKeyReused, &problem{status: http.StatusUnprocessableEntity, code: "idempotency_key_reused", detail: "This Idempotency-Key was used with another body."}},
	{models.ErrNotRewritable, &problem{status: http.StatusConflict, code: "not_rewritable", detail: "Only the last reply of a chat can be regenerated, and only a message of the user can be edited."}},
	{models.ErrUploadEmpty, &problem{status: http.StatusBadRequest, code: "empty_recording", detail: "There is nothing in the recording."}},
	{models.ErrTooManyUploads, &problem{status: http.StatusTooManyRequests, code: "too_many_uploads", detail: "Too many recordings are open. Complete or delete one, and try again.", retryAfter: 60}},
	{voice.ErrTooLarge, &problem{status: http.StatusRequestEntityTooLarge, code: "recording_too_large", detail: "A recording may have 25 MiB at most."}},
	{voice.ErrUnsupported, &problem{status: http.StatusUnsupportedMediaType, code: "unsupported_audio", detail: "This is no recording in WebM, MP3, WAV or Ogg."}},
	{voice.ErrFormatMismatch, &problem{status: http.StatusUnsupportedMediaType, code: "format_mismatch", detail: "The recording has another format than format says."}},
	{voice.ErrNothingHeard, &problem{status: http.StatusUnprocessableEntity, code: "nothing_heard", detail: "Nothing was understood. Speak again, closer to the microphone."}},
	{voice.ErrBusy, &problem{status: http.StatusServiceUnavailable, code: "voice_busy", detail: "This replica hears and speaks as much as it can. Try again in a moment.", retryAfter: 2, foreseen: true}},
	{voice.ErrTooMany, &problem{status: http.StatusTooManyRequests, code: "too_many_at_once", detail: "You do too much of this at once. Wait for the end of one.", retryAfter: 5}},
	{stream.ErrVoiceUnavailable, &problem{status: http.StatusServiceUnavailable, code: stream.CodeVoiceUnavailable, detail: "There is nobody here who hears or speaks.", retryAfter: 60, foreseen: true}},
	{models.ErrInvalidText, malformed("A string holds NUL.")},
	{models.ErrInvalidCursor, invalid("invalid_cursor", "cursor", "cursor must be a next_cursor of this list.")},
	{auth.ErrExpiredToken, errExpiredToken},
	{auth.ErrInvalidToken, errInvalidToken},
	{auth.ErrWeakPassword, invalid("weak_password", "password", "The password is too easy to guess.")},
	{auth.ErrInvalidEmail, invalid("invalid_email", "email", "This is not an email address.")},
	{stream.ErrInvalidEventID, invalid("invalid_last_event_id", "last_event_id", "This is not the id of an event of this reply.")},
	{stream.ErrDraining, &problem{status: http.StatusServiceUnavailable, code: "draining", detail: "This replica is about to end. Try again at once.", retryAfter: 1, foreseen: true}},
	{stream.ErrOverloaded, &problem{status: http.StatusServiceUnavailable, code: "overloaded", detail: "This replica has as many replies as it can serve. Try again in a moment.", retryAfter: 2, foreseen: true}},
	{stream.ErrTooManyStreams, &problem{status: http.StatusTooManyRequests, code: "too_many_streams", detail: "Too many streams are open. Close one, and try again.", retryAfter: 5}},
	{context.DeadlineExceeded, errTimeout},
	{context.Canceled, errTimeout}, // read by nobody, unless it is the server that gave up
}

// reachedToday is the answer to what the daily limit refuses. Of what is in the way
// of a request because of replies that run, they may leave some in a moment.
func reachedToday(l *models.DailyLimit) *problem {
	p := &problem{
		status: http.StatusTooManyRequests, code: "daily_limit_reached",
		detail:     "This might take more tokens than you have left today. Try again tomorrow (UTC), or in a shorter chat.",
		retryAfter: retryIn(time.Until(l.Resets)), lasts: true, dailyQuota: l.Limit,
	}
	if l.Running {
		p.retryAfter, p.lasts = 5, false
		p.detail = "Together with your replies that are still being written, this might take more tokens than you have left today. Try again when they have ended."
	}
	return p
}

// failedElsewhere is the answer to a recording that came to nothing, as far as a
// code says it.
func failedElsewhere(code string) *problem {
	switch code {
	case voice.CodeReplyInProgress:
		return &problem{status: http.StatusConflict, code: code, detail: "The last message of this chat is still being answered."}
	case voice.CodeInternal:
		return errInternal
	case stream.CodeVoiceRefused:
		return errVoiceRefused
	}
	return &problem{
		status: http.StatusServiceUnavailable, code: code, retryAfter: 2, foreseen: true,
		detail: "What hears and speaks for this service does not answer at the moment. Try again soon.",
	}
}

// invalid is the answer to a field or parameter that is not as it must be.
func invalid(code, field, detail string) *problem {
	return &problem{
		status: http.StatusBadRequest, code: code, detail: detail,
		fields: []fieldError{{Field: field, Code: code, Detail: detail}},
	}
}

// malformed is the answer to a body that is not the JSON of the contract.
func malformed(detail string, fields ...fieldError) *problem {
	return &problem{status: http.StatusBadRequest, code: "invalid_json", detail: detail, fields: fields}
}

// required returns an error that names those of the fields that are empty, or
// nil. It takes names and values in turn.
func required(namesAndValues ...string) error {
	var missing []fieldError
	for field := range slices.Chunk(namesAndValues, 2) {
		if name := field[0]; field[1] == "" {
			missing = append(missing, fieldError{Field: name, Code: "required", Detail: name + " is required."})
		}
	}
	if missing == nil {
		return nil
	}
	return &problem{
		status: http.StatusBadRequest, code: "missing_fields",
		detail: "Fields are missing; errors names them.", fields: missing,
	}
}

// notReady is what /readyz answers when the replica should get no requests.
func notReady(checks map[string]string) *problem {
	return &problem{
		status: http.StatusServiceUnavailable, code: "not_ready", retryAfter: 1, foreseen: true,
		detail: "This replica takes no requests at the moment; checks says why.", checks: checks,
	}
}

// problemOf says how err is answered.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var running *models.ReplyInProgress
	if errors.As(err, &running) {
		return &problem{
			status: http.StatusConflict, code: "reply_in_progress", messageID: running.MessageID,
			detail: "The last message of this chat is still being answered.",
		}
	}
	var reached *models.DailyLimit
	if errors.As(err, &reached) {
		return reachedToday(reached)
	}
	var busy *auth.Busy
	if errors.As(err, &busy) {
		return &problem{
			status: http.StatusServiceUnavailable, code: "busy", retryAfter: retryIn(busy.After), foreseen: true,
			detail: "Too many sign-ins at the moment. Try again soon.",
		}
	}
	var failed *voice.Failed
	if errors.As(err, &failed) {
		return failedElsewhere(failed.Code)
	}
	var backend *stream.BackendError
	if errors.As(err, &backend) {
		if strings.HasPrefix(backend.Code, "voice_") {
			return failedElsewhere(backend.Code)
		}
		return &problem{
			status: http.StatusServiceUnavailable, code: backend.Code, retryAfter: 2, foreseen: true,
			detail: "The AI service does not answer at the moment. Try again soon.",
		}
	}
	for _, s := range sentinels {
		if !errors.Is(err, s.is) {
			continue
		}
		var refusal *auth.Refusal
		if errors.As(err, &refusal) {
			return invalid(s.answer.code, s.answer.fields[0].Field, refusal.Reason)
		}
		return s.answer
	}
	return errInternal
}

// clientGone reports whether err only says that the client of r went away.
func clientGone(r *http.Request, err error) bool {
	return errors.Is(err, context.Canceled) && r.Context().Err() != nil
}

// fail notes err for the log and answers with its problem, unless an answer
// has begun.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	info := infoOf(r)
	info.err = err
	if info.answer.status != 0 {
		return
	}
	p := problemOf(err)
	h := w.Header()
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", p.authenticate())
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if p.dailyQuota > 0 {
		s.metrics.Throttled(string(tokensPolicy))
		tokensPolicy.exhaust(h, p.dailyQuota, p.retryAfter)
	}
	if info.route != nil && info.route.page {
		showProblem(w, p)
		return
	}
	if p.offset != nil {
		h.Set("Upload-Offset", strconv.FormatInt(*p.offset, 10))
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.status)
	w.Write(p.document(info.id)) //nolint:errcheck // the client may be gone
}

// authenticate is the challenge of RFC 6750, section 3.
func (p *problem) authenticate() string {
	if p.challenge == "" {
		return `Bearer realm="parley"`
	}
	return fmt.Sprintf(`Bearer realm="parley", error=%q, error_description=%q`, p.challenge, p.detail)
}

// document is the problem as JSON. Its type is always about:blank, and its
// title therefore the status in words (RFC 9457, section 4.2.1): what a
// program looks at is the code.
func (p *problem) document(requestID string) []byte {
	data, err := json.Marshal(struct {
		Type      string            `json:"type"`
		Title     string            `json:"title"`
		Status    int               `json:"status"`
		Detail    string            `json:"detail"`
		Code      string            `json:"code"`
		Message   string            `json:"message"`
		RequestID string            `json:"request_id"`
		Errors    []fieldError      `json:"errors,omitempty"`
		MessageID int64             `json:"message_id,omitempty"`
		UploadID  int64             `json:"upload_id,omitempty"`
		Offset    *int64            `json:"offset,omitempty"`
		Checks    map[string]string `json:"checks,omitempty"`
	}{
		"about:blank", http.StatusText(p.status), p.status, p.detail, p.code, p.detail, requestID,
		p.fields, p.messageID, p.uploadID, p.offset, p.checks,
	})
	if err != nil {
		panic(err) // strings and numbers always have a JSON form
	}
	return append(data, '\n')
}
