package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time with a unit: 30s, 5m, 4h, 30d, 1h30m.
type Duration time.Duration

// UnmarshalText reads a duration; a bare number is refused.
func (d *Duration) UnmarshalText(text []byte) error {
	const example = `write a number with a unit, such as "30s", "5m", "4h" or "30d"`
	s := string(text)
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return hint(fmt.Sprintf(`write "%ss" for seconds (or m, h, d)`, s), "%s has no unit", s)
	}
	rest, days := s, time.Duration(0)
	if number, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return hint(example, "%q is not a duration", s)
		}
		rest, days = after, time.Duration(n)*24*time.Hour
	}
	var part time.Duration
	if rest != "" || rest == s {
		var err error
		if part, err = time.ParseDuration(rest); err != nil || part < 0 {
			return hint(example, "%q is not a duration", s)
		}
	}
	*d = Duration(days + part)
	return nil
}

// String writes the duration as it would be typed.
func (d Duration) String() string {
	const day = 24 * time.Hour
	t := time.Duration(d)
	if t >= day && t%day == 0 {
		return fmt.Sprintf("%dd", t/day)
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Size is a number of bytes with a unit: 64KiB, 35MiB, 25MB, 1GiB.
type Size int64

// sizeUnits from the longest name to the shortest, so that B comes last.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1},
	}
}

// UnmarshalText reads a size; a bare number is refused.
func (z *Size) UnmarshalText(text []byte) error {
	s := string(text)
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return hint(fmt.Sprintf(`write "%sMiB" (or KiB, GiB, KB, MB, GB, B)`, s), "%s has no unit", s)
	}
	for _, unit := range sizeUnits() {
		number, ok := strings.CutSuffix(s, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
		if err != nil || n < 0 {
			break
		}
		*z = Size(n * unit.bytes)
		return nil
	}
	return hint(`write a whole number with a unit, such as "64KiB", "35MiB" or "25MB"`, "%q is not a size", s)
}

// String writes the size in the largest unit that divides it.
func (z Size) String() string {
	best, unit := int64(z), "B"
	for _, u := range sizeUnits() {
		if z > 0 && int64(z)%u.bytes == 0 && int64(z)/u.bytes < best {
			best, unit = int64(z)/u.bytes, u.name
		}
	}
	return fmt.Sprintf("%d%s", best, unit)
}

// Rate is at most N in Per.
type Rate struct {
	N   int
	Per time.Duration
}

// Rates are limits that hold together, such as 100/h,500/d; none is off.
type Rates []Rate

// UnmarshalText reads rates.
func (r *Rates) UnmarshalText(text []byte) error {
	s := string(text)
	*r = nil
	if s == "off" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		number, unit, _ := strings.Cut(strings.TrimSpace(part), "/")
		n, err := strconv.ParseUint(number, 10, 31)
		per, ok := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
		if err != nil || n == 0 || !ok {
			return hint(`write such as "100/h,500/d", or off`, "%q is not a rate", strings.TrimSpace(part))
		}
		*r = append(*r, Rate{int(n), per})
	}
	return nil
}

// per is the bound for a span; 0 is none.
func (r Rates) per(span time.Duration) int {
	for _, one := range r {
		if one.Per == span {
			return one.N
		}
	}
	return 0
}

// String writes the rates as they would be typed.
func (r Rates) String() string {
	if len(r) == 0 {
		return "off"
	}
	parts := make([]string, len(r))
	for i, one := range r {
		unit := map[time.Duration]string{time.Minute: "m", time.Hour: "h", 24 * time.Hour: "d"}[one.Per]
		parts[i] = fmt.Sprintf("%d/%s", one.N, unit)
	}
	return strings.Join(parts, ",")
}

// Prefix is a network in CIDR notation; a single address is a network of one.
type Prefix struct{ netip.Prefix }

// UnmarshalText reads a network.
func (p *Prefix) UnmarshalText(text []byte) error {
	s := string(text)
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		p.Prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		return nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return hint(`write such as "10.1.0.0/16", "192.0.2.7" or "2001:db8::/32"`, "%q is not a network", s)
	}
	if prefix != prefix.Masked() {
		return hint(fmt.Sprintf("write %s for the network, or %s for the one address", prefix.Masked(), prefix.Addr()),
			"%q is an address within a network, not a network", s)
	}
	p.Prefix = prefix
	return nil
}

