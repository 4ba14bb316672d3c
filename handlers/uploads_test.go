package handlers_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// uploadID is what differs from run to run in a problem about a recording.
var uploadID = regexp.MustCompile(`,"upload_id":\d+`)

// eventually waits for what happens beside a request.
func eventually(t *testing.T, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

func TestAnUploadOverTwoReplicas(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := [2]*recorded{listens(counted), listens(counted)}
		a := startVoiced(t, db, says("Fine."), heard[0], spells{})
		b := startVoiced(t, db, says("Fine."), heard[1], spells{})
		ann := a.signup("ann@example.com")
		made := a.do(call{method: "POST", path: "/api/v1/voice/uploads", token: ann.Access, body: `{"format":"wav"}`})
		if got := stable(made.body); made.status != 201 || got != `{"upload_id":1,"offset":0,"max_chunk_bytes":1048576,"expires_at":"<time>"}` ||
			made.header.Get("Location") != "/api/v1/voice/uploads/1" {
			t.Errorf("begin: %d %s", made.status, got)
		}
		data := wav(2_500_000)
		const size = 1 << 20
		for i, at := 0, 0; at < len(data); i, at = i+1, at+size {
			end := min(at+size, len(data))
			c := chunk(ann, 1, at, data[at:end])
			c.header.Set("Digest", "md5=x, sha-256="+sumOf(data[at:end]))
			want := wanted{200, fmt.Sprintf(`{"offset":%d}`, end), map[string]string{"Upload-Offset": fmt.Sprint(end)}}
			[]*voicedService{a, b}[i%2].check(t, c, want)
			if i == 0 { // else the second replica may be the first to listen
				heard[0].until(t, func() bool { return heard[0].bytes > 0 })
			}
			[]*voicedService{b, a}[i%2].check(t, c, want)
		}
		// The replica of the first chunk hears all of it.
		heard[0].until(t, func() bool { return heard[0].bytes == len(data) })
		b.check(t, call{method: "GET", path: "/api/v1/voice/uploads/1", token: ann.Access},
			wanted{200, `{"upload_id":1,"format":"wav","offset":2500000,"complete":false,"created_at":"<time>","expires_at":"<time>"}`, nil})
		wantOutline(t, b.listen(complete(ann, 1)), spoken("2500000 bytes", "Fine."))
		wantOutline(t, a.listen(complete(ann, 1)), spoken("2500000 bytes", "Fine.")[1:])
		if heard[0].calls != 1 || heard[1].calls != 0 {
			t.Errorf("heard %d and %d times", heard[0].calls, heard[1].calls)
		}
		a.check(t, call{method: "GET", path: "/api/v1/voice/uploads/1", token: ann.Access},
			wanted{200, `{"upload_id":1,"message_id":` + lastID(t, db) + `,"format":"wav","offset":2500000,"complete":true,"created_at":"<time>","expires_at":"<time>"}`, nil})
		if n := rows(t, db, "upload_chunks"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// lastID is that of the last message.
func lastID(t *testing.T, db *models.DB) string {
	t.Helper()
	var id int64
	if err := db.Bun().NewRaw("SELECT max(id) FROM messages").Scan(t.Context(), &id); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(id)
}

func TestAChunkThatIsRefused(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := startVoiced(t, db, says("Fine."), listens(counted), spells{})
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		id := s.begin(ann, `{"format":"wav"}`)
		data := wav(2000)
		s.do(chunk(ann, id, 0, data[:1000]))
		other := bytes.Clone(data[:1000])
		other[999]++
		mismatch := problem(409, "offset_mismatch", "The chunk leaves a gap, or differs from what has arrived; offset says where to go on.", "").
			with("Upload-Offset", "1000")
		mismatch.body = strings.TrimSuffix(mismatch.body, "}") + `,"offset":1000}`
		noOffset := problem(400, "invalid_upload_offset", "Upload-Offset is the number of bytes before the chunk.",
			field("Upload-Offset", "invalid_upload_offset", "Upload-Offset is the number of bytes before the chunk."))
		with := func(c call, name, value string) call {
			c.header.Set(name, value)
			return c
		}
		wrongDigest := problem(400, "digest_mismatch", "The body is not what its digest is of. Nothing was stored; send it again.", "")
		noDigest := func(name string) wanted {
			return problem(400, "invalid_digest", name+" holds no digest in base64.", field(name, "invalid_digest", name+" holds no digest in base64."))
		}
		ogg := s.begin(ann, `{"format":"ogg"}`)
		for name, test := range map[string]struct {
			c    call
			want wanted
		}{
			"a gap":                       {chunk(ann, id, 1001, data[1001:]), mismatch},
			"other bytes":                 {chunk(ann, id, 0, other), mismatch},
			"more than is there":          {chunk(ann, id, 500, data[500:]), mismatch},
			"no offset":                   {with(chunk(ann, id, 0, data), "Upload-Offset", ""), noOffset},
			"an offset that is none":      {with(chunk(ann, id, 0, data), "Upload-Offset", "-1"), noOffset},
			"a wrong digest":              {with(chunk(ann, id, 1000, data[1000:]), "Digest", "sha-256="+sumOf(data)), wrongDigest},
			"a wrong digest of RFC 9530":  {with(chunk(ann, id, 1000, data[1000:]), "Content-Digest", "sha-256=:"+sumOf(data)+":"), wrongDigest},
			"a digest that is none":       {with(chunk(ann, id, 1000, data[1000:]), "Digest", "sha-256=%"), noDigest("Digest")},
			"one without its fence":       {with(chunk(ann, id, 1000, data[1000:]), "Repr-Digest", "sha-256="+sumOf(data)), noDigest("Repr-Digest")},
			"an empty one":                {chunk(ann, id, 1000, nil), problem(400, "empty_chunk", "A chunk has one byte at least.", "")},
			"one that is too large":       {chunk(ann, id, 1000, wav(1<<20+1)), problem(413, "chunk_too_large", "A chunk may have 1 MiB at most.", "")},
			"behind the largest size":     {chunk(ann, id, 25<<20, data), problem(413, "recording_too_large", "A recording may have 25 MiB at most.", "")},
			"of another format":           {chunk(ann, ogg, 0, data), problem(415, "format_mismatch", "The recording has another format than format says.", "")},
			"of no format":                {chunk(ann, ogg, 0, make([]byte, 600)), problem(415, "unsupported_audio", "This is no recording in WebM, MP3, WAV or Ogg.", "")},
			"somebody else's upload":      {chunk(bob, id, 1000, data[1000:]), problem(403, "forbidden", "This belongs to someone else.", "")},
			"an upload that is not there": {chunk(ann, 99, 0, data), problem(404, "not_found", "There is no such thing.", "")},
			"completing somebody else's":  {complete(bob, id), problem(403, "forbidden", "This belongs to someone else.", "")},
			"completing an empty one":     {complete(ann, ogg), problem(400, "empty_recording", "There is nothing in the recording.", "")},
			"looking at somebody else's":  {call{method: "GET", path: fmt.Sprintf("/api/v1/voice/uploads/%d", id), token: bob.Access}, problem(403, "forbidden", "This belongs to someone else.", "")},
			"deleting somebody else's":    {call{method: "DELETE", path: fmt.Sprintf("/api/v1/voice/uploads/%d", id), token: bob.Access}, problem(403, "forbidden", "This belongs to someone else.", "")},
			"no format":                   {call{method: "POST", path: "/api/v1/voice/uploads", token: ann.Access, body: `{}`}, problem(400, "missing_fields", "Fields are missing; errors names them.", field("format", "required", "format is required."))},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, test.c, test.want) })
		}
		s.check(t, with(chunk(ann, id, 1000, data[1000:]), "Repr-Digest", "sha-256=:"+sumOf(data[1000:])+":"), wanted{200, `{"offset":2000}`, nil})
		wantOutline(t, s.listen(complete(ann, id)), spoken("2000 bytes", "Fine."))
		late := problem(409, "upload_complete", "The upload is complete; nothing can be added to it.", "")
		late.body = strings.TrimSuffix(late.body, "}") + `,"offset":2000}`
		s.check(t, chunk(ann, id, 2000, data), late)
	})
}

