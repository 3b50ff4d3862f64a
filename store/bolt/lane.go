package bolt

import (
	"bytes"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// What waits in the outbox is a row of due, or, where it has a lane, of lanes:
// the same behind the hash of the lane. There are about as many lanes as next
// hops, so to look at the head of each is cheap, however long they are.

// laneRoom is a store.Room by the hashes of its lanes.
type laneRoom map[[hashSize]byte]int

func hashRoom(room store.Room) laneRoom {
	by := make(laneRoom, len(room))
	for lane, n := range room {
		by[hashKey(lane)] = n
	}
	return by
}

func (r laneRoom) of(lane []byte) int {
	if n, ok := r[[hashSize]byte(lane)]; ok {
		return n
	}
	return math.MaxInt
}

// lanes yields each lane and the key of its first row.
func (r *reader) lanes() iter.Seq2[[]byte, []byte] {
	return func(yield func(lane, first []byte) bool) {
		for from := []byte(nil); ; {
			var key []byte
			for k := range r.rows(lanes, nil, from) {
				key = bytes.Clone(k)
				break
			}
			// In a damaged page a key may come out of order: never go back.
			if len(key) < hashSize+timeSize || bytes.Compare(key, from) < 0 || !yield(key[:hashSize], key) {
				return
			}
			if from = behind(key[:hashSize]); from == nil {
				return
			}
		}
	}
}

// wait is a row of the outbox.
type wait struct {
	in  bucket
	key []byte // time and id at its end
}

func (w wait) id() store.ID  { return store.ID(w.key[len(w.key)-len(store.ID{}):]) }
func (w wait) order() []byte { return w.key[len(w.key)-timeSize-len(store.ID{}):] }

// waiting picks up to n rows that are due, as Store.Claim promises: the oldest
// of each lane, the lanes in turn.
func (r *reader) waiting(now time.Time, n int, room laneRoom) (list []wait) {
	lines := [][]wait{r.line(due, nil, now, n)}
	for lane := range r.lanes() {
		lines = append(lines, r.line(lanes, lane, now, min(n, room.of(lane))))
	}
	lines = slices.DeleteFunc(lines, func(l []wait) bool { return len(l) == 0 })
	slices.SortFunc(lines, func(a, b []wait) int { return bytes.Compare(a[0].order(), b[0].order()) })
	for turn := 0; turn < n && len(list) < n; turn++ {
		for _, l := range lines {
			if turn < len(l) && len(list) < n {
				list = append(list, l[turn])
			}
		}
	}
	return list
}

// line is the head of a lane, up to n rows that are due.
func (r *reader) line(b bucket, lane []byte, now time.Time, n int) (list []wait) {
	limit := appendTime(nil, now)
	for k := range r.rows(b, lane, nil) {
		if len(list) >= n || bytes.Compare(k[len(lane):len(lane)+timeSize], limit) > 0 {
			break
		}
		list = append(list, wait{b, bytes.Clone(k)})
	}
	return list
}
