//go:build linux

package survival_test

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"parley/aigrpc/amandaai"
)

// An order is what a message asks the backend for.
type order struct {
	name  string
	bytes int           // of text, in all
	size  int           // of a chunk, in bytes, at the most
	pace  time.Duration // from one chunk to the next
}

// message writes the order down.
func (o order) message() string {
	return url.Values{
		"name": {o.name}, "bytes": {strconv.Itoa(o.bytes)}, "size": {strconv.Itoa(o.size)}, "pace": {o.pace.String()},
	}.Encode()
}

// readOrder reads what message wrote.
func readOrder(message string) (o order, err error) {
	v, err := url.ParseQuery(message)
	if err != nil {
		return o, err
	}
	o.name = v.Get("name")
	bytes, err1 := strconv.Atoi(v.Get("bytes"))
	size, err2 := strconv.Atoi(v.Get("size"))
	pace, err3 := time.ParseDuration(v.Get("pace"))
	o.bytes, o.size, o.pace = bytes, size, pace
	return o, cmp.Or(err1, err2, err3)
}

// alphabet is what scripts are made of: runes of every length in UTF-8, and
// those that JSON, SSE and JavaScript have their own ideas about.
var alphabet = []string{
	"a", "e", "n", "t", " ", "the ", "reply ", "that survives ", "ü", "ß", "é", "я", "ع", "語", "한", "€", "😀", "👩‍👧", "𝄞",
	"\n", "\n\n", "\r", "\r\n", "\t", `"`, `\`, `\u0000`, "\u0001", "\u001f", "\u007f", "\u2028", "\u2029", "\ufeff", "\ufffd",
	"data: ", "id: 1-0\n\n", ":", "</script>", "&",
}

// script is the text that an order is answered with.
func (o order) script() string { return o.variant("") }

// variant is another text of the same length.
func (o order) variant(salt string) string {
	h := fnv.New64a()
	h.Write([]byte(o.message() + salt))
	rng := rand.New(rand.NewPCG(h.Sum64(), 1))
	var b strings.Builder
	for b.Len() < o.bytes {
		b.WriteString(alphabet[rng.IntN(len(alphabet))])
	}
	return b.String()
}

// A call is one that the backend got.
type call struct {
	peer         string // the connection that it came by: one for each process
	message      string
	continueFrom string
	began        time.Time
	whole        string // the text that it leads to
	cancelled    time.Time
}

// says is what a backend says when it is asked for the nth time, from 1 on:
// text that goes on after continueFrom, or begins anew.
type says func(o order, n int, continueFrom string) (text string, continued bool)

// goesOn can go on from any text that it would say.
func goesOn(o order, _ int, continueFrom string) (string, bool) {
	rest, ok := strings.CutPrefix(o.script(), continueFrom)
	return rest, ok && continueFrom != ""
}

// beginsAnew always says all of it.
func beginsAnew(o order, _ int, _ string) (string, bool) { return o.script(), false }

// A backend is an AI service that answers orders.
type backend struct {
	amandaai.UnimplementedAIServiceServer
	address string
	says    says
	running atomic.Int64 // calls under way

	mu    sync.Mutex
	calls map[int64][]*call // by the id of the message
}

// newBackend serves a backend until the test ends.
func newBackend(t *testing.T, s says) *backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{address: listener.Addr().String(), says: s, calls: make(map[int64][]*call)}
	server := grpc.NewServer()
	amandaai.RegisterAIServiceServer(server, b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() { server.Stop(); <-done })
	return b
}

// StreamChat answers the order in m.
func (b *backend) StreamChat(m *amandaai.ChatMessage, out amandaai.AIService_StreamChatServer) error {
	o, err := readOrder(m.GetMessage())
	if err != nil {
		return err
	}
	b.running.Add(1)
	defer b.running.Add(-1)
	ctx := out.Context()
	c := &call{message: m.GetMessage(), continueFrom: m.GetContinueFrom(), began: time.Now()}
	if p, ok := peer.FromContext(ctx); ok {
		c.peer = p.Addr.String()
	}
	b.mu.Lock()
	b.calls[m.GetMessageId()] = append(b.calls[m.GetMessageId()], c)
	n := len(b.calls[m.GetMessageId()])
	b.mu.Unlock()

	text, continued := b.says(o, n, m.GetContinueFrom())
	b.mu.Lock()
	if c.whole = text; continued {
		c.whole = m.GetContinueFrom() + text
	}
	b.mu.Unlock()
	if err := b.tell(ctx, out, o, text, continued); err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		c.cancelled = time.Now()
		return err
	}
	return nil
}

// tell says text at the order's pace.
func (b *backend) tell(ctx context.Context, out amandaai.AIService_StreamChatServer, o order, text string, continued bool) error {
	for text != "" {
		n := min(max(o.size, 1), len(text))
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n++
		}
		if o.pace > 0 {
			select {
			case <-time.After(o.pace):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := out.Send(&amandaai.ChatChunk{Text: text[:n], Continued: continued}); err != nil {
			return err
		}
		text, continued = text[n:], false
	}
	return out.Send(&amandaai.ChatChunk{Done: true, FinishReason: "stop", Continued: continued})
}

// of returns the calls for a message so far.
func (b *backend) of(messageID int64) []call {
	b.mu.Lock()
	defer b.mu.Unlock()
	var calls []call
	for _, c := range b.calls[messageID] {
		calls = append(calls, *c)
	}
	return calls
}

// askedOncePerOwner reports what is wrong with the number of calls for the reply to
// a reader. An owner that is killed before it asks does not. A process that lost
// the reply and took it again is another owner, up to so often.
func (b *backend) askedOncePerOwner(r *reader, owners, inOneProcess int) error {
	messageID := r.messageID
	calls := slices.DeleteFunc(b.of(messageID), func(c call) bool { return c.message != r.order.message() })
	by := make(map[string]int) // by the connection
	for _, c := range calls {
		by[c.peer]++
		if by[c.peer] > inOneProcess {
			var all strings.Builder
			for _, c := range calls {
				fmt.Fprintf(&all, "\n%s by %s to go on from %d bytes", c.began.Format(time.StampMilli), c.peer, len(c.continueFrom))
			}
			return fmt.Errorf("message %d, sent %d times: an owner asked the backend twice, %s:%s", messageID, r.sends, c.peer, &all)
		}
	}
	if len(calls) > owners || len(calls) == 0 {
		return fmt.Errorf("message %d: %d calls to the backend by %d owners", messageID, len(calls), owners)
	}
	return nil
}