func TestAnUploadIsDropped(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := listens(counted)
		s := startVoiced(t, db, says("Fine."), heard, spells{})
		ann := s.signup("ann@example.com")
		id := s.begin(ann, `{"format":"wav"}`)
		s.do(chunk(ann, id, 0, wav(1000)))
		heard.until(t, func() bool { return heard.bytes == 1000 })
		gone := call{method: "DELETE", path: fmt.Sprintf("/api/v1/voice/uploads/%d", id), token: ann.Access}
		s.check(t, gone, wanted{204, "", nil})
		s.check(t, gone, problem(404, "not_found", "There is no such thing.", ""))
		heard.until(t, func() bool { return heard.ended == 1 })
		if n := rows(t, db, "upload_chunks"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		// There may be so many, and no more.
		for range 16 {
			s.begin(ann, `{"format":"wav"}`)
		}
		s.check(t, call{method: "POST", path: "/api/v1/voice/uploads", token: ann.Access, body: `{"format":"wav"}`},
			problem(429, "too_many_uploads", "Too many recordings are open. Complete or delete one, and try again.", "").with("Retry-After", "60"))
		// With the account they go.
		s.do(call{method: "DELETE", path: "/api/v1/user", token: ann.Access, body: `{"current_password":"` + password + `"}`})
		if n := rows(t, db, "uploads"); n != 0 {
			t.Errorf("%d recordings are left", n)
		}
	})
}

