// Package voice turns recordings into messages. A recording is kept in the
// database piece by piece, on whatever replica a piece lands; one replica, its
// owner, sends it to a Transcriber as it arrives and, once it is whole, the
// transcript to the chat as a message of the user, to which a reply is spoken.
//
// It never knows who hears or speaks, what a request is, or how a row is stored.
//
// The invariant: a recording becomes one message or none. Its owner is named by a
// fence in its row, and the message is stored in one step with the fence; until
// then nothing of the recording is given up, whoever fails, leaves or dies.
package voice

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"parley/models"
	"parley/stream"
)

const (
	// MaxBytes is how long a recording may be.
	MaxBytes = 25 << 20
	// Lifetime is how long a recording is kept that is not used.
	Lifetime = time.Hour
	// MaxOpen is how many recordings a user may have that are not used yet.
	MaxOpen = 16
)

// kept is how long a recording that is whole is kept at the least, for a try that
// failed to be made again.
const kept = 15 * time.Minute

// A Transcriber hears what is said.
type Transcriber interface {
	// Transcribe sends the recording that next returns piece by piece, as it
	// arrives, until io.EOF, and returns what was understood, "" for nothing. It
	// ends when next returns an error or ctx ends (with that error), or the
	// service fails (a *stream.BackendError). next is called from one goroutine,
	// and not once Transcribe has returned; a piece is valid until the following
	// call. Transcribe may be called from many goroutines.
	Transcribe(ctx context.Context, format, language string, next func(ctx context.Context) ([]byte, error)) (string, error)
}

// Config adjusts Recordings. A zero field means the default in brackets.
type Config struct {
	Transcriber Transcriber   // required
	AtOnce      int           // recordings that are transcribed here at once [32]
	AtOnceUser  int           // of these, of one user [8]
	PollEvery   time.Duration // how often the database is asked what arrived elsewhere [250ms]
	AdoptEvery  time.Duration // how often it is asked for recordings that nobody transcribes [2s]
	Idle        time.Duration // what sends nothing for so long is not listened to any longer, until it is whole [30s]
	Patience    time.Duration // how long a transcript may take once the recording is whole [10m]
	Queueing    time.Duration // how long a recording that is whole waits to be listened to [10s]
}

