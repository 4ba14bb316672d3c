package models_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// orphans are the ids of the orphaned replies.
func orphans(t *testing.T, db *models.DB) map[int64]int {
	t.Helper()
	rs, err := db.OrphanedReplies(t.Context(), 100)
	must(t, err)
	ids := make(map[int64]int)
	for _, r := range rs {
		ids[r.MessageID] = r.Fence
	}
	return ids
}

func TestAReplyIsAnOrphanWithoutALiveOwner(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "question")
		reply := ex.Reply.ID
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: reply, Fence: 1, Text: "An answer"}})
		must(t, err)
		orphan, none := map[int64]int{reply: 1}, map[int64]int{}
		steps := []struct {
			what string
			do   func() error
			want map[int64]int
		}{
			{"an owner that never was", func() error { return nil }, orphan},
			{"a live one", func() error { return db.RenewReplica(t.Context(), "replica-1", time.Hour) }, none},
			{"renewed", func() error { return db.RenewReplica(t.Context(), "replica-1", time.Hour) }, none},
			{"lapsed", func() error { return db.RenewReplica(t.Context(), "replica-1", 0) }, orphan},
			{"another lives", func() error { return db.RenewReplica(t.Context(), "replica-2", time.Hour) }, orphan},
			{"back", func() error { return db.RenewReplica(t.Context(), "replica-1", time.Hour) }, none},
			{"removed", func() error { return db.RemoveReplica(t.Context(), "replica-1") }, orphan},
			{"back again", func() error { return db.RenewReplica(t.Context(), "replica-1", time.Hour) }, none},
			{"disowned", func() error { return db.DisownReply(t.Context(), reply, 1, "replica-1") }, orphan},
			{"released", func() error { return db.ReleaseReply(t.Context(), reply, 1, ownerOf(t, db, reply)) }, orphan},
		}
		for _, step := range steps {
			must(t, step.do())
			if got := orphans(t, db); fmt.Sprint(got) != fmt.Sprint(step.want) {
				t.Errorf("%s: got orphans %v, want %v", step.what, got, step.want)
			}
		}
		rs, err := db.OrphanedReplies(t.Context(), 1)
		must(t, err)
		wantEqual(t, rs, []models.RunningReply{{
			MessageID: reply, ChatID: chat.ID, UserID: chat.UserID, UserMessageID: ex.User.ID,
			Fence: 1, SavedBytes: 9, StartedAt: ex.Reply.CreatedAt,
		}})
		wantError(t, db.DisownReply(t.Context(), reply, 1, "replica-1"), models.ErrStaleOwner)
		wantError(t, db.ReleaseReply(t.Context(), reply, 1, "replica-1"), models.ErrStaleOwner)
		wantError(t, db.ReleaseReply(t.Context(), reply, 2, ""), models.ErrStaleOwner)
		wantError(t, db.ReleaseReply(t.Context(), reply+1, 1, "replica-1"), models.ErrNotFound)
	})
}

func TestTheNextLapse(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		const soon = time.Minute
		for _, step := range []struct {
			what  string
			id    string
			lease time.Duration
			want  time.Duration // rounded up to soon
		}{
			{"its own is none", "me", time.Second, 0},
			{"another's", "far", time.Hour, time.Hour},
			{"the first of two", "near", 2 * soon, 2 * soon},
			{"renewed", "near", 4 * soon, 4 * soon},
			{"lapsed", "near", -time.Second, time.Hour},
		} {
			must(t, db.RenewReplica(t.Context(), step.id, step.lease))
			in, ok, err := db.NextLapse(t.Context(), "me")
			must(t, err)
			if ok != (step.want > 0) || ok && (in > step.want || in < step.want-soon) {
				t.Errorf("%s: got %v, %t, want %v", step.what, in, ok, step.want)
			}
		}
	})
}

