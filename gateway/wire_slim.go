package gateway

import (
	"bufio"
	"net/textproto"
	"reflect"

	"github.com/emersion/go-smtp"
)

// slimBuffer is what go-smtp reads and writes a line through.
const slimBuffer = 256

// slim takes from go-smtp the 8 KiB of buffers that it holds for each connection:
// it is given a line at a time, and its replies are gathered in the wire, so they
// would stand empty, and thousands of slow clients would hold them. go-smtp has no
// setting for it; where its field is not what it was in v0.25, all stays as it is
// and the connection is merely larger (see TestSlowConnections).
func slim(c *smtp.Conn, w *wire) {
	field := reflect.ValueOf(c).Elem().FieldByName("text")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*textproto.Conn]() || field.IsNil() {
		return
	}
	text := (*textproto.Conn)(field.UnsafePointer())
	if text.R.Buffered() == 0 && text.W.Buffered() == 0 {
		text.R, text.W = bufio.NewReaderSize(w, slimBuffer), bufio.NewWriterSize(w, slimBuffer)
	}
}
