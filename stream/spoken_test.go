package stream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/stream"
)

// A synthesizer is a stream.Synthesizer made of a function.
type synthesizer func(ctx context.Context, s stream.Speech, each func([]byte) error) error

func (f synthesizer) Synthesize(ctx context.Context, s stream.Speech, each func([]byte) error) error {
	return f(ctx, s, each)
}

// sounds is the audio of a text, as the synthesizers here make it.
func sounds(text string) string { return "<" + text + ">" }

// speaks is a synthesizer that takes no time. Its audio comes in two pieces.
func speaks(_ context.Context, s stream.Speech, each func([]byte) error) error {
	audio := []byte(sounds(s.Text))
	if err := each(audio[:1]); err != nil {
		return err
	}
	return each(audio[1:])
}

// voice is a change to a replica: it speaks.
func voice(s synthesizer) func(*stream.Config) {
	return func(c *stream.Config) { c.Synthesizer = s }
}

// A gate lets so many of the sentences below be spoken.
type gate chan int

func newGate(n int) gate {
	g := make(gate, 1)
	g <- n
	return g
}

// give lets one more be spoken.
func (g gate) give() { g <- 1 + <-g }

func (g gate) speak(ctx context.Context, s stream.Speech, each func([]byte) error) error {
	at := slices.IndexFunc(sentences, func(sentence string) bool { return strings.TrimSpace(sentence) == s.Text })
	for {
		n := <-g
		g <- n
		if n > at {
			return speaks(ctx, s, each)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// ask has a reply made that is spoken.
func (r *replica) ask(t *testing.T, userID, chatID int64, message string) models.Exchange {
	t.Helper()
	ex, err := r.Send(t.Context(), models.NewTurn{
		UserID: userID, ChatID: chatID, Content: message, Voice: &models.Voice{Name: "slt", Speed: 1.25, Format: "mp3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ex
}

// A record is what a client makes of the events of a spoken reply.
type record struct {
	transcript

	greeted []string // before message_start
	hints   int
	audio   string // of all pieces
	pieces  int
	last    event
	endings int
}

func (rec *record) take(t *testing.T, e event) {
	t.Helper()
	switch e.name {
	case "voice_transcribed":
		rec.greeted = append(rec.greeted, field[string](t, e, "text"))
	case "voice_processing":
		status := field[string](t, e, "status")
		if status == "synthesizing" {
			rec.hints++
		} else {
			rec.greeted = append(rec.greeted, status)
		}
	case "message_start":
	case "message_token":
		rec.text += field[string](t, e, "text")
	case "message_reset":
		rec.text, rec.audio, rec.pieces = "", "", 0
		rec.resets++
	case "voice_audio":
		rec.pieces++
		if seq := field[int](t, e, "seq"); seq != rec.pieces {
			t.Errorf("piece %d comes as %d", seq, rec.pieces)
		}
		rec.audio += decode(t, field[string](t, e, "audio"))
	case "message_complete", "message_stopped":
		rec.ending = e
		rec.endings++
	case "voice_response", "error":
		rec.last = e
	default:
		t.Errorf("unknown event %q", e.name)
	}
	id := fmt.Sprintf("-%d", len(rec.text))
	switch {
	case e.name == "voice_response" || e.name == "error" && strings.Contains(e.data, "voice_failed"):
		id += fmt.Sprintf("-%d", rec.pieces+1)
	case e.name == "voice_transcribed" || e.name == "voice_processing":
		return
	case rec.pieces > 0:
		id += fmt.Sprintf("-%d", rec.pieces)
	}
	if attempt, rest, _ := strings.Cut(e.id, "-"); attempt == "" || "-"+rest != id {
		t.Errorf("the id of %s is %s, after %d bytes and %d pieces", e.name, e.id, len(rec.text), rec.pieces)
	}
}

func decode(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// rest takes the rest of a stream.
func (rec *record) rest(t *testing.T, f *follow) {
	t.Helper()
	for _, e := range f.all() {
		rec.take(t, e)
	}
}

// until takes events up to and with one of that name.
func (rec *record) until(t *testing.T, f *follow, name string) {
	t.Helper()
	for {
		e, ok := f.next()
		if !ok {
			t.Fatalf("the stream has ended without %s", name)
		}
		rec.take(t, e)
		if e.name == name {
			return
		}
	}
}

// wantWhole checks that a client has all of a reply: these sentences.
func (rec *record) wantWhole(t *testing.T, what, text, audio string) {
	t.Helper()
	got := []string{rec.text, rec.ending.name, rec.audio, rec.last.name}
	if diff := cmp.Diff([]string{text, "message_complete", audio, "voice_response"}, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
		return
	}
	if all := decode(t, field[string](t, rec.last, "audio")); all != audio {
		t.Errorf("%s: voice_response has %q, want %q", what, all, audio)
	}
}

// Sentences that are long enough to be spoken one by one.
var sentences = []string{
	"The quick brown fox jumps over the lazy dog, who has been asleep under the pear tree since noon.",
	" The dog opens one eye, looks after the fox for a while, thinks of running, and sleeps on instead.",
	" In the evening, when it is cooler, both of them will say that nothing has happened at all today.",
}

var (
	said  = strings.Join(sentences, "")
	heard = sounds(sentences[0]) + sounds(sentences[1][1:]) + sounds(sentences[2][1:])
)

func TestASpokenReplyArrivesAsItIsMade(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		tokens := newGate(0)
		r := start(t, db, steps(words), voice(tokens.speak))
		ex := r.ask(t, user, chat, "Was that a fox?")
		f := r.open(t, user, ex.Reply.ID, "")
		var got []event
		read := func(n int) {
			for range n {
				e, ok := f.next()
				if !ok {
					t.Fatal("the stream has ended")
				}
				got = append(got, e)
			}
		}
		read(3)
		words <- sentences[0]
		read(1)
		words <- " The"
		read(2)
		tokens.give()
		read(1)
		words <- sentences[1][4:]
		read(1)
		close(words)
		read(1)
		tokens.give()
		read(2)
		if rest := f.all(); rest != nil {
			t.Errorf("events after the last: %v", rest)
		}
		id, text := ex.Reply.ID, sentences[0]+sentences[1]
		one, two := sounds(sentences[0]), sounds(sentences[1][1:])
		b64 := base64.StdEncoding.EncodeToString
		mark := func(n int) string { return fmt.Sprint("1-", n) }
		n0, n1 := len(sentences[0]), len(text)
		want := []event{
			{"voice_transcribed", "", `{"text":"Was that a fox?"}`},
			{"voice_processing", "", `{"status":"thinking"}`},
			{"message_start", "1-0", fmt.Sprintf(`{"chat_id":%d,"user_message_id":%d,"message_id":%d,"title":"Was that a fox?"}`, chat, ex.User.ID, id)},
			{"message_token", mark(n0), fmt.Sprintf(`{"text":%q}`, sentences[0])},
			{"message_token", mark(n0 + 4), `{"text":" The"}`},
			{"voice_processing", mark(n0 + 4), `{"status":"synthesizing"}`},
			{"voice_audio", mark(n0+4) + "-1", fmt.Sprintf(`{"seq":1,"audio":%q,"format":"mp3"}`, b64([]byte(one)))},
			{"message_token", mark(n1) + "-1", fmt.Sprintf(`{"text":%q}`, sentences[1][4:])},
			{"message_complete", mark(n1) + "-1", fmt.Sprintf(`{"message_id":%d,"full_text":%q,"finish_reason":"stop","usage":{"input_tokens":4,"output_tokens":49,"estimated":true}}`, id, text)},
			{"voice_audio", mark(n1) + "-2", fmt.Sprintf(`{"seq":2,"audio":%q,"format":"mp3"}`, b64([]byte(two)))},
			{"voice_response", mark(n1) + "-3", fmt.Sprintf(`{"message_id":%d,"audio":%q,"format":"mp3"}`, id, b64([]byte(one+two)))},
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(event{})); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if f.retry != "1000" {
			t.Errorf("retry: %q, want 1000", f.retry)
		}
	})
}

// Wherever a client is cut, and wherever it comes back, it has in the end the text
// and the audio, each piece once.
func TestASpokenReplyResumesBehindEachEvent(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words, tokens := make(chan string), newGate(0)
		r, elsewhere := start(t, db, steps(words), voice(tokens.speak)), start(t, db, says())
		ex := r.ask(t, user, chat, "Was that a fox?")
		f := r.open(t, user, ex.Reply.ID, "")
		var recs []record
		var ids []string
		var rec record
		keep := func(name string) {
			rec.until(t, f, name)
			recs, ids = append(recs, rec), append(ids, f.lastID)
		}
		keep("message_start")
		words <- sentences[0] + " The"
		keep("message_token")
		tokens.give()
		keep("voice_audio")
		words <- strings.TrimPrefix(sentences[1], " The")
		keep("message_token")

		type client struct {
			what string
			rec  record
			f    *follow
		}
		var clients []client
		again := func(when string) {
			for i, id := range ids {
				for where, other := range map[string]*replica{"here": r, "elsewhere": elsewhere} {
					clients = append(clients, client{
						fmt.Sprintf("%s, %s, from %s", when, where, id), recs[i], other.open(t, user, ex.Reply.ID, id),
					})
				}
			}
		}
		again("while the text runs")
		words <- sentences[2]
		close(words)
		keep("message_complete")
		again("while it is spoken")
		tokens.give()
		keep("voice_audio")
		tokens.give()
		keep("voice_audio")
		rec.rest(t, f)
		rec.wantWhole(t, "the first client", said, heard)
		again("at the end")
		for _, c := range clients {
			c.rec.rest(t, c.f)
			c.rec.wantWhole(t, c.what, said, heard)
		}
		for where, other := range map[string]*replica{"here": r, "elsewhere": elsewhere} {
			if f := other.open(t, user, ex.Reply.ID, rec.last.id); f.response.StatusCode != 204 {
				t.Errorf("%s, from %s, which is the end: status %d, want 204", where, rec.last.id, f.response.StatusCode)
			}
			var fresh record
			fresh.rest(t, other.open(t, user, ex.Reply.ID, ""))
			fresh.wantWhole(t, "from the beginning, "+where, said, heard)
			if diff := cmp.Diff([]string{"Was that a fox?", "thinking"}, fresh.greeted); diff != "" || fresh.hints != 1 {
				t.Errorf("greeted, %d hints (-want +got):\n%s", fresh.hints, diff)
			}
			chunks := other.get(t, fmt.Sprintf("/%d?user=%d&audio=chunks", ex.Reply.ID, user), "").all()
			if got, want := chunks[len(chunks)-1].data, fmt.Sprintf(`{"message_id":%d,"format":"mp3"}`, ex.Reply.ID); got != want {
				t.Errorf("with audio=chunks the last event is %s, want %s", got, want)
			}
			for _, id := range []string{"1-0-0", "1-5-9", "1-0-5", rec.last.id + "0", rec.last.id + "-1", "1-0-01", "1-0--1", "1-0-", "2-0-1"} {
				if f := other.open(t, user, ex.Reply.ID, id); f.response.StatusCode != 418 {
					t.Errorf("%s, from %s: status %d", where, id, f.response.StatusCode)
				}
			}
		}
	})
}

// Sentences are asked for as they come, in order, and two at the most before the
// first of them is stored.
func TestSentencesAreSpokenAhead(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		type call struct {
			stream.Speech
			done chan struct{}
		}
		calls := make(chan call, 10)
		r := start(t, db, says(said, " That is all that there is to say about this fox, about the dog, and about the old tree."), voice(
			func(ctx context.Context, s stream.Speech, each func([]byte) error) error {
				c := call{s, make(chan struct{})}
				calls <- c
				<-c.done
				return speaks(ctx, s, each)
			}))
		ex := r.ask(t, user, chat, "Tell me.")
		var asked []call
		want := func(n int) {
			t.Helper()
			for len(asked) < n {
				asked = append(asked, <-calls)
			}
			time.Sleep(20 * time.Millisecond) // for what must not happen
			if len(calls) > 0 {
				t.Fatalf("more than %d calls", n)
			}
		}
		want(2)
		if asked[0].Text != sentences[0] { // two calls at once come in no order
			asked[0], asked[1] = asked[1], asked[0]
		}
		r.await(t, user, ex.Reply.ID) // the text does not wait for it
		close(asked[1].done)          // the second one before the first
		want(2)
		close(asked[0].done)
		want(4)
		close(asked[3].done)
		close(asked[2].done)
		var rec record
		rec.rest(t, r.open(t, user, ex.Reply.ID, ""))
		last := "That is all that there is to say about this fox, about the dog, and about the old tree."
		rec.wantWhole(t, "the reply", said+" "+last, heard+sounds(last))
		var got []stream.Speech
		for _, c := range asked {
			got = append(got, c.Speech)
		}
		if got[2].Text != sentences[2][1:] {
			got[2], got[3] = got[3], got[2]
		}
		var wanted []stream.Speech
		for _, text := range []string{sentences[0], sentences[1][1:], sentences[2][1:], last} {
			wanted = append(wanted, stream.Speech{Text: text, Voice: "slt", Speed: 1.25, Format: "mp3"})
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("asked for (-want +got):\n%s", diff)
		}
	})
}

// What is short, or has no words, is spoken with its neighbours.
func TestShortSentencesAreSpokenTogether(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		long := strings.Replace(sentences[0], ".", ", and who dreams of foxes that run after dogs in the cool of the evening.", 1)
		text := "No. Why? I do **not** know.\n\n```\ncode();\n```\n\n" + long
		r := start(t, db, says(text), voice(speaks))
		ex := r.ask(t, user, chat, "Tell me.")
		var rec record
		rec.rest(t, r.open(t, user, ex.Reply.ID, ""))
		rec.wantWhole(t, "the reply", text, sounds("No. Why? I do not know.")+sounds(long))
	})
}

