package main

import (
	"cmp"
	"log/slog"
	"strings"
	"time"

	"github.com/casegate/casegate/gateway"
)

// expirySoon is how long before its end a certificate is told of.
const expirySoon = 14 * 24 * time.Hour

// certificates reads the files of each listener with TLS as serve does.
func (c *checker) certificates() {
	for _, l := range c.cfg.Listeners {
		if mode := gateway.TLSMode(l.TLS); mode != gateway.TLSStart && mode != gateway.TLSImplicit {
			continue
		}
		t, err := gateway.LoadTLS(l.TLSCert, l.TLSKey, l.ClientCA, slog.New(slog.DiscardHandler))
		if err != nil {
			c.add(foundCert, "error", "make tls_cert, tls_key and client_ca PEM files that this user can read; key and certificate must fit", "listener %s: %v", l.Name, err)
			continue
		}
		cert := t.Certificate()
		names := cmp.Or(strings.Join(cert.DNSNames, ", "), "no host name")
		until := cert.NotAfter.Local().Format(time.DateTime)
		switch left := time.Until(cert.NotAfter); {
		case left <= 0:
			c.add(foundCert, "error", "renew it; new files count without a restart", "listener %s: the certificate for %s ended %s", l.Name, names, until)
		case left < expirySoon:
			c.add(foundCert, "warning", "renew it; new files count without a restart", "listener %s: the certificate for %s ends %s", l.Name, names, until)
		case cert.VerifyHostname(c.cfg.Hostname) != nil:
			c.add(foundCert, "warning", "clients that verify must know us by one of its names", "listener %s: the certificate is for %s, not for %s", l.Name, names, c.cfg.Hostname)
		default:
			c.ok(foundCert, "listener %s: TLS with a certificate for %s until %s", l.Name, names, until)
		}
	}
}
