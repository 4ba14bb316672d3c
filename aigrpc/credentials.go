package aigrpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Errors of Dial. None of them holds the credential.
var (
	// ErrTarget says that the target is no host:port.
	ErrTarget = errors.New("aigrpc: the target is not host:port")
	// ErrCA says that the certificates in the CA file cannot be used.
	ErrCA = errors.New("aigrpc: bad CA file")
	// ErrInsecureToken says that the bearer credential would leave this
	// machine in the clear.
	ErrInsecureToken = errors.New("aigrpc: a bearer credential needs TLS, or a backend on this machine")
	// ErrToken says that the bearer credential cannot be sent in a header.
	ErrToken = errors.New("aigrpc: the bearer credential is not printable ASCII without spaces")
)

func transportCredentials(c Config) (credentials.TransportCredentials, error) {
	if _, port, err := net.SplitHostPort(c.Target); err != nil || port == "" {
		return nil, fmt.Errorf("%w: %q", ErrTarget, c.Target)
	}
	if !c.TLS {
		if c.CAFile != "" {
			return nil, fmt.Errorf("%w: %s is given, but TLS is off", ErrCA, c.CAFile)
		}
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCA, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: no PEM certificate in %s", ErrCA, c.CAFile)
		}
	}
	return credentials.NewTLS(config), nil
}

// bearer is RFC 6750's Authorization header, on every call.
type bearer struct {
	header map[string]string
	secure bool
}

func bearerCredential(c Config) (bearer, error) {
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return bearer{}, ErrToken
	}
	if !c.TLS && !loopback(c.Target) {
		return bearer{}, fmt.Errorf("%w: %s", ErrInsecureToken, c.Target)
	}
	return bearer{
		header: map[string]string{"authorization": "Bearer " + c.Token},
		secure: c.TLS,
	}, nil
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return b.header, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }

// loopback reports whether target, a host:port, is this machine.
func loopback(target string) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
