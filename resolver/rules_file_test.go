package resolver

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const rulesFile = "../testdata/rules/inbound.txt"

// The words of the table, and words that stand for several of them.
var (
	ruleColumns = []string{"row", "tracking", "case", "sender", "class", "condition", "action", "customer", "flags", "reply"}

	trackings = newWords("T0", "T1 by envelope", "T1 by header", "T2", "T3", "T4").
			short("T1", "T1 by envelope", "T1 by header").short("else", "T0", "T3", "T4")
	caseStates = newWords("none", "Active", "Resolved in time", "Resolved too late", "Resolved too often", "Cancelled").
			short("Resolved", "Resolved in time", "Resolved too late", "Resolved too often")
	senders = newWords("own", "asserted guest", "asserted contact", "agent", "forged domain", "forged agent",
		"registered verified", "registered unverified", "ambiguous", "known guest", "unknown", "several From").
		short("asserted", "asserted guest", "asserted contact").short("forged", "forged domain", "forged agent").
		short("unknown", "unknown", "several From").allBut("other", "agent").allBut("any but asserted", "asserted")
	mailClasses = newWords("loop", "unparsable", "dsn", "report", "auto-reply", "list", "auto-generated", "human")

	ruleConditions = []string{"", "duplicate", "forwards one message", "one outsider, known", "unless I12 waits", "orphan_auto off", "directory unknown", "flood"}
	ruleActions    = []string{"duplicate", "exception", "link", "link internal", "link outgoing", "reopen", "open", "open outgoing", "open unverified", "as the embedded message"}
	ruleCustomers  = []string{"-", "unchanged", "unchanged, newcomer", "the outsider", "new guest", "new unverified guest", "the contact",
		"the contact, new guest if strict", "asserted contact or new guest", "as the embedded message"}
	ruleReplies = []string{"-", "ack"}
)

// words is one column's vocabulary; a set of them is a bit mask.
type words struct {
	list   []string
	shorts map[string]uint
}

func newWords(list ...string) words {
	return words{list, map[string]uint{"any": 1<<len(list) - 1}}
}

func (w words) short(name string, of ...string) words {
	var set uint
	for _, word := range of {
		set |= 1 << slices.Index(w.list, word)
	}
	w.shorts[name] = set
	return w
}

func (w words) allBut(name, but string) words {
	set, _ := w.set(but)
	w.shorts[name] = w.shorts["any"] &^ set
	return w
}

// set reads words with commas between them.
func (w words) set(text string) (set uint, err error) {
	for _, word := range strings.Split(text, ",") {
		word = strings.TrimSpace(word)
		i := slices.Index(w.list, word)
		switch s, short := w.shorts[word]; {
		case short:
			set |= s
		case i >= 0:
			set |= 1 << i
		default:
			return 0, fmt.Errorf("unknown word %q; known are %q and %q", word, w.list, sorted(w.shorts))
		}
	}
	return set, nil
}

func (w words) has(set uint, word string) bool { return set>>slices.Index(w.list, word)&1 == 1 }

func sorted(m map[string]uint) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fileRow is one line of the table.
type fileRow struct {
	number                         string
	tracking, state, sender, class uint
	same                           bool // tracking: also whatever the message repeated had
	condition                      string
	action, exception              string
	customer, flag, reply          string
}

// readRules reads the table of rules §5 and says in which line it cannot.
func readRules(name string) (rows []fileRow, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		cells := strings.Split(text, "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if slices.Equal(cells, ruleColumns) {
			continue
		}
		row, err := readRow(cells)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		rows = append(rows, row)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return rows, complete(rows)
}

func readRow(cells []string) (r fileRow, err error) {
	if len(cells) != len(ruleColumns) {
		return r, fmt.Errorf("%d columns, want %d: %s", len(cells), len(ruleColumns), strings.Join(ruleColumns, " | "))
	}
	r.number = cells[0]
	tracking, same := strings.CutPrefix(cells[1], "same, ")
	r.same = same
	for _, c := range []struct {
		column string
		words  words
		text   string
		into   *uint
	}{
		{"tracking", trackings, tracking, &r.tracking},
		{"case", caseStates, cells[2], &r.state},
		{"sender", senders, cells[3], &r.sender},
		{"class", mailClasses, cells[4], &r.class},
	} {
		if *c.into, err = c.words.set(c.text); err != nil {
			return r, fmt.Errorf("row %s, %s: %w", r.number, c.column, err)
		}
	}
	r.action = cells[6]
	if reason, ok := strings.CutPrefix(r.action, "exception "); ok {
		r.action, r.exception = "exception", reason
	}
	r.condition, r.customer, r.flag, r.reply = cells[5], cells[7], strings.TrimPrefix(cells[8], "-"), cells[9]
	for _, c := range []struct {
		column, word string
		known        []string
	}{
		{"condition", r.condition, ruleConditions},
		{"action", r.action, ruleActions},
		{"customer", r.customer, ruleCustomers},
		{"reply", r.reply, ruleReplies},
	} {
		if !slices.Contains(c.known, c.word) {
			return r, fmt.Errorf("row %s, %s: unknown word %q; known are %q", r.number, c.column, c.word, c.known)
		}
	}
	return r, nil
}

// complete: the rows I1 to I27 stand in order, each at least once.
func complete(rows []fileRow) error {
	var numbers []string
	for _, r := range rows {
		numbers = append(numbers, r.number)
	}
	numbers = slices.Compact(numbers)
	for i := range 27 {
		if want := fmt.Sprintf("I%d", i+1); i >= len(numbers) || numbers[i] != want {
			return fmt.Errorf("row %s is missing or out of order: %v", want, numbers)
		}
	}
	if len(numbers) != 27 {
		return fmt.Errorf("rows after I27: %v", numbers[27:])
	}
	return nil
}

// A slip in the table is answered with its line, its column and what is known.
func TestRulesFileErrors(t *testing.T) {
	good := "I1 | T0 | any | own | human | | link | unchanged | - | -"
	for _, c := range []struct{ old, new, says string }{
		{"| T0 ", "| T9 ", `:2: row I1, tracking: unknown word "T9"; known are ["T0"`},
		{"| own ", "| onw ", `row I1, sender: unknown word "onw"`},
		{"| link ", "| lnk ", `row I1, action: unknown word "lnk"`},
		{"| - | -", "| -", "9 columns, want 10: row | tracking"},
		{"I1 ", "I2 ", "row I1 is missing or out of order"},
		{"", "", "row I2 is missing"},
	} {
		name := t.TempDir() + "/rules.txt"
		if err := os.WriteFile(name, []byte("# comment\n"+strings.Replace(good, c.old, c.new, 1)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRules(name); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q for %q: %v", c.new, c.old, err)
		}
	}
}
