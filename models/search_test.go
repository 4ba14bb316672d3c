package models_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
	"parley/models/modelstest"
)

// index makes all found that there is, and returns how many changes that were.
func index(t testing.TB, db *models.DB) (changes int) {
	t.Helper()
	for {
		n, err := db.IndexTexts(t.Context(), 3)
		must(t, err)
		if changes += n; n == 0 {
			return changes
		}
	}
}

// search returns the titles of the chats that are found, in order.
func search(t testing.TB, db *models.DB, userID int64, text string) []string {
	t.Helper()
	chats, next, err := db.SearchChats(t.Context(), userID, text, models.Page{})
	must(t, err)
	wantEqual(t, next, "")
	titles := []string{}
	for _, c := range chats {
		titles = append(titles, c.Title)
	}
	return titles
}

func TestWhatIsFound(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		other, _ := newUser(t, db)
		texts := map[string]string{
			"English":  "I don't like the weather-forecast of www.example.org, it's (nearly) ALWAYS wrong: 100%",
			"German":   "Größe und Äußerung: Straße, STRASSE",
			"Greek":    "Η γλώσσα ΜΟΥ",
			"Russian":  "Съешь ещё этих мягких булок",
			"Arabic":   "اللغة العربية جميلة",
			"Hindi":    "नमस्ते दुनिया",
			"Korean":   "안녕하세요 세계",
			"Chinese":  "我想学习计划管理。明天去北京",
			"Japanese": "東京都に行くコーヒーを飲む ＡＢＣ １２３",
			"Thai":     "สวัสดีชาวโลก",
			"combined": "cafe\u0301 nai\u0308ve",
			"code":     `func main() { fmt.Println("x_y * z") } -- 'quoted' \ NOT:word`,
			"emoji":    "🎉 party 👩‍👩‍👧",
		}
		for title, text := range texts {
			for _, userID := range []int64{u.ID, other.ID} {
				chat, _, err := db.CreateChat(t.Context(), userID, title, true, nil)
				must(t, err)
				say(t, db, chat, text, "Mm.")
			}
		}
		index(t, db)
		for text, want := range map[string]string{
			"weather": "English", "WEATH": "English", "forecast": "English", "don't": "English", "example.org": "English", "wrong always": "English",
			"always wrong weather 100": "English", "eather": "", "weather größe": "", "nearly": "English", "10": "English",
			"größe": "German", "GRÖSSE": "", "äuß": "German", "strasse": "German",
			"γλώσσα": "Greek", "μου": "Greek", "мягк": "Russian", "ЕЩЁ": "Russian", "العربية": "Arabic", "नमस्ते": "Hindi", "दुनि": "Hindi",
			"안녕": "Korean", "세계": "Korean", "녕하": "",
			"计划": "Chinese", "学习计划": "Chinese", "北京": "Chinese", "京": "Chinese Japanese", "划管": "Chinese", "计理": "", "明天 管理": "Chinese",
			"東京": "Japanese", "京都": "Japanese", "コーヒー": "Japanese", "ｺｰﾋｰ": "Japanese", "abc": "Japanese", "123": "Japanese", "飲む": "Japanese",
			"ชาวโลก": "Thai", "สวัสดี": "Thai",
			"café": "combined", "cafe\u0301": "combined", "naïve": "combined",
			"x_y": "code", "NOT": "code", "not:word": "code", `'quoted'`: "code", `"Println"`: "code", `\`: "", "*": "", "party*": "emoji", "🎉": "",
			"party AND": "", "party OR weather": "", `party" OR "weather`: "", "':* | 'weather": "English", "(weather": "English", "a:* & !b": "", "?0": "", "": "", "777_weather": "",
			fmt.Sprint(other.ID, "_weather"): "",
			"ger":                            "German", "english": "English", // by their titles
		} {
			got := strings.Join(slices.Sorted(slices.Values(search(t, db, u.ID, text))), " ")
			wantEqual(t, []any{text, got}, []any{text, want})
		}
	})
}

// What changes is found as it is, and what is gone is not.
func TestTheIndexFollows(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		found := func(text string, want ...string) {
			t.Helper()
			index(t, db)
			wantEqual(t, append([]any{text}, fmt.Sprint(search(t, db, u.ID, text))), append([]any{text}, fmt.Sprint(want)))
		}
		chat := value(t)(createChat(t, db, u.ID))
		found("chat", "New Chat")
		ex := send(t, db, chat, "alpha")
		found("alpha", "alpha") // by the title that it gave
		found("chat")
		_, err := db.SaveTexts(t.Context(), []models.ReplyText{{MessageID: ex.Reply.ID, Fence: 1, Text: "beta"}})
		must(t, err)
		wantEqual(t, index(t, db), 0) // what is being written costs the index nothing
		finish(t, db, ex, "beta gamma")
		found("gamma", "alpha")
		_, err = db.RenameChat(t.Context(), u.ID, chat.ID, "delta")
		must(t, err)
		found("delta", "delta")
		found("alpha", "delta") // by the message

		ex, err = db.Regenerate(t.Context(), models.Rewrite{UserID: u.ID, MessageID: ex.Reply.ID, Owner: "replica-1"})
		must(t, err)
		found("gamma")
		finish(t, db, ex, "epsilon")
		found("epsilon", "delta")
		ex, err = db.Edit(t.Context(), models.Rewrite{UserID: u.ID, MessageID: ex.User.ID, Content: "zeta", Owner: "replica-1"})
		must(t, err)
		found("alpha")
		found("epsilon")
		found("zeta", "delta")
		finish(t, db, ex, "")
		second := value(t)(createChat(t, db, u.ID))
		say(t, db, second, "zeta", "eta")
		found("zeta", "zeta", "delta") // the latest activity first
		_, err = db.DeleteChat(t.Context(), u.ID, second.ID)
		must(t, err)
		found("zeta", "delta")
		_, err = db.DeleteUser(t.Context(), u.ID, "", accessTTL, models.By{})
		must(t, err)
		found("zeta")
		wantEqual(t, count(t, db, "search_queue"), 0)
	})
}

func TestASearchIsReadPageByPage(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		var want []int64
		for i := range 7 {
			chat, _, err := db.CreateChat(t.Context(), u.ID, fmt.Sprint([]string{"plan ", "other "}[i%2], i), true, nil)
			must(t, err)
			if i%2 == 0 {
				want = append([]int64{chat.ID}, want...)
			}
		}
		index(t, db)
		var got []int64
		page, pages := models.Page{Limit: 2}, 1
		for ; ; pages++ {
			chats, next, err := db.SearchChats(t.Context(), u.ID, "plan", page)
			must(t, err)
			for _, c := range chats {
				got = append(got, c.ID)
			}
			if page.Cursor = next; next == "" {
				break
			}
		}
		wantEqual(t, []any{got, pages}, []any{want, 2})
		_, _, err := db.SearchChats(t.Context(), u.ID, "plan", models.Page{Cursor: "x"})
		wantError(t, err, models.ErrInvalidCursor)
	})
}

// Two replicas that index at once, while others write, leave what is there.
func TestTheIndexIsRaced(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		results := together(6, func(i int) error {
			for n := range 8 {
				if i < 2 {
					if _, err := db.IndexTexts(t.Context(), 5); err != nil {
						return err
					}
					continue
				}
				ex, err := db.AppendTurn(t.Context(), models.NewTurn{UserID: u.ID, Content: fmt.Sprintf("word%dx%d", i, n), Owner: "replica-1"})
				if err == nil {
					err = db.FinishReply(t.Context(), models.ReplyEnd{MessageID: ex.Reply.ID, Fence: 1, Content: "answer", Status: models.StatusComplete})
				}
				if err == nil && n%2 == 1 {
					_, err = db.DeleteChat(t.Context(), u.ID, ex.Chat.ID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		wantEqual(t, tally(results, errorName), map[string]int{"ok": 6})
		index(t, db)
		wantEqual(t, len(search(t, db, u.ID, "answer")), 16)
		for i := 2; i < 6; i++ {
			for n := range 8 {
				wantEqual(t, len(search(t, db, u.ID, fmt.Sprintf("word%dx%d", i, n))), 1-n%2)
			}
		}
	})
}

// A text of more words than an index takes is found by the first of them.
func TestAnEndlessTextIsFound(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		var text strings.Builder
		for i := range 100_000 {
			fmt.Fprintf(&text, "w%d ", i)
		}
		say(t, db, chat, "question", text.String()+strings.Repeat("ж", 5000))
		index(t, db)
		wantEqual(t, len(search(t, db, chat.UserID, "w10000")), 1)
		say(t, db, chat, strings.Repeat("ж", 5000), "answer")
		index(t, db)
		wantEqual(t, len(search(t, db, chat.UserID, strings.Repeat("ж", 200))), 1)
	})
}

// One user's words are looked up, and nobody else's.
func TestASearchReadsTheIndex(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		other, _ := newUser(t, db)
		for _, owner := range []int64{u.ID, other.ID} {
			fill(t, db, owner, 100, 2000)
		}
		for n := 1; n > 0; {
			var err error
			n, err = db.IndexTexts(t.Context(), 100)
			must(t, err)
		}
		_, err := db.Bun().NewRaw("ANALYZE").Exec(t.Context())
		must(t, err)
		var r recorder
		db.Hook(&r)
		_, _, err = db.SearchChats(t.Context(), u.ID, "some", models.Page{Limit: 20})
		must(t, err)
		wantEqual(t, len(r.statements), 1)
		var got string
		if db.Dialect() == models.SQLite {
			got = plan(t, db, r.statements[0])
		} else {
			// Tables that are small it would rather read whole.
			must(t, db.InTx(t.Context(), func(ctx context.Context, tx bun.Tx) error {
				var lines []string
				if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
					return err
				}
				err := tx.NewRaw("EXPLAIN "+r.statements[0]).Scan(ctx, &lines)
				got = strings.Join(lines, "\n")
				return err
			}))
		}
		want := `(?s)SCAN chat_words VIRTUAL TABLE INDEX 0:M1.*SCAN message_words VIRTUAL TABLE INDEX 0:M1`
		if db.Dialect() == models.Postgres {
			want = `(?s)Index Scan on chat_words_words_idx.*Index Scan on message_words_words_idx`
		}
		if !regexp.MustCompile(want).MatchString(got) || regexp.MustCompile(`Seq Scan on (messages|message_words)|SCAN messages`).MatchString(got) {
			t.Errorf("got the plan\n%s\nwant %s", got, want)
		}
	})
}

// The words that are there before the index are found after it was made.
func TestWhatWasSaidBeforeIsFound(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		u, _ := newUser(t, db)
		now := time.Now()
		for _, statement := range []string{
			"INSERT INTO chats (user_id, title, created_at, active_at, message_count) VALUES (?0, 'imported', ?1, ?1, 3)",
			"INSERT INTO messages (chat_id, role, content, status, created_at) VALUES (1, 'user', 'first', 'complete', ?1)",
			"INSERT INTO messages (chat_id, role, content, status, created_at) VALUES (1, 'user', 'second', 'complete', ?1)",
			"INSERT INTO messages (chat_id, role, content, status, created_at) VALUES (1, 'assistant', 'third', 'complete', ?1)",
		} {
			_, err := db.Bun().NewRaw(statement, u.ID, now).Exec(t.Context())
			must(t, err)
		}
		index(t, db)
		for _, text := range []string{"first", "second", "third", "imported"} {
			wantEqual(t, search(t, db, u.ID, text), []string{"imported"})
		}
	})
}
