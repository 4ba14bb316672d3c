package models

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// A Usage is what the AI service was given and has said, in tokens.
type Usage struct {
	Model        string // "": the service's choice, or not known
	InputTokens  int64
	OutputTokens int64
	Estimated    bool // by EstimateTokens, since the service did not count
}

// EstimateTokens is how many tokens a text of so many bytes may be: four bytes
// are one, rounded up. It is a guess, near the truth for English prose, and can
// be off by half for other languages and for code.
func EstimateTokens(bytes int64) int64 { return (bytes + 3) / 4 }

// A Context is how much of a chat goes to the AI service with a message: of what
// was said before, so many of the latest bytes and messages; 0 is all.
type Context struct{ Bytes, Messages int64 }

// A Budget is what a reply is expected to cost, and may.
type Budget struct {
	Context    Context
	Answer     int64 // tokens that are set aside for what the AI service says
	DailyLimit int64 // tokens of the user in a day (UTC); 0: any number, and nothing is set aside
}

// ErrDailyLimit says that a reply might cost more tokens than the user has left
// for the day. It comes as a *DailyLimit.
var ErrDailyLimit = errors.New("the daily limit of tokens is reached")

// DailyLimit is the ErrDailyLimit that says how much there is.
type DailyLimit struct {
	Limit   int64     // tokens of the day
	Used    int64     // of these, used or set aside
	Running bool      // those that are used leave room: when replies that run have ended there may be enough
	Resets  time.Time // when the next day begins
}

func (e *DailyLimit) Error() string {
	return fmt.Sprintf("%v: %d of %d are used or set aside", ErrDailyLimit, e.Used, e.Limit)
}

// Is makes a DailyLimit an ErrDailyLimit.
func (e *DailyLimit) Is(target error) bool { return target == ErrDailyLimit }

// Day is the day (UTC) on which what happens at t is counted.
func Day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// NextDay is when the day after that of t begins.
func NextDay(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour) }

// A UsageDay is what a user has used on a day.
type UsageDay struct {
	Day             string // as Day has it
	InputTokens     int64
	OutputTokens    int64
	EstimatedTokens int64 // of both
	Replies         int64 // that have ended
	Reserved        int64 // tokens that are set aside for replies that run
}

// Usage returns the days from one to another, both included, on which a user has
// used something, in order.
func (d *DB) Usage(ctx context.Context, userID int64, fromDay, toDay string) ([]UsageDay, error) {
	var days []UsageDay
	err := d.read.NewRaw(`SELECT day, input_tokens, output_tokens, estimated_tokens, replies, reserved FROM usage_days
		WHERE user_id = ? AND day BETWEEN ? AND ? ORDER BY day`, userID, fromDay, toDay).Scan(ctx, &days)
	return days, classify(ctx, err)
}

// A UsageTotal is what all users have used on a day.
type UsageTotal struct {
	UsageDay
	Users int64 // who have used something
}

// UsageByDay is Usage of all users together.
func (d *DB) UsageByDay(ctx context.Context, fromDay, toDay string) ([]UsageTotal, error) {
	var days []UsageTotal
	err := d.read.NewRaw(`SELECT day, CAST(sum(input_tokens) AS bigint) AS input_tokens,
			CAST(sum(output_tokens) AS bigint) AS output_tokens, CAST(sum(estimated_tokens) AS bigint) AS estimated_tokens,
			CAST(sum(replies) AS bigint) AS replies, CAST(sum(reserved) AS bigint) AS reserved, count(*) AS users
		FROM usage_days WHERE day BETWEEN ? AND ? GROUP BY day ORDER BY day`, fromDay, toDay).Scan(ctx, &days)
	return days, classify(ctx, err)
}

// historyBytes is the size of what goes along with a message of a chat.
func historyBytes(ctx context.Context, db bun.IDB, chatID, beforeMessageID int64, c Context) (int64, error) {
	var bytes int64
	err := db.NewRaw("SELECT ?", earlierBytes(chatID, beforeMessageID, c)).Scan(ctx, &bytes)
	return c.within(bytes), err
}

