package registration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
)

// routeTimeout bounds a look at the way to one of etcd's endpoints. No packet is sent; a name in it has to be looked up.
const routeTimeout = 500 * time.Millisecond

// localHost is the address of this machine that others can reach: one in the subnet if that is set, else the one from which etcd is
// reached, else that of the default route, else the first. IPv4 comes before IPv6, which only4 excludes. A machine without
// any network but loopback is reached there, if etcd is.
func (p Publishing) localHost(only4 bool) (string, error) {
	hosts, err := hostAddrs(only4)
	if err != nil {
		return "", fmt.Errorf("find this machine's address: %w", err)
	}
	if p.Subnet.IsValid() {
		for _, host := range hosts {
			if p.Subnet.Contains(host) {
				return host.String(), nil
			}
		}
		return "", fmt.Errorf("this machine has no address in the subnet %s of WithAdvertiseSubnet; it has %s", p.Subnet, joined(hosts))
	}
	ways, loopback := p.ways()
	for _, way := range ways {
		if slices.Contains(hosts, way) {
			return sayChoice(way, hosts), nil
		}
	}
	switch {
	case len(hosts) > 0:
		return sayChoice(hosts[0], hosts), nil
	case loopback.IsValid() && (loopback.Is4() || !only4):
		return sayChoice(loopback, nil), nil
	}
	return "", errors.New("the server listens on every interface, and this machine has no address that others can reach; publish one with WithAdvertiseAddr or ServerOptionsAt")
}

// hostAddrs are the addresses of this machine that others can reach, IPv4 first.
func hostAddrs(only4 bool) (hosts []netip.Addr, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var six []netip.Addr
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
			switch {
			case err != nil || !prefix.Addr().IsGlobalUnicast():
			case prefix.Addr().Is4():
				hosts = append(hosts, prefix.Addr())
			case !only4:
				six = append(six, prefix.Addr())
			}
		}
	}
	return append(hosts, six...), nil
}

// ways are the addresses of this machine from which etcd is reached, and from which everything else is. loopback is the one from
// which etcd is reached on this machine itself.
func (p Publishing) ways() (ways []netip.Addr, loopback netip.Addr) {
	// Addresses for documentation, which no host has: the default route alone leads to them.
	for _, to := range append(slices.Clone(p.Endpoints), "192.0.2.1:9", "[2001:db8::1]:9") {
		if _, hostPort, ok := strings.Cut(to, "://"); ok {
			to = hostPort
		}
		ctx, cancel := context.WithTimeout(context.Background(), routeTimeout)
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp", to)
		cancel()
		if err != nil {
			continue
		}
		from := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = conn.Close()
		if from.IsLoopback() {
			loopback = from
		} else {
			ways = append(ways, from)
		}
	}
	return ways, loopback
}

// said are the choices that were logged: each once for the process.
var said sync.Map

// sayChoice logs which of several addresses is published.
func sayChoice(host netip.Addr, hosts []netip.Addr) string {
	if len(hosts) == 1 {
		return host.String()
	}
	if _, known := said.LoadOrStore(host, true); !known {
		if len(hosts) == 0 {
			klog.Infof("etcd: this machine has no network: servers that listen on every interface are registered at %s, for clients on this machine", host)
		} else {
			klog.Infof("etcd: servers that listen on every interface are registered at %s; this machine has %s. WithAdvertiseAddr or WithAdvertiseSubnet chooses another", host, joined(hosts))
		}
	}
	return host.String()
}

func joined(hosts []netip.Addr) string {
	if len(hosts) == 0 {
		return "none that others can reach"
	}
	text := make([]string, len(hosts))
	for i, h := range hosts {
		text[i] = h.String()
	}
	return strings.Join(text, ", ")
}
