package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"

	"github.com/minio/highwayhash"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
)

// spool takes a message in once: it finds the header, hashes, and streams the
// body into the store. Its memory is the header (at most message.MaxHeader)
// and what the store buffers of a body.
type spool struct {
	body    store.Body
	finder  message.Finder
	header  []byte
	inBody  bool
	tooLong bool      // the header never ended within message.MaxHeader
	raw     hash.Hash // header and body, as received
	content hash.Hash // body alone, keyed
	size    int64
}

func newSpool(body store.Body, key ContentKey) (*spool, error) {
	content, err := highwayhash.New(key[:])
	return &spool{body: body, raw: sha256.New(), content: content}, err
}

// ContentKey keys the hash by which bodies are compared (rule I1): a fast one,
// and nobody outside can find two bodies that it takes for the same.
type ContentKey [highwayhash.Size]byte

// ReadContentKey derives the key of a store's installation; it stays the same
// over restarts and new signing keys.
func ReadContentKey(ctx context.Context, st store.Store) (key ContentKey, err error) {
	err = st.View(ctx, func(r store.Reader) error {
		in, err := r.Installation()
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, in.Keys[0].Secret)
		io.WriteString(mac, "content of "+in.ID.String())
		key = ContentKey(mac.Sum(nil))
		return nil
	})
	return key, err
}

// Write takes the next bytes of the message.
func (s *spool) Write(p []byte) (int, error) {
	s.raw.Write(p)
	s.size += int64(len(p))
	rest := p
	if !s.inBody {
		n, done := s.finder.Feed(p)
		if over := len(s.header) + n - message.MaxHeader; over > 0 {
			n, done, s.tooLong = n-over, true, true
		}
		s.header = append(s.header, p[:n]...)
		s.inBody = done
		rest = p[n:]
		if err := s.keepCRLF(); err != nil {
			return 0, err
		}
	}
	if err := s.intoBody(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *spool) intoBody(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	s.content.Write(p)
	_, err := s.body.Write(p)
	return err
}

// keepCRLF sees to it that a header that had to be cut is not cut between CR and
// LF: each would count as a line end.
func (s *spool) keepCRLF() error {
	rest, cr := bytes.CutSuffix(s.header, []byte{'\r'})
	if !s.tooLong || !cr {
		return nil
	}
	s.header = rest
	return s.intoBody([]byte{'\r'})
}

// parsed is the header with the line ends it is sent with: the rules must see the
// fields that the next hop will see. One that was cut is not read at all; a message
// that is all header ends with a line end.
func (s *spool) parsed() message.Header {
	block := clean(s.header)
	if s.tooLong {
		return message.Opaque(block)
	}
	if !s.inBody && !bytes.HasSuffix(block, []byte("\r\n")) {
		block = append(bytes.Clone(block), "\r\n"...)
	}
	return message.Parse(block)
}

// Discard releases the staged body; harmless once a message was archived.
func (s *spool) Discard() { s.body.Discard() }

func (s *spool) digest() string { return hex.EncodeToString(s.raw.Sum(nil)) }

// sentDigest is the digest and size of the EML that a new header block and the
// transformed body make.
func (s *spool) sentDigest(header []byte, transforms []string) (string, int64, error) {
	h := sha256.New()
	h.Write(header)
	if len(transforms) == 0 {
		n, err := s.body.WriteTo(h)
		return hex.EncodeToString(h.Sum(nil)), n + int64(len(header)), err
	}
	r, done := s.reader()
	defer done()
	n, err := io.Copy(h, message.Apply(r, transforms))
	return hex.EncodeToString(h.Sum(nil)), n + int64(len(header)), err
}

// reader reads the body again; done ends it, and leaves nobody reading.
func (s *spool) reader() (r io.Reader, done func()) {
	pr, pw := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := s.body.WriteTo(pw)
		pw.CloseWithError(err)
	}()
	return pr, func() {
		pr.CloseWithError(io.ErrClosedPipe)
		<-ended
	}
}
