package models_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// newUpload adds an upload of a user.
func newUpload(t testing.TB, db *models.DB, userID int64) models.Upload {
	t.Helper()
	u, _, err := db.CreateUpload(t.Context(), models.NewUpload{UserID: userID, Format: "wav", Lifetime: time.Hour, Most: 1000})
	must(t, err)
	return u
}

// add adds bytes to an upload.
func add(t testing.TB, db *models.DB, u models.Upload, data []byte) models.Upload {
	t.Helper()
	u, err := db.AppendChunk(t.Context(), models.NewChunk{UserID: u.UserID, UploadID: u.ID, Offset: u.Size, Data: data})
	must(t, err)
	return u
}

// noise is bytes of all values.
func noise(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return data
}

// stored is all of an upload that is stored, read as its owner reads it.
func stored(t testing.TB, db *models.DB, u models.Upload) []byte {
	t.Helper()
	var all []byte
	for {
		piece, _, err := db.UploadPiece(t.Context(), u.ID, u.Fence, int64(len(all)))
		must(t, err)
		if len(piece) == 0 {
			return all
		}
		all = append(all, piece...)
	}
}

func TestAnUploadIsItsChunksInOrder(t *testing.T) {
	t.Parallel()
	for name, sizes := range map[string][]int{
		"one byte":                   {1},
		"small chunks share rows":    {1, 2, 3, 16 << 10, 5, 16<<10 - 6, 7},
		"a large one is several":     {1 << 20, 1 << 20},
		"just a row, and one more":   {256 << 10, 1, 256<<10 + 1},
		"many small ones and a rest": {100, 100, 100, 100, 100, 1 << 20, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db *models.DB) {
				user, _ := newUser(t, db)
				u := newUpload(t, db, user.ID)
				var want []byte
				for _, n := range sizes {
					data := noise(n)
					want = append(want, data...)
					u = add(t, db, u, data)
					wantEqual(t, u.Size, int64(len(want)))
				}
				if !bytes.Equal(stored(t, db, u), want) {
					t.Error("what is stored is not what was sent")
				}
				head, err := db.UploadHead(t.Context(), u.ID)
				must(t, err)
				if !bytes.HasPrefix(want, head) || len(head) == 0 {
					t.Error("the first bytes are others")
				}
			})
		})
	}
}

func TestManySmallChunksAreFewRows(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		u := newUpload(t, db, user.ID)
		for range 1000 {
			u = add(t, db, u, noise(100))
		}
		wantEqual(t, count(t, db, "upload_chunks"), 100_000/(16<<10)+1)
	})
}

func TestAChunkThatDoesNotFit(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		other, _ := newUser(t, db)
		u := newUpload(t, db, user.ID)
		data := noise(300 << 10)
		u = add(t, db, u, data)
		differs := bytes.Clone(data)
		differs[len(differs)-1]++
		whole := add(t, db, newUpload(t, db, user.ID), data)
		_, err := db.CompleteUpload(t.Context(), models.Completion{UserID: user.ID, UploadID: whole.ID})
		must(t, err)
		for name, test := range map[string]struct {
			userID, id int64
			offset     int64
			data       []byte
			want       error
		}{
			"the same bytes again":          {user.ID, u.ID, 0, data, nil},
			"a part of them":                {user.ID, u.ID, 7, data[7 : 270<<10], nil},
			"other bytes in their place":    {user.ID, u.ID, 0, differs, &models.WrongOffset{Want: u.Size}},
			"more than is there":            {user.ID, u.ID, 1, data, &models.WrongOffset{Want: u.Size}},
			"a gap":                         {user.ID, u.ID, u.Size + 1, data, &models.WrongOffset{Want: u.Size}},
			"an upload that is not there":   {user.ID, 999, 0, data, models.ErrNotFound},
			"somebody else's":               {other.ID, u.ID, u.Size, data, models.ErrForbidden},
			"of one that is whole, again":   {user.ID, whole.ID, 0, data, nil},
			"behind the end of a whole one": {user.ID, whole.ID, whole.Size, data, models.ErrUploadWhole},
		} {
			got, err := db.AppendChunk(t.Context(), models.NewChunk{UserID: test.userID, UploadID: test.id, Offset: test.offset, Data: test.data})
			if fmt.Sprint(err) != fmt.Sprint(test.want) {
				t.Errorf("%s: got %v, want %v", name, err, test.want)
			}
			if err == nil && got.Size != u.Size {
				t.Errorf("%s: the offset is %d, want %d", name, got.Size, u.Size)
			}
		}
		if !bytes.Equal(stored(t, db, u), data) {
			t.Error("what is stored has changed")
		}
	})
}

// Of those who add other bytes at the same place one does, and of those who add
// the same ones each has.
func TestChunksRaceForAPlace(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		for name, test := range map[string]struct {
			data func(i int) []byte
			want map[string]int
		}{
			"same bytes":  {func(int) []byte { return []byte("same") }, map[string]int{"ok": 16}},
			"other bytes": {func(i int) []byte { return fmt.Appendf(nil, "%04d", i) }, map[string]int{"ok": 1, "wrong offset": 15}},
		} {
			u := add(t, db, newUpload(t, db, user.ID), []byte("begin"))
			errs := together(16, func(i int) error {
				_, err := db.AppendChunk(t.Context(), models.NewChunk{UserID: user.ID, UploadID: u.ID, Offset: u.Size, Data: test.data(i)})
				return err
			})
			got := tally(errs, func(err error) string {
				if fmt.Sprint(err) == fmt.Sprint(&models.WrongOffset{Want: u.Size + 4}) {
					return "wrong offset"
				}
				return errorName(err)
			})
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%s: got %v, want %v", name, got, test.want)
			}
			wantEqual(t, len(stored(t, db, u)), 9)
		}
	})
}