// Of those who complete a recording at once, on any replica, each gets the one
// reply.
func TestManyCompleteAnUploadAtOnce(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		a := startVoiced(t, db, says("Fine."), listens(counted), spells{})
		b := startVoiced(t, db, says("Fine."), listens(counted), spells{})
		ann := a.signup("ann@example.com")
		for range 3 {
			id := a.begin(ann, `{"format":"wav"}`)
			a.do(chunk(ann, id, 0, wav(100+rand.IntN(1000))))
			before := rows(t, db, "messages")
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					events := []*voicedService{a, b}[i%2].listen(complete(ann, id))
					if got := outline(events); len(got) == 0 || got[len(got)-1] != "voice_response" {
						t.Errorf("got %v", got)
					}
				})
			}
			all.Wait()
			if n := rows(t, db, "messages") - before; n != 2 {
				t.Errorf("they are %d messages, want 2", n)
			}
		}
	})
}

// The owner of a recording dies, and another replica takes it; or ends in order,
// and its client goes on elsewhere.
func TestAnotherReplicaGoesOn(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		never := make(chan struct{})
		defer close(never)
		stuck := listens(func([]byte) (string, error) { <-never; return "", nil })
		heard := listens(counted)
		a := startVoiced(t, db, says("Fine."), stuck, spells{})
		b := startVoiced(t, db, says("Fine."), heard, spells{})
		ann := a.signup("ann@example.com")
		orphan := func() {
			t.Helper()
			if _, err := db.Bun().NewRaw("UPDATE uploads SET owner = 'dead' WHERE NOT ended").Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
		}

		id := a.begin(ann, `{"format":"wav"}`)
		a.do(chunk(ann, id, 0, wav(700)))
		stuck.until(t, func() bool { return stuck.bytes == 700 })
		orphan()
		wantOutline(t, b.listen(complete(ann, id)), spoken("700 bytes", "Fine."))

		// One that nobody asks for any more is taken too.
		res := a.open(raw(ann, "", wav(900)))
		eventually(t, func() bool { // b may have been faster
			return rows(t, db, "uploads WHERE NOT ended AND owner <> ''")+rows(t, db, "messages WHERE content = '900 bytes'") > 0
		})
		res.Body.Close()
		orphan()
		eventually(t, func() bool { return rows(t, db, "messages WHERE content = '900 bytes'") == 1 })
	})
}

