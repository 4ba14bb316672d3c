package main_test

import (
	"io"
	"strconv"
	"syscall"
	"testing"

	"parley/models"
)

// ending tells a replica to end in the middle of a reply, and checks what it
// does and answers from then on.
func ending(t *testing.T, s *service, you user, r *reading) {
	t.Helper()
	s.signal(t, syscall.SIGTERM)
	r.through()
	if ms, err := strconv.Atoi(r.retry); err != nil || ms < 0 || ms > 2000 || r.end != "" {
		t.Errorf("got retry %q and ending %q, want 0 to 2000 ms and none", r.retry, r.end)
	}
	eventually(t, "the replica is not ready", func() bool {
		var ready struct{ Checks map[string]string }
		got := nobody.ask(t, s, "GET", "/readyz", "")
		got.decode(t, &ready)
		return got.status == 503 && ready.Checks["draining"] == "ending"
	})
	refused := you.ask(t, s, "POST", "/api/v1/messages", `{"message":"And me?"}`).want(t, 503)
	if seconds, err := strconv.Atoi(refused.header.Get("Retry-After")); err != nil || seconds < 0 {
		t.Errorf("a send to an ending replica: got Retry-After %q", refused.header.Get("Retry-After"))
	}
	if got := you.message(t, s, r.messageID).Status; got != "streaming" {
		t.Errorf("the reply is %s, want streaming", got)
	}
}

func TestAnEndingReplicaSendsItsClientsElsewhere(t *testing.T) {
	t.Parallel()
	settings := database(t, models.Postgres)
	d := dictate(t)
	settings = with(settings, with(d.settings, "DRAIN_TIMEOUT=5m")...)
	one, other := start(t, settings...), start(t, settings...)
	you := signUp(t, one)
	r := you.say(t, one, "Count to three")
	d.say("One, ")
	r.has(len("One, "))
	ending(t, one, you, r)

	r.resume(you, other)
	d.say("two, ")
	r.has(len("One, two, "))
	d.say("three.")
	close(d.words)
	if got := one.exitCode(t); got != 0 {
		t.Errorf("got exit code %d, want 0", got)
	}
	r.through()
	if r.text != "One, two, three." || r.end != "message_complete" {
		t.Errorf("got %q and %q", r.text, r.end)
	}
	r.check(you, other, "complete")
}

func TestAnEndingProcessFinishesItsReplies(t *testing.T) {
	t.Parallel()
	settings := database(t, models.SQLite)
	d := dictate(t)
	s := start(t, with(settings, with(d.settings, "DRAIN_TIMEOUT=5m")...)...)
	you := signUp(t, s)
	r := you.say(t, s, "Count to three")
	d.say("One, ")
	r.has(len("One, "))
	ending(t, s, you, r)
	d.say("two, ")
	d.say("three.")
	close(d.words)
	if got := s.exitCode(t); got != 0 {
		t.Errorf("got exit code %d, want 0", got)
	}

	next := start(t, settings...)
	r.resume(you, next)
	r.through()
	if r.text != "One, two, three." || r.end != "message_complete" {
		t.Errorf("got %q and %q", r.text, r.end)
	}
	r.check(you, next, "complete")
}

// slowly is a pace at which no reply of the demo provider ends in the time that
// a test has for it.
const slowly = "DEMO_TOKEN_DELAY=5s"

// advice begins a chat in which the demo provider always answers the same.
const advice = "I need relationship advice"

// checkWhole checks that the reply to advice, which one process began and
// another one ended, is what a single one would have said.
func checkWhole(t *testing.T, s *service, you user, r *reading) {
	t.Helper()
	r.check(you, s, "complete")
	want := you.say(t, s, advice)
	want.through()
	if r.text != want.text || r.end != "message_complete" {
		t.Errorf("got %q and %q, want %q and message_complete", r.text, r.end, want.text)
	}
}

func TestAReplyGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, slowly, "DRAIN_TIMEOUT=1ms")...)
		you := signUp(t, s)
		r := you.say(t, s, advice)
		r.has(1)
		s.signal(t, syscall.SIGTERM)
		r.through()
		if got := s.exitCode(t); got != 0 || r.retry == "" || r.end != "" {
			t.Errorf("got exit code %d, retry %q and ending %q, want 0, some and none", got, r.retry, r.end)
		}

		next := start(t, with(settings, "DEMO_TOKEN_DELAY=1ms")...)
		r.resume(you, next)
		r.through() // a message_reset would fail the test
		checkWhole(t, next, you, r)
	})
}

func TestAReplyGoesOnElsewhereAtOnce(t *testing.T) {
	t.Parallel()
	settings := database(t, models.Postgres)
	one := start(t, with(settings, slowly, "DRAIN_TIMEOUT=1ms")...)
	other := start(t, with(settings, "DEMO_TOKEN_DELAY=1ms")...)
	you := signUp(t, one)
	r := you.say(t, one, advice)
	r.has(1)
	one.signal(t, syscall.SIGTERM)
	r.through()
	r.resume(you, other)
	r.through()
	checkWhole(t, other, you, r)
	if got := one.exitCode(t); got != 0 {
		t.Errorf("got exit code %d, want 0", got)
	}
}

func TestAReplyOutlivesACrash(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, slowly)...)
		you := signUp(t, s)
		r := you.say(t, s, advice)
		r.has(1)
		eventually(t, "the beginning is saved", func() bool { return you.message(t, s, r.messageID).Content == r.text })
		s.kill()
		if err := r.until(func() bool { return r.end != "" }); err == nil || err == io.EOF {
			t.Errorf("the stream ended with %v %q, want a broken connection", err, r.end)
		}

		next := start(t, with(settings, "DEMO_TOKEN_DELAY=1ms")...)
		r.resume(you, next)
		r.through()
		checkWhole(t, next, you, r)
	})
}
