package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

// kitexPackage is a directory that concerns us: a Kitex service, or a file of ours without one.
type kitexPackage struct {
	dir       string // as the user would name it
	holder    string // directory that holds dir: slash-separated, below the directory that the user gave
	holderAbs string // the same directory, absolute
	existing  []byte // our file as it stands; nil when there is none
	orphan    bool   // our file in a package that is no service; the fields below are unset
	idlName   string
	service   templates.Service // RawServiceName is set by setNames
	declared  map[string]token.Position
}

// file returns the path of the generated file.
func (p *kitexPackage) file() string { return filepath.Join(p.dir, templates.FileName) }

// search collects the packages below the directories it is given, and goes on after an error to report all of them.
type search struct {
	progress *progress
	seen     map[string]bool // absolute directories
	packages []*kitexPackage
	errs     []error
}

// scan finds every service below dirs, in the order of their paths.
func scan(dirs []string, p *progress) ([]*kitexPackage, error) {
	s := &search{progress: p, seen: map[string]bool{}}
	for _, dir := range dirs {
		s.root(filepath.Clean(dir))
	}
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	slices.SortFunc(s.packages, func(a, b *kitexPackage) int { return strings.Compare(a.dir, b.dir) })
	return s.packages, nil
}

func (s *search) root(dir string) {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.fail("%s: no such directory: run kitex first, or name the directory that holds its output", dir)
		return
	case err != nil:
		s.errs = append(s.errs, err)
		return
	case info.Mode()&fs.ModeSymlink != 0:
		s.fail("%s: symbolic links are not followed: name the directory it points to", dir)
		return
	case !info.IsDir():
		s.fail("%s: not a directory: name the directory that holds Kitex's output", dir)
		return
	}
	if found, err := s.walk(dir, dir); err != nil {
		s.errs = append(s.errs, err)
	} else if !found {
		s.fail("%s: no Kitex service below this directory: run kitex first, or name the directory that holds its output", dir)
	}
}

func (s *search) fail(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

// walk scans dir, which is root or below it, and what is below dir. It reports whether there was a package that concerns us or a failure.
func (s *search) walk(root, dir string) (found bool, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	if s.seen[abs] {
		return true, nil
	}
	s.seen[abs] = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	s.progress.step(len(s.packages))
	var files []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case e.IsDir() && name != templates.FileName:
			if name == "testdata" || name == "vendor" || name[0] == '_' || name[0] == '.' {
				continue
			}
			below, err := s.walk(root, filepath.Join(dir, name))
			if err != nil {
				return false, err
			}
			found = found || below
		case strings.HasSuffix(name, ".go"):
			if e.Type().IsRegular() || name == templates.FileName {
				files = append(files, name)
			}
		}
	}
	p, err := readPackage(dir, files)
	switch {
	case err != nil:
		s.errs = append(s.errs, err)
		return true, nil
	case p != nil:
		p.holderAbs = filepath.ToSlash(filepath.Dir(abs))
		p.holder = path.Base(p.holderAbs)
		if rel, err := filepath.Rel(root, filepath.Dir(dir)); err == nil && rel != "." && dir != root {
			p.holder = filepath.ToSlash(rel)
		}
		s.packages = append(s.packages, p)
		return true, nil
	}
	return found, nil
}

// readPackage returns nil for a directory that does not concern us.
func readPackage(dir string, files []string) (*kitexPackage, error) {
	p := &kitexPackage{dir: dir}
	sources := make(map[string][]byte, len(files))
	isService, foreign := false, error(nil)
	for _, name := range files {
		if name == templates.FileName {
			p.existing, foreign = readOurs(p.file())
			continue
		}
		src, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		sources[name] = src
		isService = isService || byKitex(src) && (bytes.Contains(src, []byte("func NewServer(")) || bytes.Contains(src, []byte("func NewClient(")))
	}
	switch {
	case isService && foreign != nil:
		return nil, foreign
	case isService:
		return p, p.parse(sources)
	case p.existing != nil:
		p.orphan = true
		return p, nil
	}
	return nil, nil
}

// readOurs reads a file called with_etcd.go, and fails when it is not a file that we wrote.
func readOurs(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file: move it away", path)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(src, []byte(templates.Header)) {
		return nil, fmt.Errorf("%s: not generated by kitex-etcd-gen: rename it, its name is needed for the generated file", path)
	}
	return src, nil
}

// byKitex reports whether a comment above the package clause says that Kitex generated the file.
func byKitex(src []byte) bool {
	for line := range bytes.Lines(src) {
		if bytes.HasPrefix(line, []byte("// Code generated by Kitex")) {
			return true
		}
		if bytes.HasPrefix(line, []byte("package ")) {
			return false
		}
	}
	return false
}

