package stream

import "parley/models"

// An ending is how a reply ended, and the event that says so.
type ending struct {
	status       string // of the message: complete, stopped or failed
	finishReason string
	code         string // of a failed one
	usage        *models.Usage
}

// failures says, for each code of an error event, what a person should read
// and whether sending again may help.
var failures = map[string]struct {
	message   string
	retryable bool
}{
	CodeBackendUnavailable: {"The AI service cannot be reached. What it said so far is kept; send again in a moment.", true},
	CodeBackendTimeout:     {"The AI service took too long. What it said so far is kept; send again in a moment.", true},
	CodeBackendBusy:        {"The AI service has no room at the moment. Send again in a moment.", true},
	CodeBackendError:       {"The AI service broke off. What it said so far is kept; send again to go on.", true},
	CodeBackendRefused:     {"The AI service refuses to answer, and would again: it may not be set up well. What it said so far is kept.", false},
	CodeChatTooLong:        {"The chat is too long for the AI model. What it said so far is kept; begin a new chat, or send less at once.", false},
	codeChatDeleted:        {"The chat was deleted.", false},
	codeMessageDeleted:     {"The message was deleted: the chat goes on without it.", false},
	codeInternal:           {"Something went wrong on our side. What was said so far is kept.", true},
}

const (
	codeChatDeleted    = "chat_deleted"
	codeMessageDeleted = "message_deleted"
	codeInternal       = "internal_error"
)

// endingOf tells how a stored reply ended.
func endingOf(m models.Message) ending {
	e := ending{status: m.Status}
	if m.FinishReason != nil {
		e.finishReason = *m.FinishReason
	}
	if m.ErrorCode != nil {
		e.code = *m.ErrorCode
	}
	if m.InputTokens != nil && m.OutputTokens != nil {
		e.usage = &models.Usage{InputTokens: *m.InputTokens, OutputTokens: *m.OutputTokens, Estimated: m.Estimated}
	}
	return e
}
