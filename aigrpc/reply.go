package aigrpc

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
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
	a := &answer{asked: ctx, limits: c.deadlines, start: time.Now(), begun: c.watch()}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	defer a.cancel(nil) // tells a backend that still writes
	first := min(a.limits.FirstChunk, a.limits.Reply)
	a.due.Store(int64(first))
	a.patience = time.AfterFunc(first, a.giveUp)
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
	limits   Deadlines
	start    time.Time
	due      atomic.Int64 // when the backend must have spoken, in nanoseconds from start; 0: it is not waited for
	patience *time.Timer  // comes when due may be, and then again: chunks come too fast to set it for each
	stream   grpc.ClientStream
	begun    func(error) // tells the breaker; nil once it was told
}

// giveUp ends the call if the backend is overdue, and comes again if it is not.
func (a *answer) giveUp() {
	now, due := time.Since(a.start), time.Duration(a.due.Load())
	switch {
	case a.ctx.Err() != nil:
	case due == 0: // what it will be is later than this
		a.patience.Reset(min(a.limits.Chunk, max(a.limits.Reply-now, time.Millisecond)))
	case now < due:
		a.patience.Reset(due - now)
	case due == a.limits.Reply:
		a.cancel(errSlow)
	default:
		a.cancel(errSilent)
	}
}

// next reads the next chunk.
func (a *answer) next() error {
	if a.begun == nil {
		now := time.Since(a.start)
		if now >= a.limits.Reply {
			a.cancel(errSlow)
		}
		a.due.Store(int64(min(now+a.limits.Chunk, a.limits.Reply)))
	}
	err := a.stream.RecvMsg(&a.incoming)
	a.due.Store(0)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF), a.ctx.Err() != nil:
		// A backend may take the call's end for a good one.
		return a.failure(err)
	case a.begun != nil:
		a.tell(nil)
		return &stream.BackendError{Code: stream.CodeBackendError, Retryable: true, Err: errEmpty}
	default:
		a.end()
	}
	if a.begun != nil {
		a.patience.Reset(min(a.limits.Chunk, a.limits.Reply-time.Since(a.start)))
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
