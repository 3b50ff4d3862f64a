package resolver

import (
	"fmt"
	"regexp"
	"strconv"
)

// SubjectTag is the mark of a case in a subject, where the site wants one: a
// guessable number, so evidence of last resort (rules §2).
func SubjectTag(number uint64) string { return fmt.Sprintf("[case %d]", number) }

var subjectTag = regexp.MustCompile(`(?i)\[case ([0-9]{1,12})\]`)

// taggedCase reads the last tag of a subject.
func taggedCase(subject string) (uint64, bool) {
	all := subjectTag.FindAllStringSubmatch(subject, -1)
	if len(all) == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(all[len(all)-1][1], 10, 64)
	return n, err == nil && n > 0
}
