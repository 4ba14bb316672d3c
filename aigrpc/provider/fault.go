package provider

import (
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the domain of the ErrorInfo that an error of a provider has.
const Domain = "amanda.ai"

// A Reason says why an answer failed. It is the reason of the error's
// ErrorInfo.
type Reason string

// The reasons, and the codes that they come with.
const (
	Unreachable    Reason = "UNREACHABLE"      // Unavailable: no connection
	ServerDown     Reason = "SERVER_DOWN"      // Unavailable: the server is there and has a fault
	Busy           Reason = "BUSY"             // ResourceExhausted: too many requests, with RetryInfo where the server says when
	OverQuota      Reason = "OVER_QUOTA"       // ResourceExhausted: what was paid for, or a day's allowance, is used up
	BadKey         Reason = "BAD_KEY"          // FailedPrecondition: the operator's key is refused
	BadSettings    Reason = "BAD_SETTINGS"     // FailedPrecondition: no such model or no such address
	BadRequest     Reason = "BAD_REQUEST"      // InvalidArgument
	ContextTooLong Reason = "CONTEXT_TOO_LONG" // InvalidArgument: too much was said, even without half of the history
	Refused        Reason = "CONTENT_REFUSED"  // FailedPrecondition; providers end the answer instead, with FinishFilter
	BrokeOff       Reason = "BROKE_OFF"        // Aborted: the answer has no end
	Malformed      Reason = "MALFORMED"        // Aborted: the answer cannot be read
)

// kinds are the code of each reason, and what to tell the operator.
var kinds = map[Reason]struct {
	code codes.Code
	says string
}{
	Unreachable:    {codes.Unavailable, "the AI server cannot be reached"},
	ServerDown:     {codes.Unavailable, "the AI server has a fault"},
	Busy:           {codes.ResourceExhausted, "the AI server has too many requests"},
	OverQuota:      {codes.ResourceExhausted, "the AI server's quota is used up"},
	BadKey:         {codes.FailedPrecondition, "the AI server refuses the key"},
	BadSettings:    {codes.FailedPrecondition, "the AI server does not know the model, or is another kind of server"},
	BadRequest:     {codes.InvalidArgument, "the AI server refuses the request"},
	ContextTooLong: {codes.InvalidArgument, "the chat is too long for the model"},
	Refused:        {codes.FailedPrecondition, "the AI server refuses what was said"},
	BrokeOff:       {codes.Aborted, "the AI server broke off"},
	Malformed:      {codes.Aborted, "the AI server's answer cannot be read"},
}

// A Fault is why an answer failed. As an error of a gRPC handler it becomes a
// status with an ErrorInfo, and a RetryInfo if the server said when to come
// back.
type Fault struct {
	Reason     Reason
	RetryAfter time.Duration // 0: not told

	code       codes.Code
	httpStatus int    // 0: not by an HTTP status
	word       string // the server's own code for it: a word
	cause      error  // of Unreachable
}

// NewFault returns a fault that no HTTP status told.
func NewFault(r Reason) *Fault { return &Fault{Reason: r, code: kinds[r].code} }

// InMidAnswer is f where some of the answer is out already: what would mean
// that nothing was answered means then that the answer broke off.
func (f *Fault) InMidAnswer() *Fault {
	broken := *f
	if broken.code == codes.Unavailable {
		broken.code = codes.Aborted
	}
	return &broken
}

func (f *Fault) Error() string {
	text := kinds[f.Reason].says
	if f.httpStatus != 0 {
		text += ": HTTP status " + strconv.Itoa(f.httpStatus)
	}
	if f.word != "" {
		text += " (" + f.word + ")"
	}
	if f.cause != nil {
		text += ": " + f.cause.Error()
	}
	return text
}

// GRPCStatus is f as a gRPC handler's answer.
func (f *Fault) GRPCStatus() *status.Status {
	s := status.New(f.code, f.Error())
	about := make(map[string]string)
	if f.httpStatus != 0 {
		about["http_status"] = strconv.Itoa(f.httpStatus)
	}
	if f.word != "" {
		about["code"] = f.word
	}
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: string(f.Reason), Domain: Domain, Metadata: about})
	if err == nil && f.RetryAfter > 0 {
		detailed, err = detailed.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(f.RetryAfter)})
	}
	if err != nil {
		return s
	}
	return detailed
}

// longestWait is how long a server may send somebody away.
const longestWait = 24 * time.Hour

// retryAfter reads Retry-After (RFC 9110, section 10.2.3): seconds or a date.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return wait(time.Duration(min(seconds, int(longestWait/time.Second))) * time.Second)
	}
	if date, err := http.ParseTime(value); err == nil {
		return wait(time.Until(date))
	}
	return 0
}

// wait is d within what a server may ask for.
func wait(d time.Duration) time.Duration { return min(max(0, d), longestWait) }
