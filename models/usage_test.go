package models_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// today is the day on which tests count. None may run over midnight.
func today() string { return time.Now().UTC().Format("2006-01-02") }

// usageOf is what a user has used today.
func usageOf(t testing.TB, db *models.DB, userID int64) models.UsageDay {
	t.Helper()
	days, err := db.Usage(t.Context(), userID, today(), today())
	must(t, err)
	if len(days) == 0 {
		return models.UsageDay{}
	}
	days[0].Day = ""
	return days[0]
}

// counted is every attempt that was counted for a user, in order.
func counted(t testing.TB, db *models.DB, userID int64) []string {
	t.Helper()
	rows, err := db.ExportUsage(t.Context(), userID, 0, 1000)
	must(t, err)
	var all []string
	for _, r := range rows {
		how := "counted"
		if r.Estimated {
			how = "estimated"
		}
		all = append(all, strings.TrimSpace(fmt.Sprintf("%d+%d %s by owner %d %s", r.InputTokens, r.OutputTokens, how, r.Fence, r.Model)))
	}
	return all
}

// turn is one of a user who may use limit tokens a day, with 20 set aside for the
// answer.
func turn(userID, chatID int64, content string, limit int64) models.NewTurn {
	return models.NewTurn{
		UserID: userID, ChatID: chatID, Content: content, Owner: "replica-1",
		Budget: models.Budget{Answer: 20, DailyLimit: limit},
	}
}

func append40(t testing.TB, db *models.DB, userID, limit int64) (models.Exchange, error) {
	t.Helper()
	return db.AppendTurn(t.Context(), turn(userID, 0, strings.Repeat("x", 40), limit))
}

// end ends a reply of its first owner, that has used u.
func end(t testing.TB, db *models.DB, ex models.Exchange, fence int, u models.Usage) {
	t.Helper()
	must(t, db.FinishReply(t.Context(), models.ReplyEnd{
		MessageID: ex.Reply.ID, Fence: fence, Content: "text", Status: models.StatusComplete, Usage: &u,
	}))
}

func TestFourBytesAreAToken(t *testing.T) {
	t.Parallel()
	for bytes, want := range map[int64]int64{0: 0, 1: 1, 4: 1, 5: 2, 8: 2, 4001: 1001} {
		if got := models.EstimateTokens(bytes); got != want {
			t.Errorf("%d bytes: got %d, want %d", bytes, got, want)
		}
	}
}

func TestADayIsThatOfUTC(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 1, 30, 0, 0, time.FixedZone("", 2*60*60))
	wantEqual(t, models.Day(at), "2026-02-28")
	wantEqual(t, models.NextDay(at), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
}

func TestWhatAReplyUsesIsCountedWithItsEnd(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "question")
		wantEqual(t, usageOf(t, db, chat.UserID), models.UsageDay{})
		end(t, db, ex, 1, models.Usage{Model: "large", InputTokens: 311, OutputTokens: 58})
		next := send(t, db, chat, "another")
		end(t, db, next, 1, models.Usage{InputTokens: 400, OutputTokens: 7, Estimated: true})
		last := send(t, db, chat, "the last")
		finish(t, db, last, "of which nothing is known")

		wantEqual(t, usageOf(t, db, chat.UserID), models.UsageDay{InputTokens: 711, OutputTokens: 65, EstimatedTokens: 407, Replies: 3})
		wantEqual(t, counted(t, db, chat.UserID), []string{
			"311+58 counted by owner 1 large", "400+7 estimated by owner 1", "0+0 counted by owner 1",
		})
		for id, want := range map[int64][]any{
			ex.Reply.ID: {int64(311), int64(58), false}, next.Reply.ID: {int64(400), int64(7), true}, last.Reply.ID: {nil, nil, false},
		} {
			m, err := db.Message(t.Context(), chat.UserID, id)
			must(t, err)
			got := []any{nil, nil, m.Estimated}
			if m.InputTokens != nil {
				got[0], got[1] = *m.InputTokens, *m.OutputTokens
			}
			wantEqual(t, got, want)
		}

		// It stays used when the chat goes.
		_, err := db.DeleteChat(t.Context(), chat.UserID, chat.ID)
		must(t, err)
		wantEqual(t, usageOf(t, db, chat.UserID).InputTokens, int64(711))
		wantEqual(t, len(counted(t, db, chat.UserID)), 3)
	})
}

