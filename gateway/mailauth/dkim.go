package mailauth

import "strings"

// SignedFields returns the names that a DKIM-Signature value covers, in lower
// case (RFC 6376 §3.5, tag h); none if it can't be read.
func SignedFields(value string) []string {
	for tag := range strings.SplitSeq(value, ";") {
		name, list, ok := strings.Cut(tag, "=")
		if !ok || strings.TrimSpace(name) != "h" {
			continue
		}
		fields := strings.Split(strings.ToLower(list), ":")
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		return fields
	}
	return nil
}