// earlierBytes is the size of a chat's messages before one, of so many of the latest.
func earlierBytes(chatID, beforeMessageID int64, c Context) schema.QueryAppender {
	most := c.Messages
	if most == 0 {
		most = math.MaxInt64
	}
	return bun.SafeQuery(`(SELECT COALESCE(sum(octet_length(content)), 0) FROM (
			SELECT content FROM messages WHERE chat_id = ? AND id < ? AND content <> '' AND status <> ?
			ORDER BY id DESC LIMIT ?) AS earlier)`, chatID, beforeMessageID, StatusStreaming, most)
}

// within is as much of so many bytes as goes along.
func (c Context) within(bytes int64) int64 {
	if c.Bytes > 0 {
		return min(bytes, c.Bytes)
	}
	return bytes
}

// reservation is what is set aside for the reply to a message of so many bytes.
func (b Budget) reservation(ctx context.Context, db bun.IDB, chatID, beforeMessageID int64, content string) (int64, error) {
	if b.DailyLimit == 0 {
		return 0, nil
	}
	var history int64
	if chatID != 0 {
		var err error
		if history, err = historyBytes(ctx, db, chatID, beforeMessageID, b.Context); err != nil {
			return 0, err
		}
	}
	return EstimateTokens(history+int64(len(content))) + b.Answer, nil
}

// overLimit returns a *DailyLimit if so many tokens cannot be set aside.
func overLimit(ctx context.Context, db bun.IDB, userID int64, now time.Time, tokens, limit int64) error {
	if limit == 0 {
		return nil
	}
	var used, reserved int64
	err := db.NewRaw("SELECT input_tokens + output_tokens, reserved FROM usage_days WHERE user_id = ? AND day = ?",
		userID, Day(now)).Scan(ctx, &used, &reserved)
	if err != nil && !isNoRows(err) {
		return err
	}
	if used+reserved+tokens <= limit {
		return nil
	}
	return &DailyLimit{Limit: limit, Used: used + reserved, Running: used+tokens <= limit, Resets: NextDay(now)}
}

// A charge is a running reply with what it costs.
type charge struct {
	RunningReply
	Reserved     int64   // tokens that are set aside for it, on the day on which it began
	CountedBytes int64   // of SavedBytes, those that earlier owners were counted for
	Context      Context `bun:"embed:context_"`
}

// A settlement is what an attempt has used.
type settlement struct {
	MessageID int64
	Fence     int
	UserID    int64
	ChatID    int64
	Day       string
	Usage
	Replies  int64 // that have ended with it
	Reserved int64 // tokens that are no longer set aside
}

// settlement is that of the reply's owner, who has used u, while the reply goes
// on.
func (r charge) settlement(u Usage) settlement {
	return settlement{
		MessageID: r.MessageID, Fence: r.Fence, UserID: r.UserID, ChatID: r.ChatID, Day: Day(r.StartedAt), Usage: u,
	}
}

// ended is the settlement of the reply's last owner.
func (r charge) ended(u Usage) settlement {
	s := r.settlement(u)
	s.Replies, s.Reserved = 1, r.Reserved
	return s
}

// An attempt is a settlement as table usage has it.
type attempt struct {
	MessageID    int64
	Fence        int
	UserID       int64
	ChatID       int64
	Day          string
	Model        string
	InputTokens  int64
	OutputTokens int64
	Estimated    bool
	CreatedAt    time.Time
}

// A daySum is what settlements add to a row of table usage_days.
type daySum struct {
	UserID          int64
	Day             string
	InputTokens     int64
	OutputTokens    int64
	EstimatedTokens int64
	Replies         int64
	Reserved        int64
}

// sum adds up settlements by users and days, since one statement can change a row
// once.
func sum(all []settlement) []daySum {
	var sums []daySum
	at := make(map[daySum]int, len(all))
	for _, s := range all {
		key := daySum{UserID: s.UserID, Day: s.Day}
		i, known := at[key]
		if !known {
			i = len(sums)
			at[key] = i
			sums = append(sums, key)
		}
		d := &sums[i]
		d.InputTokens += s.InputTokens
		d.OutputTokens += s.OutputTokens
		if s.Estimated {
			d.EstimatedTokens += s.InputTokens + s.OutputTokens
		}
		d.Replies += s.Replies
		d.Reserved += s.Reserved
	}
	return sums
}

