package handlers

import (
	"net/http"
	"net/netip"
)

// Unmarshal is unmarshal, for its fuzz target.
func Unmarshal(raw []byte, in any) error { return unmarshal(raw, in) }

// ClientAddr is clientAddr, for its table and its fuzz target.
func ClientAddr(peer string, forwardedFor []string, trusted []netip.Prefix) netip.Addr {
	return clientAddr(peer, forwardedFor, trusted)
}

// Routes lists the methods and patterns that the handler made by New answers.
func Routes(api http.Handler) [][2]string {
	var out [][2]string
	for _, row := range api.(*server).routes {
		for _, method := range row.methods() {
			out = append(out, [2]string{method, row.path})
		}
	}
	return out
}

// NewAnswer is what a handler writes to, for the test of its deadlines.
func NewAnswer(w http.ResponseWriter) http.ResponseWriter { return &answer{ResponseWriter: w} }

// Generations is generations, for its test.
type Generations struct{ generations }

// Has is has.
func (g *Generations) Has(sid string, generation int64) bool { return g.has(sid, generation) }

// Add is add.
func (g *Generations) Add(sid string, generation int64) { g.add(sid, generation) }

// Size is how many device sessions are remembered.
func (g *Generations) Size() int { return len(g.recent) + len(g.older) }
