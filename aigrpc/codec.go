package aigrpc

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"parley/stream"
)

// chunkCodec is protobuf for the calls of Reply and Transcribe: it writes as
// gRPC's own codec does, and reads what the backend says into an incoming or a
// heard, without a message in between.
type chunkCodec struct{}

// Name makes the content type the ordinary one: the wire format is the same.
func (chunkCodec) Name() string { return proto.Name }

func (chunkCodec) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2(proto.Name).Marshal(v)
}

func (chunkCodec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(interface{ decode(wire []byte) error })
	if !ok {
		return fmt.Errorf("aigrpc: cannot read a chunk into %T", v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return in.decode(buf.ReadOnlyData())
}

// The field numbers of ChatChunk and Usage.
const (
	fieldText         protowire.Number = 1
	fieldDone         protowire.Number = 2
	fieldFinishReason protowire.Number = 3
	fieldUsage        protowire.Number = 4
	fieldContinued    protowire.Number = 5

	fieldInputTokens  protowire.Number = 1
	fieldOutputTokens protowire.Number = 2
)

// The field numbers of TranscriptChunk.
const (
	fieldTranscript protowire.Number = 1
	fieldFinal      protowire.Number = 2
)

// finishStop is how an answer ended that does not say how.
const finishStop = "stop"

var errFieldNumber = errors.New("aigrpc: a field number beyond the greatest")

// An incoming is the receiving end of one answer: the chunk read last, and
// what is kept from one chunk to the next.
type incoming struct {
	chunk stream.Chunk
	text  mender
	used  *stream.Usage // told last
}

// decode reads a ChatChunk's wire format as proto.Unmarshal does (the last one
// of a repeated field holds, a repeated Usage is merged, what is unknown is
// skipped), but mends a string that is no UTF-8 instead of refusing it. It
// keeps nothing of b.
func (in *incoming) decode(b []byte) error {
	in.chunk = stream.Chunk{}
	var text, reason []byte
	for len(b) > 0 {
		f, rest, err := consumeField(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(fieldText, protowire.BytesType):
			text = f.bytes
		case f.is(fieldDone, protowire.VarintType):
			in.chunk.Done = protowire.DecodeBool(f.varint)
		case f.is(fieldFinishReason, protowire.BytesType):
			reason = f.bytes
		case f.is(fieldUsage, protowire.BytesType):
			if in.chunk.Usage == nil {
				in.chunk.Usage = new(stream.Usage)
			}
			if err := decodeUsage(f.bytes, in.chunk.Usage); err != nil {
				return err
			}
		case f.is(fieldContinued, protowire.VarintType):
			in.chunk.Continued = protowire.DecodeBool(f.varint)
		}
	}
	in.chunk.Text = in.text.mend(text)
	in.chunk.FinishReason = mendAll(reason)
	if in.chunk.Usage != nil {
		in.used = in.chunk.Usage
	}
	if in.chunk.Done {
		in.finish()
	}
	return nil
}

// end makes the chunk that an answer lacks whose stream simply ended.
func (in *incoming) end() {
	in.chunk = stream.Chunk{Done: true}
	in.finish()
}

// finish gives the last chunk what it lacks. A backend that counts as it goes may
// have told the usage before.
func (in *incoming) finish() {
	in.chunk.Text += in.text.rest()
	if in.chunk.FinishReason == "" {
		in.chunk.FinishReason = finishStop
	}
	in.chunk.Usage = in.used
}

func decodeUsage(b []byte, u *stream.Usage) error {
	for len(b) > 0 {
		f, rest, err := consumeField(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(fieldInputTokens, protowire.VarintType):
			u.InputTokens = int64(f.varint)
		case f.is(fieldOutputTokens, protowire.VarintType):
			u.OutputTokens = int64(f.varint)
		}
	}
	return nil
}

// A field is one field of a message: varint or bytes, by its type. Of another
// type it has no value.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	varint uint64
	bytes  []byte
}

func (f field) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

// consumeField reads the first field of b and returns what follows it.
func consumeField(b []byte) (f field, rest []byte, err error) {
	var n int
	f.num, f.typ, n = protowire.ConsumeTag(b)
	switch {
	case n < 0:
		return f, nil, protowire.ParseError(n)
	case f.num > protowire.MaxValidNumber:
		return f, nil, errFieldNumber
	}
	b = b[n:]
	switch f.typ {
	case protowire.VarintType:
		f.varint, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	default:
		n = protowire.ConsumeFieldValue(f.num, f.typ, b)
	}
	if n < 0 {
		return f, nil, protowire.ParseError(n)
	}
	return f, b[n:], nil
}