// parse fills in the service and the declared names from the package's files.
func (p *kitexPackage) parse(sources map[string][]byte) error {
	var (
		fset      = token.NewFileSet()
		s         = &p.service
		pkgName   string
		newServer *ast.FuncDecl
		newClient *ast.FuncDecl
		inServer  *ast.File
	)
	p.declared = map[string]token.Position{}
	var files []*ast.File
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		file, err := parser.ParseFile(fset, filepath.Join(p.dir, name), sources[name], parser.SkipObjectResolution)
		generated := byKitex(sources[name])
		if err != nil {
			return syntaxError(err, generated)
		}
		files = append(files, file)
		if !generated {
			continue
		}
		if err := checkImports(fset, file); err != nil {
			return err
		}
		pkgName = file.Name.Name
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv != nil {
				continue
			}
			switch fn.Name.Name {
			case "NewServer":
				newServer, inServer = fn, file
			case "NewClient":
				newClient = fn
			case "NewStreamClient":
				s.HasStreaming = true
			}
			if p.idlName == "" {
				p.idlName = serviceName(fn)
			}
		}
	}
	for _, file := range files {
		if file.Name.Name == pkgName { // not an external test package
			declare(p.declared, fset, file)
		}
	}
	switch {
	case newServer == nil:
		return lost(p.dir, pkgName, "NewServer")
	case newClient == nil:
		return lost(p.dir, pkgName, "NewClient")
	case p.idlName == "":
		return fmt.Errorf("%s: Kitex's files do not say the service's name (serviceName := …): run kitex again", p.dir)
	}
	if err := p.setHandler(newServer, inServer); err != nil {
		return fmt.Errorf("%s: %w", fset.Position(newServer.Pos()), err)
	}
	if want := strings.ToLower(s.ServiceName); pkgName != want {
		return fmt.Errorf("%s: package %s serves %s, where Kitex calls the package %s: run kitex again", p.dir, pkgName, s.ServiceName, want)
	}
	return nil
}

// syntaxError says what is to be done about a file that does not parse. Kitex does not check the names it is given.
func syntaxError(err error, generated bool) error {
	if list := (scanner.ErrorList)(nil); errors.As(err, &list) {
		err = list[0]
	}
	if generated {
		return fmt.Errorf("%w: Kitex writes such code when the name of a service, an IDL's package or a go_package is no Go name "+
			"(type, my-api, api.v1): rename it; or else the file is damaged: run kitex again", err)
	}
	return fmt.Errorf("%w: mend this file", err)
}

// checkImports refuses a file of Kitex's that cannot compile because of the name of the IDL's package.
func checkImports(fset *token.FileSet, file *ast.File) error {
	seen := make(map[string]bool)
	for _, spec := range file.Imports {
		name, _ := imported(spec)
		if seen[name] || name == "error" || name == "string" {
			return fmt.Errorf("%s: Kitex's code does not compile with an IDL package called %s: rename it in the IDL (thrift: namespace go, protobuf: go_package)",
				fset.Position(spec.Pos()), name)
		}
		seen[name] = true
	}
	return nil
}

// imported returns the name that spec declares and the path that it imports.
func imported(spec *ast.ImportSpec) (name, importPath string) {
	importPath = strings.Trim(spec.Path.Value, "\"`")
	if spec.Name != nil {
		return spec.Name.Name, importPath
	}
	return path.Base(importPath), importPath
}

func lost(dir, pkgName, constructor string) error {
	return fmt.Errorf("%s: %s is missing: Kitex writes the service's own code to %s.go, and so overwrites a file of the same name "+
		"in the packages of services called Client or Server: rename the service in the IDL, or run kitex again", dir, constructor, pkgName)
}

// setHandler takes the handler's type from the first parameter of NewServer.
func (p *kitexPackage) setHandler(newServer *ast.FuncDecl, file *ast.File) error {
	params := newServer.Type.Params.List
	if len(params) == 0 {
		return errors.New("NewServer has no handler parameter: run kitex again")
	}
	switch typ := params[0].Type.(type) {
	case *ast.Ident: // a combined service
		p.service.ServiceName = typ.Name
		return nil
	case *ast.SelectorExpr:
		alias, ok := typ.X.(*ast.Ident)
		if !ok {
			break
		}
		for _, spec := range file.Imports {
			if name, importPath := imported(spec); name == alias.Name {
				p.service.ServiceName = typ.Sel.Name
				p.service.PkgRefName = alias.Name
				p.service.ImportPath = importPath
				return nil
			}
		}
		return fmt.Errorf("NewServer's handler is of package %s, which the file does not import: run kitex again", alias.Name)
	}
	return errors.New("NewServer's first parameter is not what Kitex writes: run kitex again")
}

// serviceName returns the string in serviceName := "…" of fn, or "".
func serviceName(fn *ast.FuncDecl) string {
	if fn.Body == nil {
		return ""
	}
	for _, stmt := range fn.Body.List {
		assign, ok := stmt.(*ast.AssignStmt)
		if !ok || assign.Tok != token.DEFINE || len(assign.Lhs) != 1 || len(assign.Rhs) != 1 {
			continue
		}
		name, ok := assign.Lhs[0].(*ast.Ident)
		if !ok || name.Name != "serviceName" {
			continue
		}
		if lit, ok := assign.Rhs[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				return s
			}
		}
	}
	return ""
}

// declare adds the package-level names of file to names.
func declare(names map[string]token.Position, fset *token.FileSet, file *ast.File) {
	add := func(id *ast.Ident) { names[id.Name] = fset.Position(id.Pos()) }
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if decl.Recv == nil {
				add(decl.Name)
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					add(spec.Name)
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						add(id)
					}
				}
			}
		}
	}
}
