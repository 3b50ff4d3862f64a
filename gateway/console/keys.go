package console

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) keyRoutes(h huma.API) {
	handle(h, get("list-keys", "/keys", "List the keys that sign and verify tracking tokens, oldest first; never their secrets"), a.listKeys)
	handle(h, post("rotate-key", "/keys", "Sign with a new key; the old ones go on verifying", 409, 507), a.rotateKey)
}

// Key is a signing key without its secret.
type Key struct {
	ID        int       `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Signs     bool      `json:"signs" doc:"false: it only verifies what it signed before"`
}

// keysOf tells a keyring: its last key signs.
func keysOf(in store.Installation) []Key {
	keys := []Key{}
	for i, k := range in.Keys {
		keys = append(keys, Key{int(k.ID), k.CreatedAt, i == len(in.Keys)-1})
	}
	return keys
}

func (a *api) listKeys(ctx context.Context, _ *struct{}) (*one[[]Key], error) {
	var out one[[]Key]
	err := a.Store.View(ctx, func(rd store.Reader) error {
		in, err := rd.Installation()
		out.Body = keysOf(in)
		return err
	})
	return &out, err
}

// keySize is that of an HMAC-SHA-256 key.
const keySize = 32

func (a *api) rotateKey(ctx context.Context, _ *struct{}) (*one[[]Key], error) {
	key := store.SigningKey{Secret: make([]byte, keySize), CreatedAt: a.Now().UTC()}
	rand.Read(key.Secret)
	var out one[[]Key]
	err := a.Store.Update(ctx, func(tx store.Tx) error {
		in, err := tx.Installation()
		if err != nil {
			return err
		}
		id, ok := freeKey(in.Keys)
		if !ok {
			return problem(409, "tokens have one byte for the key: this installation has used all of them up, and goes on with the last", "all 256 key ids are used")
		}
		key.ID = id
		in.Keys = append(slices.Clone(in.Keys), key)
		out.Body = keysOf(in)
		if err := tx.PutInstallation(in); err != nil {
			return err
		}
		return a.audit(ctx, tx, fmt.Sprintf("key %d signs, the %d before it verify", id, len(in.Keys)-1))
	})
	return &out, err
}

// freeKey is the next id that no key has, behind the last one's. An id is never
// given twice: a token names it.
func freeKey(keys []store.SigningKey) (byte, bool) {
	var id byte
	if n := len(keys); n > 0 {
		id = keys[n-1].ID + 1
	}
	for range 256 {
		if !slices.ContainsFunc(keys, func(k store.SigningKey) bool { return k.ID == id }) {
			return id, true
		}
		id++
	}
	return 0, false
}

// audit leaves a row in the installation's own log.
func (a *api) audit(ctx context.Context, tx store.Tx, text string) error {
	return tx.Record(store.LogEntry{ID: store.NewID(), At: a.Now().UTC(), By: by(ctx), SourceType: installationChanged, Text: text})
}
