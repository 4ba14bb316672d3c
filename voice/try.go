package voice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"parley/models"
	"parley/stream"
)

// A try is this replica's at one recording, of which it is the owner.
type try struct {
	*Recordings

	upload models.Upload
	ctx    context.Context //nolint:containedctx // its end is the end of this very value
	cancel context.CancelCauseFunc
	woken  chan struct{} // there may be more of the recording
	done   chan struct{}

	// What came of it, once done is closed; neither: the recording is somebody
	// else's, or is for whoever comes next.
	messageID int64
	err       error
}

// ended is closed when the try is over; of none it never is.
func (t *try) ended() <-chan struct{} {
	if t == nil {
		return nil
	}
	return t.done
}

// current returns the try at a recording that runs here, or nil.
func (r *Recordings) current(uploadID int64) *try {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tries[uploadID]
}

// wake says to the try at a recording that there may be more of it, and reports
// whether there is one here.
func (r *Recordings) wake(uploadID int64) bool {
	t := r.current(uploadID)
	if t == nil {
		return false
	}
	select {
	case t.woken <- struct{}{}:
	default:
	}
	return true
}

// listen begins a try at u, unless one runs here. stream.ErrDraining, ErrBusy,
// ErrTooMany.
func (r *Recordings) listen(u models.Upload) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return stream.ErrDraining
	}
	if r.tries[u.ID] != nil {
		return nil
	}
	if err := r.places.Enter(u.UserID); err != nil {
		return err
	}
	t := &try{Recordings: r, upload: u, woken: make(chan struct{}, 1), done: make(chan struct{})}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	r.tries[u.ID] = t
	r.running.Go(t.run)
	return nil
}

// run makes the try.
func (t *try) run() {
	defer func() {
		t.cancel(nil)
		t.mu.Lock()
		delete(t.tries, t.upload.ID)
		t.mu.Unlock()
		t.places.Leave(t.upload.UserID)
		close(t.done)
	}()
	u, err := t.db.TakeUpload(t.ctx, t.upload.ID, t.upload.Fence, t.hub.Replica())
	if err != nil {
		if !errors.Is(err, models.ErrStaleOwner) && t.ctx.Err() == nil {
			t.log.Warn("a recording cannot be taken, trying again", "upload_id", t.upload.ID, "err", err)
		}
		return
	}
	t.upload = u
	text := u.Transcript
	if text == "" {
		text, err = t.transcribe()
	}
	if err == nil && clean(text) == "" {
		err = ErrNothingHeard
	}
	if err == nil {
		err = t.send(clean(text))
	}
	t.conclude(text, err)
}

// errIdle ends a try at a recording of which nothing has come for long.
var errIdle = errors.New("voice: nothing more of the recording comes")

// transcribe returns what is said in the recording, once that is whole.
func (t *try) transcribe() (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &stream.BackendError{Code: stream.CodeVoiceError, Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	rest := reader{try: t, leave: func() {}}
	text, err = t.config.Transcriber.Transcribe(t.ctx, t.upload.Format, "", rest.next)
	rest.leave()
	if rest.err != nil {
		return "", rest.err
	}
	for err == nil && !t.upload.Whole { // it needed no more to know
		_, err = rest.next(t.ctx)
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if cause := context.Cause(t.ctx); cause != nil {
		return "", cause
	}
	return text, err
}

// A reader gives the recording of a try to the Transcriber.
type reader struct {
	*try

	at    int64
	err   error  // why it cannot be read
	leave func() // ends what attend began
}

// next returns the following piece, as soon as it has arrived, and io.EOF at the
// end of what is whole.
func (r *reader) next(ctx context.Context) ([]byte, error) {
	idle := time.NewTimer(r.config.Idle)
	defer idle.Stop()
	poll := time.NewTicker(r.config.PollEvery)
	defer poll.Stop()
	for {
		piece, u, err := r.db.UploadPiece(ctx, r.upload.ID, r.upload.Fence, r.at)
		if err != nil {
			if ctx.Err() == nil { // else it is the Transcriber that wants no more
				r.err = err
			}
			return nil, err
		}
		r.upload = u
		if len(piece) > 0 {
			r.at += int64(len(piece))
			return piece, nil
		}
		if u.Whole {
			r.leave()
			r.leave = r.attend(u.Fence)
			return nil, io.EOF
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-idle.C:
			r.err = errIdle
			return nil, errIdle
		case <-r.woken:
		case <-poll.C:
		}
	}
}

// attend looks after the try while the Transcriber has all of the recording, of
// which nothing is read any more: it ends the try when the recording is gone, or
// somebody else's, or the transcript takes too long. It goes on until leave, which
// waits for its end, is called.
func (t *try) attend(fence int64) (leave func()) {
	ctx, stop := context.WithTimeout(t.ctx, t.config.Patience)
	done := make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(t.config.AdoptEvery)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					t.cancel(errPatience)
				}
				return
			case <-t.woken:
			case <-look.C:
			}
			_, _, err := t.db.UploadPiece(ctx, t.upload.ID, fence, MaxBytes)
			if errors.Is(err, models.ErrStaleOwner) {
				t.cancel(err)
				return
			}
		}
	}()
	return func() {
		stop()
		<-done
	}
}