func TestAUserHasSoManyUploads(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		other, _ := newUser(t, db)
		chat := value(t)(createChat(t, db, user.ID))
		create := func(n models.NewUpload) (models.Upload, bool, error) {
			n.Most, n.Lifetime = 3, time.Hour
			return db.CreateUpload(t.Context(), n)
		}
		got := tally(together(10, func(int) error { _, _, err := create(models.NewUpload{UserID: user.ID, ChatID: chat.ID}); return err }),
			func(err error) string { return fmt.Sprint(err) })
		wantEqual(t, got, map[string]int{"<nil>": 3, models.ErrTooManyUploads.Error(): 7})

		// Others are not concerned, nor is one that has ended or expired counted.
		newUpload(t, db, other.ID)
		_, err := db.Bun().NewRaw("UPDATE uploads SET expires_at = ? WHERE user_id = ? AND id = (SELECT min(id) FROM uploads)",
			time.Now().Add(-time.Second), user.ID).Exec(t.Context())
		must(t, err)
		_, _, err = create(models.NewUpload{UserID: user.ID})
		must(t, err)

		for name, test := range map[string]struct {
			n    models.NewUpload
			want error
		}{
			"somebody else's chat":     {models.NewUpload{UserID: other.ID, ChatID: chat.ID}, models.ErrForbidden},
			"a chat that is not there": {models.NewUpload{UserID: other.ID, ChatID: 999}, models.ErrNotFound},
			"a user who is gone":       {models.NewUpload{UserID: 999}, models.ErrNotFound},
		} {
			if _, _, err := create(test.n); errorName(err) != errorName(test.want) {
				t.Errorf("%s: got %v, want %v", name, err, test.want)
			}
		}
	})
}

func TestAnUploadUnderAKey(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		n := models.NewUpload{
			UserID: user.ID, Format: "mp3", Lifetime: time.Hour, Most: 100,
			Key: &models.IdempotencyKey{Route: "voice/uploads", Key: "k", BodyHash: "h"},
		}
		type result struct {
			id       int64
			replayed bool
		}
		results := tally(together(8, func(int) result {
			u, replayed, err := db.CreateUpload(t.Context(), n)
			must(t, err)
			return result{u.ID, replayed}
		}), func(r result) string { return fmt.Sprint(r) })
		wantEqual(t, len(results), 2)
		wantEqual(t, count(t, db, "uploads"), 1)
		n.Key = &models.IdempotencyKey{Route: "voice/uploads", Key: "k", BodyHash: "other"}
		_, _, err := db.CreateUpload(t.Context(), n)
		wantError(t, err, models.ErrKeyReused)
	})
}

func TestUploadsAreDeleted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		other, _ := newUser(t, db)
		chat := value(t)(createChat(t, db, user.ID))
		create := func() models.Upload {
			u, _, err := db.CreateUpload(t.Context(), models.NewUpload{UserID: user.ID, ChatID: chat.ID, Lifetime: time.Hour, Most: 100})
			must(t, err)
			return add(t, db, u, noise(100))
		}
		rows := func() []int { return []int{count(t, db, "uploads"), count(t, db, "upload_chunks")} }

		u := create()
		wantError(t, db.DeleteUpload(t.Context(), other.ID, u.ID), models.ErrForbidden)
		wantEqual(t, rows(), []int{1, 1})
		must(t, db.DeleteUpload(t.Context(), user.ID, u.ID))
		wantError(t, db.DeleteUpload(t.Context(), user.ID, u.ID), models.ErrNotFound)
		wantEqual(t, rows(), []int{0, 0})

		u = create()
		must(t, db.PurgeExpired(t.Context(), time.Now(), time.Hour))
		wantEqual(t, rows(), []int{1, 1})
		listed, err := db.ExportUploads(t.Context(), user.ID, 0, 10)
		must(t, err)
		wantEqual(t, []any{len(listed), listed[0].ID}, []any{1, u.ID})
		must(t, db.PurgeExpired(t.Context(), u.ExpiresAt, time.Hour))
		wantEqual(t, rows(), []int{0, 0})

		create()
		_, err = db.DeleteChat(t.Context(), user.ID, chat.ID)
		must(t, err)
		wantEqual(t, rows(), []int{0, 0})
	})
}

// What has expired is not there, also before it is deleted.
func TestAnExpiredUpload(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		user, _ := newUser(t, db)
		u := add(t, db, newUpload(t, db, user.ID), noise(10))
		expire(t, db, u.ID)
		_, err := db.Upload(t.Context(), user.ID, u.ID)
		wantError(t, err, models.ErrNotFound)
		_, err = db.AppendChunk(t.Context(), models.NewChunk{UserID: user.ID, UploadID: u.ID, Offset: 10, Data: noise(10)})
		wantError(t, err, models.ErrNotFound)
		_, err = db.CompleteUpload(t.Context(), models.Completion{UserID: user.ID, UploadID: u.ID})
		wantError(t, err, models.ErrNotFound)
		wantError(t, db.DeleteUpload(t.Context(), user.ID, u.ID), models.ErrNotFound)
	})
}

func expire(t testing.TB, db *models.DB, id int64) {
	t.Helper()
	_, err := db.Bun().NewRaw("UPDATE uploads SET expires_at = ? WHERE id = ?", time.Now().Add(-time.Second).UTC(), id).Exec(t.Context())
	must(t, err)
}
