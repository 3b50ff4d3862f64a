package gateway

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/casegate/casegate/gateway/message"
)

// maxThreadIndex is the longest that is kept, and extended: it must fit a line.
const maxThreadIndex = 900

func threadIndexOf(h message.Header) string {
	if v := h.Get("Thread-Index"); len(v) <= maxThreadIndex {
		return v
	}
	return ""
}

// childThreadIndex appends one response level to a parent's Thread-Index, as
// Outlook does ([MS-OXOMSG] 2.2.1.3): a header of 22 bytes, then 5 bytes for
// each answer: the time since the header, and a random sequence. It returns
// nothing for a parent it cannot read.
func childThreadIndex(parent string, now time.Time) string {
	b, err := base64.StdEncoding.DecodeString(parent)
	if err != nil || len(b) < 22 || (len(b)-22)%5 != 0 {
		return ""
	}
	const epoch = 11644473600 // seconds from 1601 to 1970
	var head [8]byte
	copy(head[:6], b[:6]) // the high bytes of a FILETIME
	filetime := uint64(now.Unix()+epoch)*1e7 + uint64(now.Nanosecond())/100
	delta := filetime - min(filetime, binary.BigEndian.Uint64(head[:]))
	var level [5]byte
	if delta>>49 == 0 {
		binary.BigEndian.PutUint32(level[:4], uint32(delta>>18)&0x7fffffff)
	} else {
		binary.BigEndian.PutUint32(level[:4], uint32(delta>>23)&0x7fffffff|0x80000000)
	}
	rand.Read(level[4:])
	return base64.StdEncoding.EncodeToString(append(b, level[:]...))
}
