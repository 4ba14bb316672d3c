package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/models"
)

// A wire is how HTTP is spoken.
type wire struct {
	proto  string // as a response tells it
	secure bool
	speak  func(*http.Protocols)
}

var wires = map[string]wire{
	"HTTP/1.1 in the clear": {"HTTP/1.1", false, func(p *http.Protocols) { p.SetHTTP1(true) }},
	"HTTP/2 in the clear":   {"HTTP/2.0", false, func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
	"HTTP/1.1 by TLS":       {"HTTP/1.1", true, func(p *http.Protocols) { p.SetHTTP1(true) }},
	"HTTP/2 by TLS":         {"HTTP/2.0", true, func(p *http.Protocols) { p.SetHTTP2(true) }},
}

// client is a client that speaks so, and trusts this certificate.
func (w wire) client(t *testing.T, trusted *x509.CertPool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	w.speak(&protocols)
	transport := &http.Transport{Protocols: &protocols, TLSClientConfig: &tls.Config{RootCAs: trusted}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// onEveryWire runs test as a parallel subtest over each wire. What it is given
// starts the program on a database, to be asked over that wire.
func onEveryWire(t *testing.T, dialect string, test func(t *testing.T, w wire, start func(settings ...string) *service)) {
	t.Helper()
	for name, w := range wires {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			settings := database(t, dialect)
			var trusted *x509.CertPool
			if w.secure {
				pair := newPair(t)
				settings = append(settings, pair.settings()...)
				trusted = pair.pool
			}
			test(t, w, func(more ...string) *service {
				s := start(t, with(settings, more...)...)
				s.web = w.client(t, trusted)
				return s
			})
		})
	}
}

// A pair is the files of a certificate for 127.0.0.1, and of its key.
type pair struct {
	cert, key string
	pool      *x509.CertPool // of the certificate
	serial    *big.Int
}

func newPair(t *testing.T) *pair {
	t.Helper()
	dir := t.TempDir()
	p := &pair{cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	p.renew(t)
	return p
}

func (p *pair) settings() []string { return []string{"TLS_CERT=" + p.cert, "TLS_KEY=" + p.key} }

// renew puts another certificate, with another key, into the files.
func (p *pair) renew(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if p.serial, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: p.serial,
		Subject:      pkix.Name{CommonName: "parley"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	p.pool = x509.NewCertPool()
	p.pool.AppendCertsFromPEM(chain)
	write(t, p.cert, chain)
	write(t, p.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Everything that streams do they do over every wire.
func TestStreamsOverEveryWire(t *testing.T) {
	t.Parallel()
	onEveryWire(t, models.SQLite, func(t *testing.T, w wire, start func(...string) *service) {
		d := dictate(t)
		s := start(d.settings...)
		res, err := s.web.Get(s.url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Proto != w.proto || res.StatusCode != 200 {
			t.Fatalf("got %s %s, want 200 over %s", res.Proto, res.Status, w.proto)
		}
		you := signUp(t, s)
		r := you.say(t, s, "Count to three")
		d.say("One, ")
		r.has(len("One, "))
		other := you.follow(t, s, r.messageID)
		other.has(len("One, "))
		r.resume(you, s)
		d.say("two, ")
		r.has(len("One, two, "))
		d.say("three.")
		close(d.words)
		for _, r := range []*reading{r, other} {
			r.through()
			if r.text != "One, two, three." || r.end != "message_complete" {
				t.Errorf("got %q and %q", r.text, r.end)
			}
			r.check(you, s, "complete")
		}
		you.ask(t, s, "GET", fmt.Sprintf("/api/v1/messages/%d/stream", r.messageID), "", "Last-Event-ID: "+r.lastID).want(t, 204)
	})
}

// A stopped reply ends its stream at once.
func TestAStopOverEveryWire(t *testing.T) {
	t.Parallel()
	onEveryWire(t, models.SQLite, func(t *testing.T, _ wire, start func(...string) *service) {
		d := dictate(t)
		s := start(d.settings...)
		you := signUp(t, s)
		r := you.say(t, s, "Count")
		d.say("One, ")
		r.has(len("One, "))
		var stopped message
		you.ask(t, s, "POST", fmt.Sprintf("/api/v1/messages/%d/stop", r.messageID), "").want(t, 200).decode(t, &stopped)
		event, err := r.next()
		if err != nil || event["event"] != "message_stopped" || stopped.Content != "One, " {
			t.Errorf("got %v, %v and %+v", event, err, stopped)
		}
	})
}

// A replica that is told to end sends its clients to another one, which has the
// reply to its end.
func TestADrainOverEveryWire(t *testing.T) {
	t.Parallel()
	onEveryWire(t, models.Postgres, func(t *testing.T, _ wire, start func(...string) *service) {
		d := dictate(t)
		one, other := start(d.settings...), start(d.settings...)
		you := signUp(t, one)
		r := you.say(t, one, "Count to two")
		d.say("One, ")
		r.has(len("One, "))
		one.signal(t, syscall.SIGTERM)
		if err := r.until(func() bool { return false }); err != io.EOF || r.end != "" || r.retry == "" {
			t.Fatalf("got the end %v, after the event %q and retry %q; want one in order, and a time to come back", err, r.end, r.retry)
		}
		you.ask(t, one, "GET", "/readyz", "").want(t, 503)
		// Through a balancer the next connection leads elsewhere.
		eventually(t, "it asks for another connection", func() bool { return !onTheSameConnection(t, one) })
		r.resume(you, other)
		d.say("two.")
		close(d.words)
		r.through()
		if r.text != "One, two." || r.end != "message_complete" {
			t.Errorf("got %q and %q", r.text, r.end)
		}
		r.check(you, other, "complete")
		if code := one.exitCode(t); code != 0 {
			t.Errorf("it ended with %d", code)
		}
	})
}

// onTheSameConnection asks s, and reports whether that took no other connection.
func onTheSameConnection(t *testing.T, s *service) (same bool) {
	t.Helper()
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { same = got.Reused },
	})
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.web.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	return same
}

// What is older than TLS 1.2 is refused, and HTTP in the clear too.
func TestTLSThatIsTooOld(t *testing.T) {
	t.Parallel()
	pair := newPair(t)
	s := start(t, with(database(t, models.SQLite), pair.settings()...)...)
	address := strings.TrimPrefix(s.url, "https://")
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		config := &tls.Config{RootCAs: pair.pool, MinVersion: version, MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}}
		conn, err := tls.Dial("tcp", address, config)
		if (err == nil) != want {
			t.Errorf("%s: got %v", tls.VersionName(version), err)
		}
		if err == nil {
			if got := conn.ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("%s: got %q by ALPN, want h2", tls.VersionName(version), got)
			}
			conn.Close()
		}
	}
	nobody.ask(t, &service{url: "http://" + address}, "GET", "/readyz", "").want(t, 400)
	if got := run(t, with(pair.settings(), portOf(t, s)), "healthcheck"); got != (ended{}) {
		t.Errorf("healthcheck: got %+v", got)
	}
}

// A renewed certificate is shown without a restart, and streams go on.
func TestACertificateThatIsRenewed(t *testing.T) {
	t.Parallel()
	pair, d := newPair(t), dictate(t)
	s := start(t, with(with(database(t, models.SQLite), d.settings...), pair.settings()...)...)
	s.web = wires["HTTP/2 by TLS"].client(t, pair.pool)
	you := signUp(t, s)
	r := you.say(t, s, "Count")
	d.say("One, ")
	r.has(len("One, "))
	pair.renew(t)
	eventually(t, "the renewed one is shown", func() bool {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(pair.serial) == 0
	})
	d.say("two.")
	close(d.words)
	r.through()
	r.check(you, s, "complete")
}

// The head of a request has a time and a size. Over HTTP/2 the server tells the
// size as the connection begins: a client that has read that by then does not send
// what is larger.
func TestTheHeadOfARequest(t *testing.T) {
	t.Parallel()
	s := start(t, database(t, models.SQLite)...)
	long, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/livez", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		long.Header.Set(fmt.Sprintf("X-Long-%d", i), strings.Repeat("x", 7<<10))
	}
	for name, w := range wires {
		if w.secure {
			continue
		}
		got, err := w.client(t, nil).Do(long)
		switch {
		case err != nil && w.proto == "HTTP/2.0" && strings.Contains(err.Error(), "larger than peer's advertised limit"):
		case err != nil:
			t.Errorf("%s: a head of 70 KiB: %v", name, err)
		default:
			got.Body.Close()
			if got.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: a head of 70 KiB: got %d, want 431", name, got.StatusCode)
			}
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a head that does not come to its end: got %q, %v, want the connection closed", rest, err)
	}
}
