package main

import (
	"flag"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"parley/aigrpc/amandaai"
)

// A source is an AI service that says nothing but what time it is: each token
// is the moment at which it was sent.
type source struct {
	amandaai.UnimplementedAIServiceServer
}

// mark begins a token, tokenSize bytes long: the time in nanoseconds, in 19
// decimal digits, and spaces. Parley cuts an event at a multiple of the size.
const (
	mark       = '@'
	momentSize = 19
	tokenSize  = 32
)

func appendMoment(b []byte) []byte {
	b = append(b, mark)
	b = strconv.AppendInt(b, time.Now().UnixNano(), 10)
	for len(b) < tokenSize {
		b = append(b, ' ')
	}
	return b
}

// StreamChat sends as many tokens as the message asks for, at that many a
// second ("rate tokens"; 0: as fast as flow control lets), the first after 5 ms.
func (source) StreamChat(m *amandaai.ChatMessage, out amandaai.AIService_StreamChatServer) error {
	words := strings.Fields(m.GetMessage())
	if len(words) > 0 && words[0] == aloud {
		return speakAloud(out)
	}
	if len(words) < 2 {
		return out.Send(&amandaai.ChatChunk{Done: true})
	}
	rate, _ := strconv.Atoi(words[0])
	tokens, _ := strconv.Atoi(words[1])
	time.Sleep(5 * time.Millisecond)
	began := time.Now()
	buf := make([]byte, 0, tokenSize)
	for i := range tokens {
		if rate > 0 {
			// On schedule, not one pause after the other: a late token is not
			// followed by later ones.
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		buf = appendMoment(buf[:0])
		if err := out.Send(&amandaai.ChatChunk{Text: string(buf)}); err != nil {
			return err
		}
	}
	return out.Send(&amandaai.ChatChunk{Done: true, FinishReason: "stop"})
}

// child runs the source or the relay until it is killed, and says on stdout
// where it listens.
func child(role string, args []string) error {
	flags := flag.NewFlagSet(role, flag.ExitOnError)
	backend := flags.String("backend", "", "the relay's source")
	profile := flags.String("profile", "", "file for a CPU profile")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	if role == "relay" {
		return relay(listener, *backend, *profile)
	}
	server := grpc.NewServer()
	amandaai.RegisterAIServiceServer(server, source{})
	amandaai.RegisterVoiceServiceServer(server, voiceSource{})
	return server.Serve(listener)
}
