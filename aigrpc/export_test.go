package aigrpc

import (
	"google.golang.org/grpc"

	"parley/stream"
)

// Conn is the connection under c.
func Conn(c *Client) *grpc.ClientConn { return c.conn }

// Decoder returns a function that reads chunks' wire format as a reply does.
func Decoder() func([]byte) (stream.Chunk, error) {
	in := new(incoming)
	return func(wire []byte) (stream.Chunk, error) {
		err := in.decode(wire)
		return in.chunk, err
	}
}

// Mend mends the pieces of a text.
func Mend(pieces ...[]byte) string {
	var m mender
	var text string
	for _, p := range pieces {
		text += m.mend(p)
	}
	return text + m.rest()
}

// Hear reads a TranscriptChunk's wire format as a transcription does.
func Hear(wire []byte) (text string, final bool, err error) {
	var h heard
	err = h.decode(wire)
	return h.text, h.final, err
}
