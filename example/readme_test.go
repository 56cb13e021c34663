package main

import (
	"encoding/json"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// The repository's documents are held against its code here.

const (
	readme     = "../README.md"
	chinese    = "../README_zh.md"
	contribute = "../CONTRIBUTING.md"
)

// documents returns those of docs/, and more.
func documents(t *testing.T, more ...string) []string {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	translated, err := filepath.Glob("../docs/zh/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(files, translated, more)
}

// block is a fenced block of code.
type block struct{ language, code string }

func blocks(t *testing.T, file string) (list []block) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^ *```(\\w*)\n(.*?)^ *```$").FindAllStringSubmatch(read(t, file), -1) {
		list = append(list, block{m[1], m[2]})
	}
	return list
}

// goBlocks returns the Go of a document.
func goBlocks(t *testing.T, file string) (list []string) {
	t.Helper()
	for _, b := range blocks(t, file) {
		if b.language == "go" {
			list = append(list, b.code)
		}
	}
	return list
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The programs of the README's quick start compile, against the generated code of the plain example. TestQuickStart runs them.
func TestReadmePrograms(t *testing.T) {
	t.Parallel()
	programs := regexp.MustCompile(`(?ms)^cat > \w+/main\.go <<'GO'\n(.*?)^GO$`).FindAllStringSubmatch(read(t, readme), -1)
	if len(programs) != 2 {
		t.Fatalf("the README has %d programs, want a server and a client", len(programs))
	}
	for _, program := range programs {
		if formatted, err := format.Source([]byte(program[1])); err != nil || string(formatted) != program[1] {
			t.Errorf("not as gofmt has it (%v):\n%s", err, program[1])
		}
		build(t, strings.ReplaceAll(program[1], "example.com/greeter/", "github.com/kitex-contrib/kitex-etcd/example/plain/"))
	}
}

// The README shows what the generator writes.
func TestReadmeGenerated(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"plain/kitex_gen/api/hello/with_etcd.go", "streaming/kitex_gen/pb/ticker/with_etcd.go"} {
		for _, line := range regexp.MustCompile(`(?m)^(?:const \w+ = ".*"|func .*\))`).FindAllString(read(t, file), -1) {
			line = strings.NewReplacer("Ticker", "Hello", "pb.", "api.").Replace(line)
			if !strings.Contains(read(t, readme), line) {
				t.Errorf("the README lacks %q, which is generated", line)
			}
		}
	}
}

// A document and its Chinese translation have the same code, but for the words in a picture, and as many headings, rows, items and links,
// in the same order, to the same places. Their text has the same names and figures.
func TestTranslations(t *testing.T) {
	t.Parallel()
	pairs := map[string]string{readme: chinese}
	translated, err := filepath.Glob("../docs/zh/*.md")
	if err != nil || len(translated) < 3 {
		t.Fatalf("%d documents are translated: %v", len(translated), err)
	}
	for _, file := range translated {
		pairs["../docs/"+filepath.Base(file)] = file
	}
	for english, chinese := range pairs {
		var code, shape [2][]string
		for i, file := range []string{english, chinese} {
			for _, b := range blocks(t, file) {
				if b.language != "mermaid" {
					code[i] = append(code[i], b.language+"\n"+b.code)
				}
			}
			for _, m := range regexp.MustCompile(`(?m)^#+ |^\||^ *- |^\d\. |\]\(([^)#\s]*)(#[^)]*)?\)`).FindAllStringSubmatch(withoutCode(read(t, file)), -1) {
				if strings.HasPrefix(m[0], "](") { // of a heading's anchor only that there is one is compared: the headings are translated
					m[0] = place(file, m[1])
				}
				shape[i] = append(shape[i], m[0])
			}
		}
		var names [2][]string // and figures, sorted: sentences put them into another order
		for i, file := range []string{english, chinese} {
			names[i] = regexp.MustCompile("`[^`\n]+`|\\d[\\d.,]*\\d|\\d").FindAllString(withoutCode(read(t, file)), -1)
			slices.Sort(names[i])
		}
		for what, pair := range map[string][2][]string{"code": code, "structure": shape, "names and figures": names} {
			for i := range max(len(pair[0]), len(pair[1])) {
				if i >= len(pair[0]) || i >= len(pair[1]) || pair[0][i] != pair[1][i] {
					from := max(i-2, 0)
					t.Errorf("%s and %s: %s: the two part here:\n%q\n%q", english, chinese, what,
						pair[0][min(from, len(pair[0])):min(i+3, len(pair[0]))], pair[1][min(from, len(pair[1])):min(i+3, len(pair[1]))])
					break
				}
			}
		}
	}
}

