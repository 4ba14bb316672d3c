package stream_test

import (
	"testing"

	"parley/models"
)

// All replies end whose stop is requested, on whatever replica they are written.
func TestRepliesAreHaltedEverywhere(t *testing.T) {
	each(t, func(t *testing.T, db *models.DB) {
		words := make(chan string)
		r, elsewhere := start(t, db, steps(words)), start(t, db, steps(words))
		var follows []*follow
		for _, writer := range []*replica{r, elsewhere} {
			user, chat := newUser(t, db)
			follows = append(follows, writer.open(t, user, writer.send(t, user, chat, "hello").Reply.ID, ""))
		}
		_, running, err := db.SignOutAll(t.Context(), 0, models.By{})
		if err != nil || len(running) != 2 {
			t.Fatalf("running are %v, %v", running, err)
		}
		r.Halt(t.Context(), running...)
		for i, f := range follows {
			events := f.all()
			if last := events[len(events)-1]; last.name != "message_stopped" {
				t.Errorf("reply %d ends with %+v", i, last)
			}
		}
	})
}
