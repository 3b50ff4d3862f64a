package mailauth

import "time"

// The resolver tells no TTL: what is kept is kept for a minute at most.
const (
	keepAnswer  = time.Minute
	keepNothing = 15 * time.Second // that there is no such record
	maxAnswers  = 4096
	maxAnswer   = 1024 // bytes worth keeping
)

// answers is a small cache of the DNS. When it is full it starts anew.
type answers map[question]answer

type question struct {
	kind recordType
	name string
}

type answer struct {
	records []string // none: there are none
	expires time.Time
}

func (a answers) get(q question, now time.Time) (records []string, known bool) {
	kept, ok := a[q]
	return kept.records, ok && now.Before(kept.expires)
}

func (a *answers) put(q question, records []string, now time.Time) {
	size, keep := 0, keepNothing
	for _, r := range records {
		size, keep = size+len(r), keepAnswer
	}
	if size > maxAnswer || len(records) > maxAnswer/16 {
		return
	}
	if *a == nil || len(*a) >= maxAnswers {
		*a = make(answers)
	}
	(*a)[q] = answer{records, now.Add(keep)}
}
