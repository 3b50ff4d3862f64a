package bolt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casegate/casegate/store"
)

// verifier reads a store while it is in use. It looks at a few rows per view,
// and at a row together with all that must agree with it in the same view, so
// it needs no long snapshot. It trusts no page that it has not looked at.
type verifier struct {
	st     *Store
	ctx    context.Context
	report func(store.Finding)
	counts store.Counts
	bad    map[string]bool // buckets that can't be followed
	todo   []store.Message // to read the bodies of, when no view is open
}

// Verify looks at the pages, then at the records and their index rows both
// ways, and compares every archived message with its digests.
func (s *Store) Verify(ctx context.Context, report func(store.Finding)) (store.Counts, error) {
	v := &verifier{st: s, ctx: ctx, report: report, bad: map[string]bool{}}
	if err := v.metas(); err != nil {
		return v.counts, err
	}
	for b := range bucketCount {
		if err := v.pages(b); err != nil {
			return v.counts, err
		}
	}
	for b := range bucketCount {
		if err := v.rows(b, v.checks()[b]); err != nil {
			return v.counts, err
		}
	}
	return v.counts, nil
}

func (v *verifier) found(record, format string, args ...any) {
	v.counts.Findings++
	v.report(store.Finding{Record: record, What: fmt.Sprintf(format, args...)})
}

// view runs fn on a snapshot. What goes wrong in it is a finding; only an
// error that would meet every other view too is returned.
func (v *verifier) view(record string, fn func(*reader) error) error {
	err := v.st.view(v.ctx, fn)
	switch {
	case err == nil:
		return nil
	case v.ctx.Err() != nil, errors.Is(err, store.ErrUnavailable):
		return err
	}
	v.found(record, "%v", err)
	return nil
}

// metas looks at the two meta pages. One that is being written may look torn.
func (v *verifier) metas() error {
	return v.view("meta pages", func(r *reader) error {
		m := v.st.db.Load()
		if m == nil {
			return v.st.unavailable()
		}
		size := m.db.Info().PageSize
		data, err := mapFile(m.file, int64(2*size))
		if err != nil {
			return err
		}
		defer unix.Munmap(data)
		for _, at := range []int{0, size} {
			var err error
			for range 5 {
				if err = wholeMeta(data, at, size); err == nil {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if err != nil {
				v.found(fmt.Sprintf("meta page at %d", at), "%v: the newest transaction may be missing", err)
			}
		}
		return nil
	})
}

// pages looks at the pages of one bucket, on a snapshot.
func (v *verifier) pages(b bucket) error {
	seen := false
	err := v.view("bucket "+b.String(), func(r *reader) error {
		m := v.st.db.Load()
		if m == nil {
			return v.st.unavailable()
		}
		data, err := mapFile(m.file, r.bolt.Size())
		if err != nil {
			return err
		}
		defer unix.Munmap(data)
		size := m.db.Info().PageSize
		p := newPages(data, pageMeta{pageSize: size, next: uint64(r.bolt.Size()) / uint64(size)}, func(f store.Finding) {
			v.found(f.Record, "%s", f.What)
		})
		p.slack = true
		tops, err := p.root(uint64(r.bolt.Cursor().Bucket().Root()))
		if err != nil {
			return err
		}
		for _, top := range tops {
			if top.name == b.String() {
				p.top(top)
				seen = !p.sick
			}
		}
		if !seen && !p.sick {
			return errors.New("is missing")
		}
		return nil
	})
	if !seen {
		v.bad[b.String()] = true
	}
	return err
}

// rowsPerView is how many rows are looked at in one view.
const rowsPerView = 200

// rows looks at each row of a bucket.
func (v *verifier) rows(b bucket, check func(r *reader, k, val []byte)) error {
	var after []byte
	for more := true; more && !v.bad[b.String()]; {
		whole := false
		err := v.view("bucket "+b.String(), func(r *reader) error {
			more = false
			n := 0
			for k, val := range r.rows(b, nil, after) {
				if more = n == rowsPerView; more {
					break
				}
				check(r, k, val)
				after = append(after[:0], k...)
				n++
			}
			whole = true
			return nil
		})
		if err != nil {
			return err
		}
		if !whole {
			v.bad[b.String()] = true
		}
		if err := v.digests(); err != nil {
			return err
		}
	}
	return nil
}

// digests reads the messages that the last view met.
func (v *verifier) digests() error {
	for _, m := range v.todo {
		for _, as := range []store.As{store.AsReceived, store.AsSent} {
			if err := v.digest(m, as); err != nil {
				return err
			}
		}
	}
	v.todo = v.todo[:0]
	return nil
}

func (v *verifier) digest(m store.Message, as store.As) error {
	want, size := m.Archived.ReceivedSHA256, m.Archived.ReceivedSize
	if as == store.AsSent {
		want, size = m.Archived.SentSHA256, m.Archived.SentSize
		if want == "" || len(m.Archived.Transforms) > 0 && v.st.opts.Transform == nil {
			return nil
		}
	}
	record := fmt.Sprintf("message %s", m.ID)
	h := sha256.New()
	n, err := v.st.whole(v.ctx, h, m, as)
	switch {
	case err == nil:
	case v.ctx.Err() != nil, errors.Is(err, store.ErrUnavailable):
		return err
	default:
		v.found(record, "as %s: %v", as, err)
		return nil
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want || n != size {
		v.found(record, "as %s: %d bytes with digest %s, archived were %d with %s", as, n, got, size, want)
	}
	return nil
}

// whole writes an EML with the fields that were kept apart put back.
func (s *Store) whole(ctx context.Context, to io.Writer, m store.Message, as store.As) (int64, error) {
	e, err := s.open(ctx, m.ID, as)
	if err != nil {
		return 0, err
	}
	body := io.Reader(e)
	if as == store.AsSent && len(m.Archived.Transforms) > 0 {
		body = s.opts.Transform(e, m.Archived.Transforms)
	}
	header := e.header
	if as == store.AsReceived {
		if header, err = restore(header, e.apart); err != nil {
			return 0, err
		}
	}
	if _, err := to.Write(header); err != nil {
		return 0, err
	}
	n, err := io.Copy(to, body)
	return n + int64(len(header)), err
}

// restore puts the fields kept apart back into a header block.
func restore(block []byte, apart []store.Apart) ([]byte, error) {
	for _, a := range apart {
		if a.Offset < 0 || a.Offset > len(block) {
			return nil, fmt.Errorf("a field kept apart belongs at %d of %d", a.Offset, len(block))
		}
		block = join(block[:a.Offset], a.Bytes, block[a.Offset:])
	}
	return block, nil
}
