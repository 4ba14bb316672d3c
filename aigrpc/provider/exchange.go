package provider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// An event of a stream is a word or a sentence; more than this is a fault.
	maxEventBytes = 4 << 20
	// As much is read of an error's body.
	maxErrorBytes = 64 << 10

	idleConnections = 256
)

// An Exchange is one request to a server and its answer, as NewClient's clients
// see it: a library between them and a provider may hide a failure, log it, or
// quote in it what was said. It is for one goroutine.
type Exchange struct {
	fault *Fault
	read  int // bytes since the last event
}

type exchangeKey struct{}

// Watch begins an exchange: the one request that is made with the context.
func Watch(ctx context.Context) (context.Context, *Exchange) {
	x := new(Exchange)
	return context.WithValue(ctx, exchangeKey{}, x), x
}

// Event says that a whole event was read.
func (x *Exchange) Event() { x.read = 0 }

// Fault says why the server was not reached, why it refused, or why its answer
// could not be read to the end; nil if none of that happened.
func (x *Exchange) Fault() *Fault { return x.fault }

// NewClient returns a client of one server, whose requests are made with
// Watch's contexts. It is safe for concurrent use. It follows no redirect, which
// would take the key elsewhere, and sets no deadline but for connecting. To the
// library that uses it an answer that breaks off just ends: the exchange knows.
// CloseIdleConnections lets go of its connections.
func NewClient() *http.Client {
	return &http.Client{
		Transport: watched{&http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second},
			MaxIdleConns:           idleConnections,
			MaxIdleConnsPerHost:    idleConnections, // there is one host
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxErrorBytes,
			DisableCompression:     true, // a compressed stream arrives in lumps
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// watched is a transport that tells each request's exchange what happens.
type watched struct{ next *http.Transport }

func (t watched) CloseIdleConnections() { t.next.CloseIdleConnections() }

func (t watched) RoundTrip(r *http.Request) (*http.Response, error) {
	x, ok := r.Context().Value(exchangeKey{}).(*Exchange)
	if !ok {
		return nil, errors.New("provider: a request without an exchange")
	}
	res, err := t.next.RoundTrip(r)
	if err != nil {
		x.fault = NewFault(Unreachable)
		x.fault.cause = err
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes)) // what came of it is enough
		_ = res.Body.Close()
		x.fault = Explain(res.StatusCode, res.Header, body)
		res.Body = io.NopCloser(bytes.NewReader(body))
		return res, nil
	}
	res.Body = &watchedBody{res.Body, x}
	return res, nil
}

// watchedBody is a body that only ever ends.
type watchedBody struct {
	body io.ReadCloser
	x    *Exchange
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.x.fault != nil {
		return 0, io.EOF
	}
	n, err := b.body.Read(p)
	if b.x.read += n; b.x.read > maxEventBytes {
		b.x.fault = NewFault(Malformed)
		return 0, io.EOF
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.x.fault = NewFault(BrokeOff)
		err = io.EOF
	}
	return n, err
}

func (b *watchedBody) Close() error {
	_ = b.body.Close() // nothing is to be done about it
	return nil
}
