package console

import (
	"fmt"
	"slices"
	"strings"
)

// UnflagOrder says which flag of a case is seen to.
type UnflagOrder struct {
	Flag   string `json:"flag" minLength:"1" maxLength:"100" doc:"the flag, as the case shows it"`
	Reason string `json:"reason,omitempty" maxLength:"1000" doc:"why, for the case's log"`
}

// unflag takes a flag off a case. The gateway sets it again when what it stands
// for happens again; without customer-bounced and recipient-bounced rule O11
// holds nothing of what bounced before.
func (d *deed) unflag(o UnflagOrder) error {
	if err := d.unmerged(); err != nil {
		return err
	}
	i := slices.Index(d.c.Flags, o.Flag)
	switch {
	case i < 0 && len(d.c.Flags) == 0:
		return d.was("case %d has no flags", d.c.Number)
	case i < 0:
		return d.was("case %d is not flagged %s; it has %s", d.c.Number, o.Flag, strings.Join(d.c.Flags, ", "))
	}
	d.c.Flags = slices.Delete(slices.Clone(d.c.Flags), i, i+1)
	said := fmt.Sprintf("flag %s is taken off case %d", o.Flag, d.c.Number)
	if reason := strings.TrimSpace(o.Reason); reason != "" {
		said += ": " + reason
	}
	return d.done("%s", said)
}
