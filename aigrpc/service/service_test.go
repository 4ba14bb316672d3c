package service_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/provider"
	"parley/aigrpc/service"
	"parley/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type answers = grpc.ServerStreamingServer[amandaai.ChatChunk]

// A companion answers as its function says.
type companion struct {
	amandaai.UnimplementedAIServiceServer
	answer func(*amandaai.ChatMessage, answers) error
}

func (c companion) StreamChat(m *amandaai.ChatMessage, out answers) error { return c.answer(m, out) }

// A patient is a companion that can be asked how it is.
type patient struct {
	companion
	health func(context.Context) error
}

func (p patient) Health(ctx context.Context) error { return p.health(ctx) }

func says(text string) companion {
	return companion{answer: func(_ *amandaai.ChatMessage, out answers) error {
		return out.Send(&amandaai.ChatChunk{Text: text, Done: true})
	}}
}

// A running is a service that serves.
type running struct {
	end   context.CancelFunc // begins its end
	ended <-chan error       // what Serve returns
}

// serve serves ai on l until the test ends.
func serve(t *testing.T, c service.Config, ai amandaai.AIServiceServer, l net.Listener) running {
	t.Helper()
	s, err := service.New(c, ai)
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { ended <- s.Serve(ctx, l) })
	t.Cleanup(func() {
		end()
		serving.Wait()
	})
	return running{end, ended}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// dial returns a plain connection to l, in memory or not.
func dial(t *testing.T, l net.Listener, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	target := l.Addr().String()
	if pipe, ok := l.(*bufconn.Listener); ok {
		target = "pipe"
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	}
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask returns the text that is answered, and the error it ends with.
func ask(ctx context.Context, conn *grpc.ClientConn, message string) (string, error) {
	answer, err := amandaai.NewAIServiceClient(conn).StreamChat(ctx, &amandaai.ChatMessage{Message: message})
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for {
		chunk, err := answer.Recv()
		if err != nil || chunk.GetDone() {
			return text.String() + chunk.GetText(), err
		}
		text.WriteString(chunk.GetText())
	}
}

func healthOf(ctx context.Context, conn *grpc.ClientConn, name string) (grpc_health_v1.HealthCheckResponse_ServingStatus, error) {
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
	return answer.GetStatus(), err
}

// within fails the test when nothing comes from c.
func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// certificate makes a certificate for 127.0.0.1 that vouches for itself, and
// returns its files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	_, otherKey := certificate(t)
	for name, tt := range map[string]struct {
		config service.Config
		want   error
	}{
		"a credential with a space":     {service.Config{Token: "s3cret s3cret"}, service.ErrToken},
		"a credential that is no ASCII": {service.Config{Token: "s3cret€"}, service.ErrToken},
		"a certificate without a key":   {service.Config{TLSCert: cert}, service.ErrCertificate},
		"a key without a certificate":   {service.Config{TLSKey: key}, service.ErrCertificate},
		"a key of another certificate":  {service.Config{TLSCert: cert, TLSKey: otherKey}, service.ErrCertificate},
		"a certificate that is no file": {service.Config{TLSCert: cert + "x", TLSKey: key}, service.ErrCertificate},
		"nothing as it ought":           {service.Config{Token: "s3cret", TLSCert: cert, TLSKey: key}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := service.New(tt.config, says("Yes."))
			if !errors.Is(err, tt.want) || (s == nil) != (tt.want != nil) {
				t.Errorf("got %v beside %v, want %v", err, s, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the credential is in the error: %v", err)
			}
		})
	}
}