// An end that is refused counts nothing.
func TestAnEndIsCountedOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		ex := send(t, db, chat, "question")
		errs := together(10, func(int) error {
			return db.FinishReply(t.Context(), models.ReplyEnd{
				MessageID: ex.Reply.ID, Fence: 1, Status: models.StatusComplete, Usage: &models.Usage{InputTokens: 5, OutputTokens: 6},
			})
		})
		wantEqual(t, tally(errs, errorName), map[string]int{"ok": 1, "not found": 9})
		wantEqual(t, usageOf(t, db, chat.UserID), models.UsageDay{InputTokens: 5, OutputTokens: 6, Replies: 1})
	})
}

func TestTheDailyLimitIsExactOverReplicas(t *testing.T) {
	t.Parallel()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			url := modelstest.URL(t, dialect)
			var replicas []*models.DB
			for range 2 {
				db, err := models.Open(t.Context(), url)
				must(t, err)
				t.Cleanup(func() { db.Close() })
				replicas = append(replicas, db)
			}
			db := replicas[0]
			type result struct {
				ex  models.Exchange
				err error
			}
			// Of each turn 10 tokens are the message, and 20 are for the answer.
			sendAll := func(userID, limit int64) []result {
				return together(30, func(i int) (r result) {
					r.ex, r.err = append40(t, replicas[i%2], userID, limit)
					return r
				})
			}
			name := func(r result) string { return errorName(r.err) }
			for range 3 {
				u, _ := newUser(t, db)
				const limit = 329 // ten turns, and a token too few for another
				results := sendAll(u.ID, limit)
				wantEqual(t, tally(results, name), map[string]int{"ok": 10, models.ErrDailyLimit.Error(): 20})
				wantEqual(t, usageOf(t, db, u.ID), models.UsageDay{Reserved: 300})
				for _, r := range results {
					var reached *models.DailyLimit
					if errors.As(r.err, &reached) {
						wantEqual(t, *reached, models.DailyLimit{Limit: limit, Used: 300, Running: true, Resets: models.NextDay(time.Now())})
					}
				}
				for _, table := range []string{"chats", "replies"} { // of who was refused nothing is stored
					wantEqual(t, count(t, db, table+" WHERE user_id = ?", u.ID), 10)
				}

				// They end, half of them with less than was set aside, while others are sent.
				ends := slices.DeleteFunc(results, func(r result) bool { return r.err != nil })
				together(10, func(i int) error {
					end(t, replicas[i%2], ends[i].ex, 1, models.Usage{InputTokens: 10, OutputTokens: int64(20 * (i % 2))})
					_, err := append40(t, replicas[i%2], u.ID, limit)
					if err != nil && !errors.Is(err, models.ErrDailyLimit) {
						t.Error(err)
					}
					return err
				})
				got := usageOf(t, db, u.ID)
				got.Reserved = 0
				wantEqual(t, got, models.UsageDay{InputTokens: 100, OutputTokens: 100, Replies: 10})
				sendAll(u.ID, limit)
				wantEqual(t, usageOf(t, db, u.ID).Reserved, int64(120)) // four more of 129
			}
		})
	}
}

func TestATurnBeyondTheDailyLimitStoresNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		say(t, db, chat, strings.Repeat("q", 40), strings.Repeat("a", 80))
		before := databaseRows(t, db)
		beyond := turn(chat.UserID, chat.ID, strings.Repeat("x", 40), 59) // 30 of history, 10, 20
		beyond.Key = &models.IdempotencyKey{Route: "r", Key: "k", BodyHash: "h"}
		_, err := db.AppendTurn(t.Context(), beyond)
		wantEqual(t, err, error(&models.DailyLimit{Limit: 59, Used: 0, Resets: models.NextDay(time.Now())}))
		wantEqual(t, databaseRows(t, db), before)

		// With the same key, once there is room. A repetition sets nothing aside.
		beyond.Budget.DailyLimit = 60
		ex, err := db.AppendTurn(t.Context(), beyond)
		must(t, err)
		wantEqual(t, usageOf(t, db, chat.UserID).Reserved, int64(60))
		again, err := db.AppendTurn(t.Context(), beyond)
		must(t, err)
		wantEqual(t, []any{again.Replayed, again.Reply.ID}, []any{true, ex.Reply.ID})
		wantEqual(t, usageOf(t, db, chat.UserID).Reserved, int64(60))
		_, err = db.AppendTurn(t.Context(), turn(chat.UserID, chat.ID, "x", 60))
		wantError(t, err, models.ErrReplyInProgress)

		end(t, db, ex, 1, models.Usage{InputTokens: 41, OutputTokens: 30}) // more than was expected
		wantEqual(t, usageOf(t, db, chat.UserID), models.UsageDay{InputTokens: 41, OutputTokens: 30, Replies: 2})
		_, err = db.AppendTurn(t.Context(), turn(chat.UserID, 0, "x", 71))
		wantEqual(t, err, error(&models.DailyLimit{Limit: 71, Used: 71, Resets: models.NextDay(time.Now())}))
	})
}

