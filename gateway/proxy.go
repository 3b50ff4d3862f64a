package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt).
const (
	proxyV1Max = 107     // a line of version 1, with its CRLF
	proxyV2Max = 4 << 10 // addresses and TLVs of version 2; the TLVs are not read
)

var (
	proxyV1 = []byte("PROXY ")
	proxyV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")

	errProxy = errors.New("not a PROXY header")
)

// readProxy reads one header, and not a byte more: what follows is another's.
// The client is zero when the proxy speaks for itself (LOCAL), or doesn't know.
func readProxy(r io.Reader) (netip.AddrPort, error) {
	head := make([]byte, len(proxyV2), proxyV1Max)
	if _, err := io.ReadFull(r, head); err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case bytes.Equal(head, proxyV2):
		return readProxyV2(r)
	case bytes.HasPrefix(head, proxyV1):
		return readProxyV1(r, head)
	}
	return netip.AddrPort{}, errProxy
}

// readProxyV1 reads the rest of a line byte by byte.
func readProxyV1(r io.Reader, line []byte) (netip.AddrPort, error) {
	for !bytes.HasSuffix(line, []byte("\n")) {
		if len(line) == proxyV1Max {
			return netip.AddrPort{}, errProxy
		}
		line = line[:len(line)+1]
		if _, err := io.ReadFull(r, line[len(line)-1:]); err != nil {
			return netip.AddrPort{}, err
		}
	}
	text, ok := strings.CutSuffix(string(line[len(proxyV1):]), "\r\n")
	if !ok {
		return netip.AddrPort{}, errProxy
	}
	return parseProxyV1(text)
}

// parseProxyV1 reads "TCP4 client us port port", or "UNKNOWN" and anything.
func parseProxyV1(text string) (netip.AddrPort, error) {
	f := strings.Split(text, " ")
	if f[0] == "UNKNOWN" {
		return netip.AddrPort{}, nil
	}
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return netip.AddrPort{}, errProxy
	}
	six := f[0] == "TCP6"
	client, ok := proxyAddr(f[1], f[3], six)
	if _, good := proxyAddr(f[2], f[4], six); !ok || !good {
		return netip.AddrPort{}, errProxy
	}
	return client, nil
}

func proxyAddr(host, port string, six bool) (netip.AddrPort, bool) {
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Is4() == six || addr.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), err == nil && strconv.FormatUint(n, 10) == port
}

// readProxyV2 reads what stands behind the signature.
func readProxyV2(r io.Reader) (netip.AddrPort, error) {
	var head [4]byte // version and command, family and protocol, length
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, err
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	if head[0]>>4 != 2 || head[0]&0xf > 1 || length > proxyV2Max {
		return netip.AddrPort{}, errProxy
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.AddrPort{}, err
	}
	if head[0]&0xf == 0 { // LOCAL
		return netip.AddrPort{}, nil
	}
	return parseProxyV2(head[1]>>4, rest)
}

// parseProxyV2 reads the client's address of a family. Which transport it used
// is its own affair.
func parseProxyV2(family byte, p []byte) (netip.AddrPort, error) {
	size := map[byte]int{1: 4, 2: 16}[family]
	switch {
	case family > 3:
		return netip.AddrPort{}, errProxy
	case size == 0: // unspecified, or a UNIX socket
		return netip.AddrPort{}, nil
	case len(p) < 2*size+4:
		return netip.AddrPort{}, errProxy
	}
	addr, _ := netip.AddrFromSlice(p[:size])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(p[2*size:])), nil
}

// introduced reads the PROXY header that is due. The proxy is a peer already;
// the client that it names is who counts from now on, for caps, facts and logs.
func (w *wire) introduced() bool {
	if !w.await(time.Now().Add(w.opts.HandshakeTimeout)) {
		w.state = stateClosing
		return false
	}
	client, err := readProxy(w.socket)
	w.mu.Lock()
	w.waiting = false
	w.mu.Unlock()
	if err != nil {
		w.log.Info("no PROXY header", "error", err)
		w.state = stateClosing
		return false
	}
	counts := w.peer
	if client.IsValid() {
		counts, w.named = client.Addr(), true
		w.peer, w.peerName = client.Addr(), client.String()
		w.log = w.log.With("client", w.peerName)
	}
	if w.place(counts) {
		return true
	}
	w.log.Info("connection refused: too many of the client's")
	if w.opts.TLSMode == TLSImplicit {
		w.state = stateClosing
		return false
	}
	w.hangup(ReasonConnections, 421, "4.7.0", "Too many connections from your address, try again later", true)
	return false
}