// The client is the one that another Parley has.
func TestOneParleyAsksAnother(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	l := listen(t)
	serve(t, service.Config{Token: "mF_9.B5f-4.1JqM", TLSCert: cert, TLSKey: key}, says("Yes."), l)
	unavailable := &stream.BackendError{Code: "backend_unavailable"}
	for name, tt := range map[string]struct {
		config aigrpc.Config
		want   *stream.BackendError
	}{
		"with the credential":       {aigrpc.Config{TLS: true, CAFile: cert, Token: "mF_9.B5f-4.1JqM"}, nil},
		"with another credential":   {aigrpc.Config{TLS: true, CAFile: cert, Token: "other"}, &stream.BackendError{Code: "backend_refused"}},
		"without a credential":      {aigrpc.Config{TLS: true, CAFile: cert}, &stream.BackendError{Code: "backend_refused"}},
		"in the clear":              {aigrpc.Config{}, unavailable},
		"without trust in its word": {aigrpc.Config{TLS: true}, unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.config.Target = l.Addr().String()
			client, err := aigrpc.Dial(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var text string
			err = client.Reply(t.Context(), &stream.Prompt{Message: "Is it you?"}, func(c stream.Chunk) error {
				text += c.Text
				return nil
			})
			var failed *stream.BackendError
			switch {
			case tt.want == nil && (err != nil || text != "Yes."):
				t.Errorf("got %q, %v, want Yes.", text, err)
			case tt.want != nil && (!errors.As(err, &failed) || failed.Code != tt.want.Code || text != ""):
				t.Errorf("got %q, %v, want %v", text, err, tt.want.Code)
			}
			// The health is open to whoever gets as far as a connection.
			if err := client.Health(t.Context()); (err != nil) != (tt.want == unavailable) {
				t.Errorf("health: got %v", err)
			}
		})
	}
}

func TestOnlyTheHealthIsOpen(t *testing.T) {
	t.Parallel()
	l := listen(t)
	serve(t, service.Config{Token: "s3cret"}, says("Yes."), l)
	conn := dial(t, l)
	for name, tt := range map[string]struct {
		header []string
		want   codes.Code
	}{
		"no credential":                {nil, codes.Unauthenticated},
		"an empty one":                 {[]string{""}, codes.Unauthenticated},
		"the scheme alone":             {[]string{"Bearer"}, codes.Unauthenticated},
		"an empty token":               {[]string{"Bearer "}, codes.Unauthenticated},
		"another token":                {[]string{"Bearer s3cres"}, codes.Unauthenticated},
		"the beginning of it":          {[]string{"Bearer s3cre"}, codes.Unauthenticated},
		"more than it":                 {[]string{"Bearer s3cret2"}, codes.Unauthenticated},
		"another scheme":               {[]string{"Basic s3cret"}, codes.Unauthenticated},
		"two, of which one is right":   {[]string{"Bearer s3cret", "Bearer other"}, codes.Unauthenticated},
		"the right one":                {[]string{"Bearer s3cret"}, codes.OK},
		"the right one, in small type": {[]string{"bearer s3cret"}, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": tt.header})
			if _, err := ask(ctx, conn, "Hello."); status.Code(err) != tt.want {
				t.Errorf("an answer: got %v, want %v", err, tt.want)
			}
			names, err := services(ctx, conn)
			if status.Code(err) != tt.want {
				t.Errorf("reflection: got %v, want %v", err, tt.want)
			}
			want := []string{"amanda.ai.AIService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
			if diff := cmp.Diff(names, want); tt.want == codes.OK && diff != "" {
				t.Errorf("reflection: got -, want +\n%s", diff)
			}
			if got, err := healthOf(ctx, conn, ""); err != nil || got != grpc_health_v1.HealthCheckResponse_SERVING {
				t.Errorf("health: got %v, %v, want SERVING", got, err)
			}
		})
	}
}

// services asks by reflection which services there are.
func services(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mirror, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	question := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	_ = mirror.Send(question) // its failure is that of Recv
	answer, err := mirror.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, nil
}