// everyone reports whether so large a network can only mean the Internet.
func (p Prefix) everyone() bool {
	if p.Addr().Is4() {
		return p.Bits() < 8
	}
	return p.Bits() < 16
}

// Endpoint is where to listen: host:port, or unix:/path.
type Endpoint struct {
	Network string // tcp or unix
	Address string // host:port, or the path
}

// UnmarshalText reads an endpoint. The host is an IP address or localhost.
func (e *Endpoint) UnmarshalText(text []byte) error {
	const example = `write such as "127.0.0.1:2525", "[::1]:2525" or "unix:/run/casegate/lmtp.sock"`
	s := string(text)
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !strings.HasPrefix(path, "/") || len(path) > 107 {
			return hint("write an absolute path of at most 107 characters: unix:/run/casegate/lmtp.sock", "%q is not the path of a UNIX socket", path)
		}
		*e = Endpoint{"unix", path}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return hint(example, "%q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return hint("write a port number from 1 to 65535", "%q is not a port", port)
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		return hint(example, "%q is not an IP address to listen on", host)
	}
	*e = Endpoint{"tcp", net.JoinHostPort(host, port)}
	return nil
}

// String writes the endpoint as it would be typed.
func (e Endpoint) String() string {
	if e.Network == "unix" {
		return "unix:" + e.Address
	}
	return e.Address
}

// loopback reports whether only this machine can reach the endpoint.
func (e Endpoint) loopback() bool { return e.Network == "unix" || loopback(e.Address) }

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// DNSServer is an IP address with a port, 53 unless stated.
type DNSServer string

// UnmarshalText reads a server.
func (d *DNSServer) UnmarshalText(text []byte) error {
	s := string(text)
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		*d = DNSServer(netip.AddrPortFrom(addr, 53).String())
		return nil
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil || at.Port() == 0 {
		return hint(`write such as "127.0.0.1", "10.1.0.53:5353" or "[2001:db8::53]:53"`, "%q is not the address of a DNS server", s)
	}
	*d = DNSServer(at.String())
	return nil
}

// NextHop is where a route leads: smtp://host:port, smtps://host:port,
// lmtp://host:port, lmtp:///path/of/a/socket, or none.
type NextHop struct {
	Protocol string // smtp, smtps or lmtp; empty is none
	Endpoint
}

// UnmarshalText reads a next hop. Port 25 is understood for smtp, 465 for smtps,
// 24 for lmtp.
func (n *NextHop) UnmarshalText(text []byte) error {
	const example = `write such as "smtp://mx.city.example:25", "lmtp://127.0.0.1:24", "lmtp:///run/dovecot/lmtp" or none`
	s := string(text)
	*n = NextHop{}
	if s == "none" {
		return nil
	}
	u, err := url.Parse(s)
	ports := map[string]string{"smtp": "25", "smtps": "465", "lmtp": "24"}
	if err != nil || ports[u.Scheme] == "" || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
		return hint(example, "%q is not a next hop", s)
	}
	if u.User != nil {
		return hint("write auth: {user: NAME, password_file: PATH} instead of what stands before the @", "a next hop holds no credentials")
	}
	if u.Host == "" && strings.HasPrefix(u.Path, "/") && len(u.Path) > 1 && u.Scheme != "smtps" {
		*n = NextHop{u.Scheme, Endpoint{"unix", u.Path}}
		return nil
	}
	port := u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	if number, err := strconv.ParseUint(port, 10, 16); u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || err != nil || number == 0 {
		return hint(example, "%q is not a next hop", s)
	}
	*n = NextHop{u.Scheme, Endpoint{"tcp", net.JoinHostPort(u.Hostname(), port)}}
	return nil
}

// None reports whether mail is kept on the case and forwarded nowhere.
func (n NextHop) None() bool { return n.Protocol == "" }

// String writes the next hop as it would be typed.
func (n NextHop) String() string {
	if n.None() {
		return "none"
	}
	return n.Protocol + "://" + n.Address
}