func TestASynthesizerThatFails(t *testing.T) {
	t.Parallel()
	failed := func(retryable bool) error {
		return &stream.BackendError{Code: stream.CodeVoiceError, Retryable: retryable, Err: errors.New("out of breath")}
	}
	for name, test := range map[string]struct {
		second func(try int, each func([]byte) error) error // of the second sentence
		whole  bool
	}{
		"once, and it may be tried again": {func(try int, each func([]byte) error) error {
			if try == 1 {
				return errors.Join(each([]byte("ha")), failed(true))
			}
			return each([]byte(sounds(sentences[1][1:])))
		}, true},
		"since it has no room for a while": {func(try int, each func([]byte) error) error {
			if try <= 3 {
				return &stream.BackendError{Code: stream.CodeVoiceBusy, Retryable: true, Err: errors.New("full")}
			}
			return each([]byte(sounds(sentences[1][1:])))
		}, true},
		"twice":                  {func(int, func([]byte) error) error { return failed(true) }, false},
		"for good":               {func(int, func([]byte) error) error { return failed(false) }, false},
		"by a panic":             {func(int, func([]byte) error) error { panic("a fault of ours") }, false},
		"by saying nothing":      {func(int, func([]byte) error) error { return nil }, false},
		"by an error of its own": {func(int, func([]byte) error) error { return errors.New("odd") }, false},
		"by a sound without an end": {func(_ int, each func([]byte) error) error {
			for {
				if err := each(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				var mu sync.Mutex
				tries := 0
				r, elsewhere := start(t, db, says(said), voice(func(ctx context.Context, s stream.Speech, each func([]byte) error) error {
					if s.Text != sentences[1][1:] {
						return speaks(ctx, s, each)
					}
					mu.Lock()
					tries++
					try := tries
					mu.Unlock()
					return test.second(try, each)
				})), start(t, db, says())
				ex := r.ask(t, user, chat, "Tell me.")
				for _, where := range []*replica{r, elsewhere} {
					var rec record
					rec.rest(t, where.open(t, user, ex.Reply.ID, ""))
					if test.whole {
						rec.wantWhole(t, "the reply", said, heard)
						continue
					}
					got := []string{rec.text, rec.ending.name, rec.audio, rec.last.name, rec.last.data}
					want := []string{said, "message_complete", sounds(sentences[0]), "error", fmt.Sprintf(
						`{"message":"The text is whole, but not all of it could be spoken: the audio after piece 1 is missing.","code":"voice_failed","retryable":true,"message_id":%d,"seq":1}`, ex.Reply.ID)}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("got (-want +got):\n%s", diff)
					}
					if f := where.open(t, user, ex.Reply.ID, rec.last.id); f.response.StatusCode != 204 {
						t.Errorf("from the end: status %d, want 204", f.response.StatusCode)
					}
				}
				if m := r.await(t, user, ex.Reply.ID); m.Content != said || m.Status != models.StatusComplete {
					t.Errorf("the message is %q, %s", m.Content, m.Status)
				}
			})
		})
	}
}

