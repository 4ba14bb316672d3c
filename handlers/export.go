package handlers

import (
	"bufio"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"

	"parley/auth"
	"parley/models"
)

const (
	// exportPage is how many rows of an export are in memory at a time.
	exportPage = 100
	// exportStall is how long one write of an export may take: a client that
	// does not read is let go.
	exportStall = 30 * time.Second
)

// export answers GET /user/export: all that is stored about the user and lasts,
// in one file, in the order in which it came. Secrets are not in it: the hash of
// the password and the keys of device sessions.
func (s *server) export(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	user, err := s.user(r.Context(), caller)
	if err != nil {
		return err
	}
	devices, err := s.db.Devices(r.Context(), caller.UserID)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", `attachment; filename="parley-export.json"`)
	w.WriteHeader(http.StatusOK)
	file := s.newExportFile(w, r, caller)
	file.text(`{"exported_at":`)
	file.value(timestamp(now()))
	file.text(`,"account":`)
	file.value(encodeUser(user))
	file.text(`,"devices":`)
	writeArray(file, all(devices), func(d models.DeviceSession) { file.value(encodeDevice(d, caller)) })
	file.text(`,"chats":`)
	s.exportChats(r.Context(), file, caller.UserID)
	file.text(`,"recordings":`)
	writeArray(file, s.uploadsOf(r.Context(), caller.UserID), func(u models.Upload) { file.value(encodeUpload(u)) })
	file.text(`,"usage":`)
	writeArray(file, s.usageOf(r.Context(), caller.UserID), func(u models.CountedUsage) { file.value(encodeCountedUsage(u)) })
	file.text(`,"audit":`)
	writeArray(file, s.auditOf(r.Context(), caller.UserID), func(e models.AuditEntry) { file.value(encodeAudit(e)) })
	file.text("}\n")
	if err := file.close(); err != nil {
		// A file that breaks off must not look whole.
		infoOf(r).err = err
		panic(http.ErrAbortHandler)
	}
	return nil
}

// exportChats writes the user's chats with their messages.
func (s *server) exportChats(ctx context.Context, file *exportFile, userID int64) {
	chats := pages(func(after int64) ([]models.Chat, error) {
		return s.db.ExportChats(ctx, userID, after, exportPage)
	}, func(c models.Chat) int64 { return c.ID })
	writeArray(file, chats, func(c models.Chat) {
		messages := pages(func(after int64) ([]models.Message, error) {
			return s.db.ExportMessages(ctx, c.ID, after, exportPage)
		}, func(m models.Message) int64 { return m.ID })
		file.text(`{"chat":`)
		file.value(encodeChat(c))
		file.text(`,"messages":`)
		writeArray(file, messages, func(m models.Message) { file.value(encodeMessage(m)) })
		file.text("}")
	})
}

// uploadsOf are the recordings of a user that are stored for a while.
func (s *server) uploadsOf(ctx context.Context, userID int64) iter.Seq2[models.Upload, error] {
	return pages(func(after int64) ([]models.Upload, error) {
		return s.db.ExportUploads(ctx, userID, after, exportPage)
	}, func(u models.Upload) int64 { return u.ID })
}

// auditOf are the entries about a user.
func (s *server) auditOf(ctx context.Context, userID int64) iter.Seq2[models.AuditEntry, error] {
	return pages(func(after int64) ([]models.AuditEntry, error) {
		return s.db.ExportAudit(ctx, userID, after, exportPage)
	}, func(e models.AuditEntry) int64 { return e.ID })
}

// usageOf is what was counted for a user.
func (s *server) usageOf(ctx context.Context, userID int64) iter.Seq2[models.CountedUsage, error] {
	return pages(func(after int64) ([]models.CountedUsage, error) {
		return s.db.ExportUsage(ctx, userID, after, exportPage)
	}, func(u models.CountedUsage) int64 { return u.MessageID })
}

