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
func (c *Client) Reply(ctx context.Context, p *stream.Prompt, each func(stream.Chunk) error) error {
	a := &answer{asked: ctx, limits: c.deadlines, end: time.Now().Add(c.deadlines.Reply), begun: c.watch()}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	defer a.cancel(nil) // tells a backend that still writes
	a.patience = time.AfterFunc(a.limit(a.limits.FirstChunk), a.giveUp)
	defer a.patience.Stop()

	// Whoever waits here does so for minutes, thousands of times, and would keep
	// all of the stack that asking needs.
	asked := make(chan error)
	go func() { asked <- c.ask(a, p) }()
	if err := <-asked; err != nil {
		return a.failure(err)
	}
	for !a.chunk.Done {
		if err := a.next(); err != nil {
			return err
		}
		if err := each(a.chunk); err != nil {
			return err
		}
	}
	return nil
}

// An answer is one call to the backend.
type answer struct {
	incoming

	asked    context.Context //nolint:containedctx // of who asked
	ctx      context.Context //nolint:containedctx // the call's own
	cancel   context.CancelCauseFunc
	patience *time.Timer // one for all limits: what a call holds is held by thousands of them
	limits   Deadlines
	end      time.Time
	stream   grpc.ClientStream
	begun    func(error) // tells the breaker; nil once it was told
}

// limit is d, or what is left of the time that the whole answer may take.
func (a *answer) limit(d time.Duration) time.Duration { return min(d, time.Until(a.end)) }

func (a *answer) giveUp() {
	if time.Now().Before(a.end) {
		a.cancel(errSilent)
	} else {
		a.cancel(errSlow)
	}
}

// next reads the next chunk.
func (a *answer) next() error {
	if a.begun == nil {
		a.patience.Reset(a.limit(a.limits.Chunk))
	}
	err := a.stream.RecvMsg(&a.incoming)
	a.patience.Stop()
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF), a.ctx.Err() != nil:
		// A backend may take the call's end for a good one.
		return a.failure(err)
	case a.begun != nil:
		a.tell(nil)
		return &stream.BackendError{Code: stream.CodeBackendError, Retryable: true, Err: errEmpty}
	default:
		a.incoming.end()
	}
	a.tell(nil)
	return nil
}

// tell tells the breaker, once, how the answer began.
func (a *answer) tell(err error) {
	if a.begun != nil {
		a.begun(err)
		a.begun = nil
	}
}

// failure is err as whoever asked, and the breaker, are told.
func (a *answer) failure(err error) error {
	switch {
	case a.asked.Err() != nil:
		err = a.asked.Err()
	case a.ctx.Err() != nil:
		err = &stream.BackendError{
			Code:      stream.CodeBackendTimeout,
			Retryable: true,
			Err:       context.Cause(a.ctx),
		}
	default:
		err = backendError(err)
	}
	a.tell(err)
	return err
}

// ask sends p and opens the stream of its answer, which ends with a.ctx.
func (c *Client) ask(a *answer, p *stream.Prompt) (err error) {
	a.stream, err = c.conn.NewStream(a.ctx, streamChat, amandaai.AIService_StreamChat_FullMethodName, replyOptions...)
	if err != nil {
		return err
	}
	if err := a.stream.SendMsg(chatMessage(p)); err != nil {
		return err
	}
	return a.stream.CloseSend()
}

// chatMessage is p as it goes over the wire.
func chatMessage(p *stream.Prompt) *amandaai.ChatMessage {
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
