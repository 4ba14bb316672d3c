package models_test

import (
	"flag"
	"fmt"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

var (
	benchChats    = flag.Int("chats", 1_000, "chats of the benchmarks' user")
	benchMessages = flag.Int("messages", 20_000, "messages of the benchmarks' user")
)

// BenchmarkStorage measures what a user with many chats and messages asks for.
// Beside each time stands its ratio to reading one row by its key in the same
// run. For the figures in the README:
//
//	go test ./models -run '^$' -bench Storage -messages 1000000
func BenchmarkStorage(b *testing.B) {
	for _, dialect := range modelstest.Dialects {
		b.Run(dialect, func(b *testing.B) {
			db := modelstest.New(b, dialect)
			u, _ := newUser(b, db)
			fill(b, db, u.ID, *benchChats, *benchMessages)
			chats, _, err := db.Chats(b.Context(), u.ID, models.Page{Limit: 200})
			must(b, err)

			var row float64 // ns
			measure := func(name string, do func(i int) error) {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						must(b, do(i))
					}
					ns := float64(b.Elapsed()) / float64(b.N)
					if row == 0 {
						row = ns
					}
					b.ReportMetric(ns/row, "rows")
				})
			}
			measure("one row by key", func(i int) error {
				_, err := db.Chat(b.Context(), u.ID, chats[i%len(chats)].ID)
				return err
			})
			measure("chat list of 50", func(int) error {
				_, _, err := db.Chats(b.Context(), u.ID, models.Page{Limit: 50})
				return err
			})
			measure("last 50 messages", func(i int) error {
				_, _, err := db.Messages(b.Context(), u.ID, chats[i%len(chats)].ID, models.Page{Limit: 50})
				return err
			})
			measure("history of a chat", func(i int) error {
				_, err := db.History(b.Context(), chats[i%len(chats)].ID, 1<<62, 0, 0)
				return err
			})
			benchTurn(b, db, u, measure)
			benchSave(b, db, u, measure)
		})
	}
}

// benchTurn measures a send and the end of its reply.
func benchTurn(b *testing.B, db *models.DB, u models.User, measure func(string, func(int) error)) {
	b.Helper()
	chats, _, err := db.Chats(b.Context(), u.ID, models.Page{Limit: 200})
	must(b, err)
	measure("send that begins a chat", func(int) error {
		_, err := db.AppendTurn(b.Context(), models.NewTurn{UserID: u.ID, Content: "A question that is not long.", Owner: "replica-1"})
		return err
	})
	measure("send and end", func(i int) error {
		ex, err := db.AppendTurn(b.Context(), models.NewTurn{
			UserID: u.ID, ChatID: chats[i%len(chats)].ID, Content: "A question that is not long.", Owner: "replica-1",
			Key: &models.IdempotencyKey{Route: "POST /messages", Key: fmt.Sprint(unique.Add(1)), BodyHash: "hash"},
		})
		if err != nil {
			return err
		}
		return db.FinishReply(b.Context(), models.ReplyEnd{
			MessageID: ex.Reply.ID, Fence: 1, Content: "An answer that is not long.", Status: models.StatusComplete,
		})
	})
}

// benchSave measures a flush of 100 running replies.
func benchSave(b *testing.B, db *models.DB, u models.User, measure func(string, func(int) error)) {
	b.Helper()
	var texts []models.ReplyText
	for range 100 {
		ex, err := db.AppendTurn(b.Context(), models.NewTurn{UserID: u.ID, Content: "A question", Owner: "replica-1"})
		must(b, err)
		texts = append(texts, models.ReplyText{MessageID: ex.Reply.ID, Fence: 1, Text: "Some words of an answer, as many as come in half a second. "})
	}
	measure("save text of 100 replies", func(int) error {
		saved, err := db.SaveTexts(b.Context(), texts)
		if err == nil && len(saved) != len(texts) {
			return fmt.Errorf("saved %d of %d", len(saved), len(texts))
		}
		for i := range texts {
			texts[i].Start += int64(len(texts[i].Text))
		}
		return err
	})
}
