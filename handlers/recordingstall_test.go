package handlers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
	"parley/voice"
)

// A recording that does not come, or comes in drips for ever, is not waited for:
// it is spoken meanwhile, but at some time it ends.
func TestARecordingThatStalls(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		every, lasting time.Duration // a byte each, and until when it is cut off
		path           string
	}{
		"nothing comes":             {time.Hour, 30 * time.Second, "messages"},
		"it drips":                  {20 * time.Second, 15 * time.Minute, "messages"},
		"nothing comes of a chunk":  {time.Hour, 30 * time.Second, "uploads/1/chunks"},
		"a chunk comes in drips":    {20 * time.Second, 2 * time.Minute, "uploads/1/chunks"},
		"the next byte is too late": {31 * time.Second, 30 * time.Second, "messages"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := modelstest.New(t, models.SQLite)
				var recordings *voice.Recordings
				s, api := buildOn(t, db, says("Fine."), stream.Config{Synthesizer: spells{}}, func(c *handlers.Config) {
					recordings = voice.New(db, c.Hub, voice.Config{Transcriber: listens(counted)}, slog.New(slog.DiscardHandler))
					c.Voice = recordings
				})
				t.Cleanup(func() { recordings.Drain() })
				user := models.User{Email: "ann@example.com", UserName: "ann", PasswordHash: "x"}
				if err := db.CreateUser(t.Context(), &user, &models.DeviceSession{SID: "s", ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
					t.Fatal(err)
				}
				if _, _, err := recordings.Begin(t.Context(), models.NewUpload{UserID: user.ID, Format: "wav"}); err != nil {
					t.Fatal(err)
				}
				conn := connect(t, api)
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				if _, err := fmt.Fprintf(conn, "POST /api/v1/voice/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nUpload-Offset: 0\r\nContent-Length: 9000\r\n\r\nR",
					test.path, s.tokenOf(user.ID)); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				go func() {
					for ctx.Err() == nil {
						select {
						case <-time.After(test.every):
							io.WriteString(conn, "I") //nolint:errcheck // until it is cut off
						case <-ctx.Done():
						}
					}
				}()
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				want := problem(408, "request_timeout", "The body did not arrive in time.", "")
				if err != nil || res.StatusCode != want.status || stable(string(body)) != want.body {
					t.Errorf("got %d %s (%v)", res.StatusCode, body, err)
				}
				if took := time.Since(began); took != test.lasting {
					t.Errorf("it was cut off after %v, want %v", took, test.lasting)
				}
				if n := rows(t, db, "upload_chunks"); n != 0 {
					t.Errorf("%d rows are left", n)
				}
			})
		})
	}
}
