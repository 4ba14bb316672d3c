package stream

import (
	"encoding/base64"
	"strconv"

	"parley/models"
)

// codeVoiceFailed says that the text of a reply is whole and its audio is not.
const codeVoiceFailed = "voice_failed"

// appendGreeting appends what comes before message_start. It has no id: a client
// who has no more than that begins anew.
func (v *voiceStep) appendGreeting(b []byte) []byte {
	if v.transcript != "" {
		b = appendPlain(b, "voice_transcribed", struct {
			Text string `json:"text"`
		}{v.transcript})
	}
	return appendProcessing(b, "thinking")
}

func appendProcessing(b []byte, status string) []byte {
	return appendPlain(b, "voice_processing", struct {
		Status string `json:"status"`
	}{status})
}

// maxEventAudio bounds the audio in bytes that is written at once: a multiple of
// three, so that its base64 (RFC 4648, section 4) can go on behind it.
const maxEventAudio = maxEventText / 4 * 3

// appendAudio appends the next part of an event with audio, of which told bytes
// were sent.
func (v *voiceStep) appendAudio(b []byte, at eventID, messageID int64, told int) (_ []byte, next int, done bool) {
	if told == 0 {
		if v.tail == tailAudio {
			at.seq++
			b = appendHead(b, "voice_audio", at)
			b = append(b, `{"seq":`...)
			b = strconv.AppendInt(b, int64(at.seq), 10)
		} else {
			at.seq = v.seq + 1
			b = appendHead(b, "voice_response", at)
			b = append(b, `{"message_id":`...)
			b = strconv.AppendInt(b, messageID, 10)
		}
		if v.audio != nil {
			b = append(b, `,"audio":"`...)
		}
	}
	if v.audio != nil {
		var some []byte
		if some, done = window(v.audio, told); len(some) > 0 {
			b = base64.StdEncoding.AppendEncode(b, some)
			told += len(some)
		}
		if !done {
			return b, told, false
		}
		b = append(b, '"')
	}
	b = append(b, `,"format":`...)
	b = appendString(b, []byte(v.format))
	return append(b, "}\n\n"...), 0, true
}

// window returns up to maxEventAudio bytes of the pieces one behind the other, from
// one on, and whether there are no more.
func window(pieces []audioPiece, from int) (some []byte, last bool) {
	for _, p := range pieces {
		if from >= len(p.data) {
			from -= len(p.data)
			continue
		}
		room := maxEventAudio - len(some)
		if room == 0 {
			return some, false
		}
		part := p.data[from:]
		if len(part) > room {
			return append(some, part[:room]...), false
		}
		some, from = append(some, part...), 0
	}
	return some, true
}

// appendVoiceFailed appends the last event of a reply of which not all was spoken.
func (v *voiceStep) appendVoiceFailed(b []byte, at eventID, messageID int64) []byte {
	at.seq = v.seq + 1
	return appendEvent(b, "error", at, struct {
		Failure
		MessageID int64 `json:"message_id"`
		Seq       int   `json:"seq"`
	}{
		Failure{
			Message:   "The text is whole, but not all of it could be spoken: the audio after piece " + strconv.Itoa(v.seq) + " is missing.",
			Code:      codeVoiceFailed,
			Retryable: true,
		}, messageID, v.seq,
	})
}

// appendVoice appends what a step of a spoken reply ends with, or the next part of
// it. last is true when the stream ends with it.
func (f *follower) appendVoice(b []byte, s step) (_ []byte, last bool) {
	id := f.reply.start.MessageID
	if s.voice.hint {
		b = appendProcessing(b, "synthesizing")
	}
	done := true
	switch {
	case s.voice.tail == tailNone:
		return b, false
	case s.voice.tail == tailEnding:
		b, done = f.appendEnding(b, s)
	case s.voice.state == models.SpeechFailed:
		b = s.voice.appendVoiceFailed(b, s.at, id)
	default:
		var told int
		b, told, done = s.voice.appendAudio(b, s.at, id, int(f.told))
		f.told = int32(told)
	}
	if !done {
		return b, false
	}
	f.told = 0
	return b, f.heardOut(s.voice)
}
