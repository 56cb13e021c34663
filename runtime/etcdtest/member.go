package etcdtest

import (
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
)

// A Member is one etcd server of a Cluster.
type Member struct {
	name           string
	dir            string
	client, peer   *port
	initialCluster string // all members' peer addresses; set before the first start
	configure      func(*embed.Config)

	etcd    *embed.Etcd // nil while stopped
	serving chan *grpc.Server
}

func newMember(name, parent string, configure func(*embed.Config)) (*Member, error) {
	client, err := reserve()
	if err != nil {
		return nil, err
	}
	peer, err := reserve()
	if err != nil {
		client.release()
		return nil, err
	}
	return &Member{
		name:      name,
		dir:       filepath.Join(parent, name),
		client:    client,
		peer:      peer,
		configure: configure,
	}, nil
}

// Endpoint returns the member's client address, host:port.
func (m *Member) Endpoint() string { return m.client.addr }

// Running reports whether the member was started and not yet stopped.
func (m *Member) Running() bool { return m.etcd != nil }

// Start starts a stopped member with the data it has and returns when it serves,
// which takes a quorum: after a quorum was lost, use [Cluster.Start].
func (m *Member) Start() error {
	if m.Running() {
		return nil
	}
	if err := m.launch(); err != nil {
		return err
	}
	return m.await()
}

// Stop makes the member hand over its leadership, if it leads and others can take
// over, and stops it. Its clients' connections break at once.
func (m *Member) Stop() { m.shutdown((*embed.Etcd).Close) }

// Kill stops the member the way a crash does: a leader is gone without a word,
// and the others find out by its silence.
func (m *Member) Kill() {
	m.shutdown(func(e *embed.Etcd) {
		e.Server.HardStop()
		e.Close()
	})
}

func (m *Member) shutdown(closeEtcd func(*embed.Etcd)) {
	if !m.Running() {
		return
	}
	// Close alone would wait seconds for watches and keepalives to end.
	select {
	case s := <-m.serving:
		s.Stop()
	default: // never got that far
	}
	closeEtcd(m.etcd)
	m.etcd = nil
}

func (m *Member) launch() error {
	cfg := embed.NewConfig()
	cfg.Name = m.name
	cfg.Dir = m.dir
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: m.client.addr}}
	// With HTTP on a port of its own, gRPC owns the client listener, and stopping it
	// breaks every connection. Sharing one port, etcd waits for each connection that
	// has not sent anything yet, however long.
	cfg.ListenClientHttpUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ConnectionTimeout(2 * time.Second)}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: m.peer.addr}}
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.InitialCluster = m.initialCluster
	cfg.SocketOpts = transport.SocketOpts{ReusePort: reserved}
	cfg.TickMs, cfg.ElectionMs = 20, 200
	cfg.UnsafeNoFsync = true
	cfg.BcryptCost = uint(bcrypt.MinCost)
	cfg.EnableGRPCGateway = false
	// A fatal error must be seen, in a log or not: as a panic, not a silent exit.
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop().WithOptions(zap.WithFatalHook(zapcore.WriteThenPanic)))
	m.configure(cfg)

	if !cfg.ClientTLSInfo.Empty() {
		cfg.ListenClientUrls[0].Scheme = "https"
	}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	serving, register := make(chan *grpc.Server, 1), cfg.ServiceRegister
	cfg.ServiceRegister = func(s *grpc.Server) {
		if register != nil {
			register(s)
		}
		select {
		case serving <- s:
		default: // a listener that configure added
		}
	}

	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start %s (%s): %w", m.name, m.Endpoint(), err)
	}
	m.etcd, m.serving = e, serving
	return nil
}

// await waits until a launched member serves.
func (m *Member) await() error {
	var err error
	select {
	case <-m.etcd.Server.ReadyNotify():
		select {
		case s := <-m.serving:
			m.serving <- s
			return nil
		case err = <-m.etcd.Err():
		}
	case err = <-m.etcd.Err():
	case <-m.etcd.Server.StopNotify():
		err = fmt.Errorf("the server stopped")
	case <-time.After(startTimeout):
		err = fmt.Errorf("not serving after %v: are enough members running for a quorum?", startTimeout)
	}
	m.Kill()
	return fmt.Errorf("start %s (%s): %w", m.name, m.Endpoint(), err)
}
