package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// recordingChunks are the chunks of a recording, each of recordingChunk bytes:
	// some seconds of speech.
	recordingChunks = 8
	recordingChunk  = 16 << 10
)

// voice measures what Parley adds to the time of what hears and speaks. The
// yardstick is that time, which the source tells.
func voice(ctx context.Context, bin binaries, s settings) error {
	measured := time.Duration(s.seconds) * time.Second
	fmt.Printf("\nvoice: %d clients, recordings of %d chunks of %d KiB, %v\n", s.speakers, recordingChunks, recordingChunk>>10, measured)
	server, end, err := startBoth(ctx, "parley", bin, s, scenario{name: "voice"})
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, measured)
	defer cancel()
	speakers := make([]*speaker, s.speakers)
	errs := make(chan error, len(speakers))
	var all sync.WaitGroup
	for i := range speakers {
		speakers[i] = &speaker{address: server.address, header: server.headers[i%len(server.headers)]}
		all.Go(func() {
			for ctx.Err() == nil {
				if err := speakers[i].turn(ctx); err != nil && ctx.Err() == nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	for _, of := range []struct {
		name string
		of   func(*speaker) []float64
	}{
		{"last chunk to the first event", func(s *speaker) []float64 { return s.first }},
		{"last chunk to the transcript, beyond the hearing", func(s *speaker) []float64 { return s.heard }},
		{"first sentence to its audio, beyond the speaking", func(s *speaker) []float64 { return s.spoken }},
	} {
		var in result
		for _, s := range speakers {
			in.latencies = append(in.latencies, of.of(s)...)
		}
		slices.Sort(in.latencies)
		fmt.Printf("  %-50s p50 %7.2f ms  p99 %7.2f ms  of %d\n", of.name, in.quantile(0.5), in.quantile(0.99), len(in.latencies))
	}
	return nil
}

// A speaker is a client, with what it has measured in milliseconds.
type speaker struct {
	address, header string

	first, heard, spoken []float64
}

// turn is one recording and the answer to it.
func (s *speaker) turn(ctx context.Context) error {
	var made struct {
		UploadID int64 `json:"upload_id"`
	}
	res, err := s.post(ctx, "uploads", "application/json", -1, []byte(`{"format":"wav"}`))
	if err != nil {
		return err
	}
	err = json.NewDecoder(res.Body).Decode(&made)
	res.Body.Close()
	if err != nil {
		return err
	}
	upload := "uploads/" + strconv.FormatInt(made.UploadID, 10)
	recording := slices.Concat([]byte("RIFF\x00\x00\x00\x00WAVEfmt "), make([]byte, recordingChunks*recordingChunk-16))
	var last time.Time
	for at := 0; at < len(recording); at += recordingChunk {
		last = time.Now()
		res, err := s.post(ctx, upload+"/chunks", "audio/wav", at, recording[at:at+recordingChunk])
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
	}
	res, err = s.post(ctx, upload+"/complete?audio=chunks", "application/json", -1, []byte(`{}`))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return s.read(res.Body, last)
}

// post sends a body, with its offset unless that is negative.
func (s *speaker) post(ctx context.Context, path, kind string, offset int, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+"/api/v1/voice/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	name, value, _ := strings.Cut(strings.TrimSpace(s.header), ": ")
	r.Header.Set(name, value)
	r.Header.Set("Content-Type", kind)
	if offset >= 0 {
		r.Header.Set("Upload-Offset", strconv.Itoa(offset))
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= http.StatusBadRequest {
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return nil, fmt.Errorf("%s: %s: %s %w", path, res.Status, text, err)
	}
	return res, nil
}

// read reads the events of a voice reply to their end, with last the moment at
// which the recording was whole.
func (s *speaker) read(events io.Reader, last time.Time) error {
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	event, began, speaks := "", false, false
	for lines.Scan() {
		now := time.Now()
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			if event = name; !began {
				began = true
				s.first = append(s.first, ms(now.Sub(last)))
			}
		}
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
		case event == "error":
			return fmt.Errorf("the reply failed: %s", data)
		case event == "voice_transcribed":
			if m := moments(data); len(m) == 2 {
				s.heard = append(s.heard, ms(now.Sub(last)-m[1].Sub(m[0])))
			}
		case event == "voice_audio" && !speaks:
			speaks = true
			var in struct{ Audio string }
			if err := json.Unmarshal([]byte(data), &in); err != nil {
				return err
			}
			audio, err := base64.StdEncoding.DecodeString(in.Audio)
			if m := moments(string(audio)); err == nil && len(m) == 3 {
				s.spoken = append(s.spoken, ms(now.Sub(m[0])-m[2].Sub(m[1])))
			}
		}
	}
	return lines.Err()
}

// moments are those in a text.
func moments(text string) (all []time.Time) {
	for _, digits := range moment.FindAllString(text, -1) {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return nil
		}
		all = append(all, time.Unix(0, n))
	}
	return all
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