// databaseRows counts the rows that a turn adds.
func databaseRows(t *testing.T, db *models.DB) map[string]int {
	t.Helper()
	rows := make(map[string]int)
	for _, table := range []string{"chats", "messages", "replies", "idempotency_keys", "user_events", "usage", "usage_days"} {
		rows[table] = count(t, db, table)
	}
	return rows
}

func TestWhatGoesAlongIsSetAside(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, test := range map[string]struct {
			context models.Context
			want    int64 // tokens of the history
		}{
			"all of the chat":           {models.Context{}, 40},
			"its latest bytes":          {models.Context{Bytes: 88}, 22},
			"more bytes than there are": {models.Context{Bytes: 1000}, 40},
			"its latest messages":       {models.Context{Messages: 3}, 30},
			"of those the bytes":        {models.Context{Messages: 3, Bytes: 100}, 25},
		} {
			chat := newChat(t, db)
			for range 2 {
				say(t, db, chat, strings.Repeat("q", 40), strings.Repeat("ä", 20))
			}
			next := turn(chat.UserID, chat.ID, "four", 1000)
			next.Budget.Context = test.context
			ex, err := db.AppendTurn(t.Context(), next)
			must(t, err)
			if got := usageOf(t, db, chat.UserID).Reserved - 20 - 1; got != test.want {
				t.Errorf("%s: got %d, want %d", name, got, test.want)
			}
			// A dead owner is counted for the same.
			_, _, err = takeReply(t, db, ex.Reply.ID, 1, "successor")
			must(t, err)
			wantEqual(t, counted(t, db, chat.UserID)[2:], []string{fmt.Sprintf("%d+0 estimated by owner 1", test.want+1)})
		}
	})
}

// Who is refused because of replies that run is told so: there may be room when
// they have ended.
func TestALimitMayBeReachedForAMoment(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		refusal := func() models.DailyLimit {
			t.Helper()
			_, err := append40(t, db, u.ID, 59) // 30 each
			var reached *models.DailyLimit
			if !errors.As(err, &reached) {
				t.Fatalf("got %v, want a daily limit", err)
			}
			return *reached
		}
		limit := models.DailyLimit{Limit: 59, Resets: models.NextDay(time.Now())}
		first, err := append40(t, db, u.ID, 59)
		must(t, err)
		limit.Used, limit.Running = 30, true
		wantEqual(t, refusal(), limit)
		end(t, db, first, 1, models.Usage{InputTokens: 10, OutputTokens: 10})
		second, err := append40(t, db, u.ID, 59)
		must(t, err)
		limit.Used, limit.Running = 50, true
		wantEqual(t, refusal(), limit)
		end(t, db, second, 1, models.Usage{InputTokens: 5, OutputTokens: 5})
		wantEqual(t, refusal(), models.DailyLimit{Limit: 59, Used: 30, Resets: limit.Resets})
	})
}

