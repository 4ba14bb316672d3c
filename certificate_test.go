package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// newCertificate returns a certificate and its key, in PEM.
func newCertificate(t *testing.T) (chain, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes}))
}

// A certificate that cannot be used changes nothing, and is told of once; a good
// one is taken within seconds, though its two files come one after the other.
func TestACertificateIsFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		chainFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		chain, key := newCertificate(t)
		writeFile(t, chainFile, chain, 0o600)
		writeFile(t, keyFile, key, 0o600)
		c, err := openCertificate(chainFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		var log journal
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() { followCertificate(ctx, c, newLogger(&log, &Config{LogFormat: "json"})) })
		defer following.Wait()
		defer cancel()
		synctest.Wait() // it reads at once; in the middle of what is written below it would see half of that

		shown := chain
		for _, step := range []struct {
			what, file, content, told string
		}{
			{"nothing changes", chainFile, chain, ""},
			{"half a certificate", chainFile, chain[:len(chain)/2], "keeping the one of before"},
			{"the same again", chainFile, chain, "has changed"},
			{"no key", keyFile, "", "keeping the one of before"},
			{"the same key again", keyFile, key, "has changed"},
		} {
			writeFile(t, step.file, step.content, 0o600)
			time.Sleep(3 * readCertificateEvery)
			synctest.Wait()
			said := log.take()
			if n := strings.Count(said, "\n"); n != min(1, len(step.told)) || !strings.Contains(said, step.told) {
				t.Errorf("%s: the log says %q, want one line at the most: %q", step.what, said, step.told)
			}
			if strings.Contains(said, "PRIVATE KEY") {
				t.Errorf("%s: the key is in the log", step.what)
			}
			checkShown(t, c, shown)
		}
		another, itsKey := newCertificate(t)
		writeFile(t, chainFile, another, 0o600)
		time.Sleep(2 * readCertificateEvery)
		checkShown(t, c, shown) // with the key of the other one
		writeFile(t, keyFile, itsKey, 0o600)
		time.Sleep(2 * readCertificateEvery)
		synctest.Wait()
		checkShown(t, c, another)
	})
}

// checkShown checks that clients are shown that certificate, in PEM.
func checkShown(t *testing.T, c *certificate, want string) {
	t.Helper()
	pair, err := c.config().GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	if string(got) != want {
		t.Errorf("got the certificate\n%swant\n%s", got, want)
	}
}
