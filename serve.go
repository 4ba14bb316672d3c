package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/aigrpc"
	"parley/auth"
	"parley/handlers"
	"parley/mail"
	"parley/migrations"
	"parley/models"
	"parley/stream"
)

// serve answers HTTP until ctx ends, and then comes to an orderly end: clients
// are sent elsewhere, running replies go on for cfg.DrainTimeout.
func serve(ctx context.Context, p process, cfg Config) (err error) {
	log := newLogger(p.stderr, &cfg)
	db, watch, err := openWatched(ctx, &cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.end(), db.Close()) }()
	firstAdmin(ctx, db, &cfg, log)
	source, keys, err := openKeys(&cfg, log)
	if err != nil {
		return err
	}
	tokens := newTokens(&cfg, keys)
	outbox, err := newOutbox(&cfg, db, watch, log)
	if err != nil {
		return err
	}
	backend, speaker, hangUp, err := dial(ctx, &cfg, watch, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hangUp()) }()

	revoked := auth.NewRevoked(time.Now)
	feed := newRevocationFeed(db, revoked, log)
	hub := newHub(&cfg, db, backend, speaker, feed, watch, log)
	feed.hub = hub
	recordings, letGo := newRecordings(ctx, db, hub, speaker, log)
	defer letGo()
	passwords := auth.NewPasswordPool(cfg.argon2(), watch.hashers(newHashers(p, cfg.passwordWorkers(), log)))
	watch.replica(hub, backend, revoked, passwords)
	api := handlers.New(watch.api(handlers.Config{
		DB:             db,
		Tokens:         tokens,
		Passwords:      passwords,
		Revoked:        revoked,
		Hub:            hub,
		Voice:          recordings,
		Ready:          readiness(db, hub, backend),
		CORSOrigins:    cfg.CORSOrigins,
		TrustedProxies: cfg.TrustedProxies,
		Limits:         cfg.limits(),
		PublicURL:      cfg.PublicURL,
		NoConsole:      !cfg.Console,
		Version:        version(),
		AccessTTL:      cfg.AccessTokenTTL,
		Log:            log,
	}))

	// The loops outlive ctx: an ending replica goes on saving its replies.
	feed.read(ctx) // before the first request
	end := inBackground(context.WithoutCancel(ctx),
		func(ctx context.Context) { feed.run(ctx, readRevocationsEvery) },
		hub.Run,
		outbox.Run,
		func(ctx context.Context) { followKeys(ctx, source, tokens, log) },
		func(ctx context.Context) { purgeExpired(ctx, db, cfg.AuditKeep, log) },
		func(ctx context.Context) { indexTexts(ctx, db, hub, log) },
		keepHeadroom,
	)
	defer end()

	return listen(ctx, &cfg, api, hub, log)
}

// newHub returns what carries the replies, of which this process is one replica.
func newHub(cfg *Config, db *models.DB, backend *aigrpc.Client, speaker *aigrpc.Voice, feed *revocationFeed, watch *observation, log *slog.Logger) *stream.Hub {
	return stream.NewHub(db, backend, stream.Config{
		Replica:         rand.Text(),
		ContextBytes:    cfg.AIContextBytes,
		ContextMessages: cfg.AIContextMessages,
		Model:           cfg.AIModel,
		MaxReplies:      cfg.AIMaxReplies,
		MaxStreams:      cfg.LimitStreams,
		DailyTokenLimit: cfg.DailyTokenLimit,
		ReserveTokens:   cfg.reserveTokens(),
		Titles:          cfg.AITitles && cfg.AIProvider != "demo", // which is no model
		Revoked:         revokes(feed.set),
		SessionsEnded:   feed.tell,
		Metrics:         watch.metrics.Replies,
		Carry:           watch.carry(),
		Synthesizer:     synthesizer(speaker),
	}, log)
}

// open opens the database that is set. Why it cannot be opened is told on one
// line, where a driver tells each of its attempts on one of its own.
func open(ctx context.Context, cfg *Config) (*models.DB, error) {
	db, err := models.Open(ctx, cfg.openURL())
	if err != nil {
		lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\t' })
		return nil, errors.New("DATABASE_URL: " + strings.Join(slices.Compact(lines), " "))
	}
	return db, nil
}

// openDatabase opens the database and brings it up to date, or says that it is
// not.
func openDatabase(ctx context.Context, cfg *Config, log *slog.Logger) (*models.DB, error) {
	db, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.DatabaseListenURL != "" {
		if err := db.ListenAt(cfg.DatabaseListenURL); err != nil {
			return nil, errors.Join(fmt.Errorf("DATABASE_LISTEN_URL: %w", err), db.Close())
		}
	}
	if cfg.MigrateOnStart {
		err = migrations.Up(ctx, db.Bun(), func(name string) { log.Info("migrated", "migration", name) })
	} else if n, perr := migrations.Pending(ctx, db.Bun()); perr == nil && n > 0 {
		log.Warn("migrations are pending; parley migrate up applies them", "pending", n)
	}
	if errors.Is(err, migrations.ErrNewer) {
		// In the middle of a deploy: the next version migrated first.
		log.Warn("the database is of a newer version", "err", err)
		err = nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("migrate the database: %w", err), db.Close())
	}
	return db, nil
}

