package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/stream"
)

// wholeOf is a backend that says all of the script at once, or what is missing of it.
func wholeOf(script string) backend { return teller(give(1000), script, true) }

// A replica dies, or lets go, while its reply is spoken; another one has the rest
// spoken, and the client has each piece once.
func TestASpeechIsTakenOver(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, r *replica){
		"from a replica that died": func(_ *testing.T, r *replica) { r.kill() },
		"from one that has ended": func(t *testing.T, r *replica) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			r.Drain(ctx)
		},
	} {
		for when, pieces := range map[string]int{"before anything was spoken": 0, "after a sentence": 1, "after two": 2} {
			t.Run(name+", "+when, func(t *testing.T) {
				each(t, func(t *testing.T, db *models.DB) {
					user, chat := newUser(t, db)
					first := start(t, db, wholeOf(said), hasty, voice(newGate(pieces).speak))
					ex := first.ask(t, user, chat, "Tell me.")
					f := first.open(t, user, ex.Reply.ID, "")
					var rec record
					rec.until(t, f, "message_complete")
					for rec.pieces < pieces {
						rec.until(t, f, "voice_audio")
					}
					end(t, first)
					f.response.Body.Close()

					second := start(t, db, says(), hasty, voice(speaks))
					rec.rest(t, second.open(t, user, ex.Reply.ID, f.lastID))
					rec.wantWhole(t, "the client", said, heard)
					var fresh record
					fresh.rest(t, second.open(t, user, ex.Reply.ID, ""))
					fresh.wantWhole(t, "another one", said, heard)
				})
			})
		}
	}
}

// A replica dies in the middle of the text that it has spoken.
func TestASpokenReplyIsTakenOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		goesOn bool
		text   string // of the second backend
		resets int
		audio  string
	}{
		"by a backend that goes on":     {true, said, 0, heard},
		"by a backend that begins anew": {false, sentences[2][1:] + sentences[1], 1, sounds(sentences[2][1:]) + sounds(sentences[1][1:])},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				first := start(t, db, teller(give(25), said, true), hasty, voice(speaks))
				ex := first.ask(t, user, chat, "Tell me.")
				f := first.open(t, user, ex.Reply.ID, "")
				var rec record
				rec.until(t, f, "voice_audio")
				until(t, "text is saved", func() bool {
					m, err := db.Message(t.Context(), user, ex.Reply.ID)
					return err == nil && len(m.Content) > len(sentences[0])
				})
				first.kill()
				f.response.Body.Close()
				second, third := start(t, db, teller(give(100), test.text, test.goesOn), hasty, voice(speaks)), start(t, db, teller(give(100), test.text, test.goesOn), hasty)
				other := rec
				f2 := third.open(t, user, ex.Reply.ID, f.lastID)
				rec.rest(t, second.open(t, user, ex.Reply.ID, f.lastID))
				other.rest(t, f2)
				for what, rec := range map[string]record{"there": rec, "elsewhere": other} {
					rec.wantWhole(t, what, test.text, test.audio)
					if rec.resets != test.resets {
						t.Errorf("%s: %d resets, want %d", what, rec.resets, test.resets)
					}
				}
			})
		})
	}
}

// Where one replica writes the text, another one may have it spoken.
func TestAReplyIsSpokenElsewhere(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]bool{"to its end": false, "also when the text begins anew": true} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				// Its writer has no voice, so that the speech goes to the other one.
				ex, err := db.AppendTurn(t.Context(), models.NewTurn{
					UserID: user, ChatID: chat, Content: "Tell me.", Owner: "nobody", Voice: &models.Voice{Format: "mp3"},
				})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: "What was said before. And"}}); err != nil {
					t.Fatal(err)
				}
				paced := make(chan struct{}, 100)
				writer := start(t, db, teller(paced, "What was said before. And"+said, !restarts), hasty)
				until(t, "the text is written here", func() bool { return writer.Replies() == 1 })
				speaker := start(t, db, says(), hasty, voice(speaks))
				follows := []*follow{writer.open(t, user, ex.Reply.ID, ""), speaker.open(t, user, ex.Reply.ID, "")}
				for range cap(paced) {
					paced <- struct{}{}
				}
				for i, f := range follows {
					var rec record
					rec.rest(t, f)
					spoken := sounds("What was said before. And"+sentences[0]) + sounds(sentences[1][1:]) + sounds(sentences[2][1:])
					if rec.audio != spoken { // the pause between two pieces of text may part the first
						spoken = sounds("What was said before.") + sounds("And"+sentences[0]) + sounds(sentences[1][1:]) + sounds(sentences[2][1:])
					}
					rec.wantWhole(t, []string{"with the writer", "with the speaker"}[i], "What was said before. And"+said, spoken)
				}
			})
		})
	}
}

// A speaker that was thought dead and wakes up stores nothing any more.
func TestAPausedSpeakerIsFenced(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		tokens := newGate(0)
		paused := start(t, db, wholeOf(said), voice(tokens.speak), func(c *stream.Config) {
			c.PollEvery = time.Second // its lease lapses between two renewals
			c.Lease = 100 * time.Millisecond
		})
		ex := paused.ask(t, user, chat, "Tell me.")
		f := paused.open(t, user, ex.Reply.ID, "")
		paused.await(t, user, ex.Reply.ID)
		second := start(t, db, says(), hasty, voice(speaks))
		var rec, late record
		rec.rest(t, second.open(t, user, ex.Reply.ID, ""))
		for range sentences {
			tokens.give()
		}
		late.rest(t, f)
		rec.wantWhole(t, "with the second", said, heard)
		late.wantWhole(t, "with the one that was paused", said, heard)
	})
}

