package voice

import (
	"context"

	"github.com/gabriel-vasile/mimetype"

	"parley/models"
)

// The formats of recordings and of speech.
const (
	WebM = "webm"
	MP3  = "mp3"
	WAV  = "wav"
	Ogg  = "ogg"
)

// Formats are those that a recording may have.
var Formats = []string{WebM, MP3, WAV, Ogg}

// sniffed is how many of the first bytes tell the format of all files that have
// one. A recording that is shorter is looked at when it is whole.
const sniffed = 512

// Sniff returns the format of a recording with these first bytes, "" for none
// that is known.
func Sniff(head []byte) string {
	for m := mimetype.Detect(head); m != nil; m = m.Parent() {
		switch {
		case m.Is("video/webm"):
			return WebM
		case m.Is("audio/mpeg"):
			return MP3
		case m.Is("audio/wav"):
			return WAV
		case m.Is("audio/ogg"):
			return Ogg
		}
	}
	return ""
}

// sniff returns the format of u, behind whose stored bytes data follows.
// ErrUnsupported, or ErrFormatMismatch if it was said to be another.
func (r *Recordings) sniff(ctx context.Context, u models.Upload, data []byte) (string, error) {
	if u.Size == 0 {
		return formatOf(u, data)
	}
	stored, err := r.db.UploadHead(ctx, u.ID)
	if err != nil {
		return "", err
	}
	format, err := formatOf(u, append(stored, data[:min(len(data), sniffed)]...))
	if err == nil {
		return format, nil
	}
	// Whoever was faster has told it, and its bytes may be gone since it was used.
	now, gone := r.db.Upload(ctx, u.UserID, u.ID)
	switch {
	case gone != nil:
		return "", gone
	case now.Sniffed:
		return now.Format, nil
	}
	return "", err
}

// formatOf is sniff for these first bytes.
func formatOf(u models.Upload, head []byte) (string, error) {
	switch format := Sniff(head); {
	case format == "":
		return "", ErrUnsupported
	case u.Format != "" && u.Format != format:
		return "", ErrFormatMismatch
	default:
		return format, nil
	}
}
