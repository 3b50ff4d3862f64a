package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/gateway/mailauth"
)

// makeKey writes a signing key and returns its path.
func makeKey(t testing.TB, kind, domain, selector string) string {
	t.Helper()
	text, _, err := mailauth.KeyGen(kind, 0, domain, selector)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), selector+".key")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSigningKeys: what is wrong with key files is told with the line that names
// them; all of it at once.
func TestSigningKeys(t *testing.T) {
	first, second := makeKey(t, "ed25519", "city.example", "a"), makeKey(t, "ed25519", "city.example", "b")
	open := makeKey(t, "ed25519", "city.example", "c")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	text := "dkim:\n" +
		"  - {domain: city.example, selector: a, key: " + first + ", subdomains: true}\n" +
		"  - {domain: City.example, selector: b, key: " + second + "}\n" +
		"  - {domain: city.example, selector: c, key: " + open + "}\n" +
		"  - {domain: city.example, selector: d, key: /nowhere.key}\n"
	c, err := parseConfig("c.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.signers()
	var found problems
	if !errors.As(err, &found) {
		t.Fatal(err)
	}
	var said []string
	for _, p := range found {
		said = append(said, p.Error()+" / "+p.hint)
	}
	same(t, "problems", said, []string{
		"c.yaml:3:5: dkim[1]: dkim[0] signs for city.example with a key of type ed25519 already / keep the one whose record is published; of each type one key signs",
		"c.yaml:4:46: dkim[2].key: DKIM key " + open + ": others may read or change it (mode 0644) / chmod 600 " + open,
		"c.yaml:5:46: dkim[3].key: DKIM key /nowhere.key: there is no such file / make one with: casegate dkim keygen",
	})
	lines := strings.SplitAfter(text, "\n")
	if c, err = parseConfig("c.yaml", []byte(lines[0]+lines[1]), nil); err != nil {
		t.Fatal(err)
	}
	signers, err := c.signers()
	if err != nil || signers.For("gw.city.example") == nil || signers.For("town.example") != nil {
		t.Errorf("%+v %v", signers, err)
	}
	if signers, err := defaults().signers(); signers != nil || err != nil {
		t.Errorf("without keys: %+v %v", signers, err)
	}
}

// TestAssignNeedsTheKeys: with no daemon running, what would leave unsigned is
// not begun.
func TestAssignNeedsTheKeys(t *testing.T) {
	p, _, _ := testProgram(t)
	cfg := defaults()
	cfg.DKIM = []DKIMKey{{Domain: "city.example", Selector: "a", Key: "nowhere.key"}}
	st, err := p.openStore(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	_, err = newService(cfg, st).Assign(t.Context(), console.AssignRequest{})
	if err == nil || !strings.Contains(err.Error(), "DKIM key nowhere.key: there is no such file") {
		t.Errorf("%v", err)
	}
}
