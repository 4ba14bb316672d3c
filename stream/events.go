package stream

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrInvalidEventID means that a last event id is not one that this reply sent.
var ErrInvalidEventID = errors.New("stream: no such event id")

// An eventID names a place in a reply: so many bytes of the text of one attempt,
// and so many pieces of its audio. What comes last of a spoken reply counts as a
// piece.
type eventID struct {
	attempt int
	offset  int64
	seq     int
}

// parseEventID reads "attempt-offset", or "attempt-offset-seq" where seq is not 0,
// all decimal and without signs, spaces or leading zeros.
func parseEventID(s string) (eventID, error) {
	a, rest, ok := strings.Cut(s, "-")
	o, q, spoken := strings.Cut(rest, "-")
	attempt, errA := parseDecimal(a)
	offset, errO := parseDecimal(o)
	if !ok || errA != nil || errO != nil || attempt < 1 || attempt > 1<<30 {
		return eventID{}, ErrInvalidEventID
	}
	id := eventID{attempt: int(attempt), offset: offset}
	if !spoken {
		return id, nil
	}
	seq, err := parseDecimal(q)
	if err != nil || seq < 1 || seq > 1<<30 {
		return eventID{}, ErrInvalidEventID
	}
	id.seq = int(seq)
	return id, nil
}

func parseDecimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 {
		return 0, ErrInvalidEventID
	}
	return n, nil
}

// comment is the heartbeat: a line that clients ignore.
const comment = ":\n\n"

// retryStart is the reconnection time that every stream begins with, in
// milliseconds. It travels with the first event, since a block of its own is
// an empty event to some clients.
const retryStart = "retry: 1000\n"

// appendRetry appends a block that only sets the reconnection time.
func appendRetry(b []byte, ms int) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, int64(ms), 10)
	return append(b, "\n\n"...)
}

// A position is where a stream stands behind an event: what its id says.
type position interface {
	append(b []byte) []byte
}

func (id eventID) append(b []byte) []byte {
	b = strconv.AppendInt(b, int64(id.attempt), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, id.offset, 10)
	if id.seq > 0 {
		b = append(b, '-')
		b = strconv.AppendInt(b, int64(id.seq), 10)
	}
	return b
}

// appendHead appends an event's first lines, up to and with "data: ".
func appendHead[P position](b []byte, event string, at P) []byte {
	b = append(b, "event: "...)
	b = append(b, event...)
	b = append(b, "\nid: "...)
	b = at.append(b)
	return append(b, "\ndata: "...)
}

func appendEvent[P position](b []byte, event string, at P, data any) []byte {
	b = appendHead(b, event, at)
	b = appendJSON(b, data)
	return append(b, "\n\n"...)
}

// appendPlain appends an event without an id: the client stays where it is.
func appendPlain(b []byte, event string, data any) []byte {
	b = append(b, "event: "...)
	b = append(b, event...)
	b = append(b, "\ndata: "...)
	b = appendJSON(b, data)
	return append(b, "\n\n"...)
}

// appendToken appends message_token, with the message's id where a stream has
// several. It is the hot path: no allocation.
func appendToken[P position](b []byte, at P, messageID int64, text []byte) []byte {
	b = appendHead(b, "message_token", at)
	b = append(b, '{')
	if messageID != 0 {
		b = append(b, `"message_id":`...)
		b = strconv.AppendInt(b, messageID, 10)
		b = append(b, ',')
	}
	b = append(b, `"text":`...)
	b = appendString(b, text)
	return append(b, "}\n\n"...)
}

// appendStart appends message_start.
func appendStart[P position](b []byte, at P, start *startInfo) []byte {
	b = appendHead(b, "message_start", at)
	b = append(b, `{"chat_id":`...)
	b = strconv.AppendInt(b, start.ChatID, 10)
	b = append(b, `,"user_message_id":`...)
	b = strconv.AppendInt(b, start.UserMessageID, 10)
	b = append(b, `,"message_id":`...)
	b = strconv.AppendInt(b, start.MessageID, 10)
	b = append(b, `,"title":`...)
	b = appendString(b, []byte(start.Title))
	return append(b, "}\n\n"...)
}

func appendReset[P position](b []byte, at P, messageID int64, attempt int) []byte {
	return appendEvent(b, "message_reset", at, struct {
		MessageID int64 `json:"message_id"`
		Attempt   int   `json:"attempt"`
	}{messageID, attempt})
}

type usageJSON struct {
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	Estimated    bool  `json:"estimated,omitempty"`
}

// appendEnding appends the event that ends a reply with this text.
func appendEnding[P position](b []byte, at P, messageID int64, text []byte, e ending) []byte {
	if e.status == "failed" {
		f, ok := failures[e.code]
		if !ok {
			f = failures[codeInternal]
		}
		return appendEvent(b, "error", at, struct {
			Message   string `json:"message"`
			Code      string `json:"code"`
			Retryable bool   `json:"retryable"`
			MessageID int64  `json:"message_id"`
		}{f.message, e.code, f.retryable, messageID})
	}
	var usage *usageJSON
	if e.usage != nil {
		usage = &usageJSON{e.usage.InputTokens, e.usage.OutputTokens, e.usage.Estimated}
	}
	event := "message_complete"
	if e.status == "stopped" {
		event = "message_stopped"
	}
	return appendEvent(b, event, at, struct {
		MessageID    int64      `json:"message_id"`
		FullText     string     `json:"full_text"`
		FinishReason string     `json:"finish_reason"`
		Usage        *usageJSON `json:"usage,omitempty"`
	}{messageID, string(text), e.finishReason, usage})
}

// appendJSON appends v. What is given to it here always has a JSON form.
func appendJSON(b []byte, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, data...)
}

const hexDigits = "0123456789abcdef"

// appendString appends text, which is valid UTF-8, as a JSON string (RFC 8259,
// section 7). U+2028 and U+2029 are escaped for readers that take JSON for
// JavaScript.
func appendString(b, text []byte) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= utf8.RuneSelf {
			if c == 0xe2 && i+2 < len(text) && text[i+1] == 0x80 && text[i+2]&^1 == 0xa8 {
				b = append(b, text[from:i]...)
				b = append(b, `\u202`...)
				b = append(b, hexDigits[text[i+2]&0xf])
				i += 3
				from = i
				continue
			}
			i++
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, text[from:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		from = i
	}
	b = append(b, text[from:]...)
	return append(b, '"')
}
