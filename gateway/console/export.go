package console

import (
	"bytes"
	"fmt"
	"io"

	"github.com/casegate/casegate/store"
)

// joined is the EML of a message: a header block, and the rest of the archived
// stream behind the transforms it was sent through.
func (a *api) joined(archived io.ReadCloser, m store.Message, as store.As, block []byte, apart []store.Apart, bcc bool) (io.ReadCloser, error) {
	if bcc && as == store.AsReceived {
		var err error
		if block, err = restore(block, apart); err != nil {
			archived.Close()
			return nil, fmt.Errorf("message %s: %w", m.ID, err)
		}
	}
	body := io.Reader(archived)
	if as == store.AsSent && len(m.Archived.Transforms) > 0 {
		body = a.Transform(archived, m.Archived.Transforms)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(block), body), archived}, nil
}

// restore puts the fields kept apart back where they stood.
func restore(block []byte, apart []store.Apart) ([]byte, error) {
	var whole []byte
	rest := block
	for _, field := range apart {
		n := field.Offset - len(whole)
		if n < 0 || n > len(rest) {
			return nil, fmt.Errorf("a field kept apart does not fit: offset %d of %d", field.Offset, len(whole)+len(rest))
		}
		whole = append(append(whole, rest[:n]...), field.Bytes...)
		rest = rest[n:]
	}
	return append(whole, rest...), nil
}