// What settle's statements have in common on both databases. Behind addToDay comes
// what is no longer reserved.
const (
	intoUsage = `
		INSERT INTO usage (message_id, fence, user_id, chat_id, day, model, input_tokens, output_tokens, estimated, created_at)`
	intoUsageDays = `
		INSERT INTO usage_days AS d (user_id, day, input_tokens, output_tokens, estimated_tokens, replies)`
	addToDay = `
		ON CONFLICT (user_id, day) DO UPDATE SET
			input_tokens = d.input_tokens + EXCLUDED.input_tokens, output_tokens = d.output_tokens + EXCLUDED.output_tokens,
			estimated_tokens = d.estimated_tokens + EXCLUDED.estimated_tokens, replies = d.replies + EXCLUDED.replies,
			reserved = d.reserved - `
)

// settle counts what was used. The rows of usage_days, in one order, come after all
// others in a transaction but the user's.
func (d *DB) settle(ctx context.Context, tx bun.Tx, all ...settlement) error {
	if len(all) == 0 {
		return nil
	}
	now, attempts, sums := d.now(), make([]attempt, len(all)), sum(all)
	for i, s := range all {
		attempts[i] = attempt{s.MessageID, s.Fence, s.UserID, s.ChatID, s.Day, s.Model, s.InputTokens, s.OutputTokens, s.Estimated, now}
	}
	if d.dialect == SQLite {
		return d.settleSQLite(ctx, tx, attempts, sums)
	}
	_, err := tx.NewRaw(`
		WITH sums (user_id, day, input_tokens, output_tokens, estimated_tokens, replies, reserved) AS (?1),
		attempt AS (`+intoUsage+` ?0)`+intoUsageDays+`
		SELECT user_id, day, input_tokens, output_tokens, estimated_tokens, replies FROM sums ORDER BY user_id, day`+
		addToDay+`(SELECT sums.reserved FROM sums WHERE sums.user_id = d.user_id AND sums.day = d.day)`,
		tx.NewValues(&attempts), tx.NewValues(&sums)).Exec(ctx)
	return err
}

// settleSQLite is the same in small statements.
func (d *DB) settleSQLite(ctx context.Context, tx bun.Tx, attempts []attempt, sums []daySum) error {
	for _, a := range attempts {
		_, err := d.exec(ctx, tx, intoUsage+" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			a.MessageID, a.Fence, a.UserID, a.ChatID, a.Day, a.Model, a.InputTokens, a.OutputTokens, a.Estimated, a.CreatedAt)
		if err != nil {
			return err
		}
	}
	for _, s := range sums {
		_, err := d.exec(ctx, tx, intoUsageDays+" VALUES (?, ?, ?, ?, ?, ?)"+addToDay+"?",
			s.UserID, s.Day, s.InputTokens, s.OutputTokens, s.EstimatedTokens, s.Replies, s.Reserved)
		if err != nil {
			return err
		}
	}
	return nil
}

// untold is the usage of attempts whose owners do not tell it, by their replies:
// estimated from what each owner was to send, and from what it has saved.
func untold(ctx context.Context, tx bun.Tx, charges []charge) (map[int64]Usage, error) {
	const one = "SELECT ? AS message_id, (SELECT octet_length(content) FROM messages WHERE id = ?) AS asked, ? AS history"
	type sent struct{ MessageID, Asked, History int64 }
	if len(charges) == 0 {
		return nil, nil
	}
	var (
		statements []string
		args       []any
		rows       []sent
	)
	for _, c := range charges {
		statements = append(statements, one)
		args = append(args, c.MessageID, c.UserMessageID, earlierBytes(c.ChatID, c.UserMessageID, c.Context))
	}
	if err := tx.NewRaw(strings.Join(statements, " UNION ALL "), args...).Scan(ctx, &rows); err != nil {
		return nil, err
	}
	to := make(map[int64]sent, len(rows))
	for _, row := range rows {
		to[row.MessageID] = row
	}
	used := make(map[int64]Usage, len(charges))
	for _, c := range charges {
		input := to[c.MessageID].Asked + c.Context.within(to[c.MessageID].History)
		used[c.MessageID] = Usage{
			// Where it went on from a text, that was sent too.
			InputTokens:  EstimateTokens(input + c.CountedBytes),
			OutputTokens: EstimateTokens(c.SavedBytes - c.CountedBytes),
			Estimated:    true,
		}
	}
	return used, nil
}
