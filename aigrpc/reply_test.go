package aigrpc_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
	"parley/stream"
)

func TestReplyGivesWhatTheBackendSends(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB
	for name, tt := range map[string]struct {
		answer func(*amandaai.ChatMessage, answers) error
		want   []stream.Chunk
	}{
		"words, then done with a reason and the usage": {
			says(nil, text("I "), text("see."), &amandaai.ChatChunk{
				Done: true, FinishReason: "length", Usage: &amandaai.Usage{InputTokens: 311, OutputTokens: 58},
			}),
			[]stream.Chunk{
				{Text: "I "},
				{Text: "see."},
				{Done: true, FinishReason: "length", Usage: &stream.Usage{InputTokens: 311, OutputTokens: 58}},
			},
		},
		"done in the same chunk as text, without a reason": {
			says(nil, &amandaai.ChatChunk{Text: "Yes.", Done: true}),
			[]stream.Chunk{{Text: "Yes.", Done: true, FinishReason: "stop"}},
		},
		"a stream that ends well without done": {
			says(nil, text("Yes.")),
			[]stream.Chunk{{Text: "Yes."}, {Done: true, FinishReason: "stop"}},
		},
		"the usage that was told last, where done has none": {
			says(nil, usedSoFar("Yes", 5, 1), usedSoFar(".", 5, 2), &amandaai.ChatChunk{Done: true}),
			[]stream.Chunk{
				{Text: "Yes", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 1}},
				{Text: ".", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 2}},
				{Done: true, FinishReason: "stop", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 2}},
			},
		},
		"the usage of a stream that ends well without done": {
			says(nil, usedSoFar("Yes.", 5, 2)),
			[]stream.Chunk{
				{Text: "Yes.", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 2}},
				{Done: true, FinishReason: "stop", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 2}},
			},
		},
		"the usage with done before any other": {
			says(nil, usedSoFar("Yes.", 5, 1), &amandaai.ChatChunk{Done: true, Usage: &amandaai.Usage{InputTokens: 5, OutputTokens: 2}}),
			[]stream.Chunk{
				{Text: "Yes.", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 1}},
				{Done: true, FinishReason: "stop", Usage: &stream.Usage{InputTokens: 5, OutputTokens: 2}},
			},
		},
		"an answer that goes on from a given text": {
			says(nil, &amandaai.ChatChunk{Text: " more", Continued: true}, &amandaai.ChatChunk{Done: true}),
			[]stream.Chunk{{Text: " more", Continued: true}, {Done: true, FinishReason: "stop"}},
		},
		"nothing after done": {
			says(status.Error(codes.Internal, "broken"), &amandaai.ChatChunk{Text: "Yes.", Done: true}, text("No.")),
			[]stream.Chunk{{Text: "Yes.", Done: true, FinishReason: "stop"}},
		},
		"a huge delta whole": {
			says(nil, &amandaai.ChatChunk{Text: huge, Done: true}),
			[]stream.Chunk{{Text: huge, Done: true, FinishReason: "stop"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, address := serve(t, "", tt.answer)
			for where, client := range map[string]*aigrpc.Client{
				"over TCP":   dial(t, aigrpc.Config{Target: address}),
				"in process": inProcess(t, tt.answer),
			} {
				got, err := reply(t.Context(), client, stream.Prompt{Message: "So?"})
				if err != nil {
					t.Errorf("%s: %v", where, err)
				}
				if diff := cmp.Diff(got, tt.want); diff != "" {
					t.Errorf("%s: got -, want +\n%s", where, diff)
				}
			}
		})
	}
}

