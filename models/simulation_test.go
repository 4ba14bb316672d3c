package models_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// The long form of the simulations, 100,000 refreshes in each, takes minutes:
//
//	go test ./models -run TestSimulatedDevices -v -timeout 1h -refreshes 100000
var simulated = flag.Int64("refreshes", 2_000, "refreshes of the simulated devices, in each of the simulations")

const (
	lostAnswers = 0.05 // of all refreshes
	twins       = 0.05 // refreshes that several requests ask for at once
	uses        = 0.8  // refreshes after which the tokens are used before the next one
	thefts      = 0.03 // refreshes at which a token is copied
)

// A simulation is many devices that refresh their tokens, each by a clock of its
// own, over several replicas, and thieves who copy some of the tokens.
type simulation struct {
	replicas []*models.DB
	userID   int64

	refreshes, lost, repeated, stolen, atOnce, atVictim, graced atomic.Int64
}

// Nobody who is honest is signed out, whatever gets lost, and whoever goes on with
// a copied token has ended the session at the latest when its owner comes back.
func TestSimulatedDevices(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		dialect string
		handles int
	}{
		"SQLite": {models.SQLite, 1}, "PostgreSQL": {models.Postgres, 1}, "three replicas": {models.Postgres, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := modelstest.URL(t, test.dialect)
			var sim simulation
			for range test.handles {
				db, err := models.Open(t.Context(), url)
				must(t, err)
				t.Cleanup(func() { db.Close() })
				sim.replicas = append(sim.replicas, db)
			}
			db := sim.replicas[0]
			u, _ := newUser(t, db)
			sim.userID = u.ID
			var running sync.WaitGroup
			for worker := range uint64(8) {
				running.Go(func() {
					random := rand.New(rand.NewPCG(2026, worker))
					for sim.refreshes.Load() < *simulated && !t.Failed() {
						if err := sim.device(t, random); err != nil {
							t.Error(err)
						}
					}
				})
			}
			running.Wait()
			caught := sim.atOnce.Load() + sim.atVictim.Load()
			t.Logf("%d refreshes, %d answers lost, %d successors given again; %d tokens used by thieves: %d caught at once, %d when the device came back, of these %d had the 10 s",
				sim.refreshes.Load(), sim.lost.Load(), sim.repeated.Load(), sim.stolen.Load(), sim.atOnce.Load(), sim.atVictim.Load(), sim.graced.Load())
			if sim.lost.Load() == 0 || sim.atOnce.Load() == 0 || sim.atVictim.Load() == 0 {
				t.Error("nothing was lost, or nobody was caught: the simulation shows nothing")
			}
			wantEqual(t, caught, sim.stolen.Load())
			for _, rows := range []string{
				"audit_entries WHERE action = 'session.reused'", "mails WHERE kind = 'session_reused'", "revocations",
			} {
				wantEqual(t, []any{rows, int64(count(t, db, rows))}, []any{rows, caught})
			}
		})
	}
}

// A bearer is somebody with a token of a session: its device, or a thief.
type bearer struct {
	sid        string
	generation int64
	now        time.Time
	random     *rand.Rand
}

// device is the life of one session: some 50 refreshes, or until a thief is
// caught.
func (s *simulation) device(t *testing.T, random *rand.Rand) error {
	began := time.Now()
	session := models.DeviceSession{
		SID: fmt.Sprintf("%016x", random.Uint64()), UserID: s.userID, ExpiresAt: began.AddDate(1, 0, 0),
	}
	if err := s.replica(random).CreateSession(t.Context(), &session, models.By{}); err != nil {
		return err
	}
	device := &bearer{session.SID, 1, began, random}
	var thief *bearer
	waits := 0 // how many refreshes of the device the thief lets pass
	for range 50 {
		device.now = device.now.Add(time.Minute + upTo(random, 20*time.Minute))
		if thief == nil && random.Float64() < thefts {
			thief = &bearer{session.SID, device.generation, device.now, random}
			waits = random.IntN(4)
			device.now = device.now.Add(upTo(random, time.Minute))
		}
		if thief != nil {
			if waits == 0 {
				return s.caught(t, device, thief)
			}
			waits--
		}
		if err := s.refresh(t, device); err != nil {
			return fmt.Errorf("an honest device: %w", err)
		}
		if random.Float64() < uses {
			if err := s.use(t, device); err != nil {
				return err
			}
		}
	}
	if thief != nil {
		return s.caught(t, device, thief)
	}
	return nil
}

// errReused is what a bearer is told whose token is too old.
var errReused = errors.New("the session was ended because a token was too old")

// present asks for a successor until the database is there to tell. What it did
// before it was away is as an answer that got lost.
func (s *simulation) present(t *testing.T, b *bearer) (models.DeviceSession, error) {
	for {
		session, err := s.presentOnce(t, b)
		if !errors.Is(err, models.ErrUnavailable) {
			return session, err
		}
	}
}

