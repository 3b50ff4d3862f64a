package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/console"
)

// corpusMail tells the mails of the corpus from what lies beside them.
var corpusMail = regexp.MustCompile(`\.(eml|msg|raw)$|/dkim/email\.\d+$|^cpython/msg_\w+\.txt$|^reply-parser/.*\.txt$`)

// bounce tells the folders of bounces and complaints.
var bounce = regexp.MustCompile(`^(sisimai|flanker/bounce)/`)

// corpus returns the mails of ../shared/corpus as they lie there, by name.
// Without the corpus the test is skipped, on CI it fails.
func corpus(t *testing.T) map[string][]byte {
	root, err := corpusFolder()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	mails := map[string][]byte{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		if err != nil || entry.IsDir() || !corpusMail.MatchString(filepath.ToSlash(name)) {
			return err
		}
		text, err := os.ReadFile(path)
		mails[name] = text
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mails
}

// corpusFolder lies beside the checkout.
func corpusFolder() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			folder := filepath.Join(dir, "..", "shared", "corpus")
			if _, err := os.Stat(folder); err != nil {
				return "", errors.New("the mail corpus is not beside the checkout: " + folder)
			}
			return folder, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// endLines makes every line end CRLF, as any client that speaks SMTP must.
func endLines(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	b = bytes.ReplaceAll(b, []byte("\r"), []byte("\n"))
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// corpusWay is a way that the corpus goes in.
type corpusWay struct {
	listener string
	chunk    int  // by BDAT, in chunks of this size
	asIs     bool // the bytes as they lie in the corpus, whatever their line ends
	observed bool // all of it goes on, also what would wait on the exceptions list
}

// TestCorpus sends every mail of the corpus to a running daemon, by DATA, BDAT
// and LMTP, each into a store of its own, and has it handed on to a next hop. At
// least 99 in 100 are accepted. Each of those is archived as the very bytes that
// were sent, and what is on a case reaches the next hop as these bytes again,
// below our stamps.
func TestCorpus(t *testing.T) {
	mails := corpus(t)
	for _, way := range []corpusWay{
		{listener: "inbound"},
		{listener: "lmtp"},
		{listener: "watched", chunk: 700, asIs: true, observed: true},
	} {
		t.Run(way.listener, func(t *testing.T) {
			t.Parallel()
			hop := startHop(t)
			r := newRig(t, rigOptions{inbound: hop.url, listeners: "  - {name: watched, role: inbound, protocol: smtp, address: 127.0.0.1:0, peers: [127.0.0.0/8], bare_newline: normalize, mode: observe}\n"})
			r.start()
			c := &corpusRun{rig: r, t: t, corpusWay: way, mails: way.prepare(mails), first: map[string]string{}}
			c.send()
			c.check()
			r.emptied(time.Minute)
			c.relayed(hop)
			if counts := r.verify(); counts.Messages != len(c.first) {
				t.Errorf("verify counts %d messages of %d", counts.Messages, len(c.first))
			}
			if list := r.complaints(); len(list) > 0 {
				t.Errorf("the daemon complained %d times, first: %s", len(list), list[0])
			}
			if code, _ := r.stop(); code != 0 {
				t.Errorf("serve ended with %d", code)
			}
			r.verify()
		})
	}
}

// prepare makes the mails what may go this way.
func (w corpusWay) prepare(mails map[string][]byte) map[string][]byte {
	if w.asIs {
		return mails
	}
	all := map[string][]byte{}
	for name, eml := range mails {
		all[name] = endLines(eml)
	}
	return all
}

// corpusRun is the corpus on its way into one daemon.
type corpusRun struct {
	*rig
	corpusWay
	t          *testing.T
	mails      map[string][]byte
	first      map[string]string // the name of the first mail accepted under an id
	handedOn   map[string]string // the digest of the sent bytes, by id, where a next hop gets them
	duplicates int
	refused    []string
}

// send sends the mails in order of their names.
func (c *corpusRun) send() {
	s := &sender{r: c.rig, listener: c.listener, chunk: c.chunk}
	defer s.close()
	for _, name := range c.names() {
		from := "client@example.net"
		if bounce.MatchString(name) {
			from = "" // as bounces come
		}
		reply := s.try(from, rigMailbox, c.mails[name])
		id := acceptedID(reply)
		if id == "" {
			c.refused = append(c.refused, name+": "+reply)
			continue
		}
		earlier, again := c.first[id]
		if !again {
			c.first[id] = name
			continue
		}
		c.duplicates++
		if !bytes.Equal(bodyOf(c.mails[earlier]), bodyOf(c.mails[name])) {
			c.t.Errorf("%s was taken for the same mail as %s, and their bodies differ", name, earlier)
		}
	}
	c.t.Logf("%d mails: %d archived, %d were the same mail as one before, %d refused",
		len(c.mails), len(c.first), c.duplicates, len(c.refused))
	for _, line := range c.refused {
		c.t.Log("refused:", line)
	}
	if len(c.mails) < 500 || 100*len(c.refused) > len(c.mails) {
		c.t.Errorf("%d of %d mails were refused", len(c.refused), len(c.mails))
	}
}

func (c *corpusRun) names() []string {
	var names []string
	for name := range c.mails {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check looks at what became of each mail: its digest as recorded and as its
// bytes have it, and where it is.
func (c *corpusRun) check() {
	onCase := map[string]bool{}
	for _, row := range rows[console.MessageRow](c.rig, "/messages", url.Values{}) {
		onCase[row.ID.String()] = row.Case != nil
	}
	excepted := map[string]bool{}
	for _, row := range rows[console.MessageRow](c.rig, "/exceptions", url.Values{}) {
		excepted[row.ID.String()] = true
	}
	c.handedOn = map[string]string{}
	places := map[string]int{}
	var opened []string // by bounces
	for id, name := range c.first {
		var m console.MessageDetail
		c.api("/messages/"+id, nil, &m)
		sent, exported := hexSum(c.mails[name]), c.exported(id)
		if m.Archived.ReceivedSHA256 != sent || exported != sent {
			c.t.Errorf("%s: sent as %s, archived as %s, exported as %s", name, sent, m.Archived.ReceivedSHA256, exported)
		}
		if len(m.Delivery) > 0 {
			c.handedOn[id] = m.Archived.SentSHA256
		}
		if c.observed {
			continue
		}
		if onCase[id] == excepted[id] || onCase[id] != (m.Case != nil) || excepted[id] != (m.Exception != nil && *m.Exception != "") {
			c.t.Errorf("%s: on a case %v, on the exceptions list %v: %+v", name, onCase[id], excepted[id], m.MessageRow)
		}
		place := "case"
		if m.Exception != nil {
			place = *m.Exception
		}
		places[place]++
		if bounce.MatchString(name) && place == "case" {
			opened = append(opened, name)
		}
	}
	c.t.Logf("where they are: %s; %d are handed on", perKey(places), len(c.handedOn))
	if want := places["case"]; !c.observed && len(c.handedOn) != want || c.observed && len(c.handedOn) != len(c.first) {
		c.t.Errorf("%d are handed on of %d", len(c.handedOn), len(c.first))
	}
	if len(opened) > 0 {
		c.t.Errorf("%d bounces opened cases: %v", len(opened), opened)
	}
}

// exported is the digest of a message's bytes as the API gives them back.
func (c *corpusRun) exported(id string) string {
	client := socketClient(filepath.Join(c.data, "casegate.sock"))
	defer client.close()
	resp, err := client.do(c.t.Context(), "GET", "/messages/"+id+"/eml", url.Values{"as": {"received"}}, "", nil)
	if err != nil {
		c.t.Errorf("export of %s: %v", id, err)
		return ""
	}
	defer resp.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, resp.Body); err != nil {
		c.t.Errorf("export of %s: %v", id, err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
