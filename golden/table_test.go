package golden

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudwego/kitex"
)

// TestTable keeps README.md in step with the cases; the other tests show that what it says is so.
func TestTable(t *testing.T) {
	var table strings.Builder
	fmt.Fprintf(&table, `# Golden cases

What Kitex %s and kitex-etcd-gen make of every kind of IDL. Each folder is a case: the IDLs, a case.txt that says how they are
generated, and the result with our with_etcd.go, as real packages. A test writes this file and compares all the others:

    go test ./golden             compare
    go test ./golden -update     generate again; what does not build is refused

first_release is no case: it is what the first release generated, never generated again, and has to compile for ever.

| case | what | Kitex's own code | kitex-etcd-gen | stock Kitex with our template |
|---|---|---|---|---|
`, kitex.Version)
	for _, c := range allCases(t) {
		fmt.Fprintf(&table, "| [%[1]s](%[1]s) | %s | %s | %s | %s |\n", c.name, c.about, c.kitexCell(), c.genCell(t), c.templateCell())
	}
	compareFile(t, "README.md", table.String())
}

func (c testCase) kitexCell() string {
	if c.uncompilable != "" {
		return "does not compile: " + c.uncompilable
	}
	return "compiles"
}

func (c testCase) genCell(t *testing.T) string {
	if c.refused {
		message := strings.TrimPrefix(readFile(t, filepath.Join(c.name, refusedFile)), "kitex-etcd-gen: ")
		return "refuses: " + strings.TrimSpace(message)
	}
	if c.uncompilable != "" {
		return "generates; it does not see what is wrong"
	}
	return "generates"
}

func (c testCase) templateCell() string {
	switch {
	case c.by != "":
		return "not tried"
	case c.templateRefused:
		return "refuses too"
	case !c.hasTree():
		return "generates"
	case len(c.templateOnly) > 0:
		return "the same, in a wrong place"
	case len(c.commandOnly) > 0:
		var services []string
		for _, dir := range c.commandOnly {
			services = append(services, filepath.Base(dir))
		}
		return "the same bytes, and nothing for " + strings.Join(services, ", ")
	}
	return "the same bytes"
}
