//go:build linux

package survival_test

import (
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
)

// A proxy stands between the program and PostgreSQL, over TCP, and can be taken
// away.
type proxy struct {
	url    string // of the database behind it
	socket string // of the server
	listen string

	mu       sync.Mutex
	flowing  *sync.Cond
	silent   bool
	listener net.Listener
	conns    map[net.Conn]struct{}
	serving  sync.WaitGroup
}

// newProxy makes a proxy to the database of that URL, until the test ends.
func newProxy(t *testing.T, databaseURL string) *proxy {
	t.Helper()
	direct, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	query := direct.Query()
	p := &proxy{
		socket: filepath.Join(query.Get("host"), ".s.PGSQL."+query.Get("port")),
		listen: "127.0.0.1:0",
		conns:  make(map[net.Conn]struct{}),
	}
	p.flowing = sync.NewCond(&p.mu)
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.speak()
		p.refuse()
		p.serving.Wait()
	})
	through := url.URL{Scheme: "postgres", User: url.User(query.Get("user")), Host: p.listen, Path: direct.Path, RawQuery: "sslmode=disable"}
	p.url = through.String()
	return p
}

// open listens, where it did before if it did.
func (p *proxy) open() error {
	listener, err := net.Listen("tcp", p.listen)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.listener, p.listen = listener, listener.Addr().String()
	p.mu.Unlock()
	p.serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.serving.Go(func() { p.pass(client) })
		}
	})
	return nil
}

// pass connects a client with the server, and copies what they say.
func (p *proxy) pass(client net.Conn) {
	defer p.drop(client)
	server, err := net.Dial("unix", p.socket)
	if err != nil {
		return
	}
	defer p.drop(server)
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() { p.copy(client, server) })
	p.copy(server, client)
	back.Wait()
}

// copy passes on what from says while the proxy is not silent.
func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.silent {
			p.flowing.Wait()
		}
		p.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (p *proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// refuse breaks all connections off and takes no others, until what it returns
// is called.
func (p *proxy) refuse() (restore func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	for c := range p.conns {
		c.Close()
	}
	return p.open
}

// silence keeps back all that is said on any connection, until what it returns
// is called.
func (p *proxy) silence() (restore func() error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = true
	return p.speak
}

func (p *proxy) speak() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = false
	p.flowing.Broadcast()
	return nil
}
