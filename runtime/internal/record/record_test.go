package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// instanceInfo is the struct that registry-etcd's documentation prints and encodes with encoding/json.
type instanceInfo struct {
	Network string            `json:"network"`
	Address string            `json:"address"`
	Weight  int               `json:"weight"`
	Tags    map[string]string `json:"tags"`
}

func TestRecordIsWrittenAsRegistryEtcdWritesIt(t *testing.T) {
	for _, in := range []instanceInfo{
		{Network: "tcp", Address: "127.0.0.1:8888", Weight: 10},
		{Network: "tcp", Address: "[::1]:8888", Weight: 1, Tags: map[string]string{}},
		{Network: "tcp", Address: "svc.example:8888", Weight: 1 << 30, Tags: map[string]string{"zone": "b", "a": "1", "m": "2"}},
		{Network: "tcp", Address: "127.0.0.1:1", Weight: 10, Tags: map[string]string{"<&>": "\"\\\n\u2028é世界\x00"}},
	} {
		want, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Encode(&Record{in.Network, in.Address, float64(in.Weight), in.Tags})
		if err != nil || got != string(want) {
			t.Errorf("Encode wrote\n%s, %v; want\n%s", got, err, want)
		}
	}
}

func TestDecodeRecord(t *testing.T) {
	long := strings.Repeat("長", 100_000)
	for name, tc := range map[string]struct {
		value string
		want  Record
	}{
		"as registry-etcd writes it": {
			`{"network":"tcp","address":"127.0.0.1:8888","weight":10,"tags":{"a":"b"}}`,
			Record{"tcp", "127.0.0.1:8888", 10, map[string]string{"a": "b"}},
		},
		"null tags":        {`{"network":"tcp","address":"a:1","weight":10,"tags":null}`, Record{"tcp", "a:1", 10, nil}},
		"only an address":  {`{"address":"a:1"}`, Record{"tcp", "a:1", 7, nil}},
		"nulls":            {`{"network":null,"address":"a:1","weight":null,"tags":null}`, Record{"tcp", "a:1", 7, nil}},
		"zero weight":      {`{"address":"a:1","weight":0}`, Record{"tcp", "a:1", 7, nil}},
		"negative weight":  {`{"address":"a:1","weight":-3}`, Record{"tcp", "a:1", 7, nil}},
		"float weight":     {`{"address":"a:1","weight":10.0}`, Record{"tcp", "a:1", 10, nil}},
		"exponent":         {`{"address":"a:1","weight":1e1}`, Record{"tcp", "a:1", 10, nil}},
		"fraction":         {`{"address":"a:1","weight":2.9}`, Record{"tcp", "a:1", 2, nil}},
		"below one":        {`{"address":"a:1","weight":0.9}`, Record{"tcp", "a:1", 7, nil}},
		"huge weight":      {`{"address":"a:1","weight":1e300}`, Record{"tcp", "a:1", 1<<31 - 1, nil}},
		"other order":      {"\n{ \"tags\": {\"k\":\"v\"} ,\t\"weight\":2,\"address\":\"a:1\",\"network\":\"tcp6\"}\r\n", Record{"tcp6", "a:1", 2, map[string]string{"k": "v"}}},
		"unknown fields":   {`{"address":"a:1","id":1,"nested":{"address":"b:2","list":[1,[2,{}]]},"weight":2}`, Record{"tcp", "a:1", 2, nil}},
		"unicode":          {`{"address":"a:1","weight":1,"tags":{"\u4e16":"界\ud83d\ude00"}}`, Record{"tcp", "a:1", 1, map[string]string{"世": "界😀"}}},
		"long tag":         {`{"address":"a:1","weight":1,"tags":{"k":"` + long + `"}}`, Record{"tcp", "a:1", 1, map[string]string{"k": long}}},
		"IPv6":             {`{"address":"[::1]:1","weight":1}`, Record{"tcp", "[::1]:1", 1, nil}},
		"unix":             {`{"network":"unix","address":"/run/a.sock","weight":1}`, Record{"unix", "/run/a.sock", 1, nil}},
		"last of twins":    {`{"address":"a:1","address":"b:2","weight":1}`, Record{"tcp", "b:2", 1, nil}},
		"depth is skipped": {`{"address":"a:1","weight":1,"x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}`, Record{"tcp", "a:1", 1, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(tc.value), 7)
			if err != nil {
				t.Fatal(err)
			}
			if got.Network != tc.want.Network || got.Address != tc.want.Address || got.Weight != tc.want.Weight || !maps.Equal(got.Tags, tc.want.Tags) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestDecodeRecordRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ value, want string }{
		"nothing":         {``, "not the JSON"},
		"truncated":       {`{"network":"tcp","address":"127.0.0.1:88`, "not the JSON"},
		"trailing":        {`{"address":"a:1"}x`, "not the JSON"},
		"array":           {`[]`, "not the JSON"},
		"number":          {`1`, "not the JSON"},
		"weight as text":  {`{"address":"a:1","weight":"10"}`, "not the JSON"},
		"address as list": {`{"address":["a:1"]}`, "not the JSON"},
		"tags as list":    {`{"address":"a:1","tags":["a"]}`, "not the JSON"},
		"number as tag":   {`{"address":"a:1","tags":{"a":1}}`, "not the JSON"},
		"null":            {`null`, "address is empty"},
		"empty object":    {`{}`, "address is empty"},
		"no address":      {`{"network":"tcp","weight":1}`, "address is empty"},
		"no port":         {`{"address":"a"}`, "not host:port"},
		"empty port":      {`{"address":"a:"}`, "no port"},
		"port zero":       {`{"address":"a:0"}`, "no port"},
		"large port":      {`{"address":"a:65536"}`, "no port"},
		"no host":         {`{"address":":80"}`, "names no host"},
		"any IPv4":        {`{"address":"0.0.0.0:80"}`, "names no host"},
		"any IPv6":        {`{"address":"[::]:80"}`, "names no host"},
		"not UTF-8":       {"{\"address\":\"a\xff:1\"}", "UTF-8"},
		"binary":          {"\x00\x01\x02\x80", "UTF-8"},
		"megabyte":        {strings.Repeat("{", 1<<20), "not the JSON"},
		"deep":            {`{"x":` + strings.Repeat("[", 1<<19) + strings.Repeat("]", 1<<19) + `}`, "not the JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]byte(tc.value), 10)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v does not say %q", err, tc.want)
			}
			if n := len(err.Error()); n > 300 || strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of %d bytes is none for a log: %.300q", n, err)
			}
		})
	}
}

