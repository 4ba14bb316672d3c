package handlers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A document is openapi.yaml as a judge of requests and answers. Unlike for a
// client, in an answer nothing may be that is not described.
type document struct {
	spec       *openapi3.T
	operations []operation
	tree       map[string]any // the document, its schemas of answers closed

	mu       sync.Mutex // of the two
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema // by JSON pointer
}

// An operation is one at one of its servers.
type operation struct {
	*openapi3.Operation
	method   string
	path     string // with its server, parameters in braces
	pointer  string // to it in the document
	pathItem *openapi3.PathItem
}

// description is the document that every test judges by.
var description = sync.OnceValues(func() (*document, error) {
	data, err := os.ReadFile("openapi/openapi.yaml")
	if err != nil {
		return nil, err
	}
	return readDocument(data)
})

// readDocument reads a document that is valid OpenAPI, its examples too.
func readDocument(data []byte) (*document, error) {
	spec, err := openapi3.NewLoader().LoadFromData(data)
	if err != nil {
		return nil, err
	}
	if err := spec.Validate(context.Background()); err != nil {
		return nil, err
	}
	// Loaded, it has no anchors and no other notations any more.
	data, err = spec.MarshalJSON()
	if err != nil {
		return nil, err
	}
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	d := &document{spec: spec, tree: tree.(map[string]any), compiled: make(map[string]*jsonschema.Schema)}
	d.close()
	d.compiler = jsonschema.NewCompiler()
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("openapi.json", d.tree); err != nil {
		return nil, err
	}
	for path, item := range spec.Paths.Map() {
		for method, op := range item.Operations() {
			servers := spec.Servers
			if item.Servers != nil {
				servers = item.Servers
			}
			for _, server := range servers {
				d.operations = append(d.operations, operation{
					op, method, strings.TrimSuffix(server.URL, "/") + path, pointer("paths", path, strings.ToLower(method)), item,
				})
			}
		}
	}
	return d, nil
}

// pointer is the JSON pointer of RFC 6901 to what these names lead to, as a
// fragment.
func pointer(names ...string) string {
	var b strings.Builder
	b.WriteByte('#')
	for _, name := range names {
		b.WriteString("/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name)))
	}
	return b.String()
}

// close forbids in answers, and in all that is nested in any schema, what is not
// described. What clients send they may add to.
func (d *document) close() {
	components := object(d.tree["components"])
	for _, schema := range object(components["schemas"]) {
		closeNested(schema)
	}
	closeAnswers(object(components["responses"]))
	for _, item := range object(d.tree["paths"]) {
		for _, op := range object(item) {
			closeAnswers(object(object(op)["responses"]))
			for _, media := range object(object(object(op)["requestBody"])["content"]) {
				closeNested(object(media)["schema"])
			}
		}
	}
}

func closeAnswers(responses map[string]any) {
	for _, response := range responses {
		for _, media := range object(object(response)["content"]) {
			closeSchema(object(media)["schema"])
		}
	}
}

// closeSchema closes a schema that alone describes a value. Within those that it
// is made of by allOf and its kin it is not closed: each knows only a part.
func closeSchema(schema any) {
	if s := object(schema); s != nil {
		s["unevaluatedProperties"] = false
		closeNested(s)
	}
}

func closeNested(schema any) {
	s := object(schema)
	for _, property := range object(s["properties"]) {
		closeSchema(property)
	}
	closeSchema(s["items"])
	closeSchema(s["contentSchema"])
	for _, keyword := range []string{"allOf", "oneOf", "anyOf"} {
		parts, _ := s[keyword].([]any)
		for _, part := range parts {
			closeNested(part)
		}
	}
}

// object is v if that is an object, else nil.
func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// at returns what a pointer leads to, and where that really stands: references
// are followed. It is nil where there is nothing.
func (d *document) at(pointer string) (any, string) {
	var node any = d.tree
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "#/"), "/") {
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, pointer
		}
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		if list, ok := node.([]any); ok {
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(list) {
				return nil, pointer
			}
			node = list[i]
		} else {
			node = object(node)[name]
		}
	}
	if ref, ok := object(node)["$ref"].(string); ok {
		return d.at(ref)
	}
	return node, pointer
}

// validate holds a value against the schema that a pointer leads to.
func (d *document) validate(pointer string, value any) error {
	d.mu.Lock()
	schema, ok := d.compiled[pointer]
	if !ok {
		var err error
		if schema, err = d.compiler.Compile("openapi.json" + pointer); err != nil {
			d.mu.Unlock()
			return err
		}
		d.compiled[pointer] = schema
	}
	d.mu.Unlock()
	return schema.Validate(value)
}

// validateJSON is validate for a value that is not decoded.
func (d *document) validateJSON(pointer string, data []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%w: %s", err, data)
	}
	return d.validate(pointer, value)
}

// find returns the operation that a request asks for, or nil. HEAD is GET.
func (d *document) find(method, path string) *operation {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var found *operation
	for i := range d.operations {
		op := &d.operations[i]
		// Words are nearer than parameters.
		if op.method == method && matchesPath(op.path, path) && (found == nil || strings.Count(op.path, "{") < strings.Count(found.path, "{")) {
			found = op
		}
	}
	return found
}

func matchesPath(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") && g != "" })
}

// everywhere are the header fields that any answer may have: those of HTTP, of
// CORS, of what browsers are told for safety, and the limit of the connection.
var everywhere = []string{
	"Connection", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Transfer-Encoding", "Vary",
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Cache-Control",
	"Content-Security-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy", "Permissions-Policy",
	"Referrer-Policy", "Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options",
}