// An ending replica goes on speaking while there is time.
func TestAnEndingReplicaSpeaksToTheEnd(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		tokens := newGate(1)
		r, staying := start(t, db, wholeOf(said), voice(tokens.speak)), start(t, db, says())
		ex := r.ask(t, user, chat, "Tell me.")
		f := r.open(t, user, ex.Reply.ID, "")
		var rec record
		rec.until(t, f, "message_complete")
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			r.Drain(t.Context())
		}()
		rec.rest(t, f) // until it is sent elsewhere
		f = staying.open(t, user, ex.Reply.ID, f.lastID)
		tokens.give()
		tokens.give()
		rec.rest(t, f)
		rec.wantWhole(t, "the client", said, heard)
		<-drained
		if diff := cmp.Diff(int64(0), r.Replies()); diff != "" {
			t.Error(diff)
		}
	})
}

// A speech that is stored and that nobody speaks, since the answer of the commit
// got lost or its replica died at once, is found and spoken; and one whose text
// ended badly is put away.
func TestASpeechThatNobodySpeaks(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		store := func(status string) models.Exchange {
			ex, err := db.AppendTurn(t.Context(), models.NewTurn{
				UserID: user, ChatID: chat, Content: "hello", Owner: "nobody", Voice: &models.Voice{Format: "mp3"},
			})
			if err == nil {
				err = db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: said, Status: status})
			}
			if err != nil {
				t.Fatal(err)
			}
			return ex
		}
		whole, stopped := store(models.StatusComplete), store(models.StatusStopped)
		r := start(t, db, says(), hasty, voice(speaks))
		var rec record
		rec.rest(t, r.open(t, user, whole.Reply.ID, ""))
		rec.wantWhole(t, "the reply", said, heard)
		until(t, "the other one is put away", func() bool { return state(t, db, stopped.Reply.ID) == models.SpeechStopped })
	})
}

// The step before a wipe ends what is spoken, wherever that is.
func TestSpokenRepliesAreHalted(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		tokens := newGate(1)
		r, elsewhere := start(t, db, wholeOf(said), voice(tokens.speak)), start(t, db, says())
		ex := r.ask(t, user, chat, "Tell me.")
		f := r.open(t, user, ex.Reply.ID, "")
		var rec record
		rec.until(t, f, "message_complete")
		_, running, err := db.SignOutAll(t.Context(), 0, models.By{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int64{ex.Reply.ID}, running); diff != "" {
			t.Errorf("running (-want +got):\n%s", diff)
		}
		elsewhere.Halt(t.Context(), running...)
		rec.rest(t, f)
		tokens.give()
		if rec.last.name != "voice_response" || len(rec.audio) >= len(heard) {
			t.Errorf("got %q, ended by %+v", rec.audio, rec.last)
		}
	})
}

// A hopper is a client that never stays long: it is cut after a few events, and
// comes back to any replica.
type hopper struct {
	record
	lastID string
	done   bool
}

// hop reads some events from a replica, and leaves: at the latest with so many
// pieces.
func (h *hopper) hop(t *testing.T, r *replica, userID, messageID int64, enough int) {
	t.Helper()
	f := r.open(t, userID, messageID, h.lastID)
	defer f.response.Body.Close()
	if f.response.StatusCode == http.StatusNoContent {
		h.done = true
		return
	}
	for range 1 + rand.IntN(4) {
		e, ok := f.next()
		if !ok {
			h.done = true
			return
		}
		h.take(t, e)
		h.lastID = f.lastID
		h.done = e.name == "voice_response"
		if h.done || h.pieces == enough {
			return
		}
	}
}

// Clients that are cut again and again, and hop from replica to replica, also to
// those that take over from one that died, have in the end what is stored.
func TestClientsHopBetweenReplicas(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		text := said + said + said
		hoarse := voice(func(ctx context.Context, s stream.Speech, each func([]byte) error) error {
			time.Sleep(rand.N(20 * time.Millisecond))
			return speaks(ctx, s, each)
		})
		first := start(t, db, teller(give(100), text, true), hasty, hoarse)
		others := []*replica{
			start(t, db, teller(give(1000), text, true), hasty, hoarse),
			start(t, db, teller(give(1000), text, true), hasty, hoarse),
		}
		ex := first.ask(t, user, chat, "Tell me.")
		clients := make([]hopper, 6)
		for i := range clients {
			for clients[i].pieces < 1+i/2 {
				clients[i].hop(t, append(others, first)[rand.IntN(3)], user, ex.Reply.ID, 1+i/2)
			}
		}
		first.kill()
		var hopping sync.WaitGroup
		for i := range clients {
			hopping.Go(func() {
				for !clients[i].done {
					clients[i].hop(t, others[rand.IntN(2)], user, ex.Reply.ID, 0)
				}
			})
		}
		hopping.Wait()
		stored := others[0].await(t, user, ex.Reply.ID)
		pieces, err := db.Audio(t.Context(), ex.Reply.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		var audio string
		for _, p := range pieces {
			audio += string(p.Data)
		}
		if words := strings.NewReplacer("<", "", ">", "", " ", ""); stored.Content != text || words.Replace(audio) != words.Replace(text) {
			t.Errorf("stored are %q and %q", stored.Content, audio)
		}
		for i := range clients {
			clients[i].wantWhole(t, fmt.Sprint("client ", i), stored.Content, audio)
		}
	})
}
