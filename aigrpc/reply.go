package aigrpc

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"google.golang.org/grpc"

	"parley/aigrpc/amandaai"
	"parley/stream"
)

var (
	streamChat = &amandaai.AIService_ServiceDesc.Streams[0]

	// A message is kept until its first chunk is there, for the retry; by
	// default gRPC gives up the retry of one that is over 256 KiB.
	replyOptions = []grpc.CallOption{
		grpc.ForceCodecV2(chunkCodec{}),
		grpc.MaxRetryRPCBufferSize(math.MaxInt32),
		grpc.StaticMethod(),
	}
)

// Reply asks the backend for the answer to p, as stream.Backend says. The last
// chunk of an answer is done and has a finish reason, "stop" where the backend
// gives none or simply ends its stream. What the backend would send after it
// is not read. Only the backend's silence counts towards the deadlines of a
// chunk, not the time that each takes.
func (c *Client) Reply(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
	whole, release := context.WithTimeoutCause(ctx, c.deadlines.Reply, errSlow)
	defer release() // tells a backend that still writes
	call, cancel := context.WithCancelCause(whole)

	patience := time.AfterFunc(c.deadlines.FirstChunk, func() { cancel(errSilent) })
	defer patience.Stop()

	failure := func(err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case call.Err() != nil:
			return &stream.BackendError{
				Code:      stream.CodeBackendTimeout,
				Retryable: true,
				Err:       context.Cause(call),
			}
		}
		return backendError(err)
	}

	answer, err := c.ask(call, p)
	if err != nil {
		return failure(err)
	}
	var in incoming
	for begun := false; ; begun = true {
		err := answer.RecvMsg(&in)
		patience.Stop()
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF), call.Err() != nil:
			// A backend may take the call's deadline for a good end.
			return failure(err)
		case !begun:
			return &stream.BackendError{Code: stream.CodeBackendError, Retryable: true, Err: errEmpty}
		default:
			in.end()
		}
		if err := each(in.chunk); err != nil {
			return err
		}
		if in.chunk.Done {
			return nil
		}
		patience.Reset(c.deadlines.Chunk)
	}
}

// ask sends p and returns the stream of its answer, to be read with an
// incoming. The stream ends with ctx.
func (c *Client) ask(ctx context.Context, p stream.Prompt) (grpc.ClientStream, error) {
	answer, err := c.conn.NewStream(ctx, streamChat, amandaai.AIService_StreamChat_FullMethodName, replyOptions...)
	if err != nil {
		return nil, err
	}
	if err := answer.SendMsg(chatMessage(p)); err != nil {
		return nil, err
	}
	return answer, answer.CloseSend()
}

// chatMessage is p as it goes over the wire.
func chatMessage(p stream.Prompt) *amandaai.ChatMessage {
	// All turns in one allocation: a history may have thousands.
	turns := make([]amandaai.Turn, len(p.History))
	history := make([]*amandaai.Turn, len(p.History))
	for i, t := range p.History {
		turns[i].Role, turns[i].Content = t.Role, t.Content
		history[i] = &turns[i]
	}
	return &amandaai.ChatMessage{
		UserId:       p.UserID,
		ChatId:       p.ChatID,
		MessageId:    p.MessageID,
		Message:      p.Message,
		History:      history,
		ContinueFrom: p.ContinueFrom,
		Model:        p.Model,
	}
}
