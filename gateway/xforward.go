package gateway

import (
	"net/netip"
	"strconv"
	"strings"
)

// Client is a mail client as another mail system tells of it: by XFORWARD, or
// by XCLIENT (Postfix's XFORWARD_README and XCLIENT_README). What is zero was
// not said, or is unavailable there.
type Client struct {
	Name     string     // of its host
	Addr     netip.Addr // unmapped, without a zone
	Port     uint16
	Protocol string // SMTP, ESMTP or another
	Helo     string
	Ident    string // of the message in that system: its queue id
	Source   string // LOCAL or REMOTE
	Login    string // by XCLIENT only
}

// The attributes that we understand, as EHLO lists them. DESTADDR and DESTPORT
// are where the client connected to, which nothing here asks for.
const (
	xforwardAttributes = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
	xclientAttributes  = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
)

// said are the names of the attributes that a command gave.
type said map[string]bool

// readAttributes puts the attributes of a command into c; names are those it may
// have. On an error c is of no use.
func (c *Client) readAttributes(args, names string) (said, error) {
	given := said{}
	for field := range strings.FieldsSeq(args) {
		name, text, ok := strings.Cut(field, "=")
		name = strings.ToUpper(name)
		if !ok || !strings.Contains(" "+names+" ", " "+name+" ") {
			return nil, badAttribute("Unknown attribute")
		}
		value, err := attributeValue(text)
		if err == nil {
			err = c.set(name, value)
		}
		if err != nil {
			return nil, err
		}
		given[name] = true
	}
	if len(given) == 0 {
		return nil, badAttribute("No attributes")
	}
	return given, nil
}

func badAttribute(text string) error { return Verdict{501, [3]int{5, 5, 4}, text} }

// attributeValue decodes a value; unavailable is empty.
func attributeValue(text string) (string, error) {
	value, ok := decodeXtext(text)
	switch {
	case !ok || !printable(value):
		return "", badAttribute("A value is not xtext, or has control characters")
	case strings.EqualFold(value, "[UNAVAILABLE]"), strings.EqualFold(value, "[TEMPUNAVAIL]"):
		return "", nil
	}
	return value, nil
}

func (c *Client) set(name, value string) error {
	ok := true
	switch name {
	case "NAME":
		c.Name = plainText(value, 255)
	case "HELO":
		c.Helo = plainText(value, 255)
	case "IDENT":
		c.Ident = plainText(value, 255)
	case "LOGIN":
		c.Login = value
	case "ADDR":
		c.Addr, ok = attributeAddr(value)
	case "PORT":
		c.Port, ok = attributePort(value)
	case "PROTO":
		c.Protocol, ok = strings.ToUpper(value), value == "" || len(value) <= 64 && onlyLetters(value)
	case "SOURCE":
		c.Source = strings.ToUpper(value)
		ok = c.Source == "" || c.Source == "LOCAL" || c.Source == "REMOTE"
	}
	if !ok {
		return badAttribute("Bad " + name + " value")
	}
	return nil
}

// attributeAddr reads 192.0.2.7 or IPV6:2001:db8::7.
func attributeAddr(value string) (netip.Addr, bool) {
	if value == "" {
		return netip.Addr{}, true
	}
	const v6 = "IPV6:"
	if len(value) > len(v6) && strings.EqualFold(value[:len(v6)], v6) {
		value = value[len(v6):]
	}
	addr, err := netip.ParseAddr(value)
	return addr.Unmap(), err == nil && addr.Zone() == ""
}

func attributePort(value string) (uint16, bool) {
	if value == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(value, 10, 16)
	return uint16(n), err == nil
}

// decodeXtext undoes xtext (RFC 3461 §4). Small hexadecimal digits are taken,
// too.
func decodeXtext(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			b = append(b, byte(n))
			i += 2
		case c < '!' || c > '~' || c == '=':
			return "", false
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}
