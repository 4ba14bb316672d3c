package aigrpc

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// A mender makes text of the bytes that a backend sends: a byte that is not
// UTF-8 becomes U+FFFD, as in Go's conversion to runes, and so does NUL, which
// a database cannot keep. A rune that is split between two chunks is put
// together. The pieces of a text come out as the whole text would.
type mender struct {
	half [utf8.UTFMax]byte
	n    int // bytes in half
}

// mend returns b as text, after the half rune that was kept and without the
// half rune at its end.
func (m *mender) mend(b []byte) string {
	if m.n == 0 && utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return string(b)
	}
	b = append(m.half[:m.n:m.n], b...)
	m.n = 0
	text := make([]byte, 0, len(b))
	for len(b) > 0 {
		if !utf8.FullRune(b) {
			m.n = copy(m.half[:], b)
			break
		}
		r, size := utf8.DecodeRune(b)
		if r == 0 {
			r = utf8.RuneError
		}
		text = utf8.AppendRune(text, r)
		b = b[size:]
	}
	return string(text)
}

// rest returns what was kept, now that no more comes.
func (m *mender) rest() string {
	n := m.n
	m.n = 0
	return strings.Repeat(string(utf8.RuneError), n)
}

// mendAll returns b as text, where b is all there is.
func mendAll(b []byte) string {
	var m mender
	return m.mend(b) + m.rest()
}