// errPatience ends a try whose transcript takes too long.
var errPatience = &stream.BackendError{
	Code: stream.CodeVoiceTimeout, Retryable: true, Err: errors.New("the transcript took too long"),
}

// sending is how long a message may take to be stored.
const sending = 15 * time.Second

// send sends the transcript as a message, in one step with the end of the
// recording.
func (t *try) send(text string) error {
	u := t.upload
	turn := models.NewTurn{
		UserID: u.UserID, ChatID: u.ChatID, Content: text,
		Voice:    &models.Voice{Name: u.Voice, Speed: u.Speed, Format: MP3},
		UploadID: u.ID, UploadFence: u.Fence,
	}
	if u.Key != "" {
		turn.Key = &models.IdempotencyKey{Route: u.KeyRoute, Key: u.Key, BodyHash: u.BodyHash}
	}
	ctx, cancel := context.WithTimeout(t.ctx, sending)
	defer cancel()
	ex, err := t.hub.Send(ctx, turn)
	if err != nil {
		return err
	}
	t.messageID = ex.Reply.ID
	if ex.Replayed { // another recording under the same key was first
		return t.end(models.UploadEnd{MessageID: ex.Reply.ID})
	}
	return nil
}

// conclude stores what came of the try, unless it is a message.
func (t *try) conclude(text string, err error) {
	var stored error
	switch {
	case err == nil:
		return
	case errors.Is(err, models.ErrStaleOwner), errors.Is(err, errIdle) && !t.upload.Whole,
		errors.Is(err, stream.ErrDraining), errors.Is(err, models.ErrUnavailable), !t.upload.Whole:
		t.log.Debug("let go of a recording", "upload_id", t.upload.ID, "err", err)
		if !errors.Is(err, models.ErrStaleOwner) {
			stored = t.end(models.UploadEnd{Transcript: text})
		}
	case errors.Is(err, ErrNothingHeard):
		t.err = err
		stored = t.end(models.UploadEnd{Failure: nothingHeard, Dropped: true})
	default:
		t.err = err
		t.log.Warn("a recording came to nothing", "upload_id", t.upload.ID, "code", codeOf(err), "err", err)
		stored = t.end(models.UploadEnd{Transcript: text, Failure: codeOf(err)})
	}
	if errors.Is(stored, models.ErrStaleOwner) {
		t.err = nil // what comes of it is somebody else's to say
	} else if stored != nil {
		t.log.Warn("a recording is left for whoever completes it", "upload_id", t.upload.ID, "err", stored)
	}
}

// end stores an end of the try, which this replica may be about to leave.
func (t *try) end(e models.UploadEnd) error {
	e.UploadID, e.Fence = t.upload.ID, t.upload.Fence
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), sending)
	defer cancel()
	return t.db.EndTry(ctx, e)
}

// maxText is the longest message in characters.
const maxText = 32_000

// clean makes a transcript a text that can be a message: "" if there are no words
// in it.
func clean(text string) string {
	text = strings.TrimSpace(strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", ""))
	if utf8.RuneCountInString(text) > maxText {
		text = string([]rune(text)[:maxText])
	}
	return text
}
