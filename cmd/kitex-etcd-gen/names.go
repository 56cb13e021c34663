package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
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

// parseName parses the value of a -name flag.
func parseName(value string) (nameFlag, error) {
	left, name, ok := strings.Cut(value, "=")
	if !ok || left == "" {
		return nameFlag{}, fmt.Errorf("-name %s: want Service=name or pkg.Service=name", clipped(value))
	}
	if err := checkName(name); err != nil {
		return nameFlag{}, fmt.Errorf("-name %s: %w", clipped(value), err)
	}
	f := nameFlag{service: left, name: name}
	if i := strings.LastIndexByte(left, '.'); i >= 0 {
		f.pkg, f.service = left[:i], left[i+1:]
	}
	return f, nil
}

// clipped quotes a text for a message, and cuts what is too long for one.
func clipped(text string) string {
	const most = 60
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}

// maxName is the length of the longest name, in bytes. It is part of a key in etcd and of every line about the service.
const maxName = 1000

func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("this cannot be a name in the registry: it has %d bytes, and %d are allowed", len(name), maxName)
	case name == "" || strings.Contains(name, "/") || strings.ContainsFunc(name, unseen) || !utf8.ValidString(name):
		return errors.New("this cannot be a name in the registry: it needs at least one character, and must be UTF-8 without slashes, control characters and direction marks")
	}
	return nil
}

// unseen reports characters that change how a name looks, and are not seen themselves.
func unseen(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }

// setNames gives every service its name in the registry, the flags' or the IDL's, and refuses a name that two share.
func setNames(packages []*kitexPackage, flags []nameFlag) error {
	for _, f := range flags {
		switch chosen := f.choose(packages); {
		case len(chosen) == 0:
			return fmt.Errorf("-name %s: there is no such service; the name before = has to be the one in the IDL", f)
		case !copies(chosen):
			f2 := nameFlag{distinctHolder(chosen[0], chosen[1]), f.service, f.name}
			return fmt.Errorf("-name %s: several services are meant (%s, %s): say which, as in -name %s", f, chosen[0].path, chosen[1].path, f2)
		case chosen[0].service.RawServiceName != "":
			return fmt.Errorf("-name %s: %s has been given the name %q already", f, chosen[0].path, chosen[0].service.RawServiceName)
		default:
			for _, p := range chosen {
				p.service.RawServiceName = f.name
			}
		}
	}
	var errs []error
	owners := make(map[string]*kitexPackage)
	for _, p := range packages {
		if p.orphan || p.abandoned {
			continue
		}
		if p.service.RawServiceName == "" {
			p.service.RawServiceName = p.idlName
		}
		name := p.service.RawServiceName
		owner, taken := owners[name]
		if !taken {
			owners[name] = p
		}
		if !taken || copies([]*kitexPackage{owner, p}) {
			continue
		}
		f := nameFlag{distinctHolder(p, owner), p.idlName, strings.ReplaceAll(p.holder, "/", ".") + "." + p.idlName}
		errs = append(errs, fmt.Errorf("%s and %s are both called %q and would receive each other's calls: separate them, as in -name %s",
			owner.path, p.path, name, f))
	}
	return errors.Join(errs...)
}

// copies reports whether all are one service, which has its place in several trees: a client's and a server's, say.
func copies(packages []*kitexPackage) bool {
	trees := make(map[string]bool)
	for _, p := range packages {
		if p.place != packages[0].place || p.idlName != packages[0].idlName || trees[p.tree] {
			return false
		}
		trees[p.tree] = true
	}
	return true
}

// choose returns the services that f means. A pkg that is one service's own path below the directory on the command line
// means that one; otherwise it may be the tail of any path.
func (f nameFlag) choose(packages []*kitexPackage) []*kitexPackage {
	var exact, tail []*kitexPackage
	for _, p := range packages {
		if p.orphan || p.abandoned || p.idlName != f.service {
			continue
		}
		if f.pkg == p.holder {
			exact = append(exact, p)
		}
		if f.pkg == "" || strings.HasSuffix(p.holderAbs, "/"+f.pkg) {
			tail = append(tail, p)
		}
	}
	if len(exact) > 0 && copies(exact) {
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