// presentOnce asks once, or in several requests at once, on any replica.
func (s *simulation) presentOnce(t *testing.T, b *bearer) (models.DeviceSession, error) {
	requests := 1
	if b.random.Float64() < twins {
		requests = 2 + b.random.IntN(3)
	}
	type answer struct {
		session  models.DeviceSession
		rotation models.Rotation
		err      error
	}
	asked := make([]*models.DB, requests)
	for i := range asked {
		asked[i] = s.replica(b.random)
	}
	answers := together(requests, func(i int) (a answer) {
		a.session, a.rotation, a.err = asked[i].RotateSession(t.Context(), b.sid, b.generation, b.now, accessTTL, models.By{})
		return a
	})
	for _, a := range answers {
		if a.rotation == models.Reused { // one of them is told, the others find no session
			return a.session, errReused
		}
	}
	first := answers[0]
	for _, a := range answers {
		if errors.Is(a.err, models.ErrUnavailable) {
			return a.session, a.err
		}
		if a.rotation == models.Repeated {
			s.repeated.Add(1)
		}
		if !errors.Is(a.err, first.err) || a.session.Generation != first.session.Generation {
			return a.session, fmt.Errorf("generation %d: got %+v and %+v at once", b.generation, first, a)
		}
	}
	return first.session, first.err
}

// refresh is what an honest client does: it asks with the token that it has until
// an answer arrives.
func (s *simulation) refresh(t *testing.T, b *bearer) error {
	for {
		s.refreshes.Add(1)
		session, err := s.present(t, b)
		if err != nil {
			return fmt.Errorf("generation %d after %v: %w", b.generation, b.now, err)
		}
		if b.random.Float64() >= lostAnswers {
			b.generation = session.Generation
			return nil
		}
		s.lost.Add(1)
		if b.random.Float64() < uses { // its access token may still be valid
			if err := s.use(t, b); err != nil {
				return err
			}
		}
		// It tries again in seconds, or when it is back on the net.
		b.now = b.now.Add(upTo(b.random, 30*time.Second))
		if b.random.IntN(4) == 0 {
			b.now = b.now.Add(upTo(b.random, 12*time.Hour))
		}
	}
}

// use is a call with the access token.
func (s *simulation) use(t *testing.T, b *bearer) error {
	return s.replica(b.random).TouchSession(t.Context(), b.sid, b.generation, b.now)
}

// caught has a thief go on with its token, and then its owner come back.
func (s *simulation) caught(t *testing.T, device, thief *bearer) error {
	s.stolen.Add(1)
	age := device.generation - thief.generation
	thief.now = device.now
	// It wants tokens of its own: it refreshes, uses what it gets, and does so
	// again, since what it gets first may be what the device has.
	for range 2 {
		session, err := s.present(t, thief)
		if errors.Is(err, errReused) {
			s.atOnce.Add(1)
			return s.ended(t, device)
		}
		if err != nil {
			return fmt.Errorf("a thief: %w", err)
		}
		if age > 1 {
			return fmt.Errorf("a thief got generation %d for a token that is %d older than the device's", session.Generation, age)
		}
		thief.generation = session.Generation
		if err := s.use(t, thief); err != nil {
			return err
		}
	}
	// Within the 10 s after the last rotation its predecessor gets the same
	// successor. Then the thief goes on before the device comes back again.
	if device.random.IntN(10) == 0 {
		s.graced.Add(1)
		device.now = device.now.Add(upTo(device.random, 10*time.Second))
		switch session, err := s.present(t, device); {
		case errors.Is(err, errReused): // two behind
			s.atVictim.Add(1)
			return s.ended(t, device)
		case err != nil:
			return err
		default:
			device.generation = session.Generation
		}
		thief.now = device.now.Add(time.Minute)
		session, err := s.present(t, thief)
		if err != nil {
			return fmt.Errorf("a thief: %w", err)
		}
		thief.generation = session.Generation
		if err := s.use(t, thief); err != nil {
			return err
		}
	}
	device.now = device.now.Add(10*time.Minute + upTo(device.random, time.Hour))
	if _, err := s.present(t, device); !errors.Is(err, errReused) {
		return fmt.Errorf("the device came back with generation %d, the thief had %d: got %w, want that the session ends",
			device.generation, thief.generation, err)
	}
	s.atVictim.Add(1)
	return s.ended(t, device)
}

// ended says that no token of the session is worth anything any more.
func (s *simulation) ended(t *testing.T, device *bearer) error {
	for generation := device.generation - 1; generation < device.generation+4; generation++ {
		_, _, err := s.replica(device.random).RotateSession(t.Context(), device.sid, max(1, generation), device.now, accessTTL, models.By{})
		if !errors.Is(err, models.ErrNotFound) {
			return fmt.Errorf("generation %d of a session that was ended: got %w", generation, err)
		}
	}
	if err := s.replica(device.random).SessionAlive(t.Context(), device.sid, s.userID); !errors.Is(err, models.ErrNotFound) {
		return fmt.Errorf("a session that was ended is alive: %w", err)
	}
	return nil
}

func (s *simulation) replica(random *rand.Rand) *models.DB {
	return s.replicas[random.IntN(len(s.replicas))]
}

// upTo is some time below most.
func upTo(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}
