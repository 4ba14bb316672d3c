package provider

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Explain says what a server's error means. The status is 0 for an error that
// the server told in the midst of an answer; the header may be nil. The body is
// JSON as these servers write it, or anything else.
//
// OpenAI and Ollama: {"error": {"message", "type", "code": a word}}. llama.cpp
// and vLLM: the same with a number as the code, and older ones of vLLM without
// "error" around it. Gemini: {"error": {"code": a number, "status", "message",
// "details"}}, in an array where it speaks as OpenAI does.
func Explain(httpStatus int, header http.Header, body []byte) *Fault {
	p := readProblem(body)
	if httpStatus != 0 {
		p.status = httpStatus
	}
	f := NewFault(p.reason())
	f.httpStatus = httpStatus
	if i := slices.IndexFunc(p.words, aWord.MatchString); i >= 0 {
		f.word = p.words[i]
	}
	if f.Reason == Busy || f.Reason == ServerDown {
		f.RetryAfter = max(p.retryDelay, retryAfter(header))
	}
	return f
}

// aWord is what a code looks like; anything else might be what somebody said.
var aWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)

// A problem is what an error's body says.
type problem struct {
	status     int
	words      []string // its codes, the most telling first
	message    string   // in small letters
	daily      bool     // a day's quota is used up
	retryDelay time.Duration
}

func readProblem(body []byte) problem {
	var document any
	_ = json.Unmarshal(body, &document) // what is no JSON says nothing
	if list, ok := document.([]any); ok && len(list) > 0 {
		document = list[0]
	}
	fields, _ := document.(map[string]any)
	switch inner := fields["error"].(type) {
	case map[string]any:
		fields = inner
	case string:
		fields = map[string]any{"message": inner}
	}
	var p problem
	p.message = strings.ToLower(text(fields["message"]))
	for _, name := range []string{"code", "type", "status"} {
		switch v := fields[name].(type) {
		case string:
			p.words = append(p.words, v)
		case float64:
			p.status = int(v)
		}
	}
	details, _ := fields["details"].([]any)
	for _, d := range details {
		detail, _ := d.(map[string]any)
		p.addDetail(detail)
	}
	if number, err := strconv.Atoi(text(fields["code"])); err == nil {
		p.status = number
	}
	return p
}

// addDetail reads one of a google.rpc.Status' details: ErrorInfo, QuotaFailure
// and RetryInfo.
func (p *problem) addDetail(detail map[string]any) {
	if reason := text(detail["reason"]); reason != "" {
		p.words = slices.Insert(p.words, 0, reason)
	}
	if d, err := time.ParseDuration(text(detail["retryDelay"])); err == nil {
		p.retryDelay = wait(d)
	}
	violations, _ := detail["violations"].([]any)
	for _, v := range violations {
		violation, _ := v.(map[string]any)
		p.daily = p.daily || strings.Contains(text(violation["quotaId"]), "PerDay")
	}
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// meanings are tried in their order: a code says more than a status.
var meanings = []struct {
	is     func(problem) bool
	reason Reason
}{
	{coded("content_filter", "content_policy_violation", "invalid_prompt"), Refused},
	{coded("insufficient_quota", "billing_hard_limit_reached", "billing_not_active"), OverQuota},
	{coded("invalid_api_key", "API_KEY_INVALID"), BadKey},
	{coded("model_not_found"), BadSettings},
	{problem.tooLong, ContextTooLong},
	{func(p problem) bool { return p.daily }, OverQuota},
	{answered(http.StatusPaymentRequired), OverQuota},
	{answered(http.StatusUnauthorized, http.StatusForbidden), BadKey},
	{coded("authentication_error", "permission_error", "UNAUTHENTICATED", "PERMISSION_DENIED"), BadKey},
	{answered(http.StatusTooManyRequests), Busy},
	{coded("rate_limit_exceeded", "RESOURCE_EXHAUSTED"), Busy},
	{answered(http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusNotImplemented), BadSettings},
	{coded("FAILED_PRECONDITION"), BadSettings},
	{answered(http.StatusRequestTimeout), ServerDown},
	{func(p problem) bool { return p.status >= 500 }, ServerDown},
	{func(p problem) bool { return p.status >= 400 }, BadRequest},
	{func(p problem) bool { return p.status != 0 }, BadSettings}, // no error at all: a redirect, or a page
	{coded("invalid_request_error"), BadRequest},
}

func (p problem) reason() Reason {
	for _, m := range meanings {
		if m.is(p) {
			return m.reason
		}
	}
	return BrokeOff
}

func coded(words ...string) func(problem) bool {
	return func(p problem) bool {
		return slices.ContainsFunc(p.words, func(w string) bool { return slices.Contains(words, w) })
	}
}

func answered(statuses ...int) func(problem) bool {
	return func(p problem) bool { return slices.Contains(statuses, p.status) }
}

// tooLong reports whether there was too much to read. Only OpenAI and llama.cpp
// have a code for it; vLLM, Gemini and others say it in words, and llama.cpp does
// so too, as a fault of its own, where its memory is full before the model's is.
func (p problem) tooLong() bool {
	if coded("context_length_exceeded", "exceed_context_size_error")(p) {
		return true
	}
	switch p.status {
	case 0, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusInternalServerError:
	default:
		return false
	}
	said := func(words string) bool { return strings.Contains(p.message, words) }
	return slices.ContainsFunc(tooLongWords, said) || said("token count") && said("exceeds")
}

// tooLongWords are how servers say that a chat is too long for the model, in
// small letters.
var tooLongWords = []string{
	"context length", "context size", "context window",
	"maximum model length",  // vLLM's engine
	"maximum prompt length", // xAI
	"prompt is too long",    // Anthropic
}
