package templates

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestRender(t *testing.T) {
	hello := Service{ServiceName: "Hello", RawServiceName: "Hello", PkgRefName: "api", ImportPath: "example.com/shop/kitex_gen/api"}
	tests := map[string]struct {
		change  func(*Service)
		want    []string
		wantNot []string
	}{
		"unary": {
			want: []string{
				"\npackage hello\n",
				"\n\tapi \"example.com/shop/kitex_gen/api\"\n",
				"\nconst HelloServiceName = \"Hello\"\n",
				"\nfunc NewHelloServerWithEtcd(handler api.Hello, conn *etcd.Conn, opts ...server.Option) (server.Server, error) {\n",
				"\nfunc NewHelloClientWithEtcd(conn *etcd.Conn, opts ...client.Option) (Client, error) {\n",
			},
			wantNot: []string{"Stream", "streamclient"},
		},
		"streaming": {
			change: func(s *Service) { s.HasStreaming = true },
			want: []string{
				"\n\t\"github.com/cloudwego/kitex/client/streamclient\"\n",
				"\nfunc NewHelloStreamClientWithEtcd(conn *etcd.Conn, opts ...streamclient.Option) (StreamClient, error) {\n",
			},
		},
		"combined": {
			change:  func(s *Service) { s.PkgRefName, s.ImportPath = "", "" },
			want:    []string{"(handler Hello, conn *etcd.Conn,"},
			wantNot: []string{"kitex_gen"},
		},
		"another name": {
			change: func(s *Service) { s.RawServiceName = `say "hello" \ 100% 三` },
			want:   []string{"\nconst HelloServiceName = \"say \\\"hello\\\" \\\\ 100% 三\"\n"},
		},
		"odd Go name": {
			change: func(s *Service) { s.ServiceName = "Say_Hello2_" },
			want:   []string{"\npackage say_hello2_\n", "func NewSay_Hello2_ClientWithEtcd("},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := hello
			if test.change != nil {
				test.change(&s)
			}
			got := render(t, s)
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in:\n%s", want, got)
				}
			}
			for _, not := range test.wantNot {
				if strings.Contains(got, not) {
					t.Errorf("%q in:\n%s", not, got)
				}
			}
		})
	}
}

// However the IDL's package is called, no two imports have one name.
func TestImportNames(t *testing.T) {
	for _, stream := range []bool{false, true} {
		names := importNames(t, render(t, Service{ServiceName: "Hello", PkgRefName: "api", ImportPath: "example.com/api", HasStreaming: stream}))
		if len(names) < 4 {
			t.Fatalf("imports %v", names)
		}
		for _, name := range names {
			for _, alias := range []string{name, name + "0"} {
				got := render(t, Service{ServiceName: "Hello", PkgRefName: alias, ImportPath: "example.com/api", HasStreaming: stream})
				seen := map[string]bool{}
				for _, imported := range importNames(t, got) {
					if seen[imported] {
						t.Errorf("IDL package %s: %s is imported twice", alias, imported)
					}
					seen[imported] = true
				}
			}
		}
	}
}

// render wants the output to be gofmt-clean and to begin with the header.
func render(t *testing.T, s Service) string {
	t.Helper()
	got, err := Render(s)
	if err != nil {
		t.Fatal(err)
	}
	if formatted, err := format.Source(got); err != nil || !bytes.Equal(formatted, got) {
		t.Errorf("not formatted (%v):\n%s", err, got)
	}
	if !strings.HasPrefix(string(got), Header+"\n\n") {
		t.Errorf("no header:\n%s", got)
	}
	return string(got)
}

func importNames(t *testing.T, source string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, spec := range file.Imports {
		if spec.Name != nil {
			names = append(names, spec.Name.Name)
			continue
		}
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, path.Base(importPath))
	}
	return names
}

// What Kitex reads of the template is all there, and nothing that it would ignore.
func TestKitexFields(t *testing.T) {
	var file struct {
		Path           string
		Body           string
		UpdateBehavior struct{ Type string } `yaml:"update_behavior"`
		LoopService    bool                  `yaml:"loop_service"`
	}
	decoder := yaml.NewDecoder(strings.NewReader(Kitex))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if file.Path == "" || file.Body == "" || file.UpdateBehavior.Type != "cover" || !file.LoopService {
		t.Errorf("%+v", file)
	}
}

func BenchmarkRender(b *testing.B) {
	s := Service{ServiceName: "Hello", RawServiceName: "Hello", PkgRefName: "api", ImportPath: "example.com/shop/kitex_gen/api", HasStreaming: true}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Render(s); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleRender() {
	source, err := Render(Service{
		ServiceName:    "Hello",
		RawServiceName: "Hello",
		PkgRefName:     "api",
		ImportPath:     "example.com/shop/kitex_gen/api",
	})
	if err != nil {
		fmt.Println(err)
	}
	for line := range strings.Lines(string(source)) {
		if strings.HasPrefix(line, "func ") {
			fmt.Print(line)
		}
	}
	// Output:
	// func NewHelloServerWithEtcd(handler api.Hello, conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
	// func NewHelloClientWithEtcd(conn *etcd.Conn, opts ...client.Option) (Client, error) {
}

// Names finds what a parser does.
func TestNames(t *testing.T) {
	for _, s := range []Service{
		{ServiceName: "Hello", RawServiceName: "Hello", PkgRefName: "api", ImportPath: "example.com/shop/kitex_gen/api"},
		{ServiceName: "Say_Hello2_", RawServiceName: "func x(\nconst \"y\" \"z\"", PkgRefName: "client", ImportPath: "example.com/odd path/client", HasStreaming: true},
		{ServiceName: "Å", RawServiceName: "三", PkgRefName: "streamclient", ImportPath: "x", HasStreaming: true},
		{ServiceName: "CombineService", RawServiceName: "CombineService", HasStreaming: true},
	} {
		content := render(t, s)
		file, err := parser.ParseFile(token.NewFileSet(), FileName, content, 0)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, spec := range file.Imports {
			importPath, _ := strconv.Unquote(spec.Path.Value)
			name := path.Base(importPath)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			want = append(want, name)
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				want = append(want, decl.Name.Name)
			case *ast.GenDecl:
				if decl.Tok == token.CONST {
					want = append(want, decl.Specs[0].(*ast.ValueSpec).Names[0].Name)
				}
			}
		}
		want = slices.DeleteFunc(want, func(name string) bool { return name == "_" })
		if got := Names([]byte(content)); !slices.Equal(got, want) || len(got) < 6 {
			t.Errorf("%s: %q, want %q", s.ServiceName, got, want)
		}
	}
}