// A countedUsageJSON is what one attempt at a reply has cost.
type countedUsageJSON struct {
	ChatID       int64     `json:"chat_id"`
	MessageID    int64     `json:"message_id"`
	Day          string    `json:"day"`
	Model        string    `json:"model"`
	InputTokens  int64     `json:"input_tokens"`
	OutputTokens int64     `json:"output_tokens"`
	Estimated    bool      `json:"estimated"`
	CreatedAt    timestamp `json:"created_at"`
}

func encodeCountedUsage(u models.CountedUsage) countedUsageJSON {
	return countedUsageJSON{u.ChatID, u.MessageID, u.Day, u.Model, u.InputTokens, u.OutputTokens, u.Estimated, timestamp(u.CreatedAt)}
}

// An auditJSON is an entry as the user that it is about may see it: of somebody
// else who has done it, an administrator, it says no more than that.
type auditJSON struct {
	At        timestamp `json:"at"`
	Action    string    `json:"action"`
	Detail    string    `json:"detail"`
	ByYou     bool      `json:"by_you"`
	IP        string    `json:"ip,omitempty"`
	RequestID string    `json:"request_id,omitempty"`
}

func encodeAudit(e models.AuditEntry) auditJSON {
	out := auditJSON{At: timestamp(e.At), Action: e.Action, Detail: e.Detail, ByYou: e.ActorID == e.SubjectID}
	if out.ByYou || e.ActorID == 0 {
		out.IP, out.RequestID = e.IP, e.RequestID
	}
	return out
}

// pages yields the rows of a list that is read page by page, until it ends, with
// a page of fewer rows than were asked for, or cannot be read.
func pages[T any](read func(afterID int64) ([]T, error), id func(T) int64) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last int64
		for {
			rows, err := read(last)
			if err != nil {
				yield(*new(T), err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
				last = id(row)
			}
			if len(rows) < exportPage {
				return
			}
		}
	}
}

// all yields rows that are in memory.
func all[T any](rows []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, row := range rows {
			if !yield(row, nil) {
				return
			}
		}
	}
}

// An exportFile is JSON that is written part by part. Its first error is the
// last thing that happens to it.
type exportFile struct {
	buffer *bufio.Writer
	rc     *http.ResponseController
	err    error
}

// newExportFile begins the file that answers r. It breaks off where the caller is
// signed out: a client that reads slowly must not learn what comes after that,
// least of all what belongs to another one who got the same ids after a wipe.
func (s *server) newExportFile(w http.ResponseWriter, r *http.Request, caller auth.Identity) *exportFile {
	rc := http.NewResponseController(w)
	may := func() error { return s.alive(r.Context(), caller) }
	return &exportFile{buffer: bufio.NewWriterSize(impatient{w, rc, may}, 32<<10), rc: rc}
}

func (f *exportFile) text(s string) {
	if f.err == nil {
		_, f.err = f.buffer.WriteString(s)
	}
}

func (f *exportFile) value(v any) {
	if f.err == nil {
		var data []byte
		data, f.err = json.Marshal(v)
		f.text(string(data))
	}
}

// writeArray writes what rows yields, each by write.
func writeArray[T any](f *exportFile, rows iter.Seq2[T, error], write func(T)) {
	f.text("[")
	separator := ""
	for row, err := range rows {
		if f.err == nil {
			f.err = err
		}
		if f.err != nil {
			return
		}
		f.text(separator)
		write(row)
		separator = ","
	}
	f.text("]")
}

// close sends what is left and returns the first error.
func (f *exportFile) close() error {
	if f.err == nil {
		f.err = f.buffer.Flush()
	}
	if f.err == nil {
		f.err = f.rc.SetWriteDeadline(time.Time{})
	}
	return f.err
}

// An impatient writer fails when one write takes too long, or may not be. It asks
// when what it writes has been read.
type impatient struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	may func() error
}

func (i impatient) Write(p []byte) (int, error) {
	if err := i.may(); err != nil {
		return 0, err
	}
	if err := i.rc.SetWriteDeadline(time.Now().Add(exportStall)); err != nil {
		return 0, err
	}
	return i.w.Write(p)
}