// A text that fails is the end of its voice.
func TestATextThatFailsIsSpokenNoFurther(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		words := make(chan string)
		r := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			for w := range words {
				if err := each(stream.Chunk{Text: w}); err != nil {
					return err
				}
			}
			return &stream.BackendError{Code: stream.CodeBackendError, Retryable: true, Err: errors.New("gone")}
		}), voice(speaks))
		ex := r.ask(t, user, chat, "Tell me.")
		f := r.open(t, user, ex.Reply.ID, "")
		var rec record
		words <- sentences[0] + " The"
		rec.until(t, f, "voice_audio")
		close(words)
		rec.rest(t, f)
		if rec.last.name != "error" || field[string](t, rec.last, "code") != stream.CodeBackendError || rec.audio != sounds(sentences[0]) {
			t.Errorf("got %q and %+v", rec.audio, rec.last)
		}
		until(t, "the speech has ended", func() bool { return state(t, db, ex.Reply.ID) == models.SpeechStopped })
	})
}

func state(t *testing.T, db *models.DB, messageID int64) string {
	t.Helper()
	s, err := db.Speech(t.Context(), messageID)
	if errors.Is(err, models.ErrNotFound) {
		return "gone"
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.State
}

func TestStopEndsTheVoice(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		elsewhere bool
		whole     bool // the text
	}{
		"with the text":                   {false, false},
		"with the text, from elsewhere":   {true, false},
		"behind the text":                 {false, true},
		"behind the text, from elsewhere": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, db *models.DB) {
				user, chat := newUser(t, db)
				words, tokens := make(chan string), newGate(0)
				r := start(t, db, steps(words), voice(tokens.speak))
				stopper := r
				if test.elsewhere {
					stopper = start(t, db, says())
				}
				ex := r.ask(t, user, chat, "Tell me.")
				follows := []*follow{r.open(t, user, ex.Reply.ID, ""), stopper.open(t, user, ex.Reply.ID, "")}
				recs := make([]record, len(follows))
				words <- said
				tokens.give()
				for i, f := range follows {
					recs[i].until(t, f, "voice_audio")
				}
				ending := "message_stopped"
				if test.whole {
					ending = "message_complete"
					close(words)
					for i, f := range follows {
						recs[i].until(t, f, "message_complete")
					}
				}
				if m, err := stopper.Stop(t.Context(), user, ex.Reply.ID); err != nil || m.Content != said {
					t.Errorf("stopped: %+v, %v", m, err)
				}
				for i, f := range follows {
					recs[i].rest(t, f)
					got := []string{recs[i].text, recs[i].ending.name, recs[i].audio}
					if diff := cmp.Diff([]string{said, ending, sounds(sentences[0])}, got); diff != "" {
						t.Errorf("client %d (-want +got):\n%s", i, diff)
					}
					if test.whole && recs[i].last.name != "voice_response" {
						t.Errorf("client %d: the last event is %+v", i, recs[i].last)
					}
				}
				until(t, "the speech has ended", func() bool { return state(t, db, ex.Reply.ID) == models.SpeechStopped })
				if _, err := stopper.Stop(t.Context(), user, ex.Reply.ID); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The chat is free as soon as the text is whole; what is put in the place of a
// reply that is still spoken is text alone.
func TestARegeneratedReplyIsTextAlone(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		tokens := newGate(1)
		r := start(t, db, says(said), voice(tokens.speak))
		ex := r.ask(t, user, chat, "Tell me.")
		f := r.open(t, user, ex.Reply.ID, "")
		var rec record
		rec.until(t, f, "voice_audio")
		r.await(t, user, ex.Reply.ID)
		again, err := r.Regenerate(t.Context(), models.Rewrite{UserID: user, MessageID: ex.Reply.ID})
		if err != nil {
			t.Fatal(err)
		}
		rec.rest(t, f) // its voice ends with the message
		if rec.last.name != "error" || field[string](t, rec.last, "code") != "voice_failed" {
			t.Errorf("the reply that was replaced ends with %+v", rec.last)
		}
		var tr transcript
		for _, e := range r.open(t, user, again.Reply.ID, "").all() {
			tr.take(t, e)
		}
		if tr.text != said || tr.ending.name != "message_complete" {
			t.Errorf("got %q, ended by %+v", tr.text, tr.ending)
		}
		if got := state(t, db, ex.Reply.ID) + state(t, db, again.Reply.ID); got != "gonegone" {
			t.Errorf("speeches are %s", got)
		}
	})
}

