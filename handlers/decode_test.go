package handlers_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/handlers"
)

type body struct {
	Message *string `json:"message"`
	ChatID  *int64  `json:"chat_id"`
}

func TestStrictJSON(t *testing.T) {
	t.Parallel()
	deep := func(n int) string {
		return `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for name, tt := range map[string]struct {
		raw string
		ok  bool
	}{
		"an object": {`{"message":"hi","chat_id":7}`, true},
		"an empty object with white space around":    {" \t\r\n{ } \n", true},
		"unknown fields of any shape":                {`{"message":"hi","x":{"y":[1,2.5e3,null,true,{"y":1}]},"role":"admin"}`, true},
		"the same key in different objects":          {`{"a":{"k":1},"b":{"k":2},"c":[{"k":3},{"k":4}]}`, true},
		"the largest id":                             {`{"chat_id":9223372036854775807}`, true},
		"escapes, a surrogate pair too":              {`{"message":"\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00"}`, true},
		"an unknown field in another case than none": {`{"Extra":1,"extra":2}`, true},
		"null for an unknown field":                  {`{"x":null}`, true},
		"as deep as is allowed":                      {deep(63), true},
		"a key that looks like a surrogate's text":   {`{"\\ud800":1}`, true},
		"nothing":                     {``, false},
		"white space alone":           {" \n", false},
		"null":                        {`null`, false},
		"an array":                    {`[{}]`, false},
		"a string":                    {`"message"`, false},
		"a number":                    {`1`, false},
		"two objects":                 {`{}{}`, false},
		"an object and a comma":       {`{},`, false},
		"an object cut short":         {`{"message":"hi"`, false},
		"a comma at the end":          {`{"message":"hi",}`, false},
		"a comment":                   {`{/* */}`, false},
		"single quotes":               {`{'message':'hi'}`, false},
		"a byte order mark":           {"\ufeff{}", false},
		"a key twice":                 {`{"message":"a","message":"b"}`, false},
		"a key twice, once escaped":   {`{"message":"a","\u006dessage":"b"}`, false},
		"an unknown key twice":        {`{"x":1,"x":2}`, false},
		"a key twice further down":    {`{"x":[{"y":{"k":1,"k":1}}]}`, false},
		"a known key in another case": {`{"Message":"hi"}`, false},
		"a known key in both cases":   {`{"message":"hi","MESSAGE":"ho"}`, false},
		"a known key with a letter that folds to its": {"{\"me\u017fsage\":\"hi\"}", false},
		"null for a known field":                      {`{"message":null}`, false},
		"bad UTF-8":                                   {"{\"message\":\"\xff\"}", false},
		"bad UTF-8 in an unknown field":               {"{\"x\":\"\xc3\"}", false},
		"a surrogate in UTF-8":                        {"{\"message\":\"\xed\xa0\x80\"}", false},
		"an overlong form":                            {"{\"message\":\"\xc0\x80\"}", false},
		"half a surrogate pair":                       {`{"message":"\ud83d"}`, false},
		"half a pair and another escape":              {`{"message":"\ud83d\n"}`, false},
		"half a pair and no second half":              {`{"message":"\ud83d\u0041"}`, false},
		"the second half alone":                       {`{"message":"\ude00"}`, false},
		"half a pair in an unknown key":               {`{"\ud83d":1}`, false},
		"NUL":                                         {"{\"message\":\"a\x00b\"}", false},
		"NUL escaped":                                 {`{"message":"a\u0000b"}`, false},
		"NUL in an unknown value":                     {`{"x":["\u0000"]}`, false},
		"NUL in a key":                                {`{"a\u0000":1}`, false},
		"too deep":                                    {deep(64), false},
		"much too deep":                               {deep(100_000), false},
		"a number for a string":                       {`{"message":1}`, false},
		"an object for a string":                      {`{"message":{}}`, false},
		"a string for a number":                       {`{"chat_id":"7"}`, false},
		"a fraction for an id":                        {`{"chat_id":7.0}`, false},
		"an exponent for an id":                       {`{"chat_id":7e0}`, false},
		"an id that fits no 64 bits":                  {`{"chat_id":9223372036854775808}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := handlers.Unmarshal([]byte(tt.raw), new(body))
			if tt.ok && err != nil {
				t.Errorf("refused as %v, want it taken", err)
			}
			if !tt.ok && (err == nil || err.Error() != "invalid_json") {
				t.Errorf("got %v, want invalid_json", err)
			}
		})
	}
}

// Nothing makes the decoder panic, and what it takes encoding/json takes too
// and reads as the same.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		`{"message":"hi","chat_id":7}`, `{"a":{"a":1},"b":[{},[]]}`, `{"message":"\ud83d\ude00"}`, `{"message":"\ud83d\u"}`,
		`{"Message":null}`, `{"x":"\\\"","x":1}`, "{\"\u017f\":1}", `[`, ``, `{"chat_id":1e3}`, `{"\u0000":0}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got, want body
		if handlers.Unmarshal(raw, &got) != nil {
			return
		}
		if !utf8.Valid(raw) {
			t.Error("took bad UTF-8")
		}
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Errorf("took what encoding/json refuses: %v", err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("read %+v, want %+v", got, want)
		}
		d := json.NewDecoder(strings.NewReader(string(raw)))
		for {
			token, err := d.Token()
			if err != nil {
				break
			}
			if s, ok := token.(string); ok && strings.ContainsRune(s, 0) {
				t.Errorf("took NUL in %q", s)
			}
		}
	})
}
