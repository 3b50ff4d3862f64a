package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// Options tune a store; the zero value is good.
type Options struct {
	// Timeout is how long to wait for another process to let go of the file;
	// default 2s, then store.ErrInUse.
	Timeout time.Duration
	// MaxSize is the size past which the file must not grow, in bytes; then
	// store.ErrFull. Default 0: as far as the disk goes.
	MaxSize int64
	// BodyMemory bounds what all bodies on their way in hold in memory
	// together, in bytes; default 32 MiB. Each may have 8 KiB beyond it.
	BodyMemory int64
	// Transform applies Archived.Transforms to a body, so that Verify can check
	// sent messages that have some; nil skips those.
	Transform func(body io.Reader, transforms []string) io.Reader
	Logger    *slog.Logger     // default: slog.Default
	Now       func() time.Time // default: time.Now

	commit func(*bbolt.Tx) error // tests break it
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	if o.BodyMemory <= 0 {
		o.BodyMemory = 32 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.commit == nil {
		o.commit = (*bbolt.Tx).Commit
	}
	return o
}

// Store is a store.Store in one file.
type Store struct {
	path    string
	opts    Options
	codec   *codec
	log     *slog.Logger
	epoch   store.ID // of this opening: leases of an earlier one are void
	buffers buffers

	lastCase  atomic.Uint64                // the last case number given
	committed atomic.Pointer[func(Commit)] // is told of each commit

	db      atomic.Pointer[mounted] // nil while the outcome of a commit is unknown, and when closed
	calls   chan *call
	patient patient
	unheard unheard
	slab    []byte // of the committer
	wholes  sync.WaitGroup

	mu      sync.RWMutex // guards closed and the start of calls
	closed  bool
	started sync.WaitGroup // calls that are not answered yet, or wait for a ride

	sweepMu sync.Mutex
	orphans []store.ID // staged bodies to sweep
}

// Open opens the store in a file, or makes it.
func Open(path string, opts Options) (*Store, error) {
	s := &Store{path: path, opts: opts.withDefaults(), epoch: store.NewID(), calls: make(chan *call, maxCalls)}
	s.log, s.buffers.limit = s.opts.Logger, s.opts.BodyMemory
	var err error
	if s.codec, err = newCodec(); err != nil {
		return nil, err
	}
	if err := s.create(); err != nil {
		return nil, fmt.Errorf("creating store %q: %w", path, err)
	}
	if err := guard(func() error { return s.mount(false) }); err != nil {
		return nil, fmt.Errorf("opening store %q: %w", path, err)
	}
	if err := s.ready(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening store %q: %w", path, err), s.db.Swap(nil).db.Close())
	}
	s.wholes.Go(s.run)
	if err := s.sweepAll(); err != nil {
		s.log.Warn("bodies left behind by an earlier run are not swept yet", "error", err)
	}
	return s, nil
}

// ready makes a file of an earlier version one of this.
func (s *Store) ready() error {
	for _, step := range []func() error{s.upgrade, s.addBuckets, s.readLastCase} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// addBuckets makes the buckets that a file of an earlier version lacks. Beside
// one that is nobody's, a missing one is not lacking but damaged.
func (s *Store) addBuckets() error {
	m := s.db.Load()
	if !m.damage.sound() {
		return nil
	}
	tx, err := m.db.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	have := 0
	for name := range topBuckets(tx) {
		if !isBucket(name) {
			return nil
		}
		have++
	}
	if have == int(bucketCount) {
		return nil
	}
	for b := range bucketCount {
		if _, err := tx.CreateBucketIfNotExists([]byte(b.String())); err != nil {
			return err
		}
	}
	return full(tx.Commit())
}

func topBuckets(tx *bbolt.Tx) iter.Seq[string] {
	return func(yield func(string) bool) {
		c := tx.Cursor()
		for k, _ := c.First(); k != nil && yield(string(k)); k, _ = c.Next() {
		}
	}
}

func isBucket(name string) bool {
	for b := range bucketCount {
		if b.String() == name {
			return true
		}
	}
	return false
}

// Close waits for what is under way and releases the file.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.started.Wait()
	close(s.calls)
	s.wholes.Wait()
	if m := s.db.Swap(nil); m != nil {
		return m.db.Close()
	}
	return nil
}

func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	return s.update(ctx, func(w *writer) error { return fn(w) })
}

func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	return s.view(ctx, func(r *reader) error { return fn(r) })
}

// view runs fn on a snapshot. A panic in it, of bbolt over a damaged page or
// of fn itself, becomes an error.
func (s *Store) view(ctx context.Context, fn func(*reader) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := s.db.Load()
	if m == nil {
		return s.unavailable()
	}
	tx, err := m.db.Begin(false)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	defer tx.Rollback()
	return guard(func() error { return fn(s.reader(m, tx)) })
}

func (s *Store) reader(m *mounted, tx *bbolt.Tx) *reader {
	return &reader{codec: s.codec, bolt: tx, now: s.opts.Now, broken: m.damage.buckets}
}

// guard runs fn and turns a panic into an error, also the fault of a read that
// the disk or a damaged page number leads astray.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	return fn()
}

// panicked keeps where a panic came from: an error alone would hide the bug.
func panicked(p any) error {
	if err, ok := p.(error); ok {
		return fmt.Errorf("panic in a transaction: %w\n%s", err, debug.Stack())
	}
	return fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
}

func (s *Store) unavailable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return fmt.Errorf("%w: it is closed", store.ErrUnavailable)
	}
	return fmt.Errorf("%w: the outcome of a commit is unknown, the file is being checked", store.ErrUnavailable)
}

// sweepLater removes a staged body that came to nothing, in a commit of its
// own or of others; nobody waits for it. What fails is tried with the next.
func (s *Store) sweepLater(id store.ID) {
	s.sweepMu.Lock()
	s.orphans = append(s.orphans, id)
	s.sweepMu.Unlock()
	if done, ok := s.start(); ok {
		go func() {
			defer done()
			if err := s.sweepSome(); err != nil {
				s.log.Debug("sweeping staged bodies", "error", err)
			}
		}()
	}
}

// sweepSome sweeps what has gathered. The list is put back when it fails.
func (s *Store) sweepSome() error {
	s.sweepMu.Lock()
	ids := s.orphans
	s.orphans = nil
	s.sweepMu.Unlock()
	err := s.sweepIDs(ids)
	if err != nil {
		s.sweepMu.Lock()
		s.orphans = append(s.orphans, ids...)
		s.sweepMu.Unlock()
	}
	return err
}

// sweepChunks is how many chunks one transaction removes.
const sweepChunks = 256

func (s *Store) sweepIDs(ids []store.ID) error {
	for more := len(ids) > 0; more; {
		err := s.submit(context.Background(), func(w *writer) (err error) {
			more, err = w.sweep(ids, sweepChunks)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepAll removes what an earlier run staged and never archived.
func (s *Store) sweepAll() error {
	var ids []store.ID
	err := s.view(context.Background(), func(r *reader) error {
		for k := range r.rows(staged, nil, nil) {
			ids = append(ids, store.ID(k))
		}
		return nil
	})
	if err == nil {
		err = s.sweepIDs(ids)
	}
	if err != nil {
		s.orphans = append(s.orphans, ids...)
	}
	return err
}
