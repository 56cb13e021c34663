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

// Publishing says which address a server is registered under. The first source that is set wins, and what it leaves open comes from
// the listener: Fixed (SetFixedAddress), At (ServerOptionsAt), Advertise (WithAdvertiseAddr), the environment variables.
type Publishing struct {
	Fixed     net.Addr
	At        string
	Advertise string
	Subnet    netip.Prefix // of the host's addresses, where the server listens on all; the zero value is none
	Endpoints []string     // of etcd: the address from which etcd is reached is the one that others reach, most often
}

// Addr returns the address of a server that listens on listen. A host that means "every interface" becomes a real one; follows
// then says that this may be another one later.
func (p Publishing) Addr(listen net.Addr) (network, addr string, follows bool, err error) {
	var chosen hostPort
	switch {
	case p.Fixed != nil:
		chosen, err = hostPortOf(p.Fixed)
	case p.At != "":
		chosen.host, chosen.port, err = record.ParseAddr(p.At)
	case p.Advertise != "":
		chosen.host, chosen.port, err = record.ParseAddr(p.Advertise)
	default:
		chosen, err = environmentAddr()
	}
	if err != nil {
		return "", "", false, err
	}
	bound, err := hostPortOf(listen)
	if chosen.host == "" || chosen.port == 0 {
		if err != nil {
			return "", "", false, err
		}
		chosen.host, chosen.port = cmp.Or(chosen.host, bound.host), cmp.Or(chosen.port, bound.port)
	}
	chosen.network = cmp.Or(chosen.network, bound.network, "tcp")
	if ip, err := netip.ParseAddr(chosen.host); err == nil && ip.IsUnspecified() {
		follows = true
		if chosen.host, err = p.localHost(ip.Is4()); err != nil {
			return "", "", false, err
		}
	}
	if !record.PlainHost(chosen.host) {
		return "", "", false, fmt.Errorf("host %q is malformed", chosen.host)
	}
	return chosen.network, net.JoinHostPort(chosen.host, strconv.Itoa(chosen.port)), follows, nil
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