// An expectation is what an answer's body must be.
type expectation struct {
	mediaType string // empty: there is none
	pointer   string // to its schema
}

// head judges the status and the header of an answer, and says what the body
// must be.
func (d *document) head(method, path string, status int, header http.Header) (expectation, error) {
	op := d.find(method, path)
	if op == nil || method == http.MethodHead && status == http.StatusMethodNotAllowed {
		return d.nowhere(method, status, header)
	}
	response := op.Responses.Status(status)
	if response == nil {
		return expectation{}, fmt.Errorf("status %d is not described", status)
	}
	at := response.Ref
	if at == "" {
		at = op.pointer + pointer("responses", strconv.Itoa(status))[1:]
	}
	var wrong []error
	for name, h := range response.Value.Headers {
		wrong = append(wrong, d.headerField(at+pointer("headers", name)[1:], name, h.Value.Required, header))
	}
	for name := range header {
		if !slices.Contains(everywhere, name) && !op.describes(name) {
			wrong = append(wrong, fmt.Errorf("the header field %s is not described", name))
		}
	}
	if len(response.Value.Content) == 0 || method == http.MethodHead {
		return expectation{}, errors.Join(wrong...)
	}
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if response.Value.Content[mediaType] == nil {
		wrong = append(wrong, fmt.Errorf("the content type %q is not described (%w)", header.Get("Content-Type"), err))
	}
	return expectation{mediaType, at + pointer("content", mediaType, "schema")[1:]}, errors.Join(wrong...)
}

// nowhere judges the answer to a request for which there is no operation.
func (d *document) nowhere(method string, status int, header http.Header) (expectation, error) {
	switch {
	case status == http.StatusNoContent && method == http.MethodOptions:
		return expectation{}, nil
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed && header.Get("Allow") != "":
		if method == http.MethodHead {
			return expectation{}, nil
		}
		return expectation{"application/problem+json", "#/components/schemas/Problem"}, nil
	}
	return expectation{}, fmt.Errorf("the operation is not described, and its status is %d", status)
}

// describes reports whether any answer of the operation has that header field.
func (op *operation) describes(name string) bool {
	for _, response := range op.Responses.Map() {
		for described := range response.Value.Headers {
			if strings.EqualFold(described, name) {
				return true
			}
		}
	}
	return false
}

// headerField judges one header field of an answer.
func (d *document) headerField(at, name string, required bool, header http.Header) error {
	values := header.Values(name)
	if len(values) == 0 {
		if required {
			return fmt.Errorf("the header field %s is missing", name)
		}
		return nil
	}
	_, at = d.at(at)
	if err := d.validate(at+"/schema", d.fromText(at+"/schema", strings.Join(values, ", "))); err != nil {
		return fmt.Errorf("the header field %s: %w", name, err)
	}
	return nil
}

// fromText is what a parameter or a header field says, as a value for a schema.
func (d *document) fromText(schema, text string) any {
	s, _ := d.at(schema)
	if kind := object(s)["type"]; kind == "integer" || kind == "number" {
		return json.Number(text)
	}
	return text
}

// request judges a request that was answered as it wished, its body too unless
// that is nil.
func (d *document) request(r *http.Request, body []byte) error {
	op := d.find(r.Method, r.URL.Path)
	if op == nil {
		return nil
	}
	var wrong []error
	for _, list := range []struct {
		pointer    string
		parameters openapi3.Parameters
	}{
		{op.pointer, op.Parameters},
		{op.pointer[:strings.LastIndexByte(op.pointer, '/')], op.pathItem.Parameters},
	} {
		for i, p := range list.parameters {
			wrong = append(wrong, d.parameter(r, op, p.Value, fmt.Sprintf("%s/parameters/%d", list.pointer, i)))
		}
	}
	if op.RequestBody == nil || body == nil {
		return errors.Join(wrong...)
	}
	at := op.RequestBody.Ref
	if at == "" {
		at = op.pointer + "/requestBody"
	}
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case len(body) == 0 && op.RequestBody.Value.Required:
		wrong = append(wrong, errors.New("the request has no body, and one is required"))
	case len(body) == 0:
	case op.RequestBody.Value.Content.Get(mediaType) == nil:
		wrong = append(wrong, fmt.Errorf("the content type %q of the request is not described", mediaType))
	case mediaType == "application/json":
		if err := d.validateJSON(at+pointer("content", mediaType, "schema")[1:], body); err != nil {
			wrong = append(wrong, fmt.Errorf("the body of the request: %w", err))
		}
	}
	return errors.Join(wrong...)
}

// parameter judges one parameter of such a request.
func (d *document) parameter(r *http.Request, op *operation, p *openapi3.Parameter, at string) error {
	var given []string
	switch p.In {
	case openapi3.ParameterInQuery:
		given = r.URL.Query()[p.Name]
	case openapi3.ParameterInHeader:
		given = r.Header.Values(p.Name)
	case openapi3.ParameterInPath:
		i := slices.Index(strings.Split(op.path, "/"), "{"+p.Name+"}")
		given = strings.Split(r.URL.Path, "/")[i : i+1]
	}
	if len(given) == 0 {
		if p.Required {
			return fmt.Errorf("the parameter %s is required", p.Name)
		}
		return nil
	}
	_, at = d.at(at)
	if err := d.validate(at+"/schema", d.fromText(at+"/schema", given[0])); err != nil {
		return fmt.Errorf("the parameter %s: %w", p.Name, err)
	}
	return nil
}
