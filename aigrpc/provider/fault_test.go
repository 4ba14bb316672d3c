package provider_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/provider"
)

// What a caller learns of a failure.
type told struct {
	Code       codes.Code
	Reason     string
	RetryAfter time.Duration
	Word       string
}

func toldBy(t *testing.T, err error) told {
	t.Helper()
	s := status.Convert(err)
	got := told{Code: s.Code()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != "amanda.ai" {
				t.Errorf("got domain %q, want amanda.ai", d.GetDomain())
			}
			got.Reason, got.Word = d.GetReason(), d.GetMetadata()["code"]
		case *errdetails.RetryInfo:
			got.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return got
}

// The bodies are those that the servers' documentation and sources show, with
// other words where they speak.
func TestExplain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status     int
		retryAfter string
		body       string
		want       told
	}{
		"OpenAI: a wrong key":           {401, "", `{"error":{"message":"Incorrect API key: sk-s3cret","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`, told{codes.FailedPrecondition, "BAD_KEY", 0, "invalid_api_key"}},
		"OpenAI: a country":             {403, "", `{"error":{"message":"Not there.","type":"request_forbidden","param":null,"code":"unsupported_country_region_territory"}}`, told{codes.FailedPrecondition, "BAD_KEY", 0, "unsupported_country_region_territory"}},
		"OpenAI: too many requests":     {429, "20", `{"error":{"message":"Too fast.","type":"requests","param":null,"code":"rate_limit_exceeded"}}`, told{codes.ResourceExhausted, "BUSY", 20 * time.Second, "rate_limit_exceeded"}},
		"OpenAI: no money":              {429, "", `{"error":{"message":"Pay.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`, told{codes.ResourceExhausted, "OVER_QUOTA", 0, "insufficient_quota"}},
		"OpenAI: too long":              {400, "", `{"error":{"message":"Shorter.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "context_length_exceeded"}},
		"OpenAI: no such model":         {404, "", `{"error":{"message":"The model s3cret is not there.","type":"invalid_request_error","param":null,"code":"model_not_found"}}`, told{codes.FailedPrecondition, "BAD_SETTINGS", 0, "model_not_found"}},
		"OpenAI: a wrong parameter":     {400, "", `{"error":{"message":"No max_tokens.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}`, told{codes.InvalidArgument, "BAD_REQUEST", 0, "unsupported_parameter"}},
		"OpenAI: a refused prompt":      {400, "", `{"error":{"message":"Not that.","type":"invalid_request_error","param":null,"code":"content_policy_violation"}}`, told{codes.FailedPrecondition, "CONTENT_REFUSED", 0, "content_policy_violation"}},
		"OpenAI: a fault":               {500, "", `{"error":{"message":"Oh.","type":"server_error","param":null,"code":null}}`, told{codes.Unavailable, "SERVER_DOWN", 0, "server_error"}},
		"OpenAI: overloaded":            {503, "5", `{"error":{"message":"Slow down.","type":"server_error","param":null,"code":null}}`, told{codes.Unavailable, "SERVER_DOWN", 5 * time.Second, "server_error"}},
		"Azure: a filtered prompt":      {400, "", `{"error":{"message":"Filtered.","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation"}}}`, told{codes.FailedPrecondition, "CONTENT_REFUSED", 0, "content_filter"}},
		"Ollama: no such model":         {404, "", `{"error":{"message":"model \"s3cret\" not found","type":"not_found_error","param":null,"code":null}}`, told{codes.FailedPrecondition, "BAD_SETTINGS", 0, "not_found_error"}},
		"Ollama: a full queue":          {503, "", `{"error":{"message":"server busy","type":"api_error","param":null,"code":null}}`, told{codes.Unavailable, "SERVER_DOWN", 0, "api_error"}},
		"Ollama: an error as a text":    {400, "", `{"error":"s3cret"}`, told{codes.InvalidArgument, "BAD_REQUEST", 0, ""}},
		"llama.cpp: too long":           {400, "", `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":4096}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "exceed_context_size_error"}},
		"llama.cpp: loading":            {503, "", `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, told{codes.Unavailable, "SERVER_DOWN", 0, "unavailable_error"}},
		"llama.cpp: a wrong key":        {401, "", `{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}`, told{codes.FailedPrecondition, "BAD_KEY", 0, "authentication_error"}},
		"vLLM: too long":                {400, "", `{"error":{"message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "BadRequestError"}},
		"an older vLLM: too long":       {400, "", `{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "BadRequestError"}},
		"vLLM: no such model":           {404, "", `{"error":{"message":"The model is not there.","type":"NotFoundError","param":"model","code":404}}`, told{codes.FailedPrecondition, "BAD_SETTINGS", 0, "NotFoundError"}},
		"Gemini: a wrong key":           {400, "", `{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com","metadata":{"service":"generativelanguage.googleapis.com"}}]}}`, told{codes.FailedPrecondition, "BAD_KEY", 0, "API_KEY_INVALID"}},
		"Gemini: as OpenAI, in a row":   {400, "", `[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}]`, told{codes.FailedPrecondition, "BAD_KEY", 0, "API_KEY_INVALID"}},
		"Gemini: a minute's quota":      {429, "", `{"error":{"code":429,"message":"Too many.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m","quotaId":"GenerateRequestsPerMinutePerProjectPerModel-FreeTier","quotaValue":"10"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}`, told{codes.ResourceExhausted, "BUSY", 37 * time.Second, "RESOURCE_EXHAUSTED"}},
		"Gemini: a day's quota":         {429, "", `{"error":{"code":429,"message":"Too many.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}`, told{codes.ResourceExhausted, "OVER_QUOTA", 0, "RESOURCE_EXHAUSTED"}},
		"Gemini: too long":              {400, "", `{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "INVALID_ARGUMENT"}},
		"Gemini: a place":               {400, "", `{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}`, told{codes.FailedPrecondition, "BAD_SETTINGS", 0, "FAILED_PRECONDITION"}},
		"Gemini: overloaded":            {503, "", `{"error":{"code":503,"message":"Overloaded.","status":"UNAVAILABLE"}}`, told{codes.Unavailable, "SERVER_DOWN", 0, "UNAVAILABLE"}},
		"llama.cpp: no room left":       {500, "", `{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "server_error"}},
		"vLLM's engine: too long":       {400, "", `{"error":{"message":"The decoder prompt (length 5016) is longer than the maximum model length of 4096.","type":"BadRequestError","param":null,"code":400}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "BadRequestError"}},
		"xAI: too long":                 {400, "", `{"code":"Client specified an invalid argument","error":"This model's maximum prompt length is 131072 but the request contains 136973 tokens."}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, ""}},
		"Anthropic: too long":           {400, "", `{"error":{"code":"invalid_request_error","message":"prompt is too long: 202128 tokens > 200000 maximum","type":"invalid_request_error","param":null}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "invalid_request_error"}},
		"too many of a size, elsewhere": {429, "", `{"error":{"message":"Beyond your context length for a minute.","type":"tokens","code":"rate_limit_exceeded"}}`, told{codes.ResourceExhausted, "BUSY", 0, "rate_limit_exceeded"}},
		"in an event: too long":         {0, "", `{"error":{"message":"The input is longer than the model's context length.","type":"invalid_request_error","code":null}}`, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0, "invalid_request_error"}},
		"in mid-answer: busy":           {0, "", `{"error":{"message":"Too fast.","type":"requests","code":"rate_limit_exceeded"}}`, told{codes.ResourceExhausted, "BUSY", 0, "rate_limit_exceeded"}},
		"in mid-answer: by a number":    {0, "", `{"error":{"message":"Out of memory.","type":"InternalServerError","code":500}}`, told{codes.Unavailable, "SERVER_DOWN", 0, "InternalServerError"}},
		"in mid-answer: a number so":    {0, "", `{"error":{"message":"Out of memory.","code":"502"}}`, told{codes.Unavailable, "SERVER_DOWN", 0, ""}},
		"in mid-answer: just so":        {0, "", `{"error":{"message":"Oh."}}`, told{codes.Aborted, "BROKE_OFF", 0, ""}},
		"a proxy's page":                {502, "", "<html>s3cret</html>", told{codes.Unavailable, "SERVER_DOWN", 0, ""}},
		"a page that is not there":      {404, "", "404 page not found", told{codes.FailedPrecondition, "BAD_SETTINGS", 0, ""}},
		"a redirect":                    {301, "", "", told{codes.FailedPrecondition, "BAD_SETTINGS", 0, ""}},
		"nothing in return":             {204, "", "", told{codes.FailedPrecondition, "BAD_SETTINGS", 0, ""}},
		"a code that is a sentence":     {400, "", `{"error":{"code":"you said s3cret","type":7}}`, told{codes.InvalidArgument, "BAD_REQUEST", 0, ""}},
		"an empty list":                 {400, "", `[]`, told{codes.InvalidArgument, "BAD_REQUEST", 0, ""}},
		"JSON of another kind":          {400, "", `{"error":[null],"details":{"a":1},"code":{}}`, told{codes.InvalidArgument, "BAD_REQUEST", 0, ""}},
		"details of another kind":       {429, "", `{"error":{"details":[1,{"violations":[2,{"quotaId":3}],"retryDelay":4,"reason":5}]}}`, told{codes.ResourceExhausted, "BUSY", 0, ""}},
		"a wait of a week":              {429, "604800", "", told{codes.ResourceExhausted, "BUSY", 24 * time.Hour, ""}},
		"a wait that was":               {429, "-5", "", told{codes.ResourceExhausted, "BUSY", 0, ""}},
		"a wait until the past":         {429, "Sun, 06 Nov 1994 08:49:37 GMT", "", told{codes.ResourceExhausted, "BUSY", 0, ""}},
		"a wait until far away":         {429, "Fri, 31 Dec 9999 23:59:59 GMT", "", told{codes.ResourceExhausted, "BUSY", 24 * time.Hour, ""}},
		"a wait that is no time":        {429, "soon", "", told{codes.ResourceExhausted, "BUSY", 0, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if tt.retryAfter != "" {
				header.Set("Retry-After", tt.retryAfter)
			}
			f := provider.Explain(tt.status, header, []byte(tt.body))
			if diff := cmp.Diff(toldBy(t, f), tt.want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
			if strings.Contains(f.Error(), "s3cret") {
				t.Errorf("the server's words are in the error: %v", f)
			}
		})
	}
}

func TestAFaultInMidAnswerIsNotTakenForNoAnswer(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]codes.Code{503: codes.Aborted, 429: codes.ResourceExhausted} {
		before := provider.Explain(status, nil, nil)
		after := before.InMidAnswer()
		if got := toldBy(t, after); got.Code != want || got.Reason != string(before.Reason) {
			t.Errorf("%d: got %+v, want code %v and reason %v", status, got, want, before.Reason)
		}
	}
}

func TestAnErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	err := error(provider.Explain(404, nil, []byte(`{"error":{"code":"model_not_found"}}`)))
	const want = "the AI server does not know the model, or is another kind of server: HTTP status 404 (model_not_found)"
	if err.Error() != want || status.Convert(err).Message() != want {
		t.Errorf("got %q and %q, want %q", err, status.Convert(err).Message(), want)
	}
	var f *provider.Fault
	if !errors.As(err, &f) || f.Reason != provider.BadSettings {
		t.Errorf("got %#v", err)
	}
}

func FuzzExplain(f *testing.F) {
	f.Add(429, []byte(`{"error":{"code":429,"details":[{"violations":[{"quotaId":"PerDay"}]},{"retryDelay":"37s"}]}}`))
	f.Add(0, []byte(`[{"error":{"type":"x","code":"400"}}]`))
	f.Fuzz(func(t *testing.T, httpStatus int, body []byte) {
		fault := provider.Explain(httpStatus, nil, body)
		s := fault.GRPCStatus()
		if s.Code() == codes.OK || len(s.Details()) == 0 || fault.RetryAfter < 0 || fault.RetryAfter > 24*time.Hour {
			t.Errorf("got %v, %v, retry after %v", s.Code(), s.Details(), fault.RetryAfter)
		}
	})
}
