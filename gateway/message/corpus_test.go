package message_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

// corpusDir finds the shared corpus beside the module.
func corpusDir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Skip("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	corpus := filepath.Join(dir, "..", "shared", "corpus")
	if _, err := os.Stat(corpus); err != nil {
		t.Skipf("the mail corpus is not here: %v", err)
	}
	return corpus
}

// corpusFiles returns all files of a part of the corpus by their names.
func corpusFiles(t testing.TB, part string) map[string][]byte {
	t.Helper()
	root := filepath.Join(corpusDir(t), part)
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, root+"/")] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// split feeds a message to a Finder in chunks.
func split(mail []byte, chunk int) (header, body []byte) {
	var f message.Finder
	at := 0
	for at < len(mail) {
		n, done := f.Feed(mail[at:min(at+chunk, len(mail))])
		at += n
		if done {
			break
		}
	}
	return mail[:at], mail[at:]
}

// Everything over every file: no panic, no byte lost.
func TestCorpus(t *testing.T) {
	files := corpusFiles(t, ".")
	parsed := 0
	for name, mail := range files {
		header, body := split(mail, 512)
		if h, b := split(mail, 7); len(h) != len(header) || len(b) != len(body) {
			t.Errorf("%s: header of %d bytes in chunks of 512, %d in chunks of 7", name, len(header), len(h))
		}
		h := message.Parse(header)
		checkSpans(t, h)
		checkReaders(t, h)
		checkEditor(t, h)
		checkTransforms(t, body)
		if !h.Empty() {
			parsed++
		}
	}
	t.Logf("%d files, %d of them with a header", len(files), parsed)
}

func checkReaders(t *testing.T, h message.Header) {
	t.Helper()
	for _, f := range h.Fields() {
		checkText(t, f.Text(), message.Decode(f.Value()))
		checkList(t, f.Value())
		checkMessageIDs(t, f.Value())
	}
	if m, n := message.From(h); n == 1 && !m.Clean() {
		t.Errorf("From gives an identity that isn't clean: %+v", m)
	}
}

func checkEditor(t *testing.T, h message.Header) {
	t.Helper()
	if got := message.NewEditor(h).Bytes(); !bytes.Equal(got, h.Bytes()) {
		t.Errorf("an editor that edits nothing changes %q to %q", h.Bytes(), got)
	}
	for i := range h.Len() {
		checkEdit(t, h, i, 1, 3, "x")
	}
}

func checkTransforms(t *testing.T, body []byte) {
	t.Helper()
	got, err := io.ReadAll(message.Apply(bytes.NewReader(body), []string{message.BareNewlines, message.FinalCRLF}))
	if err != nil {
		t.Fatal(err)
	}
	if want := slowTransforms(body); !bytes.Equal(got, want) {
		t.Errorf("transforms: %d bytes, want %d", len(got), len(want))
	}
}
