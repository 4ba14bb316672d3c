package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// A server is a mail server that takes messages for delivery (RFC 6409).
type server struct {
	host, port     string
	wrapped        bool // TLS from the first byte (RFC 8314 §3.3), else STARTTLS
	user, password string

	roots   *x509.CertPool // who vouches for it; nil is the system's
	helo    string         // what this side calls itself
	timeout time.Duration  // for making a connection, and for each message
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// parseServer reads an SMTP URL. The error does not repeat it, since it may hold
// a password.
func parseServer(s string) (*server, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("is not a URL; percent-encode what is special in the user and the password")
	}
	m := &server{host: u.Hostname(), port: u.Port(), timeout: 10 * time.Second, dial: new(net.Dialer).DialContext}
	switch u.Scheme {
	case "smtp":
		if m.port == "" {
			m.port = "587"
		}
	case "smtps":
		m.wrapped = true
		if m.port == "" {
			m.port = "465"
		}
	default:
		m.host = ""
	}
	if m.host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("names no mail server; write smtp://user:password@host:587, or smtps://user:password@host:465")
	}
	m.user = u.User.Username()
	m.password, _ = u.User.Password()
	return m, nil
}

// local reports whether what is sent to the server stays on this machine.
func (m *server) local() bool {
	address, err := netip.ParseAddr(m.host)
	return m.host == "localhost" || err == nil && address.IsLoopback()
}

// open connects, secures the connection and signs in, all within the timeout
// and before ctx ends.
func (m *server) open(ctx context.Context) (outlet, error) {
	timed, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	conn, err := m.dial(timed, "tcp", net.JoinHostPort(m.host, m.port))
	if err != nil {
		return nil, explain("connect", err)
	}
	// Whatever waits for the server then waits no longer.
	stop := context.AfterFunc(timed, func() { conn.SetDeadline(time.Unix(1, 0)) }) //nolint:errcheck // fails only on what is closed
	client, err := m.signIn(timed, conn)
	if err == nil && !stop() {
		err = explain("connect", timed.Err())
	}
	if err != nil {
		conn.Close() //nolint:errcheck // why it is given up is known
		return nil, err
	}
	return &connection{conn: conn, client: client, timeout: m.timeout}, nil
}

// signIn goes as far as a connection on which messages can be sent.
func (m *server) signIn(ctx context.Context, conn net.Conn) (*smtp.Client, error) {
	verified := &tls.Config{ServerName: m.host, RootCAs: m.roots, MinVersion: tls.VersionTLS12}
	if m.wrapped {
		secured := tls.Client(conn, verified)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, explain("TLS", err)
		}
		conn = secured
	}
	client, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return nil, explain("greeting", err)
	}
	// All headers are ASCII, so that no server needs to know RFC 6531.
	client.SkipSMTPUTF8(true)
	if err := client.Hello(m.helo); err != nil {
		return nil, explain("EHLO", err)
	}
	if !m.wrapped {
		if err := m.startTLS(client, verified); err != nil {
			return nil, err
		}
	}
	return client, m.authenticate(client)
}

// startTLS secures the connection. Only on this machine can it do without; so
// there it need not know who answers either, and takes the certificate that a
// mail server makes for itself when it is installed.
func (m *server) startTLS(client *smtp.Client, config *tls.Config) error {
	offered, _ := client.Extension("STARTTLS")
	switch {
	case offered && m.local():
		config = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see above
	case m.local():
		return nil
	case !offered:
		return &fault{step: "STARTTLS", cause: "the server does not offer it, and only one on this machine may do without", broken: true}
	}
	if err := client.StartTLS(config); err != nil {
		return explain("STARTTLS", err)
	}
	return nil
}

// authenticate signs in, if the URL names a user. The password is sent as it
// is: the connection is secured or stays on this machine.
func (m *server) authenticate(client *smtp.Client) error {
	if m.user == "" {
		return nil
	}
	_, line := client.Extension("AUTH")
	offered := strings.Fields(strings.ToUpper(line))
	var mechanism smtp.Auth
	switch {
	case slices.Contains(offered, "PLAIN"):
		mechanism = smtp.PlainAuth("", m.user, m.password, m.host, true)
	case slices.Contains(offered, "LOGIN"):
		mechanism = smtp.LoginAuth(m.user, m.password, m.host, true)
	case slices.Contains(offered, "SCRAM-SHA-256"):
		mechanism = smtp.ScramSHA256Auth(m.user, m.password)
	default:
		return &fault{step: "AUTH", cause: "the server offers neither PLAIN nor LOGIN nor SCRAM-SHA-256", broken: true}
	}
	if err := client.Auth(mechanism); err != nil {
		return explain("AUTH", err)
	}
	return nil
}