// FuzzDecodeRecord: whatever stands in etcd, decoding never panics, what it accepts can be dialled, and is read again
// as the same after it was written.
func FuzzDecodeRecord(f *testing.F) {
	for _, s := range []string{
		`{"network":"tcp","address":"127.0.0.1:8888","weight":10,"tags":{"a":"b"}}`, `{"address":"a:1","weight":1e300}`,
		`{"tags":{"":null},"address":"[::1]:9"}`, `{"address":"a:1","x":[[[{}]]]}`, `null`, "\xff", `{"ADDRESS":"a:1"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := Decode(value, 10)
		if err != nil {
			return
		}
		if err := checkInstanceAddr(r.Network, r.Address); err != nil {
			t.Fatalf("accepted %q: %v", value, err)
		}
		if r.Weight < 1 || r.Weight != float64(int32(r.Weight)) {
			t.Fatalf("accepted %q with weight %v", value, r.Weight)
		}
		s, err := Encode(&r)
		if err != nil {
			t.Fatalf("%q cannot be written again: %v", value, err)
		}
		again, err := Decode([]byte(s), 10)
		if err != nil || again.Address != r.Address || again.Network != r.Network || again.Weight != r.Weight || !maps.Equal(again.Tags, r.Tags) {
			t.Fatalf("%q was read as %+v, written as %s and read as %+v, %v", value, r, s, again, err)
		}
	})
}

// BenchmarkRecord compares the codec with encoding/json on one instance with three tags.
func BenchmarkRecord(b *testing.B) {
	info := instanceInfo{"tcp", "10.20.30.40:8888", 10, map[string]string{"zone": "eu-west-1a", "version": "v1.2.3", "env": "production"}}
	value, err := json.Marshal(info)
	if err != nil {
		b.Fatal(err)
	}
	r := Record{info.Network, info.Address, float64(info.Weight), info.Tags}
	for _, bm := range []struct {
		name string
		f    func() error
	}{
		{"op=decode/codec=ours", func() error { _, err := Decode(value, 10); return err }},
		{"op=decode/codec=encoding_json", func() error { return json.Unmarshal(value, new(instanceInfo)) }},
		{"op=encode/codec=ours", func() error { _, err := Encode(&r); return err }},
		{"op=encode/codec=encoding_json", func() error { _, err := json.Marshal(&info); return err }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bm.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestKeysOfOneServiceAreNotAnothers(t *testing.T) {
	key := Key("kitex/registry-etcd", "echo", "127.0.0.1:8888")
	if want := "kitex/registry-etcd/echo/127.0.0.1:8888"; key != want {
		t.Errorf("key is %q, want %q", key, want)
	}
	if strings.HasPrefix(Key("p", "echo2", "a:1"), ServicePrefix("p", "echo")) {
		t.Error("echo sees the records of echo2")
	}
	if key := Key("100%d", "%s", "a:1"); key != "100%d/%s/a:1" {
		t.Errorf("a percent sign was taken for a verb: %q", key)
	}
	for _, name := range []string{"", "a/b", "a\x00b", "a\nb", "a\xff"} {
		if err := CheckService(name); err == nil || name != "" && !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("CheckService(%q) = %v", name, err)
		}
	}
}
