package auth

// RememberedLimit is how many verified tokens are remembered at the most.
const RememberedLimit = rememberedTokens

// RevokedLimit is how many revocations are told apart at the most.
const RevokedLimit = revokedLimit

// Remembered counts the tokens that t remembers.
func (t *Tokens) Remembered() int {
	r := t.keys.Load().remembered
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.young) + len(r.before)
}

// Held counts the revocations that r tells apart.
func (r *Revoked) Held() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sessions) + len(r.users)
}

// Occupy takes one hasher until the function that it returns is called.
func (p *Passwords) Occupy() (release func()) {
	h := <-p.hashers
	return func() { p.hashers <- h }
}

// ReadableHash parses a stored hash without spending what it costs.
func ReadableHash(hash string) error {
	_, err := parseHash(hash)
	return err
}
