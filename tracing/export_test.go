package tracing

// For tests.
var (
	Statement = statement
	Summary   = summary
)