func TestAReplicaThatEndsLetsGoOfItsRecordings(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := [2]*recorded{listens(counted), listens(counted)}
		a := startVoiced(t, db, says("Fine."), heard[0], spells{})
		b := startVoiced(t, db, says("Fine."), heard[1], spells{})
		ann := a.signup("ann@example.com")
		id := a.begin(ann, `{"format":"wav"}`)
		a.do(chunk(ann, id, 0, wav(700)))
		heard[0].until(t, func() bool { return heard[0].bytes == 700 })
		a.recordings.Drain()

		draining := problem(503, "draining", "This replica is about to end. Try again at once.", "")
		a.check(t, call{method: "POST", path: "/api/v1/voice/uploads", token: ann.Access, body: `{"format":"wav"}`}, draining)
		a.check(t, raw(ann, "", wav(60)), draining)
		// What arrives there still is kept, and what is whole is for another replica.
		a.check(t, chunk(ann, id, 700, wav(1000)[700:]), wanted{200, `{"offset":1000}`, nil})
		events := a.listen(complete(ann, id))
		if events[len(events)-1].name != "voice_response" { // the other one was not faster
			wantOutline(t, events, []string{"voice_processing transcribing", "error draining true"})
		}
		events = b.listen(complete(ann, id))
		if got := outline(events); len(got) == 0 || got[len(got)-1] != "voice_response" {
			t.Errorf("got %v", got)
		}
		if heard[1].calls != 1 || rows(t, db, "messages WHERE content = '1000 bytes'") != 1 {
			t.Errorf("heard %d times", heard[1].calls)
		}
	})
}

// What expires is gone, also while somebody listens to it.
func TestAnUploadExpires(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		heard := listens(counted)
		s := startVoiced(t, db, says("Fine."), heard, spells{})
		ann := s.signup("ann@example.com")
		id := s.begin(ann, `{"format":"wav"}`)
		s.do(chunk(ann, id, 0, wav(1000)))
		heard.until(t, func() bool { return heard.bytes == 1000 })
		if err := db.PurgeExpired(t.Context(), time.Now().Add(time.Hour+time.Second), time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, c := range []call{chunk(ann, id, 1000, wav(1000)), complete(ann, id), {method: "GET", path: fmt.Sprintf("/api/v1/voice/uploads/%d", id), token: ann.Access}} {
			s.check(t, c, problem(404, "not_found", "There is no such thing.", ""))
		}
		heard.until(t, func() bool { return heard.ended == 1 })
		if n := rows(t, db, "upload_chunks"); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

// Nothing runs on when all is over.
func TestRecordingsLeaveNoGoroutines(t *testing.T) {
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			db := modelstest.New(t, dialect)
			t.Run("requests", func(t *testing.T) {
				s := startVoiced(t, db, says("Fine."), listens(func(r []byte) (string, error) {
					if len(r) > 900 {
						return "", &stream.BackendError{Code: stream.CodeVoiceError, Err: http.ErrAbortHandler}
					}
					return counted(r)
				}), spells{})
				ann := s.signup("ann@example.com")
				for _, n := range []int{0, 60, 600, 1000} {
					s.do(raw(ann, "", wav(n)))
				}
				id := s.begin(ann, `{"format":"wav"}`)
				s.do(chunk(ann, id, 0, wav(700)))
				client.CloseIdleConnections()
			})
			eventually(t, func() bool {
				stacks := make([]byte, 4<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				return !bytes.Contains(stacks, []byte("parley/voice.")) && !bytes.Contains(stacks, []byte("sendRecording"))
			})
		})
	}
}

// Two that differ in nothing but the key are two.
func TestAnUploadUnderAKey(t *testing.T) {
	t.Parallel()
	s := startVoiced(t, modelstest.New(t, models.SQLite), says("Fine."), listens(counted), spells{})
	ann := s.signup("ann@example.com")
	keyed := func(key, body string) answer {
		return s.do(call{
			method: "POST", path: "/api/v1/voice/uploads", token: ann.Access, body: body, header: http.Header{"Idempotency-Key": {key}},
		})
	}
	first, again, other := keyed("a", `{"format":"wav"}`), keyed("a", `{"format":"wav"}`), keyed("b", `{"format":"wav"}`)
	if first.body != again.body || first.body == other.body {
		t.Errorf("got %s, %s, %s", first.body, again.body, other.body)
	}
	if a := keyed("a", `{"format":"mp3"}`); a.status != 422 {
		t.Errorf("another body: %d %s", a.status, a.body)
	}
	if diff := cmp.Diff(2, rows(t, s.db, "uploads")); diff != "" {
		t.Error(diff)
	}
}
