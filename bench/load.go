package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A load is a number of clients, each of which follows one reply. Requests are
// spread over its warm-up; then it is measured.
type load struct {
	streams  int
	rate     int
	measured time.Duration

	address   string
	headers   []string // each account's; the streams take turns
	elsewhere string   // where each reply is followed too, if not empty
}

// warmUp is as long as the requests need at startRate a second, so that what is
// measured is streams and not the writing of ten thousand messages at once.
func (l load) warmUp() time.Duration {
	return max(4*time.Second, time.Duration(l.streams)*time.Second/startRate)
}

const startRate = 300

// A result is what a load met with while it was measured.
type result struct {
	streams   int
	refused   int64
	tokens    int64
	took      time.Duration
	cpu       time.Duration
	rss       int64     // of the server, beyond what it began with
	latencies []float64 // ms, of a sample of the tokens
	first     []float64 // ms from the request to the first token
}

func (r result) quantile(q float64) float64      { return quantile(r.latencies, q) }
func (r result) firstQuantile(q float64) float64 { return quantile(r.first, q) }

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// A client follows one reply.
type client struct {
	header  string
	tokens  *atomic.Int64
	refused *atomic.Int64
	// window is which of the client's latencies are measured into; 0: none.
	window    *atomic.Int32
	n, every  int // tokens, and of how many one is timed
	latencies [1 + windows][]float64
	first     float64
	away      *client // follows the same replies elsewhere; nil: nobody does
}

// What latencies are measured into: the first window, or, in turn, windows without
// and beside others that sign in, so that what else the machine does falls on both.
const (
	alone   = 1
	windows = 16
)

func newClient() *client {
	return &client{tokens: new(atomic.Int64), refused: new(atomic.Int64), window: new(atomic.Int32), every: 10}
}

func (l load) run(ctx context.Context, server running) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.address, l.headers = server.address, server.headers
	pid := server.cmd.Process.Pid
	shared := newClient()
	tokens := shared.tokens
	clients, wait := l.start(ctx, shared)
	if err := pause(ctx, l.warmUp()+time.Second); err != nil {
		return result{}, err
	}
	from, err := spentBy(pid)
	if err != nil {
		return result{}, err
	}
	began, had := time.Now(), tokens.Load()
	shared.window.Store(alone)
	if err := pause(ctx, l.measured); err != nil {
		return result{}, err
	}
	shared.window.Store(0)
	to, err := spentBy(pid)
	if err != nil {
		return result{}, err
	}
	r := result{
		streams: l.streams,
		refused: shared.refused.Load(),
		tokens:  tokens.Load() - had,
		took:    time.Since(began),
		cpu:     to.cpu - from.cpu,
		rss:     to.rss - server.before.rss,
	}
	cancel()
	wait()
	for _, c := range clients {
		r.latencies = append(r.latencies, c.latencies[alone]...)
		if c.first > 0 {
			r.first = append(r.first, c.first)
		}
	}
	slices.Sort(r.latencies)
	slices.Sort(r.first)
	if r.tokens == 0 {
		return r, fmt.Errorf("no token arrived; %d of %d streams were refused", r.refused, l.streams)
	}
	return r, nil
}

// start sets the clients going, which count together in shared.
func (l load) start(ctx context.Context, shared *client) (clients []*client, wait func()) {
	var wg sync.WaitGroup
	for i := range l.streams {
		c := *shared
		c.header = l.headers[i%len(l.headers)]
		if l.elsewhere != "" {
			away := c
			c.away = &away
		}
		clients = append(clients, &c)
		wg.Go(func() {
			select {
			case <-time.After(l.warmUp() * time.Duration(i) / time.Duration(l.streams)):
				c.follow(ctx, l)
			case <-ctx.Done():
			}
		})
	}
	return clients, wg.Wait
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// follow asks for replies, one after the other, until ctx ends.
func (c *client) follow(ctx context.Context, l load) {
	for ctx.Err() == nil {
		if !c.one(ctx, l) {
			c.refused.Add(1)
			return
		}
	}
}

// one follows one reply to its end, or to ctx's.
func (c *client) one(ctx context.Context, l load) bool {
	tokens := 20_000
	if l.rate > 0 {
		tokens = l.rate * int((l.measured + 2*l.warmUp()).Seconds())
	}
	var elsewhere sync.WaitGroup
	defer elsewhere.Wait()
	return c.ask(ctx, l.address, c.question(l.rate, tokens), func(messageID int64) {
		if c.away == nil {
			return
		}
		elsewhere.Go(func() {
			request := fmt.Sprintf("GET /api/v1/messages/%d/stream HTTP/1.1\r\nHost: bench\r\n%s\r\n", messageID, c.header)
			if !c.away.ask(ctx, l.elsewhere, request, func(int64) {}) {
				c.refused.Add(1)
			}
		})
	})
}

// question is the request for a reply of so many tokens, at that many a second.
func (c *client) question(rate, tokens int) string {
	body := fmt.Sprintf(`{"message":"%d %d"}`, rate, tokens)
	return fmt.Sprintf("POST /api/v1/messages HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s",
		c.header, len(body), body)
}

// ask sends a request and follows the reply that answers it, to its end or to
// ctx's. Begun is told which reply that is.
func (c *client) ask(ctx context.Context, address, request string, begun func(messageID int64)) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return ctx.Err() != nil
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	asked := time.Now()
	if _, err := io.WriteString(conn, request); err != nil {
		return ctx.Err() != nil
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(conn, 2048), nil)
	if err != nil {
		return ctx.Err() != nil
	}
	if res.StatusCode != http.StatusOK {
		return false
	}
	defer res.Body.Close()
	return c.read(res.Body, asked, begun) || ctx.Err() != nil
}

// read counts the tokens of a stream and times some of them.
func (c *client) read(body io.Reader, asked time.Time, begun func(messageID int64)) bool {
	lines := bufio.NewReaderSize(body, 32<<10) // more than an event of Parley's, but for the last
	event := ""
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return false
		}
		if name, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
			event = strings.TrimSpace(string(name))
		}
		switch event {
		case "message_complete":
			return true
		case "error":
			return false
		case "message_token":
			c.count(line, asked)
		case "message_start":
			if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
				var start struct {
					MessageID int64 `json:"message_id"`
				}
				if json.Unmarshal(data, &start) != nil {
					return false
				}
				begun(start.MessageID)
			}
		}
	}
}

// count counts the tokens in a line.
func (c *client) count(line []byte, asked time.Time) {
	now := time.Now()
	for {
		i := bytes.IndexByte(line, mark)
		if i < 0 || len(line) < i+tokenSize {
			return
		}
		if c.first == 0 {
			c.first = float64(now.Sub(asked).Microseconds()) / 1000
		}
		if c.n++; c.n%c.every == 0 {
			if w := c.window.Load(); w > 0 {
				sent, err := strconv.ParseInt(string(line[i+1:i+1+momentSize]), 10, 64)
				if err == nil {
					c.latencies[w] = append(c.latencies[w], float64(now.UnixNano()-sent)/1e6)
				}
			}
		}
		c.tokens.Add(1)
		line = line[i+tokenSize:]
	}
}