func TestADeletedChatEndsItsVoice(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		tokens := newGate(0)
		r, elsewhere := start(t, db, says(said), voice(tokens.speak)), start(t, db, says())
		ex := r.ask(t, user, chat, "Tell me.")
		follows := []*follow{r.open(t, user, ex.Reply.ID, ""), elsewhere.open(t, user, ex.Reply.ID, "")}
		recs := make([]record, len(follows))
		for i, f := range follows {
			recs[i].until(t, f, "message_complete")
		}
		if _, err := db.DeleteChat(t.Context(), user, chat); err != nil {
			t.Fatal(err)
		}
		for i, f := range follows {
			recs[i].rest(t, f)
			if recs[i].last.name != "error" {
				t.Errorf("client %d: the last event is %+v", i, recs[i].last)
			}
		}
	})
}

// The feed of a user's events tells of a spoken reply as of any other.
func TestTheFeedHasNoAudio(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, says(said), voice(speaks))
		f := r.get(t, fmt.Sprintf("/events?user=%d", user), "")
		f.next()
		ex := r.ask(t, user, chat, "Tell me.")
		var got []string
		for len(got) == 0 || got[len(got)-1] != "message_complete" {
			e, ok := f.next()
			if !ok {
				t.Fatal("the feed has ended")
			}
			if e.name != "message_token" && !strings.HasPrefix(e.name, "chat") {
				got = append(got, e.name)
			}
		}
		if diff := cmp.Diff([]string{"message_created", "message_start", "message_complete"}, got); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		var rec record
		rec.rest(t, r.open(t, user, ex.Reply.ID, ""))
		rec.wantWhole(t, "the reply", said, heard)
	})
}