func TestARewriteIsWithinTheDailyLimit(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		say(t, db, chat, strings.Repeat("q", 40), strings.Repeat("a", 40))
		ex := say(t, db, chat, strings.Repeat("q", 40), strings.Repeat("a", 4000))
		before := databaseRows(t, db)
		w := models.Rewrite{UserID: chat.UserID, MessageID: ex.Reply.ID, Owner: "replica-1", Budget: models.Budget{Answer: 20, DailyLimit: 49}}
		want := error(&models.DailyLimit{Limit: 49, Resets: models.NextDay(time.Now())})
		_, err := db.Regenerate(t.Context(), w)
		wantEqual(t, err, want)
		edit := w
		edit.MessageID, edit.Content = ex.User.ID, strings.Repeat("x", 40)
		edit.Key = &models.IdempotencyKey{Route: "edit", Key: "k", BodyHash: "h"}
		_, err = db.Edit(t.Context(), edit)
		wantEqual(t, err, want)
		wantEqual(t, databaseRows(t, db), before)

		w.Budget.DailyLimit, edit.Budget.DailyLimit = 100, 100
		ex, err = db.Regenerate(t.Context(), w)
		must(t, err)
		wantEqual(t, usageOf(t, db, chat.UserID).Reserved, int64(50))
		end(t, db, ex, 1, models.Usage{InputTokens: 30, OutputTokens: 20})
		ex, err = db.Edit(t.Context(), edit)
		must(t, err)
		again, err := db.Edit(t.Context(), edit)
		must(t, err)
		wantEqual(t, again.Reply.ID, ex.Reply.ID)
		wantEqual(t, usageOf(t, db, chat.UserID), models.UsageDay{InputTokens: 30, OutputTokens: 20, Replies: 3, Reserved: 50})
	})
}

// Each owner of a reply has a row: those who died by what they have saved, the
// last one by what it says.
func TestEveryOwnerIsCounted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		ex, err := append40(t, db, u.ID, 1000)
		must(t, err)
		save := func(fence int, start, size int64) {
			t.Helper()
			saved, err := db.SaveTexts(t.Context(), []models.ReplyText{{ex.Reply.ID, fence, start, strings.Repeat("y", int(size))}})
			must(t, err)
			wantEqual(t, len(saved), 1)
		}
		take := func(fence int) {
			t.Helper()
			results := together(5, func(int) error {
				_, _, err := takeReply(t, db, ex.Reply.ID, fence, fmt.Sprint("owner-", fence+1))
				return err
			})
			wantEqual(t, tally(results, errorName), map[string]int{"ok": 1, models.ErrStaleOwner.Error(): 4})
		}
		save(1, 0, 400)
		take(1)
		save(2, 400, 100) // goes on where the first one stood
		must(t, db.ReleaseReply(t.Context(), ex.Reply.ID, 2, "owner-2"))
		take(2)
		must(t, db.RestartReply(t.Context(), models.Restart{MessageID: ex.Reply.ID, Fence: 3, Attempt: 2, Text: ""}))
		save(3, 0, 80) // begins anew
		take(3)
		wantEqual(t, usageOf(t, db, u.ID), models.UsageDay{
			InputTokens: 10 + 110 + 10, OutputTokens: 100 + 25 + 20, EstimatedTokens: 275, Reserved: 30,
		})
		end(t, db, ex, 4, models.Usage{Model: "large", InputTokens: 33, OutputTokens: 44})
		wantEqual(t, counted(t, db, u.ID), []string{
			"10+100 estimated by owner 1", "110+25 estimated by owner 2", "10+20 estimated by owner 3", "33+44 counted by owner 4 large",
		})
		wantEqual(t, usageOf(t, db, u.ID), models.UsageDay{
			InputTokens: 130 + 33, OutputTokens: 145 + 44, EstimatedTokens: 275, Replies: 1,
		})
	})
}

func TestAReplyThatIsDeletedIsCounted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		ex, err := append40(t, db, u.ID, 1000)
		must(t, err)
		_, err = db.SaveTexts(t.Context(), []models.ReplyText{{ex.Reply.ID, 1, 0, "twelve bytes"}})
		must(t, err)
		running, err := db.DeleteChat(t.Context(), u.ID, ex.Chat.ID)
		must(t, err)
		wantEqual(t, running, ex.Reply.ID)
		wantEqual(t, usageOf(t, db, u.ID), models.UsageDay{InputTokens: 10, OutputTokens: 3, EstimatedTokens: 13, Replies: 1})
		wantEqual(t, counted(t, db, u.ID), []string{"10+3 estimated by owner 1"})
	})
}

