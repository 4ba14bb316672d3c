package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// These tests hold the console's modules against the standards that they follow,
// in the browser that runs them.

// imported runs the body of an async function in a page of the console, to which
// the module's exports are given as m and args[0] as given.
func (b *browser) imported(into any, module, body string, given any) {
	b.t.Helper()
	b.must("POST", "/execute/async", map[string]any{
		"script": `const [given, done] = arguments; import("/console/` + module + `").then(async (m) => {` + body + `}).then(done, (e) => done(String(e.stack)))`,
		"args":   []any{given},
	}, into)
}

// The streams and their events are those of the HTML Living Standard, section
// 9.2.6, and what it says of fields.
func TestConsoleReadsEvents(t *testing.T) {
	t.Parallel()
	b := browse(t)
	s := start(t)
	b.visit(s.url + "/")
	for name, tt := range map[string]struct {
		stream string
		events [][3]string // type, data, id
	}{
		"data in three lines":         {"data: YHOO\ndata: +2\ndata: 10\n\n", [][3]string{{"message", "YHOO\n+2\n10", ""}}},
		"a comment and ids":           {": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n", [][3]string{{"message", "first event", "1"}, {"message", "second event", ""}, {"message", " third event", ""}}},
		"empty data":                  {"data\n\ndata\ndata\n\ndata:", [][3]string{{"message", "", ""}, {"message", "\n", ""}}},
		"a space or none":             {"data:test\n\ndata: test\n\n", [][3]string{{"message", "test", ""}, {"message", "test", ""}}},
		"types":                       {"event: add\ndata: 1\n\nevent: remove\ndata: 2\n\ndata: 3\n\n", [][3]string{{"add", "1", ""}, {"remove", "2", ""}, {"message", "3", ""}}},
		"a type without data":         {"event: add\n\ndata: 1\n\n", [][3]string{{"message", "1", ""}}},
		"CR":                          {"data: a\rdata: b\r\rdata: c\r\r", [][3]string{{"message", "a\nb", ""}, {"message", "c", ""}}},
		"CRLF":                        {"data: a\r\ndata: b\r\n\r\n", [][3]string{{"message", "a\nb", ""}}},
		"all line ends":               {"data: a\r\ndata: b\rdata: c\n\r\n", [][3]string{{"message", "a\nb\nc", ""}}},
		"a byte order mark":           {"\xef\xbb\xbfdata: a\n\n", [][3]string{{"message", "a", ""}}},
		"a second byte order mark":    {"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", nil},
		"characters of several bytes": {"data: ä€😀\n\n", [][3]string{{"message", "ä€😀", ""}}},
		"bytes that are no UTF-8":     {"data: \xff\xe2\x82\n\n", [][3]string{{"message", "��", ""}}},
		"an id with NUL":              {"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n", [][3]string{{"message", "a", "1"}, {"message", "b", "1"}}},
		"an id that stays":            {"id: 1\n\ndata: a\n\n", [][3]string{{"message", "a", "1"}}},
		"fields that are none":        {"dat: x\n data: y\nDATA: z\ndata : v\ndata: a\n\n", [][3]string{{"message", "a", ""}}},
		"an end without a blank line": {"data: a\n", nil},
		"other separators of lines":   {"data: a\u2028b\u0085c\vd\n\n", [][3]string{{"message", "a\u2028b\u0085c\vd", ""}}},
	} {
		stream := make([]int, len(tt.stream))
		for i, c := range []byte(tt.stream) {
			stream[i] = int(c)
		}
		var got [][][3]string
		b.imported(&got, "sse.js", `
			const bytes = Uint8Array.from(given);
			const read = (...ends) => {
				const parser = new m.EventParser();
				const events = [];
				let from = 0;
				for (const end of [...ends, bytes.length]) events.push(...parser.push(bytes.slice(from, from = end)));
				return events.map((e) => [e.type, e.data, e.id]);
			};
			const all = [read(), read(...bytes.keys())];
			for (let i = 1; i < bytes.length; i++) all.push(read(i));
			return all;`, stream)
		for cut, events := range got {
			if !slices.Equal(events, tt.events) {
				t.Errorf("%s, cut %d: got %q, want %q", name, cut, events, tt.events)
			}
		}
	}
	var retry []any
	b.imported(&retry, "sse.js", `return ["retry: 10\n", "retry: 1x\n", "retry:\n", "retry: -1\n", "retry: 07\r\n"].map((s) => {
		const parser = new m.EventParser();
		parser.push(new TextEncoder().encode(s));
		return parser.retry;
	})`, nil)
	if want := fmt.Sprint([]any{10, nil, nil, nil, 7}); fmt.Sprint(retry) != want {
		t.Errorf("the times to come back are %v, want %s", retry, want)
	}
}

