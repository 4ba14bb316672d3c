package local

// Speech reports whether a gate hears speech in samples that come in pieces of
// that size.
func Speech(pcm []byte, size int) bool {
	var g gate
	for len(pcm) > 0 {
		n := min(size, len(pcm))
		g.hear(pcm[:n])
		pcm = pcm[n:]
	}
	return g.speech()
}

// Plain is what flite is told to say of a sentence.
func Plain(sentence string) string { return plain(sentence) }
