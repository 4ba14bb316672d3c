package main_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
)

// The three commands of the README, on a new database: sign up, send, follow.
func TestTheFirstReply(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, "DEMO_TOKEN_DELAY=40ms")...)
		you := signUp(t, s)
		sent := you.ask(
			t, s, "POST", "/api/v1/messages", `{"message":"I need relationship advice"}`,
			"Accept: application/json", "Prefer: respond-async",
		).want(t, 202)
		if got, want := sent.header.Get("Location"), "/api/v1/messages/2/stream"; got != want {
			t.Errorf("got Location %q, want %q", got, want)
		}
		r := you.follow(t, s, 2)
		r.through()
		if r.end != "message_complete" || r.pieces < 2 || r.text == "" {
			t.Errorf("got %d pieces and %q, want some and message_complete", r.pieces, r.end)
		}
		r.check(you, s, "complete")

		you.ask(t, s, "GET", "/api/v1/messages/2/stream", "", "Last-Event-ID: "+r.lastID).want(t, 204)
	})
}

func TestTheThreeFormsOfAReply(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, "DEMO_TOKEN_DELAY=0s")...)
		you := signUp(t, s)

		events := you.say(t, s, "I feel lonely")
		events.through()
		events.check(you, s, "complete")
		path := fmt.Sprintf("/api/v1/chats/%d/messages", events.chatID)

		var whole exchange
		you.ask(t, s, "POST", path, `{"message":"Do you remember?"}`, "Accept: application/json").want(t, 200).decode(t, &whole)
		if diff := cmp.Diff(whole.Message, you.message(t, s, whole.Message.ID)); diff != "" || whole.Message.Status != "complete" {
			t.Errorf("the answer to a send, and GET of the same message (-got +want):\n%s", diff)
		}

		var later exchange
		you.ask(t, s, "POST", path, `{"message":"Thanks"}`, "Accept: application/json", "Prefer: respond-async").want(t, 202).decode(t, &later)
		r := you.follow(t, s, later.Message.ID)
		r.through()
		r.check(you, s, "complete")

		var list struct{ Messages []message }
		you.ask(t, s, "GET", path, "").want(t, 200).decode(t, &list)
		want := []message{
			you.message(t, s, events.messageID-1),
			you.message(t, s, events.messageID),
			you.message(t, s, whole.UserMessage.ID),
			you.message(t, s, whole.Message.ID),
			you.message(t, s, later.UserMessage.ID),
			you.message(t, s, later.Message.ID),
		}
		if diff := cmp.Diff(list.Messages, want); diff != "" {
			t.Errorf("the chat (-got +want):\n%s", diff)
		}
	})
}

// Each word is said only when the client has had the one before: nothing on the
// way may wait for more.
func TestEveryWordArrivesAsItIsSaid(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		d := dictate(t)
		s := start(t, with(settings, d.settings...)...)
		you := signUp(t, s)
		r := you.say(t, s, "Count to five")
		for _, word := range []string{"One, ", "two, ", "three, ", "four, ", "fünf."} {
			d.say(word)
			r.has(len(r.text) + len(word))
		}
		close(d.words)
		r.through()
		if r.text != "One, two, three, four, fünf." || r.pieces != 5 || r.end != "message_complete" {
			t.Errorf("got %q in %d pieces and %q", r.text, r.pieces, r.end)
		}
		r.check(you, s, "complete")
	})
}

func TestAReplyIsFollowedFromAnotherReplica(t *testing.T) {
	t.Parallel()
	settings := database(t, models.Postgres)
	d := dictate(t)
	one, other := start(t, with(settings, d.settings...)...), start(t, with(settings, d.settings...)...)
	you := signUp(t, one)

	r := you.say(t, one, "Count to four")
	d.say("One, ")
	r.has(len("One, "))
	r.resume(you, other) // the client leaves, and comes back elsewhere
	d.say("two, ")
	r.has(len("One, two, "))
	d.say("three, ")
	d.say("four.")
	close(d.words)
	r.through()
	if r.text != "One, two, three, four." || r.end != "message_complete" {
		t.Errorf("got %q and %q", r.text, r.end)
	}
	r.check(you, one, "complete")
	r.check(you, other, "complete")
}

func TestASessionHoldsAndEndsOnEveryReplica(t *testing.T) {
	t.Parallel()
	settings := database(t, models.Postgres)
	one, other := start(t, settings...), start(t, settings...)
	signUp(t, one)
	var you user
	nobody.ask(t, one, "POST", "/api/v1/auth/login", credentials).want(t, 200).decode(t, &you)

	profile := func(s *service) answer { return you.ask(t, s, "GET", "/api/v1/user/profile", "") }
	if here, there := profile(one).want(t, 200), profile(other).want(t, 200); string(here.body) != string(there.body) {
		t.Errorf("got the profiles %s and %s", here.body, there.body)
	}
	you.ask(t, one, "POST", "/api/v1/auth/logout", "").want(t, 200)
	profile(one).want(t, 401)
	eventually(t, "the other replica knows of the logout", func() bool { return profile(other).status == 401 })
	refresh := fmt.Sprintf(`{"refresh_token":%q}`, you.RefreshToken)
	nobody.ask(t, other, "POST", "/api/v1/auth/refresh", refresh).want(t, 401)

	another := user{}
	nobody.ask(t, other, "POST", "/api/v1/auth/login", credentials).want(t, 200).decode(t, &another)
	another.ask(t, one, "GET", "/api/v1/user/profile", "").want(t, 200)
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, "LOG_LEVEL=debug", "DEMO_TOKEN_DELAY=0s")...)
		you := signUp(t, s)
		r := you.say(t, s, "My sister is called Wilhelmina")
		r.through()
		you.ask(t, s, "GET", "/api/v1/chats?access_token="+you.AccessToken, "").want(t, 200)
		s.kill()
		log := strings.Join(s.log, "\n")
		for name, secret := range map[string]string{
			"access token": you.AccessToken, "refresh token": you.RefreshToken,
			"password": "correct horse battery", "message": "Wilhelmina", "reply": r.text,
		} {
			if strings.Contains(log, secret) {
				t.Errorf("the log has the %s", name)
			}
		}
	})
}
