package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// A certificate is what the service shows its clients, as its two files held it
// when they last made sense together.
type certificate struct {
	chain, key string // the files
	said       string // what they held when they were last read, or why they could not be
	current    atomic.Pointer[tls.Certificate]
}

// openCertificate reads the files of a certificate chain and of its key, both in
// PEM.
func openCertificate(chain, key string) (*certificate, error) {
	c := &certificate{chain: chain, key: key}
	_, err := c.read()
	return c, err
}

// read reads the files. It reports neither a change nor an error where there is
// nothing else to say than after the last reading.
func (c *certificate) read() (changed bool, err error) {
	chain, err := os.ReadFile(c.chain)
	var key []byte
	if err == nil {
		key, err = os.ReadFile(c.key)
	}
	said := string(chain) + string(key)
	if err != nil {
		said = err.Error()
	}
	if said == c.said {
		return false, nil
	}
	c.said = said
	if err != nil {
		return false, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return false, fmt.Errorf("%s and %s: %w", c.chain, c.key, err)
	}
	c.current.Store(&pair)
	return true, nil
}

// config is how connections are secured: by the certificate as it is when they
// begin.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// readCertificateEvery is how long it may take until a renewed certificate is
// shown. Its two files are renewed one after the other: between the two they
// make no sense, and the one before stays.
const readCertificateEvery = 5 * time.Second

// followCertificate has c be what its files hold as they change, until ctx ends.
// With files that are bad or gone, which it tells once, the certificate stays.
func followCertificate(ctx context.Context, c *certificate, log *slog.Logger) {
	every(ctx, readCertificateEvery, func() {
		switch changed, err := c.read(); {
		case err != nil:
			log.Error("the certificate cannot be used, keeping the one of before", "err", err)
		case changed:
			log.Info("the certificate has changed", "file", c.chain, "until", c.current.Load().Leaf.NotAfter)
		}
	})
}

// checkTLS notes what is wrong with the certificate that is set.
func (c *configuration) checkTLS() {
	switch {
	case c.TLSCert == "" && c.TLSKey == "":
	case c.TLSKey == "":
		c.fault("TLS_KEY", "is not set, and TLS_CERT is; give both or neither")
	case c.TLSCert == "":
		c.fault("TLS_CERT", "is not set, and TLS_KEY is; give both or neither")
	default:
		if _, err := openCertificate(c.TLSCert, c.TLSKey); err != nil {
			c.fault("TLS_CERT", "%s", err)
		}
	}
}
