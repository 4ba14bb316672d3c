package main

import "testing"

func TestTheCollectorLeavesSomeRoom(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, tt := range map[string]struct{ live, want uint64 }{
		"nothing lives":                      {0, 200},
		"few streams":                        {12 * mib, 200},
		"as much as the room":                {48 * mib, 100},
		"a thousand streams":                 {64 * mib, 75},
		"ten thousand streams":               {150 * mib, 40},
		"more than a machine has":            {1 << 60, 40},
		"a little less than the least needs": {119 * mib, 40},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := collectAt(tt.live); got != tt.want {
				t.Errorf("got %d %%, want %d %%", got, tt.want)
			}
		})
	}
}