// Whatever ends a reply, and however many ends meet, what was set aside is given
// back once, and the day is the sum of what was counted.
func TestNothingStaysSetAside(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		const rounds = 15
		for range rounds {
			ex, err := append40(t, db, u.ID, 1<<40)
			must(t, err)
			together(5, func(i int) error {
				switch i {
				case 0:
					_, err := db.DeleteChat(t.Context(), u.ID, ex.Chat.ID)
					return err
				case 1:
					_, _, err := takeReply(t, db, ex.Reply.ID, 1, "successor")
					return err
				case 2:
					_, err := db.SaveTexts(t.Context(), []models.ReplyText{{ex.Reply.ID, 1, 0, "some text"}})
					return err
				default:
					return db.FinishReply(t.Context(), models.ReplyEnd{
						MessageID: ex.Reply.ID, Fence: i - 2, Content: "text", Status: models.StatusComplete,
						Usage: &models.Usage{InputTokens: 3, OutputTokens: 4},
					})
				}
			})
		}
		wantEqual(t, count(t, db, "replies"), 0)
		got := usageOf(t, db, u.ID)
		wantEqual(t, []int64{got.Reserved, got.Replies}, []int64{0, rounds})
		var sums []int64
		must(t, db.Read().NewRaw("SELECT CAST(sum(input_tokens) AS bigint), CAST(sum(output_tokens) AS bigint) FROM usage").Scan(t.Context(), &got.Replies, &got.Reserved))
		sums = append(sums, got.Replies, got.Reserved)
		wantEqual(t, sums, []int64{got.InputTokens, got.OutputTokens})
	})
}

func TestUsageIsReadByDay(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ann, _ := newUser(t, db)
		bob, _ := newUser(t, db)
		for _, row := range []struct {
			user int64
			day  string
			n    int64
		}{{ann.ID, "2026-01-31", 1}, {ann.ID, "2026-02-01", 10}, {ann.ID, "2026-02-03", 100}, {bob.ID, "2026-02-01", 1000}, {bob.ID, "2026-02-04", 10000}} {
			_, err := db.Bun().NewRaw(`INSERT INTO usage_days (user_id, day, input_tokens, output_tokens, estimated_tokens, replies, reserved)
				VALUES (?, ?, ?, ?, ?, ?, ?)`, row.user, row.day, row.n, 2*row.n, 3*row.n, 4*row.n, 5*row.n).Exec(t.Context())
			must(t, err)
		}
		day := func(day string, n int64) models.UsageDay { return models.UsageDay{day, n, 2 * n, 3 * n, 4 * n, 5 * n} }
		got, err := db.Usage(t.Context(), ann.ID, "2026-02-01", "2026-02-03")
		must(t, err)
		wantEqual(t, got, []models.UsageDay{day("2026-02-01", 10), day("2026-02-03", 100)})
		all, err := db.UsageByDay(t.Context(), "2026-02-01", "2026-02-03")
		must(t, err)
		wantEqual(t, all, []models.UsageTotal{{day("2026-02-01", 1010), 2}, {day("2026-02-03", 100), 1}})
		got, err = db.Usage(t.Context(), bob.ID, "2025-01-01", "2026-01-01")
		must(t, err)
		wantEqual(t, len(got), 0)
	})
}

func TestAMadeTitleTakesThePlaceOfTheAutomaticOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		made := func(ex models.Exchange, title string) (bool, error) {
			return db.SetTitle(t.Context(), models.MadeTitle{
				UserID: ex.Chat.UserID, ChatID: ex.Chat.ID, MessageID: ex.Reply.ID, Former: "question", Title: title,
				Usage: models.Usage{Model: "small", InputTokens: 9, OutputTokens: 2},
			})
		}
		titleOf := func(ex models.Exchange) string {
			return value(t)(db.Chat(t.Context(), ex.Chat.UserID, ex.Chat.ID)).Title
		}
		chat := newChat(t, db)
		ex := say(t, db, chat, "question", "answer")
		set, err := made(ex, "A Title")
		must(t, err)
		wantEqual(t, []any{set, titleOf(ex)}, []any{true, "A Title"})
		_, latest, err := db.EventBounds(t.Context(), chat.UserID)
		must(t, err)
		events, err := db.UserEvents(t.Context(), chat.UserID, latest-1, 10)
		must(t, err)
		wantEqual(t, []any{len(events), events[0].Kind, events[0].Chat.Title}, []any{1, models.EventChatUpdated, "A Title"})
		wantEqual(t, counted(t, db, chat.UserID), []string{"9+2 counted by owner 0 small", "0+0 counted by owner 1"})
		wantEqual(t, usageOf(t, db, chat.UserID), models.UsageDay{InputTokens: 9, OutputTokens: 2, Replies: 1})

		for name, meanwhile := range map[string]func(ex models.Exchange) error{
			"renamed": func(ex models.Exchange) error {
				_, err := db.RenameChat(t.Context(), ex.Chat.UserID, ex.Chat.ID, "Mine")
				return err
			},
			"deleted": func(ex models.Exchange) error {
				_, err := db.DeleteChat(t.Context(), ex.Chat.UserID, ex.Chat.ID)
				return err
			},
			"without a title": func(models.Exchange) error { return nil },
		} {
			ex := say(t, db, newChat(t, db), "question", "answer")
			must(t, meanwhile(ex))
			title := "A Title"
			if name == "without a title" {
				title = ""
			}
			_, before, err := db.EventBounds(t.Context(), ex.Chat.UserID)
			must(t, err)
			set, err := made(ex, title)
			must(t, err)
			_, after, err := db.EventBounds(t.Context(), ex.Chat.UserID)
			must(t, err)
			wantEqual(t, []any{name, set, after, usageOf(t, db, ex.Chat.UserID).InputTokens}, []any{name, false, before, int64(9)})
			if name == "renamed" {
				wantEqual(t, titleOf(ex), "Mine")
			}
		}
		gone := say(t, db, newChat(t, db), "question", "answer")
		_, err = db.DeleteUser(t.Context(), gone.Chat.UserID, "", accessTTL, models.By{})
		must(t, err)
		_, err = made(gone, "A Title")
		wantError(t, err, models.ErrNotFound)
	})
}

