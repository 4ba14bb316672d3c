package aigrpc

import (
	"context"
	"errors"
	"io"
	"math"
	"time"

	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"

	"parley/aigrpc/amandaai"
	"parley/stream"
)

const (
	// A piece of a recording that is sent at once: a slow transcriber takes it
	// within the deadline of a chunk.
	maxPieceBytes = 32 << 10
	// A message holds as much in UTF-8; more than this is no transcript.
	maxTranscriptBytes = 128 << 10
	// What the longest message takes to be spoken slowly, in WAV.
	maxSpeechBytes = 256 << 20
)

// A Voice is a connection to a backend that hears and speaks. It may be used by
// many goroutines. It connects, and connects again, by itself; Close ends it.
type Voice struct {
	conn      *grpc.ClientConn
	service   amandaai.VoiceServiceClient
	breaker   *gobreaker.TwoStepCircuitBreaker[struct{}]
	deadlines Deadlines
	stop      func() // ends a backend of our own
}

var _ stream.Synthesizer = (*Voice)(nil)

// DialVoice makes a client of the backend that c describes, as Dial does, for
// speech. Of a recording, c.Deadlines say how long the transcript may take to
// begin from the recording's end on, how long it may then be silent, or not take
// the next 32 KiB of the recording, and how long it may take in all from that end
// on. Of speech, they are as of a reply.
func DialVoice(c Config, more ...grpc.DialOption) (*Voice, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return newVoice(c.Target, c.Deadlines, append(opts, more...)...)
}

func newVoice(target string, d Deadlines, opts ...grpc.DialOption) (*Voice, error) {
	conn, err := connect(target, opts...)
	if err != nil {
		return nil, err
	}
	return &Voice{
		conn:      conn,
		service:   amandaai.NewVoiceServiceClient(conn),
		breaker:   newBreaker(),
		deadlines: d.withDefaults(),
		stop:      func() {},
	}, nil
}

// Close ends the connection and fails the calls that run on it. A backend in this
// process has ended when it returns. nil has nothing to close.
func (v *Voice) Close() error {
	if v == nil {
		return nil
	}
	err := v.conn.Close()
	v.stop()
	return err
}

// Synthesize has a text spoken, as stream.Synthesizer says.
func (v *Voice) Synthesize(ctx context.Context, s stream.Speech, each func(audio []byte) error) error {
	c, err := v.begin(ctx)
	if err != nil {
		return err
	}
	defer c.end()
	c.wait(c.limits.FirstChunk)
	speech, err := v.service.Synthesize(c.ctx, &amandaai.SpeechRequest{Text: s.Text, Voice: s.Voice, Speed: s.Speed, Format: s.Format})
	if err != nil {
		return c.failure(err)
	}
	for size := 0; ; {
		chunk, err := speech.Recv()
		c.came()
		switch {
		case c.ctx.Err() != nil:
			return c.failure(c.ctx.Err()) // a backend may take the call's end for a good one
		case errors.Is(err, io.EOF) && size > 0:
			return nil
		case errors.Is(err, io.EOF):
			return c.fault(errEmpty)
		case err != nil:
			return c.failure(err)
		}
		c.tell(nil)
		if size += len(chunk.GetData()); size > maxSpeechBytes {
			return c.fault(errTooMuch)
		}
		if len(chunk.GetData()) > 0 {
			if err := each(chunk.GetData()); err != nil {
				return err
			}
		}
		c.wait(c.limits.Chunk)
	}
}

// A call is one call to a backend that hears or speaks.
type call struct {
	asked    context.Context //nolint:containedctx // of who asked
	ctx      context.Context //nolint:containedctx // the call's own
	cancel   context.CancelCauseFunc
	patience *time.Timer
	limits   Deadlines
	since    time.Time     // when the backend was waited for
	spent    time.Duration // how long it was waited for before
	begun    func(error)   // tells the breaker; nil once it was told
}

// begin begins a call, unless the backend is known to be down.
func (v *Voice) begin(ctx context.Context) (*call, error) {
	begun, err := v.breaker.Allow()
	switch {
	case errors.Is(err, gobreaker.ErrOpenState):
		return nil, &stream.BackendError{Code: stream.CodeVoiceUnavailable, Retryable: true, Err: errDown}
	case err != nil:
		begun = nil // another call tries whether it is back, and may take long
	}
	c := &call{asked: ctx, limits: v.deadlines, begun: begun}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.patience = time.AfterFunc(math.MaxInt64, func() { c.cancel(errSilent) })
	return c, nil
}

// end ends the call, whatever became of it.
func (c *call) end() {
	c.patience.Stop()
	c.cancel(nil)
	c.tell(context.Canceled) // which says nothing of the backend
}

// wait gives the backend that long for what comes next, and no more than what is
// left of all its time.
func (c *call) wait(d time.Duration) {
	c.since = time.Now()
	c.patience.Reset(min(d, max(0, c.limits.Reply-c.spent)))
}

// came says that something has come. What is done with it is not the backend's
// time.
func (c *call) came() {
	c.patience.Stop()
	c.spent += time.Since(c.since)
}

// tell tells the breaker, once, how the call began.
func (c *call) tell(err error) {
	if c.begun != nil {
		c.begun(err)
		c.begun = nil
	}
}

// failure is err as whoever asked, and the breaker, are told.
func (c *call) failure(err error) error {
	switch {
	case c.asked.Err() != nil:
		err = c.asked.Err()
	case c.ctx.Err() != nil:
		err = &stream.BackendError{Code: stream.CodeVoiceTimeout, Retryable: true, Err: context.Cause(c.ctx)}
	default:
		err = voiceError(err)
	}
	c.tell(err)
	return err
}

// fault is an answer that is none.
func (c *call) fault(err error) error {
	c.tell(nil)
	return &stream.BackendError{Code: stream.CodeVoiceError, Retryable: true, Err: err}
}