func TestAPanicIsOneFailedCall(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	l := listen(t)
	ai := companion{answer: func(m *amandaai.ChatMessage, out answers) error {
		switch m.GetMessage() {
		case "panic":
			_ = m.GetHistory()[0]
		case "s3cret":
			panic("cannot answer " + m.GetMessage())
		case "fail":
			return provider.NewFault(provider.Busy)
		}
		return out.Send(&amandaai.ChatChunk{Text: "Yes.", Done: true})
	}}
	service := serve(t, service.Config{Log: slog.New(slog.NewTextHandler(&logged, nil))}, ai, l)
	conn := dial(t, l)
	for _, tt := range []struct {
		message string
		want    codes.Code
	}{{"hello", codes.OK}, {"panic", codes.Internal}, {"s3cret", codes.Internal}, {"fail", codes.ResourceExhausted}, {"hello", codes.OK}} {
		if _, err := ask(t.Context(), conn, tt.message); status.Code(err) != tt.want {
			t.Errorf("%s: got %v, want %v", tt.message, err, tt.want)
		}
	}
	service.end()
	if err := within(t, service.ended); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(logged.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %d lines, want 3:\n%s", len(lines), logged.String())
	}
	for i, want := range [][]string{
		{`level=ERROR msg="a call panicked" method=/amanda.ai.AIService/StreamChat`, "index out of range", "service_test.go"},
		{`level=ERROR msg="a call panicked" method=/amanda.ai.AIService/StreamChat`, "panic: string", "service_test.go"},
		{`level=WARN msg="a call failed" method=/amanda.ai.AIService/StreamChat code=ResourceExhausted reason=BUSY`},
	} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %d: got %s, want %s in it", i, lines[i], w)
			}
		}
	}
	if strings.Contains(logged.String(), "s3cret") {
		t.Errorf("what was said is in the log: %s", logged.String())
	}
}

func TestARequestHasItsBound(t *testing.T) {
	t.Parallel()
	l := listen(t)
	serve(t, service.Config{MaxRequestBytes: 1000}, says("Yes."), l)
	conn := dial(t, l)
	if _, err := ask(t.Context(), conn, strings.Repeat("x", 900)); err != nil {
		t.Error(err)
	}
	if _, err := ask(t.Context(), conn, strings.Repeat("x", 1001)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want %v", err, codes.ResourceExhausted)
	}
}

// What follows is in synthetic time, where nothing takes any unless it waits.

func TestTheHealthIsTheProviders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		well := false
		ai := patient{says("Yes."), func(ctx context.Context) error {
			if d, ok := ctx.Deadline(); !ok || time.Until(d) > 5*time.Second {
				t.Errorf("the deadline is %v, %v", d, ok)
			}
			mu.Lock()
			defer mu.Unlock()
			if !well {
				return errors.New("down")
			}
			return nil
		}}
		pipe := bufconn.Listen(64 << 10)
		serve(t, service.Config{}, ai, pipe)
		conn := dial(t, pipe)
		defer conn.Close()
		for i, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
			grpc_health_v1.HealthCheckResponse_NOT_SERVING,
			grpc_health_v1.HealthCheckResponse_SERVING,
			grpc_health_v1.HealthCheckResponse_NOT_SERVING,
		} {
			synctest.Wait()
			for _, name := range []string{"", "amanda.ai.AIService"} {
				if got, err := healthOf(t.Context(), conn, name); err != nil || got != want {
					t.Errorf("%d, %q: got %v, %v, want %v", i, name, got, err, want)
				}
			}
			mu.Lock()
			well = !well
			mu.Unlock()
			time.Sleep(15 * time.Second)
		}
		if _, err := ask(t.Context(), conn, "Hello."); err != nil {
			t.Errorf("whoever asks all the same is answered: got %v", err)
		}
	})
}

func TestAServiceIsWellWhenItsProviderHasSaidSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ai := patient{says("Yes."), func(context.Context) error {
			time.Sleep(3 * time.Second)
			return nil
		}}
		pipe := bufconn.Listen(64 << 10)
		serve(t, service.Config{}, ai, pipe)
		conn := dial(t, pipe)
		defer conn.Close()
		for after, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
			grpc_health_v1.HealthCheckResponse_NOT_SERVING,
			grpc_health_v1.HealthCheckResponse_SERVING,
		} {
			time.Sleep(time.Duration(after) * 3 * time.Second)
			synctest.Wait()
			if got, err := healthOf(t.Context(), conn, ""); err != nil || got != want {
				t.Errorf("after %d s: got %v, %v, want %v", 3*after, got, err, want)
			}
		}
	})
}

