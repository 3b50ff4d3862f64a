package bolt

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/casegate/casegate/store"
)

// schema is the version of the bucket map. A file that says more is refused; a
// file that says less is brought forward (upgrade.go).
const schema = 2

// mounted is the open file.
type mounted struct {
	db     *bbolt.DB
	file   *os.File // the one bbolt uses and has locked
	damage *damage
}

// create makes a store if there is none: under another name, whole and synced
// before it takes its own. A crash in between leaves a file that the next
// start begins anew; two processes that start at once queue up for its lock.
func (s *Store) create() error {
	if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	draft := s.path + ".new"
	f, err := lock(draft, os.O_CREATE, s.opts.Timeout)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := os.Stat(s.path); err == nil {
		os.Remove(draft)
		return nil // another process was first
	}
	if err := f.Truncate(0); err != nil {
		return full(err)
	}
	if err := s.fillIn(f); err != nil {
		os.Remove(draft)
		return full(err)
	}
	return nil
}

// fillIn writes the empty buckets and the installation, and gives the file its
// name while it is still locked.
func (s *Store) fillIn(f *os.File) error {
	opts := boltOptions(f, s.opts.Timeout)
	opts.InitialMmapSize = 0
	db, err := bbolt.Open(f.Name(), 0o600, opts)
	if err != nil {
		return err
	}
	defer db.Close()
	in, err := newInstallation(s.opts.Now())
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for b := range bucketCount {
			if _, err := tx.CreateBucket([]byte(b.String())); err != nil {
				return err
			}
		}
		w := &writer{reader: reader{codec: s.codec, bolt: tx}}
		if err := w.putSealed(meta, []byte(keySchema), binary.AppendUvarint(nil, schema)); err != nil {
			return err
		}
		return w.PutInstallation(in)
	})
	if err := errors.Join(err, f.Sync()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(s.path))
}

func newInstallation(now time.Time) (store.Installation, error) {
	key := store.SigningKey{ID: 1, Secret: make([]byte, 32), CreatedAt: now.UTC()}
	_, err := rand.Read(key.Secret)
	return store.Installation{ID: store.NewID(), Keys: []store.SigningKey{key}}, err
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// mount locks the file, checks its pages and opens it. reread first drops what
// the system has cached of it, so that the check sees what the disk has.
func (s *Store) mount(reread bool) error {
	f, err := lock(s.path, 0, s.opts.Timeout)
	if err != nil {
		return err
	}
	if reread {
		dropCache(f)
	}
	began := time.Now()
	var d *damage
	if err := guard(func() (err error) { d, err = inspect(f); return err }); err != nil {
		f.Close()
		return err
	}
	opts := boltOptions(f, s.opts.Timeout)
	opts.ReadOnly = !d.sound() // bbolt would take lost pages for free ones
	var db *bbolt.DB
	if err := guard(func() (err error) { db, err = bbolt.Open(s.path, 0o600, opts); return err }); err != nil {
		f.Close()
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.opts.MaxSize > 0 {
		db.MaxSize = int(s.opts.MaxSize) + db.AllocSize // bbolt counts what it would allocate ahead
	}
	m := &mounted{db, f, d}
	// What is left open here stays locked: a later try would find it in use.
	if err := guard(func() error { return s.checkSchema(m) }); err != nil {
		return errors.Join(err, db.Close())
	}
	if d.meta != nil {
		s.log.Error("the newest transaction may be missing", "error", d.meta)
	}
	for _, found := range d.findings {
		s.log.Error("the store is damaged and will not be written to", "where", found.Record, "what", found.What)
	}
	if took := time.Since(began); took > time.Second {
		s.log.Info("checked the store", "file", s.path, "took", took)
	}
	s.db.Store(m)
	return nil
}

func (s *Store) checkSchema(m *mounted) error {
	return m.db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte(meta.String())) == nil {
			return fmt.Errorf("%w: the file is not a casegate store", store.ErrSchema)
		}
		v, err := s.reader(m, tx).sealed(meta, []byte(keySchema))
		if err != nil {
			return err
		}
		if have := newFields(v).uint(); have == 0 || have > schema {
			return fmt.Errorf("%w: the file has version %d, this program knows %d", store.ErrSchema, have, schema)
		}
		return nil
	})
}

func boltOptions(f *os.File, timeout time.Duration) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         timeout,
		NoFreelistSync:  true, // a commit writes what changed, and no list of the rest
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mapSize(),
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	}
}

// mapSize is how much address space to set aside for the file, so that growing
// it need not wait for views to end: plenty, or what a limit leaves.
func mapSize() int {
	for _, size := range []int64{256 << 30, 16 << 30, 1 << 30} {
		if size > math.MaxInt {
			continue
		}
		b, err := unix.Mmap(-1, 0, int(size), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			unix.Munmap(b)
			return int(size)
		}
	}
	return 0
}

// lock opens a file that no other process has open. bbolt is handed the file
// locked, so that nothing can happen between the lock and the check.
func lock(path string, flag int, timeout time.Duration) (*os.File, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
		if err != nil {
			return nil, full(err)
		}
		err = flock(f)
		if err == nil && isAt(f, path) {
			return f, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, store.ErrInUse
		}
	}
}

func flock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// isAt: the path still leads to the file; it may have been renamed while this
// process waited.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// full names the errors that mean no room.
func full(err error) error {
	if err == nil || errors.Is(err, store.ErrFull) {
		return err
	}
	for _, cause := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, bolterrors.ErrMaxSizeReached} {
		if errors.Is(err, cause) {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
	}
	return err
}
