package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group is a command that only has commands below it.
func group(name, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: unknownCommand}
	c.AddCommand(below...)
	return c
}

// unknownCommand answers a group that was called by itself, or with a word
// that is no command of it.
func unknownCommand(c *cobra.Command, args []string) error {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if len(args) == 0 {
		c.SetOut(c.ErrOrStderr())
		if err := c.Help(); err != nil {
			return err
		}
		return usage("", "%s needs a command", c.CommandPath())
	}
	if near := suggest(args[0], names); near != "" {
		return usage(fmt.Sprintf("did you mean %s %s?", c.CommandPath(), near), "unknown command %q for %s", args[0], c.CommandPath())
	}
	return usage(c.CommandPath()+" knows: "+strings.Join(names, ", "), "unknown command %q for %s", args[0], c.CommandPath())
}

// flagError puts what the flag reader says into our words.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var lacking *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	help := "see " + c.CommandPath() + " --help"
	switch {
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if near := suggest(name, flagNames(c)); near != "" && len(name) > 1 {
			help = "did you mean --" + near + "?"
		}
		return usage(help, "%s has no flag %q", c.CommandPath(), unknown.GetSpecifiedName())
	case errors.As(err, &lacking):
		return usage(help, "--%s needs a value", lacking.GetSpecifiedName())
	case errors.As(err, &invalid):
		return usage(help, "%q is not a value for --%s", invalid.GetValue(), invalid.GetFlag().Name)
	}
	return usage(help, "%v", err)
}

func flagNames(c *cobra.Command) []string {
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// exactly asks for these arguments, no fewer and no more.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		help := "write " + strings.TrimSpace(c.CommandPath()+" "+strings.Join(names, " "))
		if len(args) < len(names) {
			return usage(help, "%s needs %s", c.CommandPath(), names[len(args)])
		}
		if len(args) > len(names) {
			return usage(help, "%q is one argument too many", args[len(names)])
		}
		return nil
	}
}

// needFlags asks for flags that have no default.
func needFlags(c *cobra.Command, names ...string) error {
	for _, name := range names {
		if !c.Flags().Changed(name) {
			return usage("see "+c.CommandPath()+" --help", "%s needs --%s", c.CommandPath(), name)
		}
	}
	return nil
}

// oneOf holds a flag to the words it may have.
func oneOf(c *cobra.Command, name string, words ...string) error {
	value := c.Flags().Lookup(name).Value.String()
	for _, w := range words {
		if w == value {
			return nil
		}
	}
	return usage("write --"+name+" "+choices(words), "%q is not a value for --%s", value, name)
}