// place is where a link of a document leads: a document and its translation are one place.
func place(file, target string) string {
	if strings.HasPrefix(target, "https://") {
		return target
	}
	path := file
	if target != "" {
		path = filepath.Join(filepath.Dir(file), target)
	}
	return strings.NewReplacer("_zh.md", ".md", "docs/zh/", "docs/").Replace(filepath.ToSlash(path))
}

// withoutCode returns a document without its blocks of code.
func withoutCode(text string) string {
	return regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(text, "")
}

// Chinese has no spaces between words: a line that breaks between two Han characters shows one. And one thing has one name, that of the table
// in CONTRIBUTING: these are others.
func TestChinese(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("../docs/zh/*.md")
	for _, file := range append(files, chinese) {
		for _, m := range regexp.MustCompile(`[\p{Han}，。；：、（）]\n[ ]*[\p{Han}（]`).FindAllString(withoutCode(read(t, file)), -1) {
			t.Errorf("%s: a line breaks between Han characters: %q", file, m)
		}
		for _, word := range regexp.MustCompile(`服务器|下线|摘除|接替者|互不混淆|带类型|负载均衡器`).FindAllString(read(t, file), -1) {
			t.Errorf("%s: %s has another name in CONTRIBUTING", file, word)
		}
	}
}

// snippets is what the pieces of Go in the documents are put into: the packages and variables that the text speaks of.
const snippets = `package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/remote/trans/gonet"
	"github.com/cloudwego/kitex/pkg/remote/trans/ttstream"
	"github.com/cloudwego/kitex/pkg/retry"
	"github.com/cloudwego/kitex/server"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_combined/kitex_gen/api/combineservice"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdprom"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdready"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

var (
	_ = gonet.NewTransServerFactory
	_ = prometheus.MustRegister
	_ = etcdprom.New
	_ = etcdready.Handler
	_ = http.Handle
	_ = etcdtest.New
	_ = ticker.NewClient
	_ = runtime.KeepAlive
	_ = log.Print
	_ = metainfo.WithValue
	_ *registry.Info
	_ = os.ReadFile
	_ = strings.TrimSpace
	_ = time.Second
	_ = client.NewClient
	_ = ttstream.NewCliTransHandlerFactory
	_ = hello.NewClient
	_ = retry.NewFailurePolicy

	_         *pb.WatchRequest
	_         []server.Option
	ctx       context.Context
	t         *testing.T
	conn      *etcd.Conn
	endpoints []string
	handler   combineservice.CombineService

	username, password string
)

func main() {}
`

// The pieces of Go in the documents compile.
func TestSnippets(t *testing.T) {
	t.Parallel()
	source := snippets
	for _, file := range documents(t, readme) {
		for _, code := range goBlocks(t, file) {
			switch {
			case strings.HasPrefix(code, "//go:generate "): // TestFreshModule runs its like
				continue
			case strings.HasPrefix(code, "const "): // TestReadmeGenerated
				continue
			case strings.HasSuffix(code, ",\n"): // arguments
				code = "_ = []server.Option{\n" + code + "}\n"
			}
			code = regexp.MustCompile(`(?m)^…$`).ReplaceAllString(code, "")
			for _, m := range regexp.MustCompile(`(?m)^([\w, ]+) := `).FindAllStringSubmatch(code, -1) { // not all are used
				code += strings.Repeat("_, ", strings.Count(m[1], ",")) + "_ = " + m[1] + "\n"
			}
			source += "\n// " + file + "\nfunc _() {\n" + code + "}\n"
		}
	}
	if n := strings.Count(source, "func _()"); n < 4 {
		t.Errorf("%d pieces were found", n)
	}
	build(t, source)
}