func TestOneReplicaTakesAnOrphan(t *testing.T) {
	t.Parallel()
	type result struct {
		reply models.RunningReply
		text  string
		err   error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "question")
		text := ""
		for attempt := 1; attempt <= 3; attempt++ {
			piece := fmt.Sprint("text of attempt ", attempt, ". ")
			saved, err := db.SaveTexts(t.Context(), []models.ReplyText{{ex.Reply.ID, attempt, int64(len(text)), piece}})
			must(t, err)
			wantEqual(t, saved, []int64{ex.Reply.ID})
			text += piece

			results := together(20, func(i int) (r result) {
				r.reply, r.text, r.err = takeReply(t, db, ex.Reply.ID, attempt, fmt.Sprint("taker-", i))
				return r
			})
			wantEqual(t, tally(results, func(r result) string { return errorName(r.err) }),
				map[string]int{"ok": 1, models.ErrStaleOwner.Error(): 19})
			for i, r := range results {
				if r.err != nil {
					continue
				}
				wantEqual(t, r.text, text)
				wantEqual(t, r.reply, models.RunningReply{
					MessageID: ex.Reply.ID, ChatID: chat.ID, UserID: chat.UserID, UserMessageID: ex.User.ID,
					Owner: fmt.Sprint("taker-", i), Fence: attempt + 1, SavedBytes: int64(len(text)),
					StartedAt: ex.Reply.CreatedAt,
				})
			}
			m, err := db.Message(t.Context(), chat.UserID, ex.Reply.ID)
			must(t, err)
			wantEqual(t, []any{m.Attempt, m.Content}, []any{1, text})
		}

		must(t, db.ReleaseReply(t.Context(), ex.Reply.ID, 4, ownerOf(t, db, ex.Reply.ID)))
		must(t, db.RenewReplica(t.Context(), "alive", time.Hour))
		_, _, err := takeReply(t, db, ex.Reply.ID, 4, "alive")
		must(t, err)
		_, _, err = takeReply(t, db, ex.Reply.ID, 5, "thief")
		wantError(t, err, models.ErrStaleOwner)
		must(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 5, Content: text, Status: models.StatusComplete}))
		_, _, err = takeReply(t, db, ex.Reply.ID, 5, "thief")
		wantError(t, err, models.ErrNotFound)
	})
}

// Of a dead replica all replies are taken at once, by several that try each by one
// of them, with what each needs to go on; what was used is counted for each user.
func TestRepliesAreTakenInSets(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var want []string
		var users []int64
		for i := range 3 {
			chat := newChat(t, db)
			users = append(users, chat.UserID)
			say(t, db, chat, "before", "yes")
			for _, in := range []models.Chat{chat, value(t)(createChat(t, db, chat.UserID))} {
				ex := send(t, db, in, fmt.Sprint("question ", i))
				_, err := db.SaveTexts(t.Context(), []models.ReplyText{{ex.Reply.ID, 1, 0, strings.Repeat("x", 4*(i+1))}})
				must(t, err)
				want = append(want, fmt.Sprintf("%d of %d: question %d, xxxx by successor 2 after replica-1", ex.Reply.ID, chat.UserID, i))
			}
		}
		must(t, db.RenewReplica(t.Context(), "alive", time.Hour))
		_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: users[0], Content: "hello", Owner: "alive"})
		must(t, err)
		orphans, err := db.OrphanedReplies(t.Context(), 100)
		must(t, err)
		wantEqual(t, len(orphans), len(want))
		orphans = append(orphans, models.RunningReply{MessageID: 1 << 40, Fence: 1})

		var got []string
		for _, taken := range together(4, func(int) []models.TakenReply {
			taken, err := db.TakeReplies(t.Context(), orphans, "successor")
			must(t, err)
			return taken
		}) {
			for _, r := range taken {
				got = append(got, fmt.Sprintf("%d of %d: %s, %.4s by %s %d after %s",
					r.Message.ID, r.UserID, r.Asked, r.Text, r.Running.Owner, r.Running.Fence, r.From))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		wantEqual(t, got, want)
		for i, user := range users {
			days, err := db.Usage(t.Context(), user, today(), today())
			must(t, err)
			// "question 0" is 10 bytes, 3 tokens; "before" and "yes" are 9 more, so 5.
			wantEqual(t, days, []models.UsageDay{{
				Day: today(), InputTokens: 3 + 5, OutputTokens: 2 * int64(i+1), EstimatedTokens: 8 + 2*int64(i+1), Replies: 1,
			}})
		}
	})
}

