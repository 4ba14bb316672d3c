package handlers_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"parley/handlers"
)

// What is read piece by piece is what encoding/json reads whole.
func FuzzSoundInJSON(f *testing.F) {
	long := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("sound "), 100))
	for _, document := range []string{
		`{"audio":"c291bmQ="}`,
		`{"audio":"c291bmQ","format":"wav","chat_id":7}`,
		` { "a" : [ "audio" , { "audio" : "x" } ] , "audio" : "c29\/bm_-" , "voice":"slt" } `,
		`{"format":"audio","audio":"` + long + `","speed":1.5}`,
		`{"audio":"c291\r\nbmQ="}`,
		`{"audio":""}`, `{"audio":"\u0041"}`, `{"audio":"c291b"}`, `{"audio":"c","audio":"c"}`, `{"Audio":"c291"}`,
		`{"\u0061udio":"c291"}`, `{"audio":null}`, `{"audio":"c291"`, `{"audio":"c29`, `["audio","c291"]`, `{"audio":["c291"]}`, `"audio":"c291"`,
		`{"x":"\"audio\":","audio":"c291"}`, `{"audio" "c291"}`, `{{"audio":"c291"}}`, `{"audio":"c2=91"}`, ``,
	} {
		f.Add(document)
	}
	f.Fuzz(func(t *testing.T, document string) {
		sound, err := handlers.ReadSound(document)
		if err != nil {
			return
		}
		var in struct{ Audio string }
		if err := json.Unmarshal([]byte(document), &in); err != nil {
			t.Fatalf("%q was taken: %v", document, err)
		}
		digits := strings.NewReplacer("-", "+", "_", "/", "=", "", "\r", "", "\n", "").Replace(in.Audio)
		want, err := base64.RawStdEncoding.DecodeString(digits)
		if err != nil || !bytes.Equal(sound, want) {
			t.Errorf("%q: got %q, want %q (%v)", document, sound, want, err)
		}
	})
}
