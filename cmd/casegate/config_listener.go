package main

import (
	"fmt"
	"slices"
)

// checkTLS: what TLS needs is there, and nothing is there that it would not use.
func (l Listener) checkTLS(path string) problems {
	var found problems
	add := func(key, what, hint string) {
		found = append(found, problem{path: path + key, what: what, hint: hint})
	}
	if l.TLS != "starttls" && l.TLS != "implicit" {
		for _, file := range []struct{ key, value string }{{".tls_cert", l.TLSCert}, {".tls_key", l.TLSKey}, {".client_ca", l.ClientCA}} {
			if file.value != "" {
				add(file.key, "no use without TLS", "write tls: starttls or tls: implicit, or remove it")
			}
		}
		if l.RequireTLS {
			add(".require_tls", "TLS is required but not offered", "write tls: starttls, and tls_cert and tls_key")
		}
		return found
	}
	if l.TLSCert == "" {
		add(".tls_cert", "missing: TLS needs a certificate", "write tls_cert: and a PEM file")
	}
	if l.TLSKey == "" {
		add(".tls_key", "missing: TLS needs a private key", "write tls_key: and a PEM file")
	}
	return found
}

// checkAuth: no password crosses a network in the clear, and whoever must sign in
// can.
func (l Listener) checkAuth(path string) problems {
	if l.AuthWithoutTLS && !l.Address.loopback() {
		return problems{{path: path + ".auth_without_tls", what: fmt.Sprintf("passwords for %s would cross a network in the clear", l.Address),
			hint: "remove it and set tls, or listen on 127.0.0.1"}}
	}
	if secure := l.TLS == "starttls" || l.TLS == "implicit"; l.Auth == "require" && !secure && !l.AuthWithoutTLS {
		return problems{{path: path + ".auth", what: "nobody could sign in: that takes TLS", hint: "set tls, tls_cert and tls_key; on loopback auth_without_tls: true will do"}}
	}
	return nil
}

// checkProxy: what holds for peers must not be lent to whoever speaks through
// them.
func (l Listener) checkProxy(path string) problems {
	xclient := slices.Contains(l.Trust, "xclient")
	key := ".proxy_protocol"
	switch {
	case !l.ProxyProtocol && !xclient:
		return nil
	case !l.ProxyProtocol:
		key = ".trust"
	case len(l.Trust) > 0:
		return problems{{path: path + ".trust", what: "the clients of a proxy would be believed", hint: "remove it, or proxy_protocol"}}
	}
	switch {
	case slices.Contains(l.Trust, "authres"), slices.Contains(l.Trust, "control_headers"), l.TrustedForm:
		return problems{{path: path + key, what: "the clients of a proxy would be believed", hint: "remove authres, control_headers and trusted_form, or what makes the peers proxies"}}
	case l.Role == "outbound" && l.Auth != "require":
		return problems{{path: path + key, what: fmt.Sprintf("outbound listener %q would relay mail for every client of the proxy", l.Name), hint: "write auth: require"}}
	case l.ProxyProtocol && l.open():
		return problems{{path: path + key, what: "anyone could say for whom he connects", hint: "set peers to the proxies"}}
	}
	return nil
}
