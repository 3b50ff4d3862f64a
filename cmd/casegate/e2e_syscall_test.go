package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// TestSystemCallsFail lets calls of the system fail under a load, each kind in
// each thread once: clients are told to come again, mail flows on by itself, and
// what was acknowledged is there.
func TestSystemCallsFail(t *testing.T) {
	testbed.Need(t, "strace")
	l := newLoad(t, rigOptions{})
	l.run(func(random *rand.Rand) int { return 1 + random.IntN(100<<10) })
	faults, struck := []string{
		"pwrite64:error=EIO", "pwrite64:error=ENOSPC", "fdatasync:error=EIO",
		"fdatasync:error=EIO openat:error=EMFILE", // and the store can't be opened again at once
	}, map[string]int{}
	for n := range rounds(t, 3) {
		for _, fault := range faults {
			struck[fault] += l.strike(t, fault, n+1)
			began := time.Now()
			l.until(t, 10*time.Second, "after "+fault+" not all listeners take mail again within 10 s", func() bool { return l.allTook(began) })
		}
	}
	t.Logf("calls that failed: %s", perKey(struck))
	for _, fault := range faults {
		if struck[fault] == 0 {
			t.Errorf("%s never happened", fault)
		}
	}
	l.finish()
}

// strike lets the n-th call in each thread fail, for a while, and returns how many
// did.
func (l *load) strike(t *testing.T, faults string, n int) (struck int) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	args := []string{"-f", "-qq", "-o", trace, "-p", fmt.Sprint(l.pid())}
	for fault := range strings.FieldsSeq(faults) {
		args = append(args, "-e", fmt.Sprintf("inject=%s:when=%d", fault, n))
	}
	cmd := exec.Command("strace", args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() > 0 {
		t.Skipf("strace: %v", err)
	}
	said, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(said), "(INJECTED)")
}