func TestReplyMendsText(t *testing.T) {
	t.Parallel()
	// Wire format by the encoding guide: field 1, length-delimited, is tag
	// 0x0a; field 2, varint, is 0x10; field 3, length-delimited, is 0x1a.
	for name, tt := range map[string]struct {
		wire []raw
		want []stream.Chunk
	}{
		"a rune split over two chunks is put together": {
			[]raw{"\x0a\x03a\xe2\x82", "\x0a\x02\xacb", "\x10\x01"},
			[]stream.Chunk{{Text: "a"}, {Text: "€b"}, {Done: true, FinishReason: "stop"}},
		},
		"a half rune before done": {
			[]raw{"\x0a\x02a\xe2", "\x10\x01"},
			[]stream.Chunk{{Text: "a"}, {Text: "\uFFFD", Done: true, FinishReason: "stop"}},
		},
		"a half rune before the stream's end": {
			[]raw{"\x0a\x02a\xe2"},
			[]stream.Chunk{{Text: "a"}, {Text: "\uFFFD", Done: true, FinishReason: "stop"}},
		},
		"NUL": {
			[]raw{"\x0a\x03a\x00b\x10\x01"},
			[]stream.Chunk{{Text: "a\uFFFDb", Done: true, FinishReason: "stop"}},
		},
		"a finish reason that is no text": {
			[]raw{"\x10\x01\x1a\x03\x00\xffx"},
			[]stream.Chunk{{Done: true, FinishReason: "\uFFFD\uFFFDx"}},
		},
		"fields of a later version are skipped": {
			[]raw{"\x0a\x01a\xf8\x06\x05\x10\x01"},
			[]stream.Chunk{{Text: "a", Done: true, FinishReason: "stop"}},
		},
		"empty chunks": {
			[]raw{"", "\x0a\x01a\x10\x01"},
			[]stream.Chunk{{}, {Text: "a", Done: true, FinishReason: "stop"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, address := serve(t, "", func(_ *amandaai.ChatMessage, out answers) error {
				for _, w := range tt.wire {
					if err := out.SendMsg(w); err != nil {
						return err
					}
				}
				return nil
			}, grpc.ForceServerCodecV2(newRawCodec()))
			got, err := reply(t.Context(), dial(t, aigrpc.Config{Target: address}), stream.Prompt{})
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestReplyTellsFailures(t *testing.T) {
	t.Parallel()
	tooLong := &amandaai.ChatChunk{Text: strings.Repeat("x", 5<<20)}
	for name, tt := range map[string]struct {
		answer func(*amandaai.ChatMessage, answers) error
		want   failure
	}{
		"Unavailable":                    {says(status.Error(codes.Unavailable, "")), failure{"backend_unavailable", true}},
		"Unavailable after text":         {says(status.Error(codes.Unavailable, ""), text("I")), failure{"backend_unavailable", true}},
		"DeadlineExceeded":               {says(status.Error(codes.DeadlineExceeded, "")), failure{"backend_timeout", true}},
		"ResourceExhausted":              {says(status.Error(codes.ResourceExhausted, "quota")), failure{"backend_busy", true}},
		"a question too large for it":    {says(status.Error(codes.ResourceExhausted, "SERVER: Received message larger than max (9 vs. 4)")), failure{"backend_refused", false}},
		"Internal":                       {says(status.Error(codes.Internal, "")), failure{"backend_error", true}},
		"an error without a status":      {says(errors.New("broken")), failure{"backend_error", true}},
		"Canceled, by itself":            {says(status.Error(codes.Canceled, "")), failure{"backend_error", true}},
		"Aborted":                        {says(status.Error(codes.Aborted, "")), failure{"backend_error", true}},
		"InvalidArgument":                {says(status.Error(codes.InvalidArgument, "")), failure{"backend_refused", false}},
		"a chat that is too long":        {says(provider.NewFault(provider.ContextTooLong)), failure{"chat_too_long", false}},
		"a key that is refused":          {says(provider.NewFault(provider.BadKey)), failure{"backend_refused", false}},
		"a quota that is used up":        {says(provider.NewFault(provider.OverQuota)), failure{"backend_busy", true}},
		"Unauthenticated":                {says(status.Error(codes.Unauthenticated, "")), failure{"backend_refused", false}},
		"PermissionDenied":               {says(status.Error(codes.PermissionDenied, "")), failure{"backend_refused", false}},
		"Unimplemented":                  {says(status.Error(codes.Unimplemented, "")), failure{"backend_refused", false}},
		"a status that gRPC has not":     {says(status.Error(codes.Code(99), "")), failure{"backend_refused", false}},
		"a good end without an answer":   {says(nil), failure{"backend_error", true}},
		"a chunk over the limit":         {says(nil, tooLong), failure{"backend_refused", false}},
		"a chunk that is no wire format": {func(_ *amandaai.ChatMessage, out answers) error { return out.SendMsg(raw("\x0a\x05a")) }, failure{"backend_error", true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, address := serve(t, "", tt.answer, grpc.ForceServerCodecV2(newRawCodec()))
			_, err := reply(t.Context(), dial(t, aigrpc.Config{Target: address}), stream.Prompt{})
			if got := failureOf(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
		})
	}
}

func TestTheBackendIsAskedThePrompt(t *testing.T) {
	t.Parallel()
	asked := make(chan *amandaai.ChatMessage, 1)
	client := inProcess(t, func(m *amandaai.ChatMessage, out answers) error {
		asked <- m
		return out.Send(text("Yes."))
	})
	long := strings.Repeat("So it was. ", 1<<19) // beyond gRPC's default limit of 4 MiB
	_, err := reply(t.Context(), client, stream.Prompt{
		UserID: 1, ChatID: 2, MessageID: 3,
		Message:      "And now?",
		History:      []stream.Turn{{Role: "user", Content: long}, {Role: "assistant", Content: "I see."}},
		ContinueFrom: "Now",
		Model:        "small",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &amandaai.ChatMessage{
		UserId: 1, ChatId: 2, MessageId: 3,
		Message:      "And now?",
		History:      []*amandaai.Turn{{Role: "user", Content: long}, {Role: "assistant", Content: "I see."}},
		ContinueFrom: "Now",
		Model:        "small",
	}
	if diff := cmp.Diff(<-asked, want, protocmp.Transform()); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
}

func TestABackendThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	every := func(pause time.Duration) func(*amandaai.ChatMessage, answers) error {
		return func(_ *amandaai.ChatMessage, out answers) error {
			for out.Context().Err() == nil {
				if err := out.Send(text("and ")); err != nil {
					return err
				}
				time.Sleep(pause)
			}
			return out.Context().Err()
		}
	}
	hang := func(_ *amandaai.ChatMessage, out answers) error {
		<-out.Context().Done()
		return out.Context().Err()
	}
	for name, tt := range map[string]struct {
		answer func(*amandaai.ChatMessage, answers) error
		after  time.Duration
		chunks int
	}{
		"before its first chunk": {hang, 30 * time.Second, 0},
		"after a chunk":          {every(time.Hour), 30 * time.Second, 1},
		"never, but has no end":  {every(29 * time.Second), 10 * time.Minute, 21},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client := inProcess(t, tt.answer)
				start := time.Now()
				got, err := reply(t.Context(), client, stream.Prompt{})
				if got, want := failureOf(err), (failure{"backend_timeout", true}); got != want {
					t.Errorf("got %+v, want %+v: %v", got, want, err)
				}
				if len(got) != tt.chunks {
					t.Errorf("got %d chunks, want %d", len(got), tt.chunks)
				}
				if got := time.Since(start); got != tt.after {
					t.Errorf("got %v, want %v", got, tt.after)
				}
			})
		})
	}
}

// An answer that begins late has no more time in all.
func TestALateAnswerThatHangsIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, err := aigrpc.InProcess(backend{answer: func(_ *amandaai.ChatMessage, out answers) error {
			time.Sleep(8 * time.Minute)
			if err := out.Send(text("a")); err != nil {
				return err
			}
			<-out.Context().Done()
			return out.Context().Err()
		}}, aigrpc.Deadlines{FirstChunk: 9 * time.Minute, Chunk: 5 * time.Minute, Reply: 10 * time.Minute}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		start := time.Now()
		_, err = reply(t.Context(), client, stream.Prompt{})
		if got, want := failureOf(err), (failure{"backend_timeout", true}); got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
		if got, want := time.Since(start), 10*time.Minute; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestOnlyTheBackendsSilenceCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := inProcess(t, func(_ *amandaai.ChatMessage, out answers) error {
			if err := out.Send(text("a")); err != nil {
				return err
			}
			time.Sleep(time.Minute + time.Second)
			return out.Send(text("b"))
		})
		err := client.Reply(t.Context(), &stream.Prompt{}, func(stream.Chunk) error {
			time.Sleep(time.Minute)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestLeavingAReplyReachesTheBackend(t *testing.T) {
	t.Parallel()
	errEnough := errors.New("enough")
	for name, tt := range map[string]struct {
		first *amandaai.ChatChunk
		each  func(cancel context.CancelFunc) error
		want  error
	}{
		"when the context is cancelled": {
			text("I"), func(cancel context.CancelFunc) error { cancel(); return nil }, context.Canceled,
		},
		"when the taker has enough": {
			text("I"), func(context.CancelFunc) error { return errEnough }, errEnough,
		},
		"when it says done and stays": {
			&amandaai.ChatChunk{Done: true}, func(context.CancelFunc) error { return nil }, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan error, 1)
			_, address := serve(t, "", func(_ *amandaai.ChatMessage, out answers) error {
				err := out.Send(tt.first)
				<-out.Context().Done()
				left <- out.Context().Err()
				return err
			})
			client := dial(t, aigrpc.Config{Target: address})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := client.Reply(ctx, &stream.Prompt{}, func(stream.Chunk) error { return tt.each(cancel) })
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := within(t, left); !errors.Is(got, context.Canceled) {
				t.Errorf("got %v, want %v", got, context.Canceled)
			}
		})
	}
}

func TestACallersDeadlineIsItsOwnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := inProcess(t, func(*amandaai.ChatMessage, answers) error {
			time.Sleep(time.Hour) // the backend knows the deadline too
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := reply(ctx, client, stream.Prompt{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

func TestARetryIsMadeOnceAndBeforeTheFirstChunk(t *testing.T) {
	t.Parallel()
	down := status.Error(codes.Unavailable, "starting")
	large := stream.Prompt{Message: strings.Repeat("x", 1<<20)}
	for name, tt := range map[string]struct {
		prompt  stream.Prompt
		attempt []func(*amandaai.ChatMessage, answers) error
		want    failure
		calls   int64
	}{
		"a second attempt that answers":       {stream.Prompt{}, []func(*amandaai.ChatMessage, answers) error{says(down), says(nil, text("Yes."))}, failure{}, 2},
		"a second attempt of a large message": {large, []func(*amandaai.ChatMessage, answers) error{says(down), says(nil, text("Yes."))}, failure{}, 2},
		"no third attempt":                    {stream.Prompt{}, []func(*amandaai.ChatMessage, answers) error{says(down)}, failure{"backend_unavailable", true}, 2},
		"no second attempt after a chunk":     {stream.Prompt{}, []func(*amandaai.ChatMessage, answers) error{says(down, text("I"))}, failure{"backend_unavailable", true}, 1},
		"no second attempt after an error":    {stream.Prompt{}, []func(*amandaai.ChatMessage, answers) error{says(status.Error(codes.Internal, ""))}, failure{"backend_error", true}, 1},
		"no second attempt when it is busy":   {stream.Prompt{}, []func(*amandaai.ChatMessage, answers) error{says(status.Error(codes.ResourceExhausted, ""))}, failure{"backend_busy", true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			client := inProcess(t, func(m *amandaai.ChatMessage, out answers) error {
				n := min(int(calls.Add(1)), len(tt.attempt))
				return tt.attempt[n-1](m, out)
			})
			_, err := reply(t.Context(), client, tt.prompt)
			if got := failureOf(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
			if got := calls.Load(); got != tt.calls {
				t.Errorf("got %d calls, want %d", got, tt.calls)
			}
		})
	}
}

// It does not run in parallel: another test's server could get its port while
// that is free.
func TestABackendThatDiesAndComesBack(t *testing.T) {
	server, address := serve(t, "", func(_ *amandaai.ChatMessage, out answers) error {
		if err := out.Send(text("I")); err != nil {
			return err
		}
		<-out.Context().Done()
		return nil
	})
	client := dial(t, aigrpc.Config{Target: address})
	unavailable := failure{"backend_unavailable", true}

	var shown string
	err := client.Reply(t.Context(), &stream.Prompt{}, func(c stream.Chunk) error {
		shown += c.Text
		go server.Stop()
		return nil
	})
	if got := failureOf(err); got != unavailable || shown != "I" {
		t.Errorf("killed in the middle: got %+v after %q, want %+v after %q: %v", got, shown, unavailable, "I", err)
	}

	_, err = reply(t.Context(), client, stream.Prompt{})
	if got := failureOf(err); got != unavailable {
		t.Errorf("down: got %+v, want %+v: %v", got, unavailable, err)
	}

	serve(t, address, says(nil, text("Here again.")))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := reply(ctx, client, stream.Prompt{})
		if err == nil {
			break
		}
		if got := failureOf(err); got != unavailable {
			t.Fatalf("back: got %+v, want an answer: %v", got, err)
		}
	}
}

func TestAPanicOfAProviderFailsOneReply(t *testing.T) {
	t.Parallel()
	client := inProcess(t, func(m *amandaai.ChatMessage, out answers) error {
		if m.GetMessage() == "panic" {
			panic("a fault of the provider")
		}
		return out.Send(text("Yes."))
	})
	_, err := reply(t.Context(), client, stream.Prompt{Message: "panic"})
	if got, want := failureOf(err), (failure{"backend_error", true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := reply(t.Context(), client, stream.Prompt{Message: "so?"}); err != nil {
		t.Errorf("the next reply: %v", err)
	}
}
