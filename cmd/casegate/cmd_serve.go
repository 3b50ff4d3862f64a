package main

import (
	_ "embed"
	"fmt"

	"github.com/spf13/cobra"
)

//go:embed casegate.service
var unit string

func (p *program) serveCommand() *cobra.Command {
	var printUnit bool
	c := &cobra.Command{
		Use: "serve", Short: "Run the daemon", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			if printUnit {
				_, err := fmt.Fprint(p.out, unit)
				return err
			}
			cfg, err := p.config()
			if err != nil {
				return err
			}
			return p.runServe(c.Context(), cfg)
		},
	}
	c.Flags().BoolVar(&printUnit, "print-unit", false, "print a unit for systemd, and leave")
	return c
}

func (p *program) checkCommand() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use: "check", Short: "Check the configuration, and probe store, listeners and routes", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := p.config()
			if err != nil {
				return err
			}
			return p.runCheck(c.Context(), cfg, o.json)
		},
	}
	return o.flags(c, false)
}

func (p *program) demoCommand() *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use: "demo", Short: "Serve, with a sample next hop, and play one case through SMTP", Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := p.config()
			if err != nil {
				return err
			}
			return p.runDemo(c.Context(), cfg, once)
		},
	}
	c.Flags().BoolVar(&once, "once", false, "leave when the case is played")
	return c
}
