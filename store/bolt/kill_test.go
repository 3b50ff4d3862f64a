package bolt

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

const childEnv = "CASEGATE_BOLT_CHILD"

// TestKilled kills a process in the middle of its work, some times, and looks
// at what it left: all it had acknowledged, and nothing torn.
func TestKilled(t *testing.T) {
	if path := os.Getenv(childEnv); path != "" {
		work(path)
		return
	}
	rounds := rounds(t, 6)
	path := filepath.Join(t.TempDir(), "casegate.db")
	acknowledged := map[string]bool{}
	for range rounds {
		for _, id := range killed(t, path, time.Duration(50+rand.IntN(400))*time.Millisecond) {
			acknowledged[id] = true
		}
		st := open(t, path, Options{})
		verifyClean(t, st)
		lookFor(t, st, acknowledged)
		if n := rows(t, st, staged); n != 0 {
			t.Errorf("%d staged bodies after a restart", n)
		}
		st.Close()
	}
	if len(acknowledged) == 0 {
		t.Error("the child never got anything done")
	}
	t.Logf("%d rounds, %d messages acknowledged", rounds, len(acknowledged))
}

// rounds is how often a test tries its luck: a third in a short run, and as often
// as it is told by make torture.
func rounds(t *testing.T, n int) int {
	if told := os.Getenv("CASEGATE_ROUNDS"); told != "" {
		n, err := strconv.Atoi(told)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return max(n/3, 1)
	}
	return n
}

// work accepts mail until it is killed, and says what is durable.
func work(path string) {
	st, err := Open(path, Options{Logger: quiet()})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := range 8 {
		go func() {
			for n := uint64(1); ; n++ {
				l := newLetter(rand.Uint64(), []int{500, 3000, 40_000, 400_000}[int(n+uint64(i))%4])
				if _, err := l.accept(context.Background(), st); err != nil {
					fmt.Println("error", err)
				}
				fmt.Println("message", l.id)
				if err := deliver(st); err != nil {
					fmt.Println("error", err)
				}
			}
		}()
	}
	select {}
}

func deliver(st *Store) error {
	list, err := st.Claim(context.Background(), time.Now(), time.Minute, 2, nil)
	for i := range list {
		list[i].State = store.Delivered
	}
	if err != nil || len(list) == 0 {
		return err
	}
	return storetest.Settle(context.Background(), st, list...)
}

// killed runs a child for a while and returns what it acknowledged.
func killed(t *testing.T, path string, after time.Duration) (ids []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(after, func() { cmd.Process.Kill() })
	data, _ := io.ReadAll(out)
	cmd.Wait()
	lines := bufio.NewScanner(bytes.NewReader(data[:bytes.LastIndexByte(data, '\n')+1]))
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		if kind == "error" {
			t.Errorf("the child says: %s", rest)
		}
		ids = append(ids, rest)
	}
	return ids
}

func lookFor(t *testing.T, st *Store, ids map[string]bool) {
	t.Helper()
	lost := 0
	err := st.View(context.Background(), func(r store.Reader) error {
		for text := range ids {
			id, err := store.ParseID(text)
			if err != nil {
				return err
			}
			if _, err := r.Message(id); err != nil {
				lost++
			}
		}
		return nil
	})
	if err != nil || lost > 0 {
		t.Errorf("%d of %s acknowledged messages are lost, %v", lost, strconv.Itoa(len(ids)), err)
	}
}
