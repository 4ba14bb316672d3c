package handlers

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"strings"
)

// ReadSound reads the sound of a JSON document, and returns whether the document
// is one that is taken.
func ReadSound(document string) (sound []byte, err error) {
	body := &soundJSON{from: bufio.NewReader(strings.NewReader(document))}
	r := &recordingReader{base64.NewDecoder(base64.RawStdEncoding, body), body}
	piece := make([]byte, 100)
	for {
		n, err := r.Read(piece)
		sound = append(sound, piece[:n]...)
		if errors.Is(err, io.EOF) {
			_, err = r.said()
			return sound, err
		}
		if err != nil {
			return nil, err
		}
	}
}
