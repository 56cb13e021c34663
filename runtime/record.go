package etcd

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cloudwego/kitex/pkg/discovery"
)

const kitexDefaultWeight = discovery.DefaultWeight

// record is the value of one instance, as registry-etcd and services in other languages write it. The four names are
// the format; nothing may be added.
type record struct {
	Network string            `json:"network"`
	Address string            `json:"address"`
	Weight  int               `json:"weight"`
	Tags    map[string]string `json:"tags"`
}

func encodeRecord(r record) (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("etcd: encode the record of %s: %w", r.Address, err)
	}
	return string(b), nil
}

// servicePrefix is what every key of a service begins with. The slash at its end keeps "echo" apart from "echo2".
func servicePrefix(prefix, service string) string { return prefix + "/" + service + "/" }

// recordKey is the key of one instance: {prefix}/{service}/{host:port}.
func recordKey(prefix, service, addr string) string { return servicePrefix(prefix, service) + addr }

// checkService refuses names that would write or read another service's keys.
func checkService(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("etcd: the service name is empty; name the service as in its IDL")
	case strings.Contains(name, "/"):
		return fmt.Errorf("etcd: service name %q contains '/', which separates the parts of a key; choose a name without it", name)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("etcd: service name %q contains control characters or is not UTF-8", name)
	}
	return nil
}
