package aigrpc_test

import (
	"errors"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/stream"
)

// BenchmarkChunk measures a chunk's way from a server's Send to its taker,
// both ends of it, over a connection in memory. An operation is a chunk.
func BenchmarkChunk(b *testing.B) {
	chunk := text(" understand")
	client, err := aigrpc.InProcess(backend{answer: func(m *amandaai.ChatMessage, out answers) error {
		for range m.UserId {
			if err := out.Send(chunk); err != nil {
				return err
			}
		}
		return nil
	}}, aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { client.Close() })

	b.Run("reply", func(b *testing.B) {
		b.ReportAllocs()
		err := client.Reply(b.Context(), &stream.Prompt{UserID: int64(b.N)}, func(stream.Chunk) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	})
	b.Run("generated client and ordinary codec", func(b *testing.B) {
		b.ReportAllocs()
		ai := amandaai.NewAIServiceClient(aigrpc.Conn(client))
		answer, err := ai.StreamChat(b.Context(), &amandaai.ChatMessage{UserId: int64(b.N)})
		if err != nil {
			b.Fatal(err)
		}
		for {
			_, err := answer.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDecode measures the reading of a chunk alone.
func BenchmarkDecode(b *testing.B) {
	wire, err := proto.Marshal(text(" understand"))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("reply", func(b *testing.B) {
		b.ReportAllocs()
		decode := aigrpc.Decoder()
		for b.Loop() {
			if _, err := decode(wire); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("proto.Unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := proto.Unmarshal(wire, new(amandaai.ChatChunk)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
