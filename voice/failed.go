package voice

import (
	"context"
	"errors"
	"time"

	"parley/models"
	"parley/stream"
)

// Failed is a try that has failed, on another replica or before it was asked for,
// and of which only the code is known: that of a *stream.BackendError, or one of
// those below.
type Failed struct{ Code string }

func (e *Failed) Error() string { return "voice: " + e.Code }

// The codes under which it is kept why a recording came to nothing.
const (
	CodeReplyInProgress = "reply_in_progress"
	CodeOverloaded      = "overloaded"
	CodeInternal        = "internal_error"

	dailyLimit   = "daily_limit_reached"
	setAside     = "daily_limit_set_aside" // for replies that run: it may be free in a moment
	nothingHeard = "nothing_heard"
	notFound     = "not_found"
	keyReused    = "idempotency_key_reused"
	timeout      = "unavailable"
)

// codes are those of the errors of other rooms. The first that matches counts.
var codes = []struct {
	is   error
	code string
}{
	{models.ErrReplyInProgress, CodeReplyInProgress},
	{models.ErrDailyLimit, dailyLimit},
	{stream.ErrOverloaded, CodeOverloaded},
	{models.ErrNotFound, notFound},
	{models.ErrKeyReused, keyReused},
	{context.DeadlineExceeded, timeout},
}

// codeOf is the code under which err is kept.
func codeOf(err error) string {
	var backend *stream.BackendError
	if errors.As(err, &backend) {
		return backend.Code
	}
	var limit *models.DailyLimit
	if errors.As(err, &limit) && limit.Running {
		return setAside
	}
	for _, c := range codes {
		if errors.Is(err, c.is) {
			return c.code
		}
	}
	return CodeInternal
}

// failureOf is what codeOf was called with, as far as it can be known, for an
// upload that ended or failed; nil for one that was used.
func (r *Recordings) failureOf(u models.Upload) error {
	switch u.Failure {
	case "":
		return nil
	case nothingHeard:
		return ErrNothingHeard
	case notFound:
		return models.ErrNotFound
	case keyReused:
		return models.ErrKeyReused
	case dailyLimit, setAside:
		return &models.DailyLimit{Limit: r.hub.DailyTokenLimit(), Running: u.Failure == setAside, Resets: models.NextDay(time.Now())}
	case CodeOverloaded:
		return stream.ErrOverloaded
	case timeout:
		return context.DeadlineExceeded
	}
	return &Failed{Code: u.Failure}
}
