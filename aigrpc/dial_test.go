package aigrpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/stream"
)

func TestDialRefuses(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		config aigrpc.Config
		want   error
	}{
		"a target without a port":               {aigrpc.Config{Target: "ai.example"}, aigrpc.ErrTarget},
		"a target with an empty port":           {aigrpc.Config{Target: "ai.example:"}, aigrpc.ErrTarget},
		"a CA file that is not there":           {aigrpc.Config{Target: "ai.example:1", TLS: true, CAFile: empty + "x"}, aigrpc.ErrCA},
		"a CA file without a certificate":       {aigrpc.Config{Target: "ai.example:1", TLS: true, CAFile: empty}, aigrpc.ErrCA},
		"a CA file without TLS":                 {aigrpc.Config{Target: "ai.example:1", CAFile: empty}, aigrpc.ErrCA},
		"a credential in the clear":             {aigrpc.Config{Target: "ai.example:1", Token: "s3cret"}, aigrpc.ErrInsecureToken},
		"a credential to a name like localhost": {aigrpc.Config{Target: "localhost.example:1", Token: "s3cret"}, aigrpc.ErrInsecureToken},
		"a credential to every address":         {aigrpc.Config{Target: "0.0.0.0:1", Token: "s3cret"}, aigrpc.ErrInsecureToken},
		"a credential with a line break":        {aigrpc.Config{Target: "localhost:1", Token: "s3cret\n"}, aigrpc.ErrToken},
		"a credential that is not ASCII":        {aigrpc.Config{Target: "localhost:1", Token: "s3cret€"}, aigrpc.ErrToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := aigrpc.Dial(tt.config)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the credential is in the error: %v", err)
			}
			if client != nil {
				t.Error("got a client, want none")
			}
			if err := tt.config.Check(); !errors.Is(err, tt.want) {
				t.Errorf("Check: got %v, want %v", err, tt.want)
			}
		})
	}
}

// An authority is a CA that lives as long as a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return authority{cert, key, file}
}

// server returns the credentials of a server at 127.0.0.1.
func (a authority) server(t *testing.T) credentials.TransportCredentials {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
}

func TestTheBackendsCertificateIsVerified(t *testing.T) {
	t.Parallel()
	ours, other := newAuthority(t), newAuthority(t)
	_, encrypted := serve(t, "", says(nil, text("Yes.")), grpc.Creds(ours.server(t)))
	_, plain := serve(t, "", says(nil, text("Yes.")))
	_, port, err := net.SplitHostPort(encrypted)
	if err != nil {
		t.Fatal(err)
	}
	unavailable := failure{"backend_unavailable", true}
	for name, tt := range map[string]struct {
		config aigrpc.Config
		want   failure
	}{
		"by the right CA":             {aigrpc.Config{Target: encrypted, TLS: true, CAFile: ours.file}, failure{}},
		"by another CA":               {aigrpc.Config{Target: encrypted, TLS: true, CAFile: other.file}, unavailable},
		"by the system's roots":       {aigrpc.Config{Target: encrypted, TLS: true}, unavailable},
		"for another name":            {aigrpc.Config{Target: "localhost:" + port, TLS: true, CAFile: ours.file}, unavailable},
		"where there is none":         {aigrpc.Config{Target: plain, TLS: true, CAFile: ours.file}, unavailable},
		"where it is not asked after": {aigrpc.Config{Target: encrypted}, unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := reply(t.Context(), dial(t, tt.config), stream.Prompt{})
			if got := failureOf(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
		})
	}
}

func TestTheCredentialGoesWithEveryCall(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, tt := range map[string]struct {
		config aigrpc.Config
		opts   []grpc.ServerOption
		want   []string
	}{
		"by TLS":                        {aigrpc.Config{TLS: true, CAFile: ca.file, Token: "mF_9.B5f-4.1JqM"}, []grpc.ServerOption{grpc.Creds(ca.server(t))}, []string{"Bearer mF_9.B5f-4.1JqM"}},
		"in the clear, to this machine": {aigrpc.Config{Token: "mF_9.B5f-4.1JqM"}, nil, []string{"Bearer mF_9.B5f-4.1JqM"}},
		"not, where there is none":      {aigrpc.Config{}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := make(chan []string, 1)
			see := func(ctx context.Context) { seen <- metadata.ValueFromIncomingContext(ctx, "authorization") }
			_, address := serve(
				t, "",
				func(_ *amandaai.ChatMessage, out answers) error {
					see(out.Context())
					return out.Send(text("Yes."))
				},
				append(tt.opts, grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
					see(s.Context())
					return status.Error(codes.Unimplemented, "")
				}))...,
			)
			tt.config.Target = address
			client := dial(t, tt.config)
			if _, err := reply(t.Context(), client, stream.Prompt{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(<-seen, tt.want); diff != "" {
				t.Errorf("Reply: got -, want +\n%s", diff)
			}
			if err := client.Health(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(<-seen, tt.want); diff != "" {
				t.Errorf("Health: got -, want +\n%s", diff)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	withHealth := func(s grpc_health_v1.HealthCheckResponse_ServingStatus) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, h := grpc.NewServer(), health.NewServer()
		h.SetServingStatus("", s)
		grpc_health_v1.RegisterHealthServer(server, h)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l)
		}()
		t.Cleanup(func() {
			server.Stop()
			<-done
		})
		return l.Addr().String()
	}
	_, without := serve(t, "", says(nil))
	const down = "127.0.0.1:1" // a port that no test is given

	for name, tt := range map[string]struct {
		target string
		want   failure
	}{
		"a backend that serves":            {withHealth(grpc_health_v1.HealthCheckResponse_SERVING), failure{}},
		"a backend that does not serve":    {withHealth(grpc_health_v1.HealthCheckResponse_NOT_SERVING), failure{"backend_unavailable", true}},
		"a backend without health service": {without, failure{}},
		"a backend that is down":           {down, failure{"backend_unavailable", true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := dial(t, aigrpc.Config{Target: tt.target}).Health(t.Context())
			if got := failureOf(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
		})
	}

	t.Run("a provider in process", func(t *testing.T) {
		t.Parallel()
		if err := inProcess(t, says(nil)).Health(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("a caller who leaves", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := inProcess(t, says(nil)).Health(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

func TestCloseEndsTheRepliesThatRun(t *testing.T) {
	t.Parallel()
	begun := make(chan bool, 1)
	client, err := aigrpc.InProcess(backend{answer: func(_ *amandaai.ChatMessage, out answers) error {
		begun <- true
		<-out.Context().Done()
		return nil
	}}, aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := reply(t.Context(), client, stream.Prompt{})
		ended <- err
	}()
	within(t, begun)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	want := failure{"backend_error", true} // gRPC says Canceled of a connection that was closed
	if got := failureOf(within(t, ended)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
