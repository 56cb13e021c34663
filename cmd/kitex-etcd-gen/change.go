package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

// change is a generated file that is not as it should be.
type change struct {
	kind    changeKind
	path    string
	content []byte // nil for what is not written
	linked  bool   // there is a symbolic link at path
}

type changeKind string

const (
	missing   changeKind = "missing"
	stale     changeKind = "stale"
	orphaned  changeKind = "orphaned"
	abandoned changeKind = "abandoned" // path is the directory of a service that its IDL's package no longer declares
)

func (c change) String() string { return string(c.kind) + " " + c.path }

// render makes the generated file of every package and returns those that differ from what is there.
func render(packages []*kitexPackage) ([]change, error) {
	results := make([]change, len(packages)) // without a kind where nothing is to change
	errs := make([]error, len(packages))
	sideBySide(len(packages), func(i int) error {
		results[i], errs[i] = packages[i].change()
		return nil
	})
	changes := slices.DeleteFunc(results, func(c change) bool { return c.kind == "" })
	return changes, errors.Join(errs...)
}

// change returns what has to be done about the package's generated file.
func (p *kitexPackage) change() (change, error) {
	switch {
	case p.orphan:
		return change{kind: orphaned, path: p.file()}, nil
	case p.abandoned:
		return change{kind: abandoned, path: p.path}, nil
	}
	content, err := templates.Render(p.service)
	if err == nil {
		err = p.checkNames(content)
	}
	switch {
	case err != nil:
		return change{}, err
	case p.existing == nil:
		return change{missing, p.file(), content, p.linked}, nil
	case !sameText(p.existing, content):
		return change{stale, p.file(), content, p.linked}, nil
	}
	return change{}, nil
}

// sideBySide calls do(0) to do(n-1), several at once, and returns an error of theirs.
func sideBySide(n int, do func(i int) error) error {
	var calls errgroup.Group
	calls.SetLimit(runtime.GOMAXPROCS(0))
	for i := range n {
		calls.Go(func() error { return do(i) })
	}
	return calls.Wait()
}

// sameText reports whether two texts differ in nothing but the ends of their lines, which git changes on Windows.
func sameText(a, b []byte) bool {
	lf := func(text []byte) []byte { return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")) }
	return bytes.Equal(a, b) || bytes.Equal(lf(a), lf(b))
}

// refusals says what keeps the changes from being made.
func refusals(changes []change) error {
	var errs []error
	for _, c := range changes {
		switch {
		case c.kind == abandoned:
			errs = append(errs, fmt.Errorf("%s: the package of the IDL no longer declares this service, and Kitex leaves the directory: delete it, or run kitex again", c.path))
		case c.linked:
			errs = append(errs, fmt.Errorf("%s: a symbolic link to a file that is %s: nothing is written through links: generate where the file itself is, or remove the link", c.path, c.kind))
		}
	}
	return errors.Join(errs...)
}

// checkNames refuses content that declares, or imports as, a name that another file of the package declares.
func (p *kitexPackage) checkNames(content []byte) error {
	var errs []error
	for _, name := range templates.Names(content) {
		if at, ok := p.declared[name]; ok {
			errs = append(errs, fmt.Errorf("%s: %s is declared here, and the generated file needs the name: rename this one", p.fset.Position(at), name))
		}
	}
	return errors.Join(errs...)
}

// commit writes the changes. Each file is replaced as a whole, and none before all have been written beside their targets.
func commit(changes []change) error {
	temps := make([]string, len(changes)) // beside their targets; "" when there is none
	defer func() {
		for _, temp := range temps {
			if temp != "" {
				os.Remove(temp) // what is left after a failure
			}
		}
	}()
	err := sideBySide(len(changes), func(i int) (err error) {
		if changes[i].kind != orphaned {
			temps[i], err = writeTemp(changes[i].path, changes[i].content)
		}
		return err
	})
	if err != nil {
		return err
	}
	err = sideBySide(len(changes), func(i int) error {
		if temps[i] == "" {
			return nil
		}
		err := os.Rename(temps[i], changes[i].path)
		if err == nil {
			temps[i] = ""
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.kind == orphaned {
			if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// writeTemp writes content to a new file beside path, with the permissions that Kitex gives its files.
func writeTemp(path string, content []byte) (name string, err error) {
	for i := 0; ; i++ {
		name = filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d.%d", filepath.Base(path), os.Getpid(), i))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("%w: %s has to be written", err, path)
		}
		_, err = f.Write(content)
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(name)
			return "", err
		}
		return name, nil
	}
}

// dumpTemplates makes dir a template directory for stock Kitex.
func dumpTemplates(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.Name() != templates.KitexFileName && (ext == ".yaml" || ext == ".yml") {
			return fmt.Errorf("%s: Kitex takes every yaml of a template directory for a template: choose a separate directory",
				filepath.Join(dir, e.Name()))
		}
	}
	path := filepath.Join(dir, templates.KitexFileName)
	marker, _, _ := strings.Cut(templates.Kitex, "\n")
	switch old, err := os.ReadFile(path); {
	case err == nil && sameText(old, []byte(templates.Kitex)):
		return nil
	case err == nil && !bytes.HasPrefix(old, []byte(marker)):
		return fmt.Errorf("%s: not a template of kitex-etcd-gen: move it away", path)
	}
	return commit([]change{{kind: stale, path: path, content: []byte(templates.Kitex)}})
}