func (c *Config) setDefaults() {
	if c.AtOnce == 0 {
		c.AtOnce = 32
	}
	if c.AtOnceUser == 0 {
		c.AtOnceUser = 8
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.PollEvery, 250 * time.Millisecond},
		{&c.AdoptEvery, 2 * time.Second},
		{&c.Idle, 30 * time.Second},
		{&c.Patience, 10 * time.Minute},
		{&c.Queueing, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
}

var (
	// ErrTooLarge means that a recording would be longer than MaxBytes.
	ErrTooLarge = errors.New("voice: the recording is too large")
	// ErrUnsupported means that these are not the first bytes of a recording in a
	// format that is known.
	ErrUnsupported = errors.New("voice: this is no recording in a known format")
	// ErrFormatMismatch means that the recording has another format than was said.
	ErrFormatMismatch = errors.New("voice: the recording has another format than was said")
	// ErrNothingHeard means that there are no words in the recording. It was
	// dropped.
	ErrNothingHeard = errors.New("voice: nothing was understood")
)

// Recordings keeps recordings and has them transcribed. Its methods may be called
// from many goroutines. Whoever makes one ends it by Drain.
type Recordings struct {
	db     *models.DB
	hub    *stream.Hub
	config Config
	log    *slog.Logger
	places *Gate

	mu      sync.Mutex
	tries   map[int64]*try // that run here, by the recording
	ended   bool           // Drain was called
	ending  chan struct{}  // closed with it
	running sync.WaitGroup // the tries' goroutines
}

// New returns Recordings that are kept in db and sent as messages through hub.
func New(db *models.DB, hub *stream.Hub, config Config, log *slog.Logger) *Recordings {
	config.setDefaults()
	return &Recordings{
		db: db, hub: hub, config: config, log: log,
		places: NewGate(config.AtOnce, config.AtOnceUser),
		tries:  make(map[int64]*try), ending: make(chan struct{}),
	}
}

// Begin keeps a recording of which nothing has arrived. A call that repeats a key
// returns it as it was then, and true. stream.ErrDraining; errors as of
// models.CreateUpload.
func (r *Recordings) Begin(ctx context.Context, n models.NewUpload) (models.Upload, bool, error) {
	if r.draining() {
		return models.Upload{}, false, stream.ErrDraining
	}
	n.Lifetime, n.Most = Lifetime, MaxOpen
	return r.db.CreateUpload(ctx, n)
}

// Append keeps the bytes that follow those up to offset of u, which is as it was
// read last, and returns it as it is then. As soon as there are enough to know
// their format they go to the Transcriber too. ErrTooLarge, ErrUnsupported,
// ErrFormatMismatch; errors as of models.AppendChunk. data may be used again when
// it returns.
func (r *Recordings) Append(ctx context.Context, u models.Upload, offset int64, data []byte) (models.Upload, error) {
	if offset+int64(len(data)) > MaxBytes {
		return u, ErrTooLarge
	}
	c := models.NewChunk{UserID: u.UserID, UploadID: u.ID, Offset: offset, Data: data}
	if !u.Sniffed && offset == u.Size && offset+int64(len(data)) >= sniffed {
		format, err := r.sniff(ctx, u, data)
		if err != nil {
			return u, err
		}
		c.Format = format
	}
	u, err := r.db.AppendChunk(ctx, c)
	if err != nil {
		return u, err
	}
	if !r.wake(u.ID) && u.Sniffed && u.Tries == 0 && !u.Ended {
		r.listen(u) //nolint:errcheck // without a place it is heard when it is whole
	}
	return u, nil
}

// Complete says that u has arrived whole, and has it sent as a message: the reply
// to it is what Await returns. Of one that was complete before, what is wanted
// stays as it was; one that has failed is tried again. ErrUnsupported,
// ErrFormatMismatch; a *models.ReplyInProgress if it is known that it cannot be
// sent; errors as of models.CompleteUpload.
func (r *Recordings) Complete(ctx context.Context, u models.Upload, c models.Completion) (models.Upload, error) {
	c.UserID, c.UploadID, c.Keep = u.UserID, u.ID, kept
	if !u.Sniffed && u.Size > 0 && !u.Ended {
		format, err := r.sniff(ctx, u, nil)
		if err != nil {
			return u, err
		}
		c.Format = format
	}
	if err := r.mayBeSent(ctx, u, max(u.ChatID, c.ChatID)); err != nil {
		return u, err
	}
	u, err := r.db.CompleteUpload(ctx, c)
	if err != nil {
		return u, err
	}
	if !r.wake(u.ID) && u.Owner == "" && !u.Ended {
		r.listen(u) //nolint:errcheck // Await tries again, and tells
	}
	return u, nil
}

// mayBeSent returns a *models.ReplyInProgress if another message of the chat that u
// is to be sent to is being answered.
func (r *Recordings) mayBeSent(ctx context.Context, u models.Upload, chatID int64) error {
	if chatID == 0 || u.Ended || u.Whole && u.Failure == "" {
		return nil
	}
	busy := r.db.ChatIdle(ctx, chatID)
	if !errors.Is(busy, models.ErrReplyInProgress) {
		return busy
	}
	// The message may be what became of u meanwhile.
	u, err := r.db.Upload(ctx, u.UserID, u.ID)
	if err == nil && !u.Ended {
		err = busy
	}
	return err
}

// Await returns the reply to a recording that is complete, as soon as there is
// one, whichever replica sends it. If the owner has died, this replica takes its
// place. It fails with what the try that it has waited for came to (the error of
// the service, of sending, or a *Failed), with ErrNothingHeard, or with
// stream.ErrDraining where another replica should be asked. Errors as of
// models.Upload.
func (r *Recordings) Await(ctx context.Context, userID, uploadID int64) (int64, error) {
	poll := time.NewTicker(r.config.PollEvery)
	defer poll.Stop()
	patience := time.Now().Add(r.config.Queueing)
	for {
		t := r.current(uploadID)
		if t == nil {
			messageID, err := r.look(ctx, userID, uploadID, &patience)
			if messageID != 0 || err != nil {
				return messageID, err
			}
			t = r.current(uploadID)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-r.ending:
			return 0, stream.ErrDraining
		case <-t.ended():
			if t.messageID != 0 || t.err != nil {
				return t.messageID, t.err
			}
		case <-poll.C:
		}
	}
}

// look returns what became of a recording, as far as that is stored, and begins a
// try where nobody living makes one. It waits for a place until patience ends,
// which begins anew while another replica is at it.
func (r *Recordings) look(ctx context.Context, userID, uploadID int64, patience *time.Time) (int64, error) {
	u, err := r.db.Upload(ctx, userID, uploadID)
	switch {
	case err != nil:
		return 0, err
	case u.Ended || u.Failure != "":
		return u.MessageID, r.failureOf(u)
	case !u.Orphaned && u.Owner != r.hub.Replica():
		*patience = time.Now().Add(r.config.Queueing)
		return 0, nil
	}
	if err = r.listen(u); err != nil && !errors.Is(err, stream.ErrDraining) && time.Now().Before(*patience) {
		return 0, nil
	}
	return 0, err
}

// Drop deletes a recording. Errors as of models.DeleteUpload.
func (r *Recordings) Drop(ctx context.Context, userID, uploadID int64) error {
	err := r.db.DeleteUpload(ctx, userID, uploadID)
	if err == nil {
		r.wake(uploadID)
	}
	return err
}

// maxTries is how often a recording is taken over that nobody asks for any more:
// one that ends whoever listens to it does not end all replicas.
const maxTries = 5

// Run looks for recordings that are whole and that nobody transcribes, since their
// owner has died or let go of them, until ctx ends.
func (r *Recordings) Run(ctx context.Context) {
	t := time.NewTicker(r.config.AdoptEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.ending:
			return
		case <-t.C:
		}
		orphans, err := r.db.OrphanedUploads(ctx, r.hub.Replica(), maxTries, r.config.AtOnce)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("recordings without an owner cannot be looked for, trying again", "err", err)
		}
		for _, u := range orphans {
			r.listen(u) //nolint:errcheck // without a place it is for another replica, or for later
		}
	}
}

// Drain lets go of all recordings at once, for other replicas to take, and takes
// no new ones. What arrives still is kept. It returns when nothing of this runs
// any more.
func (r *Recordings) Drain() {
	r.mu.Lock()
	if !r.ended {
		r.ended = true
		close(r.ending)
	}
	for _, t := range r.tries {
		t.cancel(stream.ErrDraining)
	}
	r.mu.Unlock()
	r.running.Wait()
}

func (r *Recordings) draining() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}
