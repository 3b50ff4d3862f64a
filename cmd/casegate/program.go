package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/casegate/casegate/gateway/console"
	"github.com/casegate/casegate/store"
)

// program is what the commands take from outside.
type program struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	zone     *time.Location // times are shown in it
	patience time.Duration  // for a daemon that has its socket open

	// openStore opens the embedded store, making it if there is none.
	openStore func(*Config, *slog.Logger) (store.Store, error)
	// service is what the API works on when this process holds the store.
	service func(*Config, store.Store) console.Service

	configFile string // --config
}

func newProgram() *program {
	return &program{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		environ: os.Environ(), zone: time.Local, patience: 5 * time.Second,
		openStore: openStore, service: newService,
	}
}

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78 // EX_CONFIG of sysexits.h
)

// run is the whole program but for the process around it.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.commands()
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	return p.fail(root.ExecuteContext(ctx))
}

// fail prints what is wrong and then what to type, and picks the exit code.
func (p *program) fail(err error) int {
	var list problems
	var wrong usageError
	var told hinted
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSaid):
		return exitFailed
	case errors.As(err, &list):
		for _, one := range list {
			p.say(one.Error(), one.hint)
		}
		return exitConfig
	case errors.As(err, &wrong):
		p.say(err.Error(), wrong.hint)
		return exitUsage
	case errors.As(err, &told):
		p.say(err.Error(), told.hint)
	default:
		p.say(err.Error(), "")
	}
	return exitFailed
}

// errSaid ends a command that has said already what failed.
var errSaid = errors.New("failed")

func (p *program) say(what, hint string) {
	fmt.Fprintln(p.err, "error: "+clean(what))
	if hint != "" {
		fmt.Fprintln(p.err, "hint: "+clean(hint))
	}
}

// config loads the configuration that --config names.
func (p *program) config() (*Config, error) { return loadConfig(p.configFile, p.environ) }

// commands is the command line.
func (p *program) commands() *cobra.Command {
	root := group("casegate", "A case-aware mail gateway",
		p.serveCommand(), p.checkCommand(), p.demoCommand(), p.explainCommand(), p.replayCommand(),
		group("case", "Cases", p.caseList(), p.caseShow(), p.caseResolve(), p.caseReopen(), p.caseCancel(),
			p.caseMerge(), p.caseSetCustomer(), p.caseUnflag(), p.caseLink(), p.caseUnlink()),
		group("contact", "Contacts: who a case is about", p.contactAdd(), p.contactImport(), p.contactList()),
		group("account", "Accounts: businesses and properties, context for cases", p.accountAdd(), p.accountList()),
		group("user", "Users: the agents of the desk", p.userAdd(), p.userRemove(), p.userList()),
		group("message", "Messages: every mail in the archive", p.messageList(), p.messageShow(), p.messageExport()),
		group("exceptions", "Mail kept but deliberately on no case", p.exceptionsList(), p.exceptionsShow(), p.exceptionsAssign()),
		group("unresolved", "Addresses on cases that nobody has been found for", p.unresolvedList()),
		group("key", "The keys that sign tracking tokens", p.keyList(), p.keyRotate()),
		group("dkim", "The keys that sign outgoing mail", p.dkimKeygen(), p.dkimRecord()),
		group("queue", "The outbox", p.queueList(), p.queueShow(), p.queueHold(), p.queueRelease(),
			p.queueRetry(), p.queueDrop(), p.queueFlush()),
		p.verifyCommand(),
	)
	root.Version = version
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&p.configFile, "config", "", "configuration `FILE` (default "+defaultFile+" if there is one)")
	root.SetFlagErrorFunc(flagError)
	return root
}