// What the documents name of our packages and of Kitex's is exported there: client.WithRPCTimeout, Conn.Registered, WithLeaseTTL.
func TestNames(t *testing.T) {
	t.Parallel()
	sources := make(map[string]string) // by the name that a document puts before the dot
	for name, path := range map[string]string{
		"etcd": "github.com/kitex-contrib/kitex-etcd/runtime", "retry": "github.com/kitex-contrib/kitex-etcd/runtime/retry",
		"etcdprom": "github.com/kitex-contrib/kitex-etcd/runtime/etcdprom", "etcdready": "github.com/kitex-contrib/kitex-etcd/runtime/etcdready",
		"etcdtest": "github.com/kitex-contrib/kitex-etcd/runtime/etcdtest",
		"client":   "github.com/cloudwego/kitex/client", "server": "github.com/cloudwego/kitex/server",
	} {
		dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				sources[name] += read(t, file)
			}
		}
	}
	found := 0
	for _, file := range documents(t, readme, chinese, "../CHANGELOG.md") {
		for _, code := range regexp.MustCompile("`[^`\n]+`").FindAllString(withoutCode(read(t, file)), -1) {
			for _, m := range regexp.MustCompile(`(\w+\.)?\b([A-Z]\w+)`).FindAllStringSubmatch(code, -1) {
				pkg, name := strings.TrimSuffix(m[1], "."), m[2]
				pattern := `(?m)^((func|type|var|const) |\t)` + name + `\b`
				switch {
				case pkg == "conn" || pkg == "Conn":
					pkg, pattern = "etcd", `(?m)^func \(c \*Conn\) `+name+`\(`
				case pkg == "" && regexp.MustCompile(`^(With|Event|State)[A-Z]`).MatchString(name):
					pkg = "etcd"
				case sources[pkg] == "":
					continue
				}
				found++
				if !regexp.MustCompile(pattern).MatchString(sources[pkg]) {
					t.Errorf("%s: %s: package %s has no %s", file, code, pkg, name)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("%d names were found", found)
	}
}

// The flags of the commands and the targets of make that the documents show exist.
func TestCommandLines(t *testing.T) {
	t.Parallel()
	help := func(command string, args ...string) string {
		out, err := exec.Command("go", append([]string{"run", "../cmd/" + command}, args...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	helps := map[string]string{"go tool kitex-etcd-gen": help("kitex-etcd-gen", "-h")}
	for _, command := range []string{"services", "instances", "watch", "drain", "undrain", "weight", "console"} {
		helps["kitex-etcd "+command] = help("kitex-etcd", command, "--help")
	}
	makefile := read(t, "../Makefile")
	for _, file := range documents(t, readme, contribute) {
		text := read(t, file)
		for _, m := range regexp.MustCompile("(go tool kitex-etcd-gen|kitex-etcd (?:services|instances|watch|drain|undrain|weight|console))([^`#\n]*)").FindAllStringSubmatch(text, -1) {
			for _, flag := range regexp.MustCompile(` --?[\w-]+`).FindAllString(m[2], -1) {
				if !regexp.MustCompile(`[ ,]` + flag + `\b`).MatchString(helps[m[1]]) {
					t.Errorf("%s: %s: -h does not list%s", file, m[0], flag)
				}
			}
		}
		for _, m := range regexp.MustCompile("`make (\\w+)").FindAllStringSubmatch(text, -1) {
			if !strings.Contains(makefile, "\n"+m[1]+": ") {
				t.Errorf("%s: %s`: there is no such target", file, m[0])
			}
		}
	}
}

// The figures that the documents show beside the names of the report's rows are the report's.
func TestFigures(t *testing.T) {
	t.Parallel()
	report := read(t, "../bench/REPORT.md")
	found := 0
	for _, file := range documents(t, readme, chinese) {
		for _, m := range regexp.MustCompile("(?m)^\\|.*`([a-z]+_[a-z0-9_*]+)`[)）] \\| (.*) \\|$").FindAllStringSubmatch(read(t, file), -1) {
			found++
			row := regexp.MustCompile("(?m)^.*`" + strings.ReplaceAll(m[1], "*", "[a-z]+") + "` .*$")
			rows := strings.Join(row.FindAllString(report, -1), "\n")
			for _, figure := range regexp.MustCompile(`\d[\d.,]*( [a-zµ][A-Za-z/]*\b)?`).FindAllString(m[2], -1) {
				if figure = strings.TrimSuffix(strings.ReplaceAll(figure, " within", ""), ","); !strings.Contains(rows, figure) {
					t.Errorf("%s: %s is %q, and the report has\n%s", file, m[1], figure, rows)
				}
			}
		}
	}
	if found < 2*5 {
		t.Errorf("%d rows were found", found)
	}
	_, sizing, _ := strings.Cut(read(t, "../docs/tuning.md"), "\n## Sizing etcd for a fleet\n")
	sizing, _, _ = strings.Cut(sizing, "\n## ")
	figures := regexp.MustCompile(`\d[\d.]* (ns|µs|ms|s|B|kB|MB|GB)\b`).FindAllString(sizing, -1)
	for _, figure := range figures {
		if !strings.Contains(report, " "+figure) && figure != "30 s" && figure != "90 s" { // what a client does, not what was measured
			t.Errorf("tuning.md: the report's fanout does not say %q", figure)
		}
	}
	if len(figures) < 18 {
		t.Errorf("%d figures of sizing were found", len(figures))
	}
}

// The versions that the documents say are required are those of go.mod.
func TestVersions(t *testing.T) {
	t.Parallel()
	mod := read(t, "../go.mod")
	rows := regexp.MustCompile("(?m)^\\| (?:the `(go)` line|`([a-z.]+/[a-z0-9/.]+)`) \\| (v?[0-9.]+) \\|$").FindAllStringSubmatch(read(t, "../docs/stability.md"), -1)
	for _, m := range rows {
		if line := m[1] + m[2] + " " + m[3] + "\n"; !strings.Contains(mod, line) {
			t.Errorf("stability.md: go.mod does not have %s", line)
		}
	}
	if len(rows) < 6 {
		t.Errorf("%d versions were found", len(rows))
	}
	kitex := regexp.MustCompile(`cloudwego/kitex (v[0-9.]+)`).FindStringSubmatch(mod)[1]
	for _, file := range []string{readme, chinese} {
		for _, m := range regexp.MustCompile(`tool/cmd/kitex@(v[0-9.]+)`).FindAllStringSubmatch(read(t, file), -1) {
			if m[1] != kitex {
				t.Errorf("%s: %s; go.mod has %s", file, m[0], kitex)
			}
		}
	}
}

// The YAML and the JSON in the documents are such.
func TestDataInDocuments(t *testing.T) {
	t.Parallel()
	for _, file := range documents(t, readme) {
		for _, b := range blocks(t, file) {
			var (
				v   any
				err error
			)
			switch b.language {
			case "yaml":
				err = yaml.Unmarshal([]byte(b.code), &v)
			case "json":
				err = json.Unmarshal([]byte(b.code), &v)
			default:
				continue
			}
			if err != nil {
				t.Errorf("%s: %v in:\n%s", file, err, b.code)
			}
		}
	}
}

// The fault test that CONTRIBUTING shows passes.
func TestContributing(t *testing.T) {
	t.Parallel()
	tests := goBlocks(t, contribute)
	if len(tests) != 1 {
		t.Fatalf("CONTRIBUTING has %d pieces of Go, want a test", len(tests))
	}
	goCommand(t, "../runtime/test/contributing_test.go", `package test

import (
	"testing"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

`+tests[0], "test", "-run", "^TestFaultConnectionsRefused$", "../runtime/test")
}

// Links lead to files and headings that exist, and a test that a document names exists where it says.
func TestLinks(t *testing.T) {
	t.Parallel()
	tests := allTests(t)
	for _, file := range documents(t, readme, chinese, contribute, "../CHANGELOG.md", "../SECURITY.md", "README.md") {
		text := withoutCode(read(t, file))
		for _, m := range regexp.MustCompile(`\[([^\]]*)\]\(([^)#]*)(?:#([^)]*))?\)`).FindAllStringSubmatch(text, -1) {
			title, target, anchor := m[1], m[2], m[3]
			if strings.HasPrefix(target, "https://") {
				continue
			}
			path := file
			if target != "" {
				path = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s leads nowhere: %v", file, m[0], err)
			} else if anchor != "" && !slices.Contains(anchors(read(t, path)), anchor) {
				t.Errorf("%s: %s: no such heading", file, m[0])
			}
			for _, name := range testName.FindAllString(title, -1) {
				if tests[name] != path {
					t.Errorf("%s: %s: the test is in %q", file, m[0], tests[name])
				}
			}
		}
		for _, name := range testName.FindAllString(text, -1) {
			if tests[name] == "" && name != "TestMain" {
				t.Errorf("%s: there is no %s", file, name)
			}
		}
	}
}

var testName = regexp.MustCompile(`\bTest[A-Z]\w+`)

// allTests returns the repository's tests and the files they are in.
func allTests(t *testing.T) map[string]string {
	t.Helper()
	tests := make(map[string]string)
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(read(t, path), -1) {
				tests[m[1]] = path
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// anchors returns what a document's headings are linked by.
func anchors(text string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		heading := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(heading, " ", "-"))
	}
	return list
}

// build builds a program that is overlaid on the example.
func build(t *testing.T, source string) {
	t.Helper()
	goCommand(t, "readme/main.go", source, "build", "-o", os.DevNull, "./readme")
}

// goCommand runs the go command as if file had this source.
func goCommand(t *testing.T, file, source, verb string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	written := filepath.Join(dir, "source.go")
	overlay := filepath.Join(dir, "overlay.json")
	virtual, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {virtual: written}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{written: source, overlay: string(replace)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", append([]string{verb, "-overlay", overlay}, args...)...).CombinedOutput(); err != nil {
		t.Errorf("go %s: %v\n%s\n%s", verb, err, out, source)
	}
}
