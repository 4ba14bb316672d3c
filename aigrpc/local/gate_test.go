package local_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"parley/aigrpc/local"
)

// sounds makes samples of as many seconds, of a sound at each moment.
func sounds(seconds float64, at func(second float64) float64) []byte {
	var pcm []byte
	for i := range int(seconds * 16000) {
		pcm = binary.LittleEndian.AppendUint16(pcm, uint16(int16(at(float64(i)/16000)*math.MaxInt16)))
	}
	return pcm
}

func TestTheGate(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(loud float64) float64 { return loud * (2*random.Float64() - 1) }
	// Syllables: a tone that comes and goes four times a second.
	speech := func(loud, second float64) float64 {
		return loud * math.Max(0, math.Sin(2*math.Pi*4*second)) * math.Sin(2*math.Pi*700*second)
	}
	for name, tt := range map[string]struct {
		pcm  []byte
		want bool
	}{
		"nothing":                       {nil, false},
		"silence":                       {make([]byte, 320000), false},
		"less than a frame":             {sounds(0.01, func(s float64) float64 { return speech(0.5, s) }), false},
		"even noise":                    {sounds(3, func(float64) float64 { return noise(0.3) }), false},
		"faint noise":                   {sounds(3, func(float64) float64 { return noise(0.0003) }), false},
		"a tone":                        {sounds(3, func(s float64) float64 { return 0.5 * math.Sin(2*math.Pi*440*s) }), false},
		"direct current":                {sounds(3, func(float64) float64 { return 0.9 }), false},
		"a click in silence":            {sounds(3, func(s float64) float64 { return map[bool]float64{true: 0.9}[s >= 1 && s < 1.01] }), false},
		"speech":                        {sounds(3, func(s float64) float64 { return speech(0.5, s) }), true},
		"quiet speech":                  {sounds(3, func(s float64) float64 { return speech(0.02, s) }), true},
		"speech in noise":               {sounds(3, func(s float64) float64 { return speech(0.5, s) + noise(0.03) }), true},
		"one short word in ten seconds": {sounds(10, func(s float64) float64 { return speech(0.5, s) * map[bool]float64{true: 1}[s >= 4 && s < 4.5] }), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{len(tt.pcm) + 1, 4095, 1} {
				if got := local.Speech(tt.pcm, size); got != tt.want {
					t.Errorf("in pieces of %d bytes: got %v, want %v", size, got, tt.want)
				}
			}
		})
	}
}
