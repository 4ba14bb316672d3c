package local

import (
	"encoding/binary"
	"math"
)

const (
	// sampleRate is that of the model: samples are 16 bits, mono.
	sampleRate     = 16000
	bytesPerSecond = 2 * sampleRate
	frameSamples   = sampleRate / 50 // 20 ms

	// Somebody speaks if so many frames are louder than that, in dB below the
	// loudest there can be, and stand out from the quiet ones by so much.
	fewestFrames  = 5
	quietestVoice = 55
	leastContrast = 9
	// The quiet ones are below this part of all.
	quietPart = 0.2
)

// A gate tells speech from silence and from even noise, in which pocketsphinx
// would find words all the same: where somebody speaks, some parts are much louder
// than others. It keeps a count for each loudness, however long the recording is.
type gate struct {
	counts [100]int // frames, by their loudness in dB below the loudest there can be
	frames int

	half    byte // the first half of a sample
	odd     bool
	last    float64
	sum     float64
	samples int
}

// hear listens to samples.
func (g *gate) hear(pcm []byte) {
	if g.odd && len(pcm) > 0 {
		g.sample(int16(uint16(g.half) | uint16(pcm[0])<<8))
		pcm, g.odd = pcm[1:], false
	}
	for ; len(pcm) >= 2; pcm = pcm[2:] {
		g.sample(int16(binary.LittleEndian.Uint16(pcm)))
	}
	if len(pcm) == 1 {
		g.half, g.odd = pcm[0], true
	}
}

func (g *gate) sample(s int16) {
	// The difference to the sample before leaves out hum, rumble and direct
	// current, which have no words.
	value := float64(s) / math.MaxInt16
	difference := value - g.last
	g.last = value
	g.sum += difference * difference
	if g.samples++; g.samples < frameSamples {
		return
	}
	level := len(g.counts) - 1
	if g.sum > 0 {
		below := -10 * math.Log10(g.sum/frameSamples)
		level = min(max(0, int(below)), level)
	}
	g.counts[level]++
	g.frames++
	g.sum, g.samples = 0, 0
}

// speech reports whether somebody spoke.
func (g *gate) speech() bool {
	loud := -1
	for level, n := 0, 0; level < len(g.counts) && loud < 0; level++ {
		if n += g.counts[level]; n >= fewestFrames {
			loud = level
		}
	}
	quiet := len(g.counts) - 1
	for n := g.counts[quiet]; quiet > 0 && float64(n) < quietPart*float64(g.frames); n += g.counts[quiet] {
		quiet--
	}
	return loud >= 0 && loud <= quietestVoice && quiet-loud >= leastContrast
}
