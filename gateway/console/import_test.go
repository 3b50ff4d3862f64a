package console

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/store"
)

// takes imports rows and returns what is told of each: "line action name: said".
func (d *desk) takes(t *testing.T, query string, rows ...ImportRow) (list []string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"rows": rows})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range read[[]ImportResult](t, d.handler(Operator), "POST", "/api/v1/contacts/import"+query, string(body), 200) {
		list = append(list, fmt.Sprintf("%d %s %s: %s", r.Line, r.Action, r.Name, r.Said))
		if r.ID == (store.ID{}) != (r.Action == ImportRefuse) {
			t.Errorf("%+v", r)
		}
	}
	return list
}

func (d *desk) says(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func emails(list ...string) []string { return list }

func TestImport(t *testing.T) {
	d := newDesk(t)
	rows := []ImportRow{
		{Line: 2, Name: "Eva", EmailAddresses: emails("eva@x.example", "EVA@x.example", "eva@work.example"), Account: "elm1@x.example", External: "E-1", DoNotEmail: "yes"},
		{Line: 3, Name: "Ben", EmailAddresses: emails("ana@x.example", "ben@x.example")},
		{Line: 4, Name: "Ana", EmailAddresses: emails("ana@x.example")},
		{Line: 5, Name: "ana", EmailAddresses: emails("Ana@x.example"), Kind: "Guest"},
		{Line: 6, Name: "Eva", EmailAddresses: emails("eva@x.example"), External: "E-1"},
		{Line: 7, Name: "Fay", EmailAddresses: emails("fay")},
		{Line: 8, Name: " ", EmailAddresses: emails("fay@x.example")},
		{Line: 9, Name: "Fay"},
		{Line: 10, Name: "Fay", EmailAddresses: emails("fay@x.example"), Kind: "friend"},
		{Line: 11, Name: "Fay", EmailAddresses: emails("fay@x.example"), Account: "acme"},
		{Line: 12, Name: "Fay", EmailAddresses: emails("fay@x.example"), Account: id(77).String()},
		{Line: 13, Name: "Fay", EmailAddresses: emails("fay@x.example"), DoNotEmail: "maybe"},
		{Line: 14, Name: strings.Repeat("f", 501), EmailAddresses: emails("fay@x.example")},
		{Line: 15, Wrong: "it has 2 fields, the first line 3"},
	}
	want := []string{
		"2 add Eva: address eva@x.example, address eva@work.example, account " + d.acme.String() + ", external id E-1, do not e-mail",
		"3 update Ben: address ben@x.example",
		"4 add Ana: address ana@x.example",
		"5 update ana: name ana",
		"6 same Eva: nothing to change",
		`7 refuse Fay: "fay" is not an e-mail address: it has no @`,
		"8 refuse  : the name is blank",
		"9 refuse Fay: it has no e-mail address",
		`10 refuse Fay: "friend" is no kind: write registered or guest`,
		"11 refuse Fay: no account acme: write its id or e-mail address",
		"12 refuse Fay: no account " + id(77).String(),
		`13 refuse Fay: do_not_email is "maybe": write yes or no`,
		"14 refuse " + strings.Repeat("f", 501) + ": the name is longer than 500 characters",
		"15 refuse : it has 2 fields, the first line 3",
	}
	d.says(t, d.takes(t, "?dry_run=true", rows...), want...)
	if contacts := read[[]store.Contact](t, d.handler(Reader), "GET", "/api/v1/contacts", "", 200); len(contacts) != 2 || len(d.logged(t, 0)) != 0 {
		t.Errorf("a preview wrote: %+v", contacts)
	}
	d.says(t, d.takes(t, "", rows...), want...)
	contacts, second := read[[]store.Contact](t, d.handler(Reader), "GET", "/api/v1/contacts", "", 200), later.Truncate(time.Second)
	if len(contacts) != 4 {
		t.Fatalf("%+v", contacts)
	}
	eva := store.Contact{ID: contacts[2].ID, Kind: store.Registered, Name: "Eva", External: "E-1", Account: d.acme, DoNotEmail: true, CreatedAt: second,
		EmailAddresses: []store.EmailAddress{{Address: "eva@x.example", From: second}, {Address: "eva@work.example", From: second}}}
	if diff := cmp.Diff(eva, contacts[2]); diff != "" {
		t.Error(diff)
	}
	if guest := contacts[0]; guest.ID != d.ana || guest.Kind != store.Guest {
		t.Errorf("a guest became registered by his name: %+v", guest)
	}
	if log := d.logged(t, 0); len(log) != 1 || log[0] != "Installation changed, cli: imported contacts: 2 added, 2 updated" {
		t.Error(log)
	}
	for i, line := range d.takes(t, "", rows[:5]...) {
		if !strings.Contains(line, " same ") && i != 3 {
			t.Error("imported again:", line)
		}
	}
}

// TestImportIdentity: the external id leads, a shared address and name do not
// decide, and what is empty stays.
func TestImportIdentity(t *testing.T) {
	d := newDesk(t)
	ben := ImportRow{Line: 2, Name: "Ben", EmailAddresses: emails("ana@x.example"), External: "B-1"}
	d.says(t, d.takes(t, "", ben), "2 update Ben: external id B-1")
	renamed := ImportRow{Line: 2, Name: "Benjamin", EmailAddresses: emails("b@new.example"), External: "B-1"}
	d.says(t, d.takes(t, "", renamed), "2 update Benjamin: name Benjamin, address b@new.example")
	d.view(t, func(rd store.Reader) error {
		c, err := rd.Contact(d.ben)
		if c.Kind != store.Registered || len(c.EmailAddresses) != 2 || !c.EmailAddresses[0].To.IsZero() {
			t.Errorf("%+v", c)
		}
		return err
	})
	other := ImportRow{Line: 3, Name: "Benjamin", EmailAddresses: emails("b@new.example"), External: "B-2"}
	d.says(t, d.takes(t, "", other), "3 add Benjamin: address b@new.example, external id B-2")
	either := ImportRow{Line: 4, Name: "Benjamin", EmailAddresses: emails("b@new.example")}
	d.says(t, d.takes(t, "", either), "4 refuse Benjamin: 2 contacts named Benjamin have the address: give it an external_id")
	back := ImportRow{Line: 5, Name: "Benjamin", EmailAddresses: emails("b@new.example"), External: "B-2", Kind: "guest", DoNotEmail: "no"}
	d.says(t, d.takes(t, "", back), "5 update Benjamin: kind guest")
	if w := ask(d.handler(Operator), "POST", "/api/v1/contacts/import", `{"rows":[]}`); w.Code != 422 {
		t.Error(w.Code)
	}
}

func readAll(t *testing.T, file string, reader func(io.Reader) func(func(ImportRow, error) bool)) (rows []ImportRow, failed string) {
	t.Helper()
	for row, err := range reader(strings.NewReader(file)) {
		if err != nil {
			return rows, err.Error()
		}
		rows = append(rows, row)
	}
	return rows, ""
}

func csvReader(r io.Reader) func(func(ImportRow, error) bool)   { return ReadCSV(r) }
func vcardReader(r io.Reader) func(func(ImportRow, error) bool) { return ReadVCard(r) }

func TestReadCSV(t *testing.T) {
	ana := ImportRow{Line: 2, Name: "Silva, Ana", EmailAddresses: emails("ana@x.example", "a@y.example"), Kind: "guest", Account: "acme", External: "7", DoNotEmail: "yes"}
	for name, tc := range map[string]struct {
		file   string
		rows   []ImportRow
		failed string
	}{
		"all columns": {"name,email,kind,account,external_id,do_not_email\n\"Silva, Ana\",ana@x.example;a@y.example,guest,acme,7,yes\n", []ImportRow{ana}, ""},
		"a spreadsheet's": {"\ufeffDo-Not-Email;External ID;Account;Kind; E-mail ;Name\r\n", nil,
			`line 1: column 5 is " E-mail ", which is not known`},
		"semicolons, byte order mark, other order": {"\ufeffDo not email;External ID;Account;Kind; Email ;Name\r\nyes;7;acme;guest;\"ana@x.example; a@y.example\";\"Silva, Ana\"\r\n", []ImportRow{ana}, ""},
		"tabs": {"name\temail\nAna\ta@x.example\n", []ImportRow{{Line: 2, Name: "Ana", EmailAddresses: emails("a@x.example")}}, ""},
		"lines are those of the file": {"name,email\n\n\"A\nB\",a@x.example\nC\nD,d@x.example", []ImportRow{
			{Line: 3, Name: "A\nB", EmailAddresses: emails("a@x.example")}, {Line: 5, Wrong: "it has 1 field, the first line 2"}, {Line: 6, Name: "D", EmailAddresses: emails("d@x.example")}}, ""},
		"a quote astray":    {"name,email\nA \"B\",a@x.example\nC,c@x.example\n", []ImportRow{{Line: 2, Wrong: "it is not CSV: bare \" in non-quoted-field"}, {Line: 3, Name: "C", EmailAddresses: emails("c@x.example")}}, ""},
		"not UTF-8":         {"name,email\nJ\xfcrgen,a@x.example\n", []ImportRow{{Line: 2, Wrong: "it is not UTF-8: save the file as UTF-8"}}, ""},
		"empty":             {"", nil, "the file is empty"},
		"only a header":     {"name,email\n", nil, ""},
		"no header":         {"Ana,ana@x.example\n", nil, `line 1: column 1 is "Ana", which is not known`},
		"no address":        {"name\nAna\n", nil, `line 1: there is no column "email"`},
		"twice":             {"name,email,name\n", nil, `line 1: column "name" is there twice`},
		"never closed":      {"name,email\nA,a@x.example\n\"B,b@x.example\n" + strings.Repeat("c,c@x.example\n", 20_000), []ImportRow{{Line: 2, Name: "A", EmailAddresses: emails("a@x.example")}}, "a row is longer than 65536 bytes"},
		"not closed, short": {"name,email\n\"B,b@x.example\n", []ImportRow{{Line: 2, Wrong: "it is not CSV: extraneous or missing \" in quoted-field"}}, ""},
	} {
		rows, failed := readAll(t, tc.file, csvReader)
		if diff := cmp.Diff(tc.rows, rows); diff != "" || failed != tc.failed {
			t.Errorf("%s: %q %s", name, failed, diff)
		}
	}
}

func TestReadVCard(t *testing.T) {
	for name, tc := range map[string]struct {
		file   string
		rows   []ImportRow
		failed string
	}{
		"3.0": {"BEGIN:VCARD\r\nVERSION:3.0\r\nN:Silva;Ana;Maria;Dr.;\r\nFN:Ana Silva\r\nitem1.EMAIL;type=INTERNET;type=pref:ana@x.example\r\nEMAIL:a@\r\n y.example\r\nUID:7\r\nEND:VCARD\r\n",
			[]ImportRow{{Line: 1, Name: "Ana Silva", EmailAddresses: emails("ana@x.example", "a@y.example"), External: "7"}}, ""},
		"4.0, two cards": {"\ufeffbegin:vcard\nVERSION:4.0\nFN:Ana\\, M.\nEMAIL;PREF=1;X-A=\"b:c\":mailto:ana@x.example\nUID:urn:uuid:1\nEND:VCARD\n\nBEGIN:VCARD\nN:Silva;Ana;;Dr.\nEMAIL:b@x.example\nend:vcard",
			[]ImportRow{{Line: 1, Name: "Ana, M.", EmailAddresses: emails("ana@x.example"), External: "urn:uuid:1"}, {Line: 8, Name: "Dr. Ana Silva", EmailAddresses: emails("b@x.example")}}, ""},
		"a semicolon in a name": {"BEGIN:VCARD\nN:Sil\\;va;A\\\\na\nEND:VCARD\n", []ImportRow{{Line: 1, Name: `A\na Sil;va`}}, ""},
		"a picture": {"BEGIN:VCARD\nFN:Ana\nPHOTO;ENCODING=b:" + strings.Repeat(strings.Repeat("A", 70)+"\n ", 5000) + "A\nEMAIL:a@x.example\nEND:VCARD\nBEGIN:VCARD\nFN:B\nEND:VCARD\n",
			[]ImportRow{{Line: 1, Name: "Ana", EmailAddresses: emails("a@x.example")}, {Line: 5006, Name: "B"}}, ""},
		"a picture in one line": {"BEGIN:VCARD\nPHOTO:" + strings.Repeat("A", 3<<20) + "\nFN:Ana\nEND:VCARD\n", []ImportRow{{Line: 1, Name: "Ana"}}, ""},
		"too long":              {"BEGIN:VCARD\n" + strings.Repeat("EMAIL:"+strings.Repeat("a", 1000)+"@x.example\n", 70) + "END:VCARD\n", []ImportRow{{Line: 1, Wrong: "it is longer than a contact can be"}}, ""},
		"not UTF-8":             {"BEGIN:VCARD\nFN:J\xfcrgen\nEND:VCARD\n", []ImportRow{{Line: 1, Wrong: "it is not UTF-8: save the file as UTF-8"}}, ""},
		"not ended":             {"BEGIN:VCARD\nFN:Ana\nBEGIN:VCARD\nFN:Ben\n", []ImportRow{{Line: 1, Name: "Ana", Wrong: "its END:VCARD is missing"}, {Line: 3, Name: "Ben", Wrong: "its END:VCARD is missing"}}, ""},
		"no card":               {"name,email\nAna,a@x.example\n", nil, "line 1 is outside any card"},
		"empty":                 {"", nil, ""},
	} {
		rows, failed := readAll(t, tc.file, vcardReader)
		if diff := cmp.Diff(tc.rows, rows); diff != "" || failed != tc.failed {
			t.Errorf("%s: %q %s", name, failed, diff)
		}
	}
}

// endless repeats a text, and notes how much memory is in use meanwhile.
type endless struct {
	text string
	at   int
	left int64
	most uint64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	if e.left%(1<<20) < int64(len(p)) {
		e.most = max(e.most, inUse())
	}
	n := 0
	for n < len(p) && e.left > 0 {
		c := copy(p[n:], e.text[e.at:])
		e.at, n, e.left = (e.at+c)%len(e.text), n+c, e.left-int64(c)
	}
	return n, nil
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReadersBounded: what no row ends does not fill the memory.
func TestReadersBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		begin, again string
		read         func(io.Reader) func(func(ImportRow, error) bool)
	}{
		"a CSV line":       {"name,email\n", "abcdefgh", csvReader},
		"a CSV quote":      {"name,email\n\"", "abcdefg\n", csvReader},
		"a CSV header":     {"", "name,", csvReader},
		"a vCard line":     {"BEGIN:VCARD\nFN:", "abcdefgh", vcardReader},
		"a vCard fold":     {"BEGIN:VCARD\nFN:", "abcdefg\n ", vcardReader},
		"a vCard's e-mail": {"BEGIN:VCARD\n", "EMAIL:a@x.example\n", vcardReader},
	} {
		file := &endless{text: tc.again, left: 16 << 20}
		before, rows := inUse(), 0
		for _, err := range tc.read(io.MultiReader(strings.NewReader(tc.begin), file)) {
			if err != nil {
				break
			}
			rows++
		}
		if file.most > before+2<<20 || rows > 1 {
			t.Errorf("%s: from %d to %d bytes, %d rows", name, before, file.most, rows)
		}
	}
}
