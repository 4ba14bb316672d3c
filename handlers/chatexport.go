package handlers

import (
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"parley/auth"
	"parley/models"
)

// exportChat answers GET /chats/{id}/export: the chat with all of its messages, as
// JSON, or as Markdown where Accept would rather have that.
func (s *server) exportChat(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	ranges := parseAccept(r.Header.Values("Accept"))
	markdown, json := rate(ranges, "text", "markdown"), rate(ranges, "application", "json")
	if len(ranges) > 0 && markdown.quality == 0 && json.quality == 0 {
		return errNoSuchExport
	}
	chat, err := s.db.Chat(r.Context(), caller.UserID, id)
	if err != nil {
		return err
	}
	messages := pages(func(after int64) ([]models.Message, error) {
		return s.db.ExportMessages(r.Context(), id, after, exportPage)
	}, func(m models.Message) int64 { return m.ID })
	write, mediaType, ending := chatAsJSON, "application/json", "json"
	if markdown.quality > json.quality || markdown.quality == json.quality && markdown.exactness > json.exactness {
		write, mediaType, ending = chatAsMarkdown, "text/markdown; charset=utf-8", "md"
	}
	h := w.Header()
	h.Add("Vary", "Accept")
	h.Set("Content-Type", mediaType)
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="parley-chat-%d.%s"`, id, ending))
	w.WriteHeader(http.StatusOK)
	file := s.newExportFile(w, r, caller)
	write(file, chat, messages)
	if err := file.close(); err != nil {
		// A file that breaks off must not look whole.
		infoOf(r).err = err
		panic(http.ErrAbortHandler)
	}
	return nil
}

func chatAsJSON(file *exportFile, chat models.Chat, messages iter.Seq2[models.Message, error]) {
	file.text(`{"exported_at":`)
	file.value(timestamp(now()))
	file.text(`,"chat":`)
	file.value(encodeChat(chat))
	file.text(`,"messages":`)
	writeArray(file, messages, func(m models.Message) { file.value(encodeMessage(m)) })
	file.text("}\n")
}

// chatAsMarkdown writes CommonMark. What people and models have said stands in
// fenced code blocks, as it is: shown as text of the document it could pass for
// other messages, or carry HTML.
func chatAsMarkdown(file *exportFile, chat models.Chat, messages iter.Seq2[models.Message, error]) {
	file.text("# " + escapeMarkdown(chat.Title) + "\n\nBegun " + inWords(chat.CreatedAt) + ".\n")
	for m, err := range messages {
		if file.err == nil {
			file.err = err
		}
		if file.err != nil {
			return
		}
		file.text("\n## " + speakers[m.Role] + ", " + inWords(m.CreatedAt))
		if m.Status != models.StatusComplete {
			file.text(" (" + m.Status + ")")
		}
		fence := fenceFor(m.Content)
		file.text("\n\n" + fence + "\n" + m.Content + "\n" + fence + "\n")
	}
}

// speakers are what a reader calls the roles.
var speakers = map[string]string{models.RoleUser: "User", models.RoleAssistant: "Assistant"}

func inWords(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// fenceFor returns a fence that content does not close: it is longer than any run
// of backticks there (CommonMark 0.31, section 4.5).
func fenceFor(content string) string {
	longest, run := 0, 0
	for _, c := range []byte(content) {
		if c != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return strings.Repeat("`", max(3, longest+1))
}

// escapeMarkdown makes text one line that says what it says: every character of
// ASCII that could mean something has a backslash before it (section 2.4).
func escapeMarkdown(text string) string {
	var b strings.Builder
	for _, c := range text {
		switch {
		case c < ' ' || c == 0x7f:
			c = ' '
		case c < 0x7f && strings.ContainsRune("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", c):
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}
