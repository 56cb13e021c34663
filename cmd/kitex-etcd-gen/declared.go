package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
)

// typeNames are the types that the files of an IDL's package declare. What Kitex's tools write has each on a line.
type typeNames map[string]bool

// add adds the types of a source, found by the beginnings of its lines: an IDL's file may have megabytes.
func (t typeNames) add(src []byte) {
	for {
		_, rest, found := bytes.Cut(src, []byte("\ntype "))
		if !found {
			return
		}
		if end := bytes.IndexAny(rest, " =["); end > 0 {
			t[string(rest[:end])] = true
		}
		src = rest
	}
}

// checkDeclared finds out whether the package of the IDL, the directory above, still has the service's interface. Kitex leaves
// the directories of services that are gone from the IDL, and they do not compile. Where the IDL's package is elsewhere, or
// there are no files of it, nothing can be said.
func (p *kitexPackage) checkDeclared(all map[string]*directory) error {
	if p.orphan {
		return nil
	}
	name := p.service.ServiceName
	if p.service.ImportPath == "" {
		_, declared := p.declared[name]
		p.abandoned = !declared
		return nil
	}
	above := filepath.FromSlash(p.holderAbs)
	if path.Base(p.service.ImportPath) != filepath.Base(above) {
		return nil
	}
	d := all[above]
	switch {
	case d == nil: // above the root
	case d.types[name]:
		return nil
	case d.pkg != nil && !d.pkg.orphan:
		if _, declared := d.pkg.declared[name]; declared {
			return nil
		}
	}
	// It is missing, or it is written as Kitex does not write it: this is rare, so parse.
	declared, err := declaresType(above, name)
	p.abandoned = err == nil && !declared
	return err
}

// declaresType parses the files of a directory. It returns true as well where it cannot tell: there are no files, as the IDL's
// package is elsewhere, or one does not parse.
func declaresType(dir, name string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	none := true
	for _, entry := range entries {
		file := filepath.Join(dir, entry.Name())
		if !isSource(file, entry) {
			continue
		}
		none = false
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return true, nil
		}
		for _, decl := range parsed.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range gen.Specs {
				if typ, ok := spec.(*ast.TypeSpec); ok && typ.Name.Name == name {
					return true, nil
				}
			}
		}
	}
	return none, nil
}
