package gateway

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/casegate/casegate/store"
)

const (
	domainMax = 255
	pathMax   = 256 // with its angle brackets; real bounce addresses need more than 64 for the local part
)

// Path is an address of the envelope, exactly as the client wrote it: a quoted
// local part keeps its quotes. The zero Path is the null path <>. Percent signs
// and bangs in a local part mean nothing: only the domain routes.
type Path struct {
	Local  string // with its quotes, if it had any
	Domain string
}

// Refusals of ParsePath. The texts name no byte of the client's.
var (
	errPathSyntax = Verdict{501, [3]int{5, 1, 3}, "Malformed address"}
	errPathLong   = Verdict{501, [3]int{5, 1, 3}, "Address too long: 255 octets for the domain, 256 in all"}
	errPathRoute  = Verdict{553, [3]int{5, 1, 3}, "Source routes are not taken"}
	errPathLocal  = Verdict{553, [3]int{5, 1, 3}, `A local part with <, >, @, ", \ or control characters is not taken`}
	errPathDomain = Verdict{553, [3]int{5, 1, 3}, "The domain is not a name or an address literal"}
	errPathUTF8   = Verdict{553, [3]int{5, 6, 7}, "A non-ASCII address needs SMTPUTF8"}
	errPathView   = Verdict{553, [3]int{5, 1, 3}, "Ambiguous address"}
)

// ParsePath reads an address with or without angle brackets; <> is the null
// path. It splits at the last @ that isn't quoted and refuses, with a Verdict,
// what other mail systems are known to read in two ways: source routes, and
// local parts with <>@"\ or controls even inside quotes. Whether an address
// with 8-bit characters may be used is for the caller: see ASCII.
func ParsePath(s string) (Path, error) {
	inner, bracketed := strings.CutPrefix(s, "<")
	if bracketed {
		var closed bool
		if inner, closed = strings.CutSuffix(inner, ">"); !closed {
			return Path{}, errPathSyntax
		}
	}
	switch {
	case inner == "" && bracketed:
		return Path{}, nil
	case inner == "":
		return Path{}, errPathSyntax
	case len(inner)+len("<>") > pathMax:
		return Path{}, errPathLong
	case inner[0] == '@':
		return Path{}, errPathRoute
	}
	return splitPath(inner)
}

func splitPath(s string) (Path, error) {
	at := lastUnquotedAt(s)
	if at <= 0 || at == len(s)-1 {
		return Path{}, errPathSyntax
	}
	p := Path{Local: s[:at], Domain: s[at+1:]}
	if len(p.Domain) > domainMax {
		return Path{}, errPathLong
	}
	if !validLocal(p.Local) {
		return Path{}, errPathLocal
	}
	if !validDomain(p.Domain) {
		return Path{}, errPathDomain
	}
	return p, nil
}

// lastUnquotedAt is -1 when there is none, or a quote is left open.
func lastUnquotedAt(s string) int {
	at, quoted := -1, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '@' && !quoted:
			at = i
		}
	}
	if quoted {
		return -1
	}
	return at
}

// validLocal looks at the local part as others would see it without quotes.
func validLocal(local string) bool {
	content := unquote(local)
	if content == "" || strings.ContainsAny(content, `<>@"\`) || !printable(content) {
		return false
	}
	return content != local || !strings.ContainsAny(content, " (),:;[]")
}

func unquote(local string) string {
	if len(local) >= 2 && local[0] == '"' && local[len(local)-1] == '"' {
		return local[1 : len(local)-1]
	}
	return local
}

func validDomain(domain string) bool {
	if literal, ok := strings.CutPrefix(domain, "["); ok {
		literal, closed := strings.CutSuffix(literal, "]")
		return closed && validLiteral(literal)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || !printable(label) || !onlyLetters(label) {
			return false
		}
	}
	return isASCII(domain) || validIDN(domain)
}

// validIDN takes U-labels as they are registered (RFC 5890 §2.3.2.1), in any
// case. What would become another name only by being mapped, such as wide
// letters, is refused: the next server may not map it.
func validIDN(domain string) bool {
	_, err := idna.Registration.ToASCII(strings.ToLower(domain))
	return err == nil
}

func validLiteral(literal string) bool {
	v6, isV6 := strings.CutPrefix(literal, "IPv6:")
	addr, err := netip.ParseAddr(v6)
	return err == nil && addr.Is6() == isV6 && addr.Zone() == ""
}

// onlyLetters allows what names are made of; an underscore is in use, though no
// host name.
func onlyLetters(label string) bool {
	for i := range len(label) {
		c := label[i]
		switch {
		case c >= 0x80, 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// printable reports valid UTF-8 without controls, line separators or spaces
// other than the plain one.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || r != ' ' && unicode.IsSpace(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Zs) && r != ' ' {
			return false
		}
	}
	return true
}

// IsNull reports the null path.
func (p Path) IsNull() bool { return p == Path{} }

// String is the address as it was given, quotes and all, without angle
// brackets; empty for the null path.
func (p Path) String() string {
	if p.IsNull() {
		return ""
	}
	return p.Local + "@" + p.Domain
}

// Bracketed is the path as SMTP writes it: <local@domain> or <>.
func (p Path) Bracketed() string { return "<" + p.String() + ">" }

// Bare is the address without quotes: for comparing, never for writing into a
// command or a header.
func (p Path) Bare() string {
	if p.IsNull() {
		return ""
	}
	return unquote(p.Local) + "@" + p.Domain
}

// Key is the canonical form by which addresses are compared (store.Key).
func (p Path) Key() string { return store.Key(p.Bare()) }

// ASCII reports whether the address may be used without SMTPUTF8.
func (p Path) ASCII() bool { return isASCII(p.Local) && isASCII(p.Domain) }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// pathOf reads the path of a raw MAIL or RCPT line, cut the way go-smtp cuts
// it, and compares it with what go-smtp made of it: where the two differ,
// somebody is being fooled.
func pathOf(line []byte, keyword, seen string, utf8 bool) (Path, error) {
	text, ok := cutPath(strings.TrimRight(string(line), "\r\n"), keyword)
	if !ok {
		return Path{}, errPathView
	}
	p, err := ParsePath(text)
	switch {
	case err != nil:
		return Path{}, err
	case p.Bare() != seen:
		return Path{}, errPathView
	case !utf8 && !p.ASCII():
		return Path{}, errPathUTF8
	}
	return p, nil
}

// cutPath finds the path behind "MAIL FROM:" or "RCPT TO:".
func cutPath(line, keyword string) (string, bool) {
	const verb = len("MAIL ")
	if len(line) < verb {
		return "", false
	}
	arg := strings.TrimSpace(line[verb:])
	if len(arg) < len(keyword) || !strings.EqualFold(arg[:len(keyword)], keyword) {
		return "", false
	}
	arg = strings.TrimSpace(arg[len(keyword):])
	bracketed, quoted := strings.HasPrefix(arg, "<"), false
	for i := 0; i < len(arg); i++ {
		switch {
		case arg[i] == '"':
			quoted = !quoted
		case arg[i] == '\\' && quoted:
			i++
		case quoted:
		case arg[i] == '>' && bracketed:
			return arg[:i+1], true
		case arg[i] == ' ' && !bracketed:
			return arg[:i], true
		}
	}
	return arg, !bracketed && !quoted
}