func ownerOf(t *testing.T, db *models.DB, messageID int64) string {
	t.Helper()
	p, err := db.ReplyProgress(t.Context(), messageID, 0)
	must(t, err)
	return p.Running.Owner
}

// An owner that was thought dead writes at the moment in which its reply is
// taken: its text is either part of what the successor got, or refused.
func TestAnEarlierAttemptIsFenced(t *testing.T) {
	t.Parallel()
	type result struct {
		saved []int64
		text  string
		err   error
	}
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		for range 20 {
			ex := send(t, db, chat, "question")
			reply := ex.Reply.ID
			results := together(3, func(i int) (r result) {
				switch i {
				case 0:
					r.saved, r.err = db.SaveTexts(t.Context(), []models.ReplyText{{reply, 1, 0, "from the first"}})
				case 1:
					_, r.text, r.err = takeReply(t, db, reply, 1, "successor")
				default:
					r.err = db.FinishReply(t.Context(), models.ReplyEnd{MessageID: reply, Fence: 1, Content: "by the first", Status: models.StatusComplete})
				}
				return r
			})
			save, take, end := results[0], results[1], results[2]
			must(t, save.err)
			p, err := db.ReplyProgress(t.Context(), reply, 0)
			must(t, err)
			if take.err != nil {
				wantError(t, take.err, models.ErrNotFound)
				must(t, end.err)
				wantEqual(t, p.Text, "by the first")
				continue
			}
			wantError(t, end.err, models.ErrStaleOwner)
			wantEqual(t, len(save.saved) == 1, take.text == "from the first")
			wantEqual(t, p.Text, take.text)
			saved, err := db.SaveTexts(t.Context(), []models.ReplyText{{reply, 1, int64(len(take.text)), "late"}})
			must(t, err)
			wantEqual(t, len(saved), 0)
			must(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: reply, Fence: 2, Content: "by the successor", Status: models.StatusComplete}))
		}
		wantEqual(t, count(t, db, "reply_chunks"), 0)
	})
}

// Whatever a piece looks like, it is saved as it is: also as what the statement, or a
// list in it, is written with.
func TestAnyTextIsSavedAsItIs(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		pieces := []string{"null", "NULL", "{}", `{"a","b"}`, `"`, `\`, `\\"`, ",", " ", "\n", "\r\n\t", "'", "''; --", "?", "$1", "?0", "\u2028", "é…😀", "\x7f\x01"}
		texts := make([]models.ReplyText, len(pieces))
		whole := make(map[int64]string)
		for i := range pieces {
			ex := send(t, db, models.Chat{UserID: chat.UserID}, "question")
			texts[i] = models.ReplyText{MessageID: ex.Reply.ID, Fence: 1}
		}
		for round := range pieces {
			for i := range texts {
				texts[i].Start += int64(len(texts[i].Text))
				texts[i].Text = pieces[(i+round)%len(pieces)]
				whole[texts[i].MessageID] += texts[i].Text
			}
			saved, err := db.SaveTexts(t.Context(), texts)
			must(t, err)
			wantEqual(t, len(saved), len(texts))
		}
		for id, text := range whole {
			p, err := db.ReplyProgress(t.Context(), id, 0)
			must(t, err)
			wantEqual(t, p.Text, text)
			must(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: id, Fence: 1, Content: text, Status: models.StatusComplete, FinishReason: "'?"}))
			m, err := db.Message(t.Context(), chat.UserID, id)
			must(t, err)
			wantEqual(t, []string{m.Content, *m.FinishReason}, []string{text, "'?"})
		}
	})
}

