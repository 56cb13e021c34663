package registration

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// The environment variables of registry-etcd, with its meaning.
const (
	EnvIP   = "KITEX_IP_TO_REGISTRY"
	EnvPort = "KITEX_PORT_TO_REGISTRY"
)

// hostPort is an address to publish, or the part of one that is known: host "" and port 0 mean that the listener's
// counts.
type hostPort struct {
	network string
	host    string
	port    int
}

// PublishedAddr is the address that a server which listens on listen is registered under. The first source that is set
// wins, and what it leaves open comes from listen: fixed (SetFixedAddress), at (ServerOptionsAt), advertise
// (WithAdvertiseAddr), the environment variables, listen. A host that means "every interface" becomes a real one.
func PublishedAddr(fixed net.Addr, at, advertise string, listen net.Addr) (network, addr string, err error) {
	var chosen hostPort
	switch {
	case fixed != nil:
		chosen, err = hostPortOf(fixed)
	case at != "":
		chosen.host, chosen.port, err = record.ParseAddr(at)
	case advertise != "":
		chosen.host, chosen.port, err = record.ParseAddr(advertise)
	default:
		chosen, err = environmentAddr()
	}
	if err != nil {
		return "", "", err
	}
	bound, err := hostPortOf(listen)
	if chosen.host == "" || chosen.port == 0 {
		if err != nil {
			return "", "", err
		}
		chosen.host, chosen.port = cmp.Or(chosen.host, bound.host), cmp.Or(chosen.port, bound.port)
	}
	chosen.network = cmp.Or(chosen.network, bound.network, "tcp")
	if ip, err := netip.ParseAddr(chosen.host); err == nil && ip.IsUnspecified() {
		if chosen.host, err = localHost(ip.Is4()); err != nil {
			return "", "", err
		}
	}
	if !record.PlainHost(chosen.host) {
		return "", "", fmt.Errorf("host %q is malformed", chosen.host)
	}
	return chosen.network, net.JoinHostPort(chosen.host, strconv.Itoa(chosen.port)), nil
}

// hostPortOf reads a TCP address.
func hostPortOf(a net.Addr) (hostPort, error) {
	if a == nil {
		return hostPort{}, errors.New("there is no address: Kitex gave none, and neither SetFixedAddress, ServerOptionsAt nor WithAdvertiseAddr gives one with a port")
	}
	if strings.HasPrefix(a.Network(), "unix") {
		return hostPort{}, fmt.Errorf("the server listens on the unix socket %q, which other machines cannot reach; listen on TCP, or publish an address with ServerOptionsAt", a)
	}
	host, p, err := net.SplitHostPort(a.String())
	if err != nil {
		return hostPort{}, fmt.Errorf("address %q: %w", a, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 {
		return hostPort{}, fmt.Errorf("address %q: port %q is not a number from 1 to 65535", a, p)
	}
	if host == "" {
		host = "::"
	}
	return hostPort{a.Network(), host, port}, nil
}

// environmentAddr reads the environment variables, each of which may be unset or empty.
func environmentAddr() (e hostPort, err error) {
	if s := os.Getenv(EnvIP); s != "" {
		if e.host, e.port, err = record.ParseAddr(s); err != nil || e.port != 0 {
			return hostPort{}, fmt.Errorf("environment variable %s is %q; it must be an IP address or a host name", EnvIP, s)
		}
	}
	if s := os.Getenv(EnvPort); s != "" {
		if e.port, err = strconv.Atoi(s); err != nil || e.port < 1 || e.port > 65535 {
			return hostPort{}, fmt.Errorf("environment variable %s is %q; it must be a number from 1 to 65535", EnvPort, s)
		}
	}
	return e, nil
}

// localHost is this machine's first address that others can reach: IPv4 before IPv6, which only4 excludes.
func localHost(only4 bool) (string, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w", err)
	}
	var v6 string
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away in between
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || !prefix.Addr().IsGlobalUnicast() {
				continue
			}
			if prefix.Addr().Is4() {
				return prefix.Addr().String(), nil
			}
			if v6 == "" {
				v6 = prefix.Addr().String()
			}
		}
	}
	if v6 == "" || only4 {
		return "", errors.New("the server listens on every interface, and this machine has no address that others can reach; publish one with WithAdvertiseAddr or ServerOptionsAt")
	}
	return v6, nil
}