// What the page makes of Markdown, by CommonMark 0.31.2 and GitHub's tables and
// strikethrough, but for what it leaves out, and headings that are two levels
// lower. However the text arrives, the same becomes of it.
func TestConsoleShowsMarkdown(t *testing.T) {
	t.Parallel()
	b := browse(t)
	s := start(t)
	b.visit(s.url + "/")
	const shows = `
		const html = (node) => [...node.childNodes].map((n) => n.nodeType === 3 ? n.data.replaceAll("&", "&amp;").replaceAll("<", "&lt;") :
			n.matches("button") ? "" : n.matches("div, .bar, .bar span") ? html(n).replace(/^text(?=<pre)/, "") :
			"<" + n.localName + [...n.attributes].filter((a) => ["href", "start", "class"].includes(a.name)).map((a) => " " + a.name + "=" + a.value).join("") + ">" + html(n) + "</" + n.localName + ">").join("");
		const whole = document.createElement("div");
		new m.Markdown(whole).set(given);
		const grown = document.createElement("div");
		const growing = new m.Markdown(grown);
		const step = Math.ceil(given.length / (given.length < 1000 ? 1000 : 20));
		for (let i = 0; i < given.length; i += step) growing.set(given.slice(0, i));
		growing.set(given);
		return [html(whole), html(grown)];`
	for text, want := range map[string]string{
		"one\ntwo\n\nthree":                                  "<p>one<br></br>two</p><p>three</p>",
		"# A\n### B\n####### C\n#D":                          "<h3>A</h3><h5>B</h5><p>####### C<br></br>#D</p>",
		"*a* **b** ***c*** _d_ __e__ ~~f~~":                  "<p><em>a</em> <strong>b</strong> ***c*** <em>d</em> <strong>e</strong> <del>f</del></p>",
		"snake_case_name and 2 * 3 * 4":                      "<p>snake_case_name and 2 * 3 * 4</p>",
		"**a *b* c** *d **e** f*":                            "<p><strong>a <em>b</em> c</strong> <em>d <strong>e</strong> f</em></p>",
		"**never closed and *this neither":                   "<p>**never closed and *this neither</p>",
		"*a **b* c":                                          "<p><em>a **b</em> c</p>",
		"`a*b*` ``c`d`` ` e ` `f":                            "<p><code>a*b*</code> <code>c`d</code> <code>e</code> `f</p>",
		`\*a\* \[b](c) \z`:                                   `<p>*a* [b](c) \z</p>`,
		"[a](https://x.y/z) [*b*](mailto:c@d.e)":             "<p><a href=https://x.y/z>a</a> <a href=mailto:c@d.e><em>b</em></a></p>",
		`[a](https://x.y/(z) "title") ![i](http://j.k/)`:     "<p><a href=https://x.y/(z)>a</a> <a href=http://j.k/>i</a></p>",
		"[a](javascript:b) [c](data:,d) [e](/f)":             "<p>[a](javascript:b) [c](data:,d) [e](/f)</p>",
		"[a [b](https://c.d/) e](https://f.g/)":              "<p>[a <a href=https://c.d/>b</a> e](<a href=https://f.g/>https://f.g/</a>)</p>",
		"<https://a.b/> https://c.d/e_f_(g). x":              "<p><a href=https://a.b/>https://a.b/</a> <a href=https://c.d/e_f_(g)>https://c.d/e_f_(g)</a>. x</p>",
		"- a\n- b\n  - c\n\n- d\n\ne":                        "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul><p>e</p>",
		"3. a\n4. b\n   c\n\n   d":                           "<ol start=3><li>a</li><li>b<br></br>c<p>d</p></li></ol>",
		"- a\n1. b":                                          "<ul><li>a</li></ul><ol><li>b</li></ol>",
		"> a\n> - b\n\nc":                                    "<blockquote><p>a</p><ul><li>b</li></ul></blockquote><p>c</p>",
		"a\n***\nb":                                          "<p>a</p><hr></hr><p>b</p>",
		"```\n<b>*a*\n\n  c\n```\nd":                         "<pre><code>&lt;b>*a*\n\n  c</code></pre><p>d</p>",
		"~~~~go\n```\n~~~\n~~~~":                             "go<pre><code>```\n~~~</code></pre>",
		"```\nnever closed":                                  "<pre><code>never closed</code></pre>",
		"a:\n| b | c |\n|:-:|--:|\n| d \\| e | *f* | g |\nh": "<p>a:</p><table><thead><tr><th class=center>b</th><th class=right>c</th></tr></thead><tbody><tr><td class=center>d | e</td><td class=right><em>f</em></td></tr></tbody></table><p>h</p>",
		"<script>a</script> &amp; <b>c</b>":                  "<p>&lt;script>a&lt;/script> &amp;amp; &lt;b>c&lt;/b></p>",
	} {
		var got []string
		b.imported(&got, "markdown.js", shows, text)
		if !slices.Equal(got, []string{want, want}) {
			t.Errorf("%q is shown as\n%q, want\n%q", text, got, want)
		}
	}
	// A call takes fewer arguments than a text may have parts.
	for _, part := range []string{"a\n\n", "- a\n", "*a* ", "- *a* ", "> a\n>\n"} {
		var length int
		b.imported(&length, "markdown.js", `
			const whole = document.createElement("div");
			new m.Markdown(whole).set(given.repeat(600_000 / given.length));
			return whole.textContent.length;`, part)
		if length < 100_000 {
			t.Errorf("of a long text of %q are %d characters left", part, length)
		}
	}
	// Nothing takes more than its length; what does ends at the script's timeout.
	for _, part := range []string{"*", "**a ", "_a*b_ ", "[", "[a](", "](", "`", "``` `", "<https://", "https://a.b", "https://[", "> ", "- ", "  - a\n", "|", "| a |\n|---|\n", "\\", "~~a", "1. ", "#", "- - - x", "[a](b \"", " ", "\u2028 "} {
		var got []string
		b.imported(&got, "markdown.js", shows, strings.Repeat(part, 30_000/len(part)))
		if len(got) != 2 || got[0] != got[1] {
			t.Errorf("a long text of %q is shown in two ways", part)
		}
	}
	b.fine()
}