func TestTheEnd(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer time.Duration // how long the answer that runs takes yet
		watch  bool          // somebody watches the health
		took   time.Duration
		want   string
		code   codes.Code
	}{
		"waits for the answer that runs":        {7 * time.Second, false, 7 * time.Second, "First, last.", codes.OK},
		"waits for it no longer than it should": {time.Hour, false, 10 * time.Second, "First", codes.Unavailable},
		"waits a little for those that watch":   {7 * time.Second, true, 8 * time.Second, "First, last.", codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ai := companion{answer: func(_ *amandaai.ChatMessage, out answers) error {
					if err := out.Send(&amandaai.ChatChunk{Text: "First"}); err != nil {
						return err
					}
					select {
					case <-time.After(tt.answer):
						return out.Send(&amandaai.ChatChunk{Text: ", last.", Done: true})
					case <-out.Context().Done():
						return out.Context().Err()
					}
				}}
				pipe := bufconn.Listen(64 << 10)
				service := serve(t, service.Config{DrainTimeout: 10 * time.Second}, ai, pipe)
				conn := dial(t, pipe)
				defer conn.Close()

				type heard struct {
					text string
					code codes.Code
				}
				answered := make(chan heard, 1)
				go func() {
					text, err := ask(t.Context(), conn, "Well?")
					answered <- heard{text, status.Code(err)}
				}()
				states := make(chan []string, 1)
				if tt.watch {
					watching, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
					if err != nil {
						t.Fatal(err)
					}
					go func() {
						var seen []string
						for {
							state, err := watching.Recv()
							if err != nil {
								states <- seen
								return
							}
							seen = append(seen, state.GetStatus().String())
						}
					}()
				}
				synctest.Wait()

				began := time.Now()
				service.end()
				synctest.Wait()
				if _, err := ask(t.Context(), conn, "And I?"); status.Code(err) != codes.Unavailable {
					t.Errorf("a new call: got %v, want %v", err, codes.Unavailable)
				}
				if err := <-service.ended; err != nil {
					t.Error(err)
				}
				if got := time.Since(began); got != tt.took {
					t.Errorf("it took %v, want %v", got, tt.took)
				}
				if got, want := <-answered, (heard{tt.want, tt.code}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				if tt.watch {
					if diff := cmp.Diff(<-states, []string{"SERVING", "NOT_SERVING"}); diff != "" {
						t.Errorf("got -, want +\n%s", diff)
					}
				}
			})
		})
	}
}

// Our client asks every 20 s whether a silent connection still stands, and must
// not be taken for an attacker.
func TestAClientMayAskWhetherTheServiceIsStillThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ai := companion{answer: func(_ *amandaai.ChatMessage, out answers) error {
			select {
			case <-time.After(5 * time.Minute):
				return out.Send(&amandaai.ChatChunk{Text: "At last.", Done: true})
			case <-out.Context().Done():
				return out.Context().Err()
			}
		}}
		pipe := bufconn.Listen(64 << 10)
		serve(t, service.Config{}, ai, pipe)
		conn := dial(t, pipe, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
		defer conn.Close()
		if text, err := ask(t.Context(), conn, "Well?"); err != nil || text != "At last." {
			t.Errorf("got %q, %v", text, err)
		}
	})
}

func TestAServiceMayEndBeforeItBegins(t *testing.T) {
	t.Parallel()
	s, err := service.New(service.Config{}, says("Yes."))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := listen(t)
	if err := s.Serve(ctx, l); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener: got %v, want %v", err, net.ErrClosed)
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	t.Parallel()
	l := listen(t)
	_ = l.Close()
	service := serve(t, service.Config{}, says("Yes."), l)
	if err := within(t, service.ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}