// tokenParty is the issuer and the audience of tokens: what was signed for one
// deployment is told apart by its keys, and all its replicas have the same.
const tokenParty = "parley"

func newTokens(cfg *Config, keys *auth.KeyRing) *auth.Tokens {
	return auth.NewTokens(keys, auth.TokenConfig{
		Issuer:         tokenParty,
		Audience:       tokenParty,
		AccessTTL:      cfg.AccessTokenTTL,
		RefreshIdleTTL: cfg.RefreshIdleTTL,
		RefreshMaxTTL:  cfg.RefreshMaxTTL,
	})
}

// readiness tells what /readyz answers. The AI backend is told of and fails
// nothing: accounts and history work without it.
func readiness(db *models.DB, hub *stream.Hub, backend *aigrpc.Client) func(context.Context) []handlers.Check {
	return func(ctx context.Context) []handlers.Check {
		checks := []handlers.Check{
			{Name: "database", State: "ok"},
			{Name: "migrations", State: "ok"},
			{Name: "draining", State: "ok"},
			{Name: "ai_backend", State: "ok"},
			{Name: "load", State: fmt.Sprintf("%d replies, %d streams, %.0f %% full", hub.Replies(), hub.Streams(), 100*hub.Pressure())},
		}
		pending, err := migrations.Pending(ctx, db.Bun())
		switch {
		case errors.Is(err, migrations.ErrNewer):
			checks[1].State = "newer than this program"
		case err != nil:
			checks[0].State, checks[0].Fails = "unreachable", true
			checks[1].State = "unknown"
		case pending > 0:
			checks[1].State, checks[1].Fails = fmt.Sprintf("%d pending", pending), true
		}
		if hub.Draining() {
			checks[2].State, checks[2].Fails = "ending", true
		}
		switch {
		case backend.Health(ctx) != nil:
			checks[3].State = "unreachable"
		case backend.Down():
			checks[3].State = "failing" // it is there; what it asks may not be
		}
		return checks
	}
}

// newOutbox returns what delivers mail to the server that is set, or to the log.
func newOutbox(cfg *Config, db *models.DB, watch *observation, log *slog.Logger) (*mail.Outbox, error) {
	return mail.New(mail.Config{
		SMTPURL:   cfg.SMTPURL,
		From:      cfg.MailFrom,
		PublicURL: cfg.PublicURL,
		NewToken: func() (token, hash string) {
			token = auth.NewResetToken()
			return token, auth.HashResetToken(token)
		},
		Metrics: watch.metrics.Mails,
		Log:     log,
	}, db)
}

// purgeExpired deletes now and then what nobody can ask for any more.
func purgeExpired(ctx context.Context, db *models.DB, auditKeep time.Duration, log *slog.Logger) {
	every(ctx, 10*time.Minute, func() {
		if err := db.PurgeExpired(ctx, time.Now(), auditKeep); err != nil && ctx.Err() == nil {
			log.Warn("expired rows are not deleted, trying again", "err", err)
		}
	})
}

const (
	// indexEvery is how soon what was said is found.
	indexEvery = time.Second
	// indexAtOnce is how many changes are made found in one transaction.
	indexAtOnce = 20
	// indexShare is one in how much of the time goes into it while replies run, whose
	// writer it takes on SQLite, and on PostgreSQL a processor of the database's: under a
	// load of many long ones they are found later.
	indexShare = 8
)

// indexTexts makes what was said found, until ctx ends.
func indexTexts(ctx context.Context, db *models.DB, hub *stream.Hub, log *slog.Logger) {
	every(ctx, indexEvery, func() {
		for {
			began := time.Now()
			n, err := db.IndexTexts(ctx, indexAtOnce)
			if err != nil && ctx.Err() == nil {
				log.Warn("what was said is not indexed, trying again", "err", err)
			}
			if n == 0 {
				return
			}
			if hub.Replies() > 0 {
				select {
				case <-ctx.Done():
					return
				case <-time.After((indexShare - 1) * time.Since(began)):
				}
			}
		}
	})
}

// inBackground runs loops until the function that it returns is called, which
// waits for them.
func inBackground(ctx context.Context, loops ...func(context.Context)) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, loop := range loops {
		running.Go(func() { loop(ctx) })
	}
	return func() {
		stop()
		running.Wait()
	}
}

// every calls do at once and then at that interval, until ctx ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
