package aigrpc

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"

	"parley/stream"
)

const (
	// tripAfter is how many replies in a row the backend must fail to begin to
	// be taken for down.
	tripAfter = 5
	// openFor is how long it is then left alone before one reply may try again.
	openFor = 2 * time.Second
)

// downCodes are how calls fail of a backend that is down.
var downCodes = []string{
	stream.CodeBackendUnavailable, stream.CodeBackendTimeout, stream.CodeVoiceUnavailable, stream.CodeVoiceTimeout,
}

var errDown = errors.New("aigrpc: the backend failed several times in a row and is left alone for a moment")

// newBreaker returns what knows that the backend is down. Of a backend that
// refuses a reply, or breaks one off, it says nothing: that one is there.
func newBreaker() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsSuccessful: func(err error) bool {
			var failed *stream.BackendError
			return !errors.As(err, &failed) || !slices.Contains(downCodes, failed.Code)
		},
		IsExcluded: func(err error) bool { return errors.Is(err, context.Canceled) },
	})
}

// Admit says at once whether a reply would find the backend down.
func (c *Client) Admit() error {
	if c.breaker.State() != gobreaker.StateOpen {
		return nil
	}
	return &stream.BackendError{Code: stream.CodeBackendUnavailable, Retryable: true, Err: errDown}
}

// Down reports whether the backend has failed several times in a row and has not
// answered since, also while a reply may try again.
func (c *Client) Down() bool { return c.breaker.State() != gobreaker.StateClosed }

// watch tells the breaker how a reply begins, which is to be called once. One
// that the breaker would not have let pass is not its business: it was admitted
// before the backend failed, or is taken over and has to be tried.
func (c *Client) watch() (begun func(error)) {
	begun, err := c.breaker.Allow()
	if err != nil {
		return func(error) {}
	}
	return begun
}
