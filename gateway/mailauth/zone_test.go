package mailauth

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
)

// zone is a DNS in memory: records by "TYPE name", names in lower case without
// the dot at their end. A record "!timeout", "!servfail" or "!refused" fails;
// "!silence" never answers. "ANY name" stands for every type that isn't there.
type zone struct {
	records map[string][]string
	mu      sync.Mutex
	asked   []string
}

func newZone(records map[string][]string) *zone {
	z := &zone{records: map[string][]string{}}
	for key, values := range records {
		z.records[strings.ToLower(key)] = values
	}
	return z
}

func (z *zone) find(ctx context.Context, kind, name string) ([]string, error) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	z.mu.Lock()
	z.asked = append(z.asked, kind+" "+name)
	z.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for range 8 { // CNAMEs
		values, ok := z.records[strings.ToLower(kind)+" "+name]
		if !ok {
			values, ok = z.records["any "+name]
		}
		if !ok {
			values, ok = z.records["any *"]
		}
		if alias := z.records["cname "+name]; !ok && len(alias) > 0 {
			name = strings.ToLower(alias[0])
			continue
		}
		if len(values) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		switch values[0] {
		case "!silence":
			<-ctx.Done()
			return nil, &net.DNSError{Err: ctx.Err().Error(), Name: name, IsTimeout: true}
		case "!timeout":
			return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
		case "!servfail":
			return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
		case "!refused":
			return nil, &net.DNSError{Err: "server misbehaving", Name: name}
		}
		return values, nil
	}
	return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return z.find(ctx, "TXT", name)
}

func (z *zone) LookupMX(ctx context.Context, name string) (list []*net.MX, err error) {
	hosts, err := z.find(ctx, "MX", name)
	for _, host := range hosts {
		list = append(list, &net.MX{Host: host + "."})
	}
	return list, err
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) (list []netip.Addr, err error) {
	texts, err := z.find(ctx, map[string]string{"ip4": "A", "ip6": "AAAA"}[network], host)
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list, err
}

func (z *zone) LookupAddr(ctx context.Context, text string) ([]string, error) {
	addr := netip.MustParseAddr(text)
	var name string
	if addr.Is4() {
		b := addr.As4()
		name = fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0])
	} else {
		b := addr.As16()
		for i := 15; i >= 0; i-- {
			name += fmt.Sprintf("%x.%x.", b[i]&15, b[i]>>4)
		}
		name += "ip6.arpa"
	}
	return z.find(ctx, "PTR", name)
}
