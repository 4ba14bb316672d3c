package aigrpc_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/stream"
)

// An operator finds in the log why a backend refuses, and never what was said.
func TestWhyABackendRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		info *errdetails.ErrorInfo
		want string
	}{
		"without a reason": {nil, "aigrpc: the backend answered FailedPrecondition"},
		"a key that is refused": {
			&errdetails.ErrorInfo{Reason: "BAD_KEY", Domain: "amanda.ai", Metadata: map[string]string{"http_status": "401", "code": "invalid_api_key"}},
			"aigrpc: the backend answered FailedPrecondition: BAD_KEY, HTTP status 401",
		},
		"a reason alone": {&errdetails.ErrorInfo{Reason: "OVER_QUOTA"}, "aigrpc: the backend answered FailedPrecondition: OVER_QUOTA"},
		"what is no reason and no status": {
			&errdetails.ErrorInfo{Reason: "you said: s3cret", Metadata: map[string]string{"http_status": "s3cret"}},
			"aigrpc: the backend answered FailedPrecondition",
		},
		"a reason that is too long": {&errdetails.ErrorInfo{Reason: strings.Repeat("A", 64)}, "aigrpc: the backend answered FailedPrecondition"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := status.New(codes.FailedPrecondition, "s3cret")
			if tt.info != nil {
				var err error
				if s, err = s.WithDetails(tt.info); err != nil {
					t.Fatal(err)
				}
			}
			_, err := reply(t.Context(), inProcess(t, says(s.Err())), stream.Prompt{})
			var failed *stream.BackendError
			if !errors.As(err, &failed) {
				t.Fatalf("got %v, want a failure of the backend", err)
			}
			if got := failed.Err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
