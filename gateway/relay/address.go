package relay

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/casegate/casegate/store"
)

// sendable reports whether an address may stand between the angle brackets of
// MAIL FROM and RCPT TO: nothing in it can end the path or the line. It is no
// judge of grammar; the next hop is.
func sendable(address string) bool {
	if len(address) > 512 || !utf8.ValidString(address) || strings.HasPrefix(address, "@") {
		return false
	}
	quoted, escaped := false, false
	for _, c := range address {
		switch {
		case unicode.IsControl(c) || c == '\u2028' || c == '\u2029':
			return false
		case escaped:
			escaped = false
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			escaped = true
		case quoted:
		case c == '<' || c == '>' || c == '\\' || unicode.IsSpace(c):
			return false
		}
	}
	return !quoted
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// appendMail appends the MAIL command with the parameters that the next hop
// knows (RFC 5321 §4.1.1.2, 1870, 3461 §4.4, 6152, 6531).
func (e *envelope) appendMail(dst []byte, ext extensions, size int64) []byte {
	dst = append(dst, "MAIL FROM:<"...)
	dst = append(dst, e.from...)
	dst = append(dst, '>')
	if ext.eightBit {
		dst = append(dst, " BODY=8BITMIME"...)
	}
	if ext.utf8 && e.needsUTF8() {
		dst = append(dst, " SMTPUTF8"...)
	}
	if ext.sized && size > 0 {
		dst = fmt.Appendf(dst, " SIZE=%d", size)
	}
	if ext.dsn && (e.ret == "FULL" || e.ret == "HDRS") {
		dst = append(append(dst, " RET="...), e.ret...)
	}
	if ext.dsn && e.envid != "" {
		dst = appendXtext(append(dst, " ENVID="...), e.envid)
	}
	return append(dst, "\r\n"...)
}

// appendRcpt appends a RCPT command (RFC 5321 §4.1.1.3, 3461 §4.1, §4.2).
func appendRcpt(dst []byte, to store.Recipient, ext extensions) []byte {
	dst = append(dst, "RCPT TO:<"...)
	dst = append(dst, to.Address...)
	dst = append(dst, '>')
	if ext.dsn {
		dst = appendNotify(dst, to.Notify)
		dst = appendORcpt(dst, to.ORcpt)
	}
	return append(dst, "\r\n"...)
}

func appendNotify(dst []byte, notify []string) []byte {
	sep := " NOTIFY="
	for _, n := range notify {
		switch n = strings.ToUpper(n); n {
		case "NEVER", "SUCCESS", "FAILURE", "DELAY":
			dst = append(append(dst, sep...), n...)
			sep = ","
		}
	}
	return dst
}

// appendORcpt appends an original recipient, kept decoded as "type;address".
func appendORcpt(dst []byte, orcpt string) []byte {
	kind, address, ok := strings.Cut(orcpt, ";")
	if !ok || kind == "" || strings.Trim(strings.ToLower(kind), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return dst
	}
	dst = append(append(append(dst, " ORCPT="...), kind...), ';')
	if strings.EqualFold(kind, "utf-8") {
		return appendUTF8Xtext(dst, address)
	}
	return appendXtext(dst, address)
}

// appendXtext encodes as RFC 3461 §4 says.
func appendXtext(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			dst = append(dst, c)
		} else {
			dst = fmt.Appendf(dst, "+%02X", c)
		}
	}
	return dst
}

// appendUTF8Xtext encodes as RFC 6533 §3 says (utf-8-addr-xtext).
func appendUTF8Xtext(dst []byte, s string) []byte {
	for _, c := range s {
		if c > ' ' && c < 0x7f && c != '+' && c != '=' && c != '\\' {
			dst = append(dst, byte(c))
		} else {
			dst = fmt.Appendf(dst, `\x{%02X}`, c)
		}
	}
	return dst
}