// Audio is kept for an hour; a client who comes later gets the text.
func TestAudioThatIsKeptNoMore(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		r := start(t, db, says(said), voice(speaks))
		ex := r.ask(t, user, chat, "Tell me.")
		var rec record
		rec.rest(t, r.open(t, user, ex.Reply.ID, ""))
		if err := db.PurgeExpired(t.Context(), time.Now().Add(59*time.Minute), time.Hour); err != nil {
			t.Fatal(err)
		}
		later := start(t, db, says())
		var again record
		again.rest(t, later.open(t, user, ex.Reply.ID, ""))
		again.wantWhole(t, "within the hour", said, heard)
		if err := db.PurgeExpired(t.Context(), time.Now().Add(61*time.Minute), time.Hour); err != nil {
			t.Fatal(err)
		}
		latest := start(t, db, says())
		for _, id := range []string{"", "1-5-1"} {
			tr := transcript{text: said[:5]}
			if id == "" {
				tr.text = ""
			}
			for _, e := range latest.open(t, user, ex.Reply.ID, id).all() {
				tr.take(t, e)
			}
			if tr.text != said || tr.ending.name != "message_complete" {
				t.Errorf("from %q: %q, ended by %+v", id, tr.text, tr.ending)
			}
		}
		if f := latest.open(t, user, ex.Reply.ID, rec.last.id); f.response.StatusCode != 204 {
			t.Errorf("from the end: status %d, want 204", f.response.StatusCode)
		}
	})
}

