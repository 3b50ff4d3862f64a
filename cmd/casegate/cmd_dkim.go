package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/mailauth"
)

// shownKey is a signing key as --json tells it.
type shownKey struct {
	Domain   string   `json:"domain"`
	Selector string   `json:"selector"`
	Type     string   `json:"type"` // rsa, ed25519
	File     string   `json:"file"` // of the private half
	Name     string   `json:"name"` // of the TXT record
	Record   []string `json:"record"`
	Zone     string   `json:"zone"`   // the record as a line of a zone file
	Config   string   `json:"config"` // the key's line below dkim:
}

func showKey(k mailauth.SigningKey, file string) shownKey {
	config := fmt.Sprintf("- {domain: %s, selector: %s, key: %s", k.Domain, k.Selector, yamlText(file))
	if k.Subdomains {
		config += ", subdomains: true"
	}
	return shownKey{k.Domain, k.Selector, k.Kind(), file, k.RecordName(), k.Record(), k.ZoneLine(), config + "}"}
}

// yamlText quotes a path where YAML would read it otherwise.
func yamlText(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") == "" {
		return s
	}
	text, _ := json.Marshal(s) // JSON is YAML
	return string(text)
}

func (p *program) dkimKeygen() *cobra.Command {
	var o output
	var domain, selector, kind, file string
	var bits int
	c := &cobra.Command{
		Use: "keygen", Short: "Make a key that signs outgoing mail", Args: exactly(),
		Long: `Make a key that signs outgoing mail (DKIM). The private half goes into a new
file that only you may read; a file that exists is never touched. Printed are the
record to publish and the line for the configuration.`,
		Example: "  casegate dkim keygen --domain city.example --selector casegate1 --out /etc/casegate/casegate1.key",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needFlags(c, "domain", "selector", "out"); err != nil {
				return err
			}
			if err := oneOf(c, "type", "rsa", "ed25519"); err != nil {
				return err
			}
			if kind != "rsa" && c.Flags().Changed("bits") {
				return usage("leave --bits out", "an ed25519 key has no choice of bits")
			}
			k, err := makeKeyFile(kind, bits, domain, selector, file)
			if err != nil {
				return err
			}
			if file, err = filepath.Abs(file); err != nil {
				return err
			}
			return p.keyMade(o, showKey(k, file))
		},
	}
	c.Flags().StringVar(&domain, "domain", "", "`DOMAIN` that signs: what stands behind the @ of your addresses")
	c.Flags().StringVar(&selector, "selector", "", "`NAME` under which the record is published; a new one for each key")
	c.Flags().StringVar(&kind, "type", "rsa", "`rsa|ed25519`; everyone can verify rsa")
	c.Flags().IntVar(&bits, "bits", 2048, "`BITS` of an rsa key, 2048 to 4096")
	c.Flags().StringVar(&file, "out", "", "`FILE` to write, which must not exist")
	return o.flags(c, false)
}

// makeKeyFile makes a key and writes its file, readable by its owner alone.
func makeKeyFile(kind string, bits int, domain, selector, file string) (mailauth.SigningKey, error) {
	if kind == "ed25519" {
		bits = 0
	}
	text, k, err := mailauth.KeyGen(kind, bits, domain, selector)
	if told := (*mailauth.KeyError)(nil); errors.As(err, &told) {
		return k, usage(told.Hint, "%s", told.Problem)
	}
	if err != nil {
		return k, usage("see casegate dkim keygen --help", "%w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return k, hint("name another file: a key that signs is never written over", "%s exists already", file)
	}
	if err != nil {
		return k, hint("name a file in a folder that exists and that you may write to", "%s: %s", file, reason(err))
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(file)
	}
	return k, err
}

func (p *program) keyMade(o output, k shownKey) error {
	if o.json {
		return p.printAsJSON(k)
	}
	_, err := fmt.Fprintf(p.out, `%s holds the private key. The user that casegate runs as must be
able to read it, and nobody else.

Publish this record in the zone of %s:

%s

Once the DNS answers with it, add to casegate.yaml:

dkim:
  %s

then run casegate check, and send SIGHUP to a running daemon.
`, k.File, k.Domain, k.Zone, k.Config)
	return err
}

func (p *program) dkimRecord() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "record", Short: "Print the records to publish for the keys of the configuration", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := p.config()
			if err != nil {
				return err
			}
			keys, found := cfg.signingKeys()
			if len(found) > 0 {
				return found
			}
			list := []shownKey{}
			for i, k := range keys {
				list = append(list, showKey(k, cfg.DKIM[i].Key))
			}
			return p.records(o, list)
		},
	}
	return o.flags(c, false)
}

func (p *program) records(o output, list []shownKey) error {
	if o.json {
		return p.printAsJSON(list)
	}
	if len(list) == 0 {
		fmt.Fprintln(p.err, "the configuration names no key: see casegate dkim keygen --help")
	}
	for _, k := range list {
		if _, err := fmt.Fprintln(p.out, k.Zone); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printAsJSON(v any) error {
	e := json.NewEncoder(p.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
