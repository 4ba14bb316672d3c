//go:build linux

package survival_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"parley/models/modelstest"
)

var chosenSeed = flag.Uint64("seed", 0, "what the tests choose is decided by this; 0: by chance")

// newSeed returns the seed of a test, which tells it if it fails.
func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *chosenSeed
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to choose the same again: -seed=%d", seed)
		}
	})
	return seed
}

// A service is a few replicas on one database, and one user of it.
type service struct {
	t       *testing.T
	backend *backend
	environ []string
	web     *http.Client
	token   string

	mu       sync.Mutex
	replicas []*process // those that a load balancer would choose from
	started  []*process // all
}

// newService starts n replicas on the database of that URL, and signs a user up.
func newService(t *testing.T, b *backend, databaseURL string, n int, settings ...string) *service {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := exec.Command(path, "keys", "new").Output()
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(b.address)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true} // as much as clients of replicas that die can have
	t.Cleanup(transport.CloseIdleConnections)
	s := &service{
		t: t, backend: b, web: &http.Client{Transport: transport},
		environ: append([]string{
			"DATABASE_URL=" + databaseURL, "JWT_KEYS=" + string(keys), "ACCESS_TOKEN_TTL=24h", "LOG_FORMAT=json",
			"AI_PROVIDER=grpc", "GRPC_AI_BACKEND_HOST=" + host, "GRPC_AI_BACKEND_PORT=" + port,
		}, settings...),
	}
	for range n {
		s.start("0")
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	status, err := s.call(t.Context(), s.any(), http.MethodPost, "/auth/signup",
		map[string]string{"email": "you@example.com", "password": "correct horse battery"}, &answer)
	if err != nil || status != http.StatusCreated {
		t.Fatalf("sign up: %d %v", status, err)
	}
	s.token = answer.AccessToken
	return s
}

// newServiceOn is newService on a database of its own.
func newServiceOn(t *testing.T, b *backend, dialect string, n int, settings ...string) *service {
	t.Helper()
	return newService(t, b, modelstest.URL(t, dialect), n, settings...)
}

// start runs another replica on a port, 0 for one of the system's choice.
func (s *service) start(port string) *process {
	s.t.Helper()
	p := startProcess(s.t, append(slices.Clone(s.environ), "PORT="+port))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas, s.started = append(s.replicas, p), append(s.started, p)
	return p
}

// restart runs a replica where p was, which has ended.
func (s *service) restart(p *process) *process {
	s.t.Helper()
	_, port, err := net.SplitHostPort(p.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.leave(p)
	return s.start(port)
}

// leave takes a replica out of those that are chosen from.
func (s *service) leave(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas = slices.DeleteFunc(s.replicas, func(other *process) bool { return other == p })
}

// all returns the replicas that are chosen from.
func (s *service) all() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.replicas)
}

// any returns one of them.
func (s *service) any() *process { return s.but(nil)() }

// but chooses one of them that is not p, or where there is none the one that
// began last.
func (s *service) but(p *process) func() *process {
	return func() *process {
		s.mu.Lock()
		defer s.mu.Unlock()
		some := slices.DeleteFunc(slices.Clone(s.replicas), func(other *process) bool { return other == p })
		if len(some) == 0 {
			return s.started[len(s.started)-1]
		}
		return some[rand.IntN(len(some))]
	}
}

// takeovers returns how often a reply was taken over, and how often at the most by
// one and the same process.
func (s *service) takeovers(messageID int64) (n, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.started {
		took := p.takeovers(messageID)
		n, most = n+took, max(most, took)
	}
	return n, most
}

// call asks a replica, and reads its JSON into answer where the status is a
// good one.
func (s *service) call(ctx context.Context, p *process, method, path string, body, answer any, header ...string) (int, error) {
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, err
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.address+"/api/v1"+path, payload)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.web.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errCut, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusServiceUnavailable && res.Header.Get("Retry-After") == "" {
		return res.StatusCode, errors.New("503 without Retry-After")
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return res.StatusCode, fmt.Errorf("%w: %w", errCut, err)
	}
	if res.StatusCode >= http.StatusMultipleChoices || answer == nil {
		return res.StatusCode, nil
	}
	return res.StatusCode, json.Unmarshal(text, answer)
}

// A stored is a message as the API gives it.
type stored struct {
	ID      int64  `json:"id"`
	ChatID  int64  `json:"chat_id"`
	Role    string `json:"role"`
	Content string `json:"content"`
	Status  string `json:"status"`
}

// stored returns a message once it has ended, or what it is when the patience
// with it is.
func (s *service) stored(messageID int64) (m stored, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var status int
		status, err = s.call(context.Background(), s.any(), http.MethodGet, fmt.Sprintf("/messages/%d", messageID), nil, &m)
		switch {
		case err == nil && status == http.StatusOK && m.Status != "streaming":
			return m, nil
		case time.Now().Before(end):
		case err == nil:
			return m, fmt.Errorf("message %d: status %d, %s", messageID, status, m.Status)
		default:
			return m, err
		}
	}
}