func TestUsageIsExported(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		other := say(t, db, newChat(t, db), "question", "answer")
		var want []models.CountedUsage
		for i := range 3 {
			ex := send(t, db, chat, "question")
			row := models.CountedUsage{MessageID: ex.Reply.ID, ChatID: chat.ID, Day: today()}
			for row.Fence = 1; row.Fence <= i; row.Fence++ {
				_, _, err := takeReply(t, db, ex.Reply.ID, row.Fence, "successor")
				must(t, err)
				row.Usage = models.Usage{InputTokens: int64(2 + 3*i), Estimated: true}
				want = append(want, row)
				must(t, db.ReleaseReply(t.Context(), ex.Reply.ID, row.Fence+1, "successor"))
			}
			row.Usage = models.Usage{Model: "large", InputTokens: int64(i), OutputTokens: 1}
			must(t, db.FinishReply(t.Context(), models.ReplyEnd{
				MessageID: ex.Reply.ID, Fence: row.Fence, Content: "text", Status: models.StatusComplete, Usage: &row.Usage,
			}))
			want = append(want, row)
		}
		var got []models.CountedUsage
		for after := int64(0); ; {
			page, err := db.ExportUsage(t.Context(), chat.UserID, after, 2)
			must(t, err)
			if len(page) == 0 {
				break
			}
			got, after = append(got, page...), page[len(page)-1].MessageID
		}
		for i := range got {
			if got[i].CreatedAt.Before(other.Reply.CreatedAt) {
				t.Errorf("counted at %v, before the user was there", got[i].CreatedAt)
			}
			got[i].CreatedAt = time.Time{}
		}
		slices.SortStableFunc(want, func(a, b models.CountedUsage) int { return cmp.Compare(a.MessageID, b.MessageID) })
		wantEqual(t, got, want)
	})
}

// Each statement is a round trip, BEGIN and COMMIT too, which a turn has behind others.
func TestUsageCostsOneStatementOnPostgres(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	u, _ := newUser(t, db)
	old, err := append40(t, db, u.ID, 1000)
	must(t, err)
	end(t, db, old, 1, models.Usage{})
	var c counter
	db.Hook(&c)
	var ex models.Exchange
	for _, step := range []struct {
		what string
		do   func() error
		want int64
	}{
		{"a turn that begins a chat", func() (err error) { ex, err = append40(t, db, u.ID, 1000); return err }, 2},
		{"its end", func() error { end(t, db, ex, 1, models.Usage{InputTokens: 1}); return nil }, 7},
		{"a turn in a chat, whose text is measured", func() error {
			_, err := db.AppendTurn(t.Context(), turn(u.ID, old.Chat.ID, "x", 1000))
			return err
		}, 3},
	} {
		before := c.Load()
		must(t, step.do())
		wantEqual(t, []any{step.what, c.Load() - before}, []any{step.what, step.want})
	}
}
