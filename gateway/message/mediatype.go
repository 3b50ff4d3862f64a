package message

import (
	"strconv"
	"strings"
)

// MediaType is a Content-Type or Content-Disposition value (RFC 2045 §5.1,
// RFC 2183) as far as it can be read.
type MediaType struct {
	Type string // "text/plain" or "attachment", in lower case; "" if there is none

	params map[string]string // by lower-case name, as written apart from quotes
}

// What one value may cost; further bytes and parameters aren't read.
const (
	maxMediaType = 64 << 10
	maxParams    = 200
)

// ParseMediaType reads a value, folded or not. It never fails: what can't be
// read is passed over, and a quote that is never closed ends with the value.
// The first parameter of a name counts.
func ParseMediaType(value string) MediaType {
	value = strings.TrimLeft(Unfold(value[:min(len(value), maxMediaType)]), " \t")
	n := strings.IndexAny(value, "; \t(")
	if n < 0 {
		n = len(value)
	}
	m := MediaType{Type: strings.ToLower(value[:n])}
	m.readParams(value[n:])
	return m
}

func (m *MediaType) readParams(s string) {
	for len(m.params) < maxParams {
		semicolon := strings.IndexByte(s, ';')
		if semicolon < 0 {
			return
		}
		s = s[semicolon+1:]
		end := strings.IndexAny(s, "=;")
		if end < 0 {
			return
		}
		if s[end] == ';' {
			s = s[end:]
			continue
		}
		name := strings.ToLower(strings.Trim(s[:end], " \t"))
		var v string
		v, s = paramValue(s[end+1:])
		if _, seen := m.params[name]; name != "" && !seen {
			if m.params == nil {
				m.params = map[string]string{}
			}
			m.params[name] = v
		}
	}
}

// paramValue reads the value that s starts with and returns what follows it.
// Beyond RFC 2045, a bare value may hold anything but a semicolon; a comment
// behind it is not part of it.
func paramValue(s string) (value, rest string) {
	s = strings.TrimLeft(s, " \t")
	if strings.HasPrefix(s, `"`) {
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case '"':
				return unescape(s[1:i]), s[i+1:]
			}
		}
		return unescape(s[1:]), ""
	}
	end := strings.IndexByte(s, ';')
	if end < 0 {
		end = len(s)
	}
	value, _, _ = strings.Cut(s[:end], " (")
	return strings.Trim(value, " \t"), s[end:]
}

// Param returns a parameter by its lower-case name, or "": the plain one, else
// the extended (RFC 2231 §4) or the continued one (§3), decoded to UTF-8.
func (m MediaType) Param(name string) string {
	if v, ok := m.params[name]; ok {
		return v
	}
	if v, ok := m.params[name+"*"]; ok {
		charset, text := extended(v)
		return toUTF8(charset, text)
	}
	var b []byte
	charset := "utf-8"
	for i := 0; ; i++ {
		key := name + "*" + strconv.Itoa(i)
		if v, ok := m.params[key]; ok {
			b = append(b, v...)
			continue
		}
		v, ok := m.params[key+"*"]
		switch {
		case !ok:
			return toUTF8(charset, b)
		case i == 0:
			charset, b = extended(v)
		default:
			b = append(b, unpercent(v)...)
		}
	}
}

// extended reads charset'language'text; without quotes it is all text.
func extended(v string) (charset string, text []byte) {
	parts := strings.SplitN(v, "'", 3)
	if len(parts) != 3 {
		return "utf-8", unpercent(v)
	}
	return parts[0], unpercent(parts[2])
}

func unpercent(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if v, ok := hexByte(s[i+1:]); ok {
				b = append(b, v)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}