func TestTheNextAttemptBeginsWithWhatItShares(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "question")
		reply := ex.Reply.ID
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{reply, 1, 0, "what the "}, {reply + 1, 1, 0, "other"}})
		must(t, err)
		_, text, err := takeReply(t, db, reply, 1, "successor")
		must(t, err)
		wantError(t, db.RestartReply(t.Context(), models.Restart{MessageID: reply, Fence: 1, Attempt: 2}), models.ErrStaleOwner)
		wantError(t, db.RestartReply(t.Context(), models.Restart{MessageID: reply + 1, Fence: 1, Attempt: 2}), models.ErrNotFound)

		for attempt, shared := range []string{2: text, 3: "", 4: "wh"} {
			if attempt < 2 {
				continue
			}
			must(t, db.RestartReply(t.Context(), models.Restart{
				MessageID: reply, Fence: 2, Attempt: attempt, SharedBytes: int64(len(shared)), Text: shared,
			}))
			piece := models.ReplyText{MessageID: reply, Fence: 2, Start: int64(len(shared)), Text: "next"}
			saved, err := db.SaveTexts(t.Context(), []models.ReplyText{piece})
			must(t, err)
			wantEqual(t, saved, []int64{reply})
			p, err := db.ReplyProgress(t.Context(), reply, 0)
			must(t, err)
			want := models.Progress{
				Message: ex.Reply, UserID: chat.UserID, UserMessageID: ex.User.ID, Title: "question", Text: shared + "next",
				Running: &models.RunningReply{
					MessageID: reply, ChatID: chat.ID, UserID: chat.UserID, UserMessageID: ex.User.ID, Owner: "successor",
					Fence: 2, SavedBytes: piece.Start + 4, SharedBytes: piece.Start, StartedAt: ex.Reply.CreatedAt,
				},
			}
			want.Message.Attempt, want.Message.SharedBytes = attempt, piece.Start
			wantEqual(t, p, want)
		}
		must(t, db.FinishReply(t.Context(), models.ReplyEnd{MessageID: reply, Fence: 2, Content: "whnext", Status: models.StatusComplete}))
		want := ex.Reply
		want.Content, want.Status, want.Attempt, want.SharedBytes = "whnext", models.StatusComplete, 4, 2
		got, err := db.Message(t.Context(), chat.UserID, reply)
		must(t, err)
		wantEqual(t, got, want)
	})
}

func TestAReplicaFindsWhatItOwns(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ex := send(t, db, newChat(t, db), "question")
		_, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: ex.Chat.UserID, Content: "another", Owner: "replica-2"})
		must(t, err)
		owned := func(all bool) []models.Owned {
			t.Helper()
			got, err := db.OwnedReplies(t.Context(), "replica-1", all)
			must(t, err)
			return got
		}
		want := models.Owned{MessageID: ex.Reply.ID, Fence: 1}
		wantEqual(t, owned(true), []models.Owned{want})
		wantEqual(t, owned(false), []models.Owned(nil))

		must(t, db.WatchReplies(t.Context(), []int64{ex.Reply.ID, 999}, time.Hour))
		want.Watched = true
		wantEqual(t, owned(false), []models.Owned{want})
		must(t, db.WatchReplies(t.Context(), []int64{ex.Reply.ID}, -time.Hour))
		must(t, db.WatchReplies(t.Context(), nil, time.Hour))
		wantEqual(t, owned(false), []models.Owned(nil))

		must(t, db.RequestStop(t.Context(), ex.Reply.ID))
		must(t, db.RequestStop(t.Context(), 999))
		want.Watched, want.StopRequested = false, true
		wantEqual(t, owned(false), []models.Owned{want})
	})
}

