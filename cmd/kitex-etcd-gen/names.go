package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// nameFlag is one -name [pkg.]Service=name.
type nameFlag struct {
	pkg     string // slash-separated tail of the directory that holds the service's package, or ""
	service string // name in the IDL
	name    string // name in the registry
}

func (f nameFlag) String() string {
	if f.pkg == "" {
		return f.service + "=" + f.name
	}
	return f.pkg + "." + f.service + "=" + f.name
}

// nameFlags is a [flag.Value] that may be given many times.
type nameFlags []nameFlag

func (f *nameFlags) String() string { return fmt.Sprint([]nameFlag(*f)) }

func (f *nameFlags) Set(value string) error {
	left, name, ok := strings.Cut(value, "=")
	if !ok || left == "" {
		return errors.New("want Service=name or pkg.Service=name")
	}
	if name == "" || strings.Contains(name, "/") || strings.ContainsFunc(name, unicode.IsControl) || !utf8.ValidString(name) {
		return fmt.Errorf("%q cannot be a name in the registry: it wants at least one character, no slashes, no control characters, and UTF-8", name)
	}
	nf := nameFlag{service: left, name: name}
	if i := strings.LastIndexByte(left, '.'); i >= 0 {
		nf.pkg, nf.service = left[:i], left[i+1:]
	}
	*f = append(*f, nf)
	return nil
}

// setNames gives every service its name in the registry, the flags' or the IDL's, and refuses a name that two share.
func setNames(packages []*kitexPackage, flags nameFlags) error {
	for _, f := range flags {
		switch chosen := f.choose(packages); {
		case len(chosen) == 0:
			return fmt.Errorf("-name %s: there is no such service; the name left of = is the one in the IDL", f)
		case len(chosen) > 1:
			f2 := nameFlag{distinctHolder(chosen[0], chosen[1]), f.service, f.name}
			return fmt.Errorf("-name %s: several services are meant (%s, %s): say which, as in -name %s", f, chosen[0].path, chosen[1].path, f2)
		case chosen[0].service.RawServiceName != "":
			return fmt.Errorf("-name %s: %s has been given the name %q already", f, chosen[0].path, chosen[0].service.RawServiceName)
		default:
			chosen[0].service.RawServiceName = f.name
		}
	}
	var errs []error
	owners := make(map[string]*kitexPackage)
	for _, p := range packages {
		if p.orphan {
			continue
		}
		if p.service.RawServiceName == "" {
			p.service.RawServiceName = p.idlName
		}
		name := p.service.RawServiceName
		owner, taken := owners[name]
		if !taken {
			owners[name] = p
			continue
		}
		f := nameFlag{distinctHolder(p, owner), p.idlName, strings.ReplaceAll(p.holder, "/", ".") + "." + p.idlName}
		errs = append(errs, fmt.Errorf("%s and %s are both called %q and would receive each other's calls: separate them, as in -name %s",
			owner.path, p.path, name, f))
	}
	return errors.Join(errs...)
}

// choose returns the services that f means. A pkg that is one service's own path below the directory on the command line
// means that one; otherwise it may be the tail of any path.
func (f nameFlag) choose(packages []*kitexPackage) []*kitexPackage {
	var exact, tail []*kitexPackage
	for _, p := range packages {
		if p.orphan || p.idlName != f.service {
			continue
		}
		if f.pkg == p.holder {
			exact = append(exact, p)
		}
		if f.pkg == "" || strings.HasSuffix(p.holderAbs, "/"+f.pkg) {
			tail = append(tail, p)
		}
	}
	if len(exact) == 1 {
		return exact
	}
	return tail
}

// distinctHolder returns a pkg for -name that means p and not other.
func distinctHolder(p, other *kitexPackage) string {
	if p.holder != other.holder || p.idlName != other.idlName {
		return p.holder
	}
	return filepath.ToSlash(filepath.Dir(p.path))
}
