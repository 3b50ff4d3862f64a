package main

import (
	"fmt"
	"reflect"
	"slices"
)

// keep puts back what only a restart can change: it is bound, open, or known to
// others under its name. It returns the paths of what it put back.
func (c *Config) keep(was *Config) (kept []string) {
	put := func(path string, now, old any) {
		n, o := reflect.ValueOf(now).Elem(), reflect.ValueOf(old).Elem()
		if !reflect.DeepEqual(n.Interface(), o.Interface()) {
			n.Set(o)
			kept = append(kept, path)
		}
	}
	put("hostname", &c.Hostname, &was.Hostname)
	put("data_dir", &c.DataDir, &was.DataDir)
	put("console.address", &c.Console.Address, &was.Console.Address)
	put("log.format", &c.Log.Format, &was.Log.Format)
	var list []Listener
	for _, l := range c.Listeners {
		path := fmt.Sprintf("listeners[%s]", l.Name)
		old := was.listener(l.Name)
		if old == nil {
			kept = append(kept, path+" (new)")
			continue
		}
		put(path+".address", &l.Address, &old.Address)
		put(path+".role", &l.Role, &old.Role)
		put(path+".protocol", &l.Protocol, &old.Protocol)
		list = append(list, l)
	}
	for _, old := range was.Listeners {
		if c.listener(old.Name) == nil {
			kept = append(kept, fmt.Sprintf("listeners[%s] (gone)", old.Name))
			list = append(list, old)
		}
	}
	c.Listeners = list
	return kept
}

// listener finds a listener by its name; nil: there is none.
func (c *Config) listener(name string) *Listener {
	for i := range c.Listeners {
		if c.Listeners[i].Name == name {
			return &c.Listeners[i]
		}
	}
	return nil
}

// changes lists the paths of the settings in which two configurations differ;
// never their values. Listeners are compared by name, and named in the paths.
func changes(was, now *Config) []string {
	old := *was
	old.Listeners = slices.Clone(now.Listeners)
	for i, l := range now.Listeners {
		if before := was.listener(l.Name); before != nil {
			old.Listeners[i] = *before
		}
	}
	return appendChanges(nil, "", reflect.ValueOf(&old).Elem(), reflect.ValueOf(now).Elem())
}

func appendChanges(list []string, path string, was, now reflect.Value) []string {
	t := now.Type()
	switch {
	case isSection(t):
		for field, value := range now.Fields() {
			if name := key(field); name != "" {
				here := name
				if path != "" {
					here = path + "." + name
				}
				list = appendChanges(list, here, was.FieldByIndex(field.Index), value)
			}
		}
		return list
	case t.Kind() == reflect.Slice && isSection(t.Elem()):
		for i := range max(was.Len(), now.Len()) {
			here := fmt.Sprintf("%s[%d]", path, i)
			if t == reflect.TypeFor[[]Listener]() {
				here = fmt.Sprintf("%s[%s]", path, now.Index(i).FieldByName("Name"))
			}
			switch {
			case i >= was.Len():
				list = append(list, here+" (new)")
			case i >= now.Len():
				list = append(list, here+" (gone)")
			default:
				list = appendChanges(list, here, was.Index(i), now.Index(i))
			}
		}
		return list
	case reflect.DeepEqual(was.Interface(), now.Interface()):
		return list
	}
	return append(list, path)
}