// Two who lock some of the same replies, one to save them and one to watch them,
// would each wait for the other if neither came first.
func TestWatchingWaitsForNobody(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	chat := newChat(t, db)
	saved := send(t, db, chat, "question").Reply.ID
	another, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: chat.UserID, Content: "another", Owner: "replica-1"})
	must(t, err)
	tx, err := db.Bun().BeginTx(t.Context(), nil)
	must(t, err)
	defer tx.Rollback() //nolint:errcheck // nothing is to be kept
	_, err = tx.NewRaw("UPDATE replies SET saved_bytes = 1 WHERE message_id = ?", saved).Exec(t.Context())
	must(t, err)
	must(t, db.WatchReplies(t.Context(), []int64{saved, another.Reply.ID}, time.Hour))
	owned, err := db.OwnedReplies(t.Context(), "replica-1", false)
	must(t, err)
	wantEqual(t, owned, []models.Owned{{MessageID: another.Reply.ID, Fence: 1, Watched: true}})
}

func TestWhatHasNoEffectAnyMoreIsPurged(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		_, kept := newUser(t, db)
		_, gone := newUser(t, db)
		for sid, expires := range map[string]time.Duration{kept.SID: 48 * time.Hour, gone.SID: 26 * time.Hour} {
			_, err := db.Bun().NewRaw("UPDATE device_sessions SET expires_at = ? WHERE sid = ?", time.Now().Add(expires), sid).Exec(t.Context())
			must(t, err)
		}
		for route, age := range map[string]time.Duration{"kept": -4 * time.Hour, "gone": time.Hour} {
			_, _, err := db.CreateChat(t.Context(), kept.UserID, "title", true, &models.IdempotencyKey{Route: route, Key: "k", BodyHash: "h"})
			must(t, err)
			_, err = db.Bun().NewRaw("UPDATE idempotency_keys SET created_at = ? WHERE route = ?", time.Now().Add(-age), route).Exec(t.Context())
			must(t, err)
			must(t, db.RenewReplica(t.Context(), route, 26*time.Hour-3*age))
			s := models.DeviceSession{SID: route, UserID: kept.UserID, ExpiresAt: time.Now()}
			must(t, db.CreateSession(t.Context(), &s, models.By{}))
			must(t, db.EndSession(t.Context(), route, 25*time.Hour-age/6, models.By{}))
			_, err = db.Bun().NewRaw(`INSERT INTO throttles (key, tat, allowed) VALUES (?, ?, TRUE)`,
				route, time.Now().Add(26*time.Hour-age).UnixMicro()).Exec(t.Context())
			must(t, err)
			_, err = db.Bun().NewRaw(`INSERT INTO password_resets (user_id, token_hash, created_at, expires_at) VALUES (?, ?, ?, ?)`,
				map[string]int64{"kept": kept.UserID, "gone": gone.UserID}[route], route, time.Now(), time.Now().Add(26*time.Hour-age)).Exec(t.Context())
			must(t, err)
			_, err = db.Bun().NewRaw(`INSERT INTO audit_entries (at, action, ip, request_id, detail) VALUES (?, ?, '', '', '')`,
				time.Now().Add(-4*time.Hour-age), route).Exec(t.Context())
			must(t, err)
		}
		_, err := db.Bun().NewRaw("DELETE FROM audit_entries WHERE action NOT IN ('kept', 'gone')").Exec(t.Context())
		must(t, err)
		must(t, db.PurgeExpired(t.Context(), time.Now().Add(26*time.Hour), 30*time.Hour))
		for table, column := range map[string]string{
			"replicas": "id", "revocations": "sid", "idempotency_keys": "route", "throttles": "key",
			"password_resets": "token_hash", "audit_entries": "action",
		} {
			var left []string
			must(t, db.Read().NewRaw("SELECT ? FROM ?", bunName(column), bunName(table)).Scan(t.Context(), &left))
			wantEqual(t, left, []string{"kept"})
		}
		wantEqual(t, count(t, db, "device_sessions WHERE sid = ?", kept.SID), 1)
		wantEqual(t, count(t, db, "device_sessions"), 1)
	})
}
