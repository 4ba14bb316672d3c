package aigrpc_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/stream"
)

// FuzzDecode holds the decoder against proto.Unmarshal.
func FuzzDecode(f *testing.F) {
	for _, c := range []*amandaai.ChatChunk{
		{},
		{Text: "I see. 🙂"},
		{Done: true, FinishReason: "stop", Usage: &amandaai.Usage{InputTokens: 311, OutputTokens: -1}},
		{Text: "a\x00b", Continued: true, Usage: &amandaai.Usage{InputTokens: math.MinInt64}},
	} {
		b, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, b := range []string{
		"\x0a\x01a\x0a\x01b",               // text twice
		"\x22\x02\x08\x01\x22\x02\x10\x02", // usage in two parts
		"\x08\x05",                         // text as a varint
		"\x12\x01a",                        // done as bytes
		"\x10\x80\x80\x80\x80\x10",         // done beyond 32 bits
		"\x33\x08\x01\x34",                 // a group
		"\x33\x08\x01\x3c",                 // a group that another's end ends
		"\x0c",                             // the end of a group that is none
		"\x00\x00",                         // field number 0
		"\xf8\xff\xff\xff\x1f\x00",         // a field number beyond the greatest
		"\x0a\x05a",                        // cut off
		"\x0d\x01\x02\x03\x04",             // fixed32
		"\x09\x01\x02\x03\x04\x05\x06\x07\x08",
	} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var message amandaai.ChatChunk
		wrong := proto.Unmarshal(wire, &message)
		got, err := aigrpc.Decoder()(wire)
		if wrong != nil {
			// Bad UTF-8 is mended here, an error there.
			if err == nil && !strings.Contains(wrong.Error(), "UTF-8") {
				t.Fatalf("got %+v, want %v", got, wrong)
			}
			return
		}
		if err != nil {
			t.Fatalf("got %v, want %v", err, &message)
		}
		want := stream.Chunk{
			Text:         strings.ReplaceAll(message.Text, "\x00", "\uFFFD"),
			Done:         message.Done,
			FinishReason: strings.ReplaceAll(message.FinishReason, "\x00", "\uFFFD"),
			Continued:    message.Continued,
		}
		if message.Usage != nil {
			want.Usage = &stream.Usage{InputTokens: message.Usage.InputTokens, OutputTokens: message.Usage.OutputTokens}
		}
		if want.Done && want.FinishReason == "" {
			want.FinishReason = "stop"
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("got -, want +\n%s", diff)
		}
	})
}

// FuzzMend holds the mender against Go's own conversion, however a text is cut.
func FuzzMend(f *testing.F) {
	f.Add([]byte("a€b"), 2, 3)
	f.Add([]byte("🙂🙂"), 1, 6)
	f.Add([]byte("\x00\xff\xed\xa0\x80"), 3, 4)
	f.Add([]byte("a\xf0\x9f\x99"), 1, 4)
	f.Add([]byte("\xe2\x82\xe2\x82\xac"), 1, 2)
	f.Fuzz(func(t *testing.T, b []byte, i, j int) {
		i = min(max(i, 0), len(b))
		j = min(max(j, i), len(b))
		got := aigrpc.Mend(b[:i], b[i:j], b[j:])
		want := strings.ReplaceAll(string([]rune(string(b))), "\x00", "\uFFFD")
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
