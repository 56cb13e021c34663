package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"gopkg.in/yaml.v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

var outputs = []string{"table", "wide", "json", "yaml"}

func (p *program) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.output, "output", "o", "table", "table, wide, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
}

func (p *program) checkOutput() error {
	if !slices.Contains(outputs, p.output) {
		return fmt.Errorf("-o %s: there are %s", p.output, strings.Join(outputs, ", "))
	}
	return nil
}

// tabular says whether the output is for people.
func (p *program) tabular() bool { return p.output == "table" || p.output == "wide" }

// object prints v as a line of JSON or as an element of a list in YAML.
func (p *program) object(v any) error {
	if p.output == "json" {
		text, err := json.Marshal(v)
		if err == nil {
			_, err = fmt.Fprintf(p.stdout, "%s\n", text)
		}
		return err
	}
	text, err := yaml.Marshal([]any{v})
	if err == nil {
		_, err = p.stdout.Write(text)
	}
	return err
}

// instance is what is printed of a record, or of a mark whose server has none.
type instance struct {
	Event    string            `json:"event,omitempty" yaml:"event,omitempty"`
	Time     string            `json:"time,omitempty" yaml:"time,omitempty"`
	Service  string            `json:"service" yaml:"service"`
	Network  string            `json:"network,omitempty" yaml:"network,omitempty"`
	Address  string            `json:"address,omitempty" yaml:"address,omitempty"`
	Weight   int               `json:"weight,omitempty" yaml:"weight,omitempty"`
	Tags     map[string]string `json:"tags,omitempty" yaml:"tags,omitempty"`
	Key      string            `json:"key,omitempty" yaml:"key,omitempty"`
	Lease    string            `json:"lease,omitempty" yaml:"lease,omitempty"`
	TTL      *int64            `json:"ttl,omitempty" yaml:"ttl,omitempty"` // 0 is a lease that has just ended
	Granted  int64             `json:"granted,omitempty" yaml:"granted,omitempty"`
	Since    string            `json:"since,omitempty" yaml:"since,omitempty"` // when it was granted
	Revision int64             `json:"revision,omitempty" yaml:"revision,omitempty"`
	Created  int64             `json:"created,omitempty" yaml:"created,omitempty"`
	Drain    bool              `json:"drain,omitempty" yaml:"drain,omitempty"`
	Mark     int               `json:"mark,omitempty" yaml:"mark,omitempty"` // the weight that a mark gives
	Reason   string            `json:"reason,omitempty" yaml:"reason,omitempty"`
	BadMark  string            `json:"bad_mark,omitempty" yaml:"bad_mark,omitempty"` // why the server ignores its mark
	Why      string            `json:"why,omitempty" yaml:"why,omitempty"`           // of a removal
	Error    string            `json:"error,omitempty" yaml:"error,omitempty"`
}

func newInstance(r etcd.Record) instance {
	i := instance{Service: r.Service, Key: r.Key, Lease: leaseName(r.Lease), Revision: r.Revision, Created: r.Created}
	if !r.Since.IsZero() {
		i.Since = r.Since.UTC().Format(time.RFC3339)
	}
	if r.Err != nil {
		i.Error = r.Err.Error()
	} else {
		i.Network, i.Address, i.Weight, i.Tags = r.Network, r.Address, r.Weight, r.Tags
	}
	return i
}

// marked adds what an operator wants.
func (i instance) marked(m etcd.PlacedMark) instance {
	if i.Service == "" { // there is no record
		i.Service, i.Address = m.Service, m.Address
	}
	i.Drain, i.Mark, i.Reason = m.Drain, m.Weight, m.Reason
	if m.Err != nil {
		i.BadMark = m.Err.Error()
	}
	return i
}

func leaseName(id clientv3.LeaseID) string {
	if id == clientv3.NoLease {
		return ""
	}
	return strconv.FormatInt(int64(id), 16)
}
