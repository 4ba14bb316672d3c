package stream

import "context"

// Backend is the AI service that writes replies.
type Backend interface {
	// Admit says at once, by a *BackendError, that the service is known to be
	// down and a reply would fail.
	Admit() error

	// Reply asks for the answer to p and calls each for every chunk, in order
	// and from one goroutine, until the answer is done (nil), each returns an
	// error (returned as it is), ctx ends (its error), or the service fails (a
	// *BackendError). It may be called from many goroutines. p is not read once
	// a chunk has come.
	Reply(ctx context.Context, p *Prompt, each func(Chunk) error) error
}

// A Prompt is what the backend is asked: the message, and what was said before.
type Prompt struct {
	UserID, ChatID, MessageID int64

	Message string
	History []Turn // every earlier message, oldest first, without Message

	// ContinueFrom is the text that an earlier attempt at this reply had
	// saved. A backend that goes on from there says so in its first chunk.
	ContinueFrom string

	Model string // empty: the backend's choice
}

// A Turn is an earlier message of a chat.
type Turn struct{ Role, Content string }

// A Chunk is a piece of an answer. Its text is valid UTF-8 without NUL.
type Chunk struct {
	Text         string
	Done         bool
	FinishReason string // with Done
	Usage        *Usage // with Done, where the backend counts; before that, of what it has said so far
	Continued    bool   // in the first chunk: Text goes on from ContinueFrom
}

// Usage counts what an answer cost, in the backend's tokens.
type Usage struct{ InputTokens, OutputTokens int64 }

// A BackendError is an answer that failed. Code is one of the codes below, as
// an error event has it; Err says more and is for the log alone.
type BackendError struct {
	Code      string
	Retryable bool
	Err       error
}

func (e *BackendError) Error() string { return e.Code + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BackendError) Unwrap() error { return e.Err }

// The codes of a BackendError.
const (
	CodeBackendUnavailable = "backend_unavailable" // not to be reached
	CodeBackendTimeout     = "backend_timeout"     // silent for too long
	CodeBackendBusy        = "backend_busy"        // no capacity, over quota
	CodeBackendError       = "backend_error"       // broke off
	CodeBackendRefused     = "backend_refused"     // would refuse it again
	CodeChatTooLong        = "chat_too_long"       // for the model
)
