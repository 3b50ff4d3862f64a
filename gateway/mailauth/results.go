package mailauth

// Results is the value of the Authentication-Results field that tells a verdict
// under our authserv-id (RFC 8601 §2.2): "gw.example; dmarc=pass
// header.from=city.example; spf=…; dkim=…", or "gw.example; none". It holds
// keywords and A-labels only, no byte of the sender.
func Results(servID string, v Verdict) string {
	a := AuthRes{ServID: servKey(servID), Version: 1}
	add := func(method string, found Result, ptype, name, domain string) {
		if result(string(found)) == "" {
			return
		}
		r := ResInfo{Method: method, Version: 1, Result: string(found)}
		if v.Source != Checked && len(a.Results) == 0 {
			r.Comments = []string{v.Source}
		}
		if domain = domainKey(domain); domain != "" {
			r.Properties = append(r.Properties, Property{ptype, name, domain})
		}
		if method == "dmarc" && severity(v.Policy) > 0 {
			r.Properties = append(r.Properties, Property{"policy", "dmarc", v.Policy})
		}
		a.Results = append(a.Results, r)
	}
	add("dmarc", v.DMARC, "header", "from", v.From)
	add("spf", v.SPF, "smtp", "mailfrom", v.SPFDomain)
	add("dkim", v.DKIM, "header", "d", v.DKIMDomain)
	if v.ARC != None { // a message without a chain is no news
		add("arc", v.ARC, "", "", "")
	}
	return a.String()
}
