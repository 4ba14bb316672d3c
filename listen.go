package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"parley/stream"
)

const (
	// headerTimeout is how long the head of a request may take to arrive, and a
	// TLS handshake.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long a connection may be without a request: longer than
	// most proxies keep one, so that they never send to what is just closing.
	idleTimeout = 2 * time.Minute
	// maxHeaderBytes is how long the head of a request may be.
	maxHeaderBytes = 64 << 10
	// maxRequests is how many requests one HTTP/2 connection may have at a time,
	// streams among them.
	maxRequests = 250
)

// newServer returns what serves api over HTTP/1.1 and HTTP/2, by TLS where there
// is a certificate and else in the clear, HTTP/2 then by prior knowledge (RFC
// 9113, section 3.3).
//
// It has no WriteTimeout, which would cut streams: every write has a deadline of
// its own. On HTTP/2 that is one of the stream; a connection that takes nothing
// at all is closed by WriteByteTimeout, and one whose client is gone by a ping.
func newServer(api http.Handler, cert *certificate, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(cert != nil)
	protocols.SetUnencryptedHTTP2(cert == nil)
	server := &http.Server{
		Handler:           api,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxRequests,
			SendPingTimeout:      30 * time.Second,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     25 * time.Second,
		},
		// OPTIONS * is answered like everything else.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if cert != nil {
		server.TLSConfig = cert.config()
	}
	return server
}

// listen serves api on the address that is set until ctx ends and hub has
// drained.
func listen(ctx context.Context, cfg *Config, api http.Handler, hub *stream.Hub, log *slog.Logger) error {
	var cert *certificate
	if cfg.TLSCert != "" {
		var err error
		if cert, err = openCertificate(cfg.TLSCert, cfg.TLSKey); err != nil {
			return fmt.Errorf("TLS_CERT: %w", err)
		}
		following, stop := context.WithCancel(context.WithoutCancel(ctx))
		var follows sync.WaitGroup
		follows.Go(func() { followCertificate(following, cert, log) })
		defer follows.Wait()
		defer stop()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Addr())
	if err != nil {
		return fmt.Errorf("cannot listen; set HOST and PORT: %w", err)
	}
	gate := newGate(listener.(*net.TCPListener), cfg.maxConnections(log), log) //nolint:forcetypeassert // that is what "tcp" gives
	var ending atomic.Bool
	server := newServer(sendingAway(&ending, api), cert, log)
	server.ConnState, server.ConnContext = gate.note, gate.mark
	failed := make(chan error, 1)
	go func() { failed <- serveOn(server, gate) }()
	log.Info("listening", "url", cfg.scheme()+"://"+listener.Addr().String(), "version", version())

	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	log.Info("ending; replies that run go on for a while", "at_most", cfg.DrainTimeout.String())
	ending.Store(true)
	server.SetKeepAlivesEnabled(false)
	draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout)
	defer cancel()
	hub.Drain(draining)
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := server.Shutdown(leaving); err != nil {
		server.Close() //nolint:errcheck // those who are left had their time
	}
	log.Info("ended")
	return nil
}

// serveOn serves on l, by TLS where the server has a certificate.
func serveOn(server *http.Server, l net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(l, "", "")
	}
	return server.Serve(l)
}

// sendingAway answers as next does. While this process is ending each answer is
// the last one of its connection (over HTTP/2 a GOAWAY goes ahead of it), so that
// the client's next request reaches another replica.
func sendingAway(ending *atomic.Bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ending.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// ownDescriptors are the files that the process has open besides its clients'
// connections, at the most: the database's, the backend's, the log.
const ownDescriptors = 200

// maxConnections is how many connections there may be at a time: as many as are
// set, or as the system lets the process have. 0 is any number.
func (c *Config) maxConnections(log *slog.Logger) int {
	files := maxDescriptors()
	if files == 0 {
		return c.MaxConnections
	}
	most := max(files/2, files-ownDescriptors-spareConnections)
	if c.MaxConnections > 0 && c.MaxConnections <= most {
		return c.MaxConnections
	}
	if c.MaxConnections > 0 {
		log.Warn("there may be fewer connections than MAX_CONNECTIONS: raise the limit of open files (ulimit -n, LimitNOFILE)",
			"connections", most, "open_files", files)
	}
	return most
}

// scheme is what the service's own URL begins with.
func (c *Config) scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// loopbackTLS is how this machine asks itself: the certificate is for a name by
// which others know it, and nothing secret is said.
var loopbackTLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see above