// Large audio reaches a client who reads slowly, whole.
func TestLargeAudio(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, chat := newUser(t, db)
		large := bytes.Repeat([]byte("sound"), 600_001)
		r := start(t, db, says(said), voice(func(_ context.Context, s stream.Speech, each func([]byte) error) error {
			return each(append([]byte(s.Text), large...))
		}))
		ex := r.ask(t, user, chat, "Tell me.")
		var want string
		for _, s := range sentences {
			want += strings.TrimSpace(s) + string(large)
		}
		for range 2 {
			var rec record
			rec.rest(t, r.open(t, user, ex.Reply.ID, ""))
			if all := decode(t, field[string](t, rec.last, "audio")); rec.audio != want || all != want {
				t.Errorf("got %d bytes of audio, and %d at the end, want %d", len(rec.audio), len(all), len(want))
			}
		}
	})
}

func TestSpeak(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		mute := start(t, db, says())
		each := func([]byte) error { return nil }
		if err := mute.Speak(t.Context(), stream.Speech{Text: "x"}, each); !errors.Is(err, stream.ErrVoiceUnavailable) {
			t.Errorf("without a voice: %v", err)
		}
		if _, err := mute.Send(t.Context(), models.NewTurn{UserID: user, Content: "x", Voice: &models.Voice{}}); !errors.Is(err, stream.ErrVoiceUnavailable) {
			t.Errorf("without a voice: %v", err)
		}
		r := start(t, db, says(), voice(speaks), func(c *stream.Config) { c.MaxSpoken = 1 })
		for format, want := range map[string]string{
			"mp3": sounds(sentences[0]) + sounds(sentences[1][1:]) + sounds(sentences[2][1:]) + sounds("Well."),
			"wav": sounds(said + " Well."),
		} {
			var got []byte
			err := r.Speak(t.Context(), stream.Speech{Text: said + " *Well.*", Format: format}, func(some []byte) error {
				got = append(got, some...)
				return nil
			})
			if err != nil || string(got) != want {
				t.Errorf("%s: got %q, %v, want %q", format, got, err, want)
			}
		}
		gone := errors.New("gone")
		if err := r.Speak(t.Context(), stream.Speech{Text: "x"}, func([]byte) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("for a client who has left: %v", err)
		}
		// One is all that may be at once.
		held, leave := make(chan struct{}), make(chan struct{})
		go func() {
			err := r.Speak(context.WithoutCancel(t.Context()), stream.Speech{Text: "x"}, func([]byte) error {
				select {
				case <-held:
				default:
					close(held)
				}
				<-leave
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}()
		<-held
		defer close(leave)
		if err := r.Speak(t.Context(), stream.Speech{Text: "y"}, each); !errors.Is(err, stream.ErrOverloaded) {
			t.Errorf("beside as many as there may be: %v", err)
		}
	})
}
