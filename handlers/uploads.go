package handlers

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"parley/auth"
	"parley/models"
	"parley/voice"
)

// maxChunk is how long a chunk of an upload may be, in bytes.
const maxChunk = 1 << 20

// beginUpload answers POST /voice/uploads.
func (s *server) beginUpload(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		Format *string `json:"format"`
		ChatID *int64  `json:"chat_id"`
	}
	body, err := readJSON(r)
	if err != nil {
		return err
	}
	if err := unmarshal(body, &in); err != nil {
		return err
	}
	if in.Format == nil {
		return required("format", "")
	}
	wish, err := newWish(in.ChatID, in.Format, nil, nil)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r, body)
	if err != nil {
		return err
	}
	u, _, err := s.voice.Begin(r.Context(), models.NewUpload{
		UserID: caller.UserID, ChatID: wish.ChatID, Format: wish.Format, Key: key,
	})
	if err != nil {
		return err
	}
	w.Header().Set("Location", fmt.Sprintf("%s/voice/uploads/%d", mounts[0], u.ID))
	return reply(w, http.StatusCreated, struct {
		UploadID      int64     `json:"upload_id"`
		Offset        int64     `json:"offset"`
		MaxChunkBytes int64     `json:"max_chunk_bytes"`
		ExpiresAt     timestamp `json:"expires_at"`
	}{u.ID, u.Size, maxChunk, timestamp(u.ExpiresAt)})
}

// addChunk answers POST /voice/uploads/{id}/chunks.
func (s *server) addChunk(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	offset, err := uploadOffset(r.Header)
	if err != nil {
		return err
	}
	sums, err := digestsOf(r.Header)
	if err != nil {
		return err
	}
	u, err := s.db.Upload(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	buffer := chunkBuffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put
	defer chunkBuffers.Put(buffer)
	data, err := readChunk(w, r, *buffer)
	if err != nil {
		return err
	}
	for _, sum := range sums {
		if !bytes.Equal(sum.of(data), sum.want) {
			return errDigestMismatch
		}
	}
	u, err = s.voice.Append(r.Context(), u, offset, data)
	var wrong *models.WrongOffset
	switch {
	case errors.As(err, &wrong):
		return offsetMismatch(wrong.Want)
	case errors.Is(err, models.ErrUploadWhole):
		return uploadComplete(u.Size)
	case err != nil:
		return err
	}
	w.Header().Set("Upload-Offset", strconv.FormatInt(u.Size, 10))
	return reply(w, http.StatusOK, struct {
		Offset int64 `json:"offset"`
	}{u.Size})
}

// getUpload answers GET /voice/uploads/{id}.
func (s *server) getUpload(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	u, err := s.db.Upload(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	w.Header().Set("Upload-Offset", strconv.FormatInt(u.Size, 10))
	return reply(w, http.StatusOK, encodeUpload(u))
}

// dropUpload answers DELETE /voice/uploads/{id}.
func (s *server) dropUpload(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if err := s.voice.Drop(r.Context(), caller.UserID, id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

type uploadJSON struct {
	UploadID  int64     `json:"upload_id"`
	ChatID    int64     `json:"chat_id,omitempty"`
	MessageID int64     `json:"message_id,omitempty"` // the reply, once there is one
	Format    string    `json:"format"`
	Offset    int64     `json:"offset"`
	Complete  bool      `json:"complete"`
	CreatedAt timestamp `json:"created_at"`
	ExpiresAt timestamp `json:"expires_at"`
}

func encodeUpload(u models.Upload) uploadJSON {
	return uploadJSON{u.ID, u.ChatID, u.MessageID, u.Format, u.Size, u.Whole, timestamp(u.CreatedAt), timestamp(u.ExpiresAt)}
}

// uploadOffset reads Upload-Offset, a decimal number.
func uploadOffset(h http.Header) (int64, error) {
	values := h.Values("Upload-Offset")
	if len(values) == 1 {
		n, err := strconv.ParseInt(values[0], 10, 64)
		if err == nil && n >= 0 && strconv.FormatInt(n, 10) == values[0] {
			return n, nil
		}
	}
	return 0, invalid("invalid_upload_offset", "Upload-Offset", "Upload-Offset is the number of bytes before the chunk.")
}

// chunkBuffers are for one chunk each, and a byte more.
var chunkBuffers = sync.Pool{New: func() any {
	b := make([]byte, maxChunk+1)
	return &b
}}

// readChunk reads the body of r, a part of a recording, into a buffer of
// chunkBuffers.
func readChunk(w http.ResponseWriter, r *http.Request, buffer []byte) ([]byte, error) {
	if r.ContentLength > maxChunk {
		return nil, errChunkTooLarge
	}
	n, err := io.ReadFull(newTimedBody(w, r, chunkTimeout), buffer)
	switch {
	case err == nil:
		return nil, errChunkTooLarge
	case n == 0 && errors.Is(err, io.EOF):
		return nil, errEmptyChunk
	case errors.Is(err, io.ErrUnexpectedEOF): // the body ends before the buffer
		return buffer[:n], nil
	}
	return nil, err
}

// A digest is what a client says that its body has.
type digest struct {
	of   func([]byte) []byte
	want []byte
}

// algorithms are those by which a body is checked, under the names that RFC 3230
// and RFC 9530 give them. Others say nothing here.
var algorithms = map[string]func([]byte) []byte{
	"sha-256": func(data []byte) []byte { sum := sha256.Sum256(data); return sum[:] },
	"sha-512": func(data []byte) []byte { sum := sha512.Sum512(data); return sum[:] },
}

// digestsOf reads Digest (RFC 3230, section 4.3.2), and Content-Digest and
// Repr-Digest (RFC 9530, sections 2 and 3), whose values stand between colons.
func digestsOf(h http.Header) ([]digest, error) {
	var all []digest
	for name, fence := range map[string]string{"Digest": "", "Content-Digest": ":", "Repr-Digest": ":"} {
		for element := range strings.SplitSeq(strings.Join(h.Values(name), ","), ",") {
			algorithm, value, _ := strings.Cut(strings.TrimSpace(element), "=")
			of, known := algorithms[strings.ToLower(algorithm)]
			if !known {
				continue
			}
			value, opened := strings.CutPrefix(value, fence)
			value, closed := strings.CutSuffix(value, fence)
			want, err := base64.StdEncoding.Strict().DecodeString(value)
			if err != nil || !opened || !closed {
				return nil, invalid("invalid_digest", name, name+" holds no digest in base64.")
			}
			all = append(all, digest{of, want})
		}
	}
	return all, nil
}

// offsetMismatch is the answer to a chunk that does not fit: where to go on.
func offsetMismatch(offset int64) *problem {
	return &problem{
		status: http.StatusConflict, code: "offset_mismatch", offset: &offset,
		detail: "The chunk leaves a gap, or differs from what has arrived; offset says where to go on.",
	}
}

func uploadComplete(offset int64) *problem {
	return &problem{
		status: http.StatusConflict, code: "upload_complete", offset: &offset,
		detail: "The upload is complete; nothing can be added to it.",
	}
}

// oneFormat returns a format of sound that is known.
func oneFormat(format string) (string, error) {
	for _, known := range voice.Formats {
		if format == known {
			return format, nil
		}
	}
	return "", invalid("invalid_format", "format", "format must be one of "+strings.Join(voice.Formats, ", ")+".")
}
