package bolt

import (
	"bytes"
	"slices"
	"sync/atomic"

	"github.com/casegate/casegate/store"
)

// The keys of the meta bucket.
const (
	keySchema       = "schema"
	keyInstallation = "installation"
)

// Installation is asked with every message.
func (r *reader) Installation() (store.Installation, error) {
	sealed := r.row(meta, []byte(keyInstallation))
	if in, ok := r.kept.get(sealed); ok {
		return in, nil
	}
	in, err := get[store.Installation](r, meta, []byte(keyInstallation), "installation", "")
	if err == nil {
		r.kept.put(sealed, in)
	}
	return in, err
}

func (w *writer) PutInstallation(in store.Installation) error {
	return w.putRecord(meta, []byte(keyInstallation), &in)
}

// kept is the installation as it was read last, with the bytes it was read
// from: as long as a snapshot has the same, it need not be decoded again.
type kept struct {
	last atomic.Pointer[keptInstallation]
}

type keptInstallation struct {
	sealed []byte
	in     store.Installation
}

func (k *kept) get(sealed []byte) (store.Installation, bool) {
	last := k.last.Load()
	if last == nil || !bytes.Equal(last.sealed, sealed) {
		return store.Installation{}, false
	}
	return copyKeys(last.in), true
}

func (k *kept) put(sealed []byte, in store.Installation) {
	k.last.Store(&keptInstallation{bytes.Clone(sealed), copyKeys(in)})
}

// copyKeys: who asked may change what he was given.
func copyKeys(in store.Installation) store.Installation {
	in.Keys = slices.Clone(in.Keys)
	for i := range in.Keys {
		in.Keys[i].Secret = bytes.Clone(in.Keys[i].Secret)
	}
	return in
}
