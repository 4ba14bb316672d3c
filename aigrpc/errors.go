package aigrpc

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/provider"
	"parley/stream"
)

// Why this side takes an answer for failed.
var (
	errSilent = errors.New("aigrpc: the backend was silent for too long")
	errSlow   = errors.New("aigrpc: the backend did not end its answer in time")
	errEmpty  = errors.New("aigrpc: the backend ended its answer before it began")

	errTooMuch = errors.New("aigrpc: the backend sends more than an answer can be")
)

// backendError says what a call's error means for a reply. The backend's own
// words are left out of it, unless it cannot be reached: they may repeat what
// the user said, and an error is for the log. A reason that is one word is not.
func backendError(err error) *stream.BackendError {
	s := status.Convert(err)
	why := reasonOf(s)
	e := &stream.BackendError{Code: stream.CodeBackendRefused, Err: errors.New("aigrpc: the backend answered " + s.Code().String() + told(why))}
	switch s.Code() {
	case codes.Unavailable:
		e.Code, e.Retryable, e.Err = stream.CodeBackendUnavailable, true, err
	case codes.DeadlineExceeded:
		e.Code, e.Retryable = stream.CodeBackendTimeout, true
	case codes.ResourceExhausted:
		if !tooLarge(s.Message()) {
			e.Code, e.Retryable = stream.CodeBackendBusy, true
		}
	case codes.Canceled, codes.Unknown, codes.Aborted, codes.Internal, codes.DataLoss:
		e.Code, e.Retryable = stream.CodeBackendError, true // another attempt may do better; a refusal would be repeated
	case codes.InvalidArgument:
		if why.GetReason() == string(provider.ContextTooLong) {
			e.Code = stream.CodeChatTooLong
		}
	}
	return e
}

// aReason is what the reason of an ErrorInfo looks like, as
// google/rpc/error_details.proto has it.
var aReason = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)

// reasonOf is why the backend failed, by the ErrorInfo that it may send: a key
// that has expired, a quota that is used up. nil if it does not say.
func reasonOf(s *status.Status) *errdetails.ErrorInfo {
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && aReason.MatchString(info.GetReason()) {
			return info
		}
	}
	return nil
}

// told is a reason for the log, with the HTTP status that told it.
func told(why *errdetails.ErrorInfo) string {
	if why == nil {
		return ""
	}
	text := ": " + why.GetReason()
	if code, err := strconv.ParseUint(why.GetMetadata()["http_status"], 10, 16); err == nil {
		text += ", HTTP status " + strconv.FormatUint(code, 10)
	}
	return text
}

// voiceCodes are what the codes of a reply's failure are for speech.
var voiceCodes = map[string]string{
	stream.CodeBackendUnavailable: stream.CodeVoiceUnavailable,
	stream.CodeBackendTimeout:     stream.CodeVoiceTimeout,
	stream.CodeBackendBusy:        stream.CodeVoiceBusy,
	stream.CodeBackendError:       stream.CodeVoiceError,
	stream.CodeBackendRefused:     stream.CodeVoiceError,
	stream.CodeChatTooLong:        stream.CodeVoiceError,
}

// voiceError says what a call's error means for speech. A backend that does not
// know the call has no voice.
func voiceError(err error) *stream.BackendError {
	e := backendError(err)
	e.Code = voiceCodes[e.Code]
	switch status.Code(err) {
	case codes.Unimplemented:
		e.Code = stream.CodeVoiceUnavailable
	case codes.InvalidArgument, codes.OutOfRange:
		e.Code = stream.CodeVoiceRefused
	}
	return e
}

// tooLarge tells a message over somebody's size limit from a backend without
// capacity: gRPC has one code for both, and only the first will be the same
// next time. The words are those of grpc-go, of the C core (Python, Ruby, C++)
// and of grpc-java.
func tooLarge(message string) bool {
	return strings.Contains(message, "larger than max") ||
		strings.Contains(message, "exceeds maximum size")
}
