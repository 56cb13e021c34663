package record

import (
	"strings"
	"testing"
)

func TestMarkIsReadAsItWasWritten(t *testing.T) {
	for want, m := range map[string]Mark{
		`{"drain":true}`:                      {Drain: true},
		`{"weight":1,"reason":"canary"}`:      {Weight: 1, Reason: "canary"},
		`{"drain":true,"weight":3}`:           {Drain: true, Weight: 3},
		`{"drain":false}`:                     {},
		`{"drain":true,"reason":"长 <\"b\">"}`: {Drain: true, Reason: `长 <"b">`},
	} {
		got, err := EncodeMark(m)
		if err != nil {
			t.Errorf("%+v: %v", m, err)
		}
		if !strings.Contains(want, "<") && got != want {
			t.Errorf("%+v is written as %s, want %s", m, got, want)
		}
		if back, err := DecodeMark([]byte(got)); err != nil || back != m {
			t.Errorf("%s is read as %+v, %v; want %+v", got, back, err, m)
		}
	}
	if _, err := EncodeMark(Mark{Weight: -1}); err == nil {
		t.Error("a negative weight can be written")
	}
}

func TestDecodeMark(t *testing.T) {
	for value, want := range map[string]Mark{
		`{"drain":true,"by":"anna","nested":{"weight":7}}`:  {Drain: true},
		`{"weight":1.0,"drain":null}`:                       {Weight: 1},
		" {\n\"weight\" : 5, \"reason\":\" slow disk \"}\n": {Weight: 5, Reason: "slow disk"},
		`{"weight":null,"drain":false}`:                     {},
	} {
		if m, err := DecodeMark([]byte(value)); err != nil || m != want {
			t.Errorf("%s is read as %+v, %v; want %+v", value, m, err, want)
		}
	}
	for value, want := range map[string]string{
		``:                          "is not JSON",
		`drain`:                     "is not JSON",
		`{"drain":"yes"}`:           "is not JSON",
		`[1]`:                       "is not JSON",
		`null`:                      "neither drain nor weight",
		`{"reason":"x"}`:            "neither drain nor weight",
		`{"drian":true}`:            "neither drain nor weight",
		`{"weight":0}`:              "take for the default",
		`{"weight":-1}`:             "whole number",
		`{"weight":1.5}`:            "whole number",
		`{"weight":1e300}`:          "whole number",
		"{\"drain\":true,\"\xff\"}": "UTF-8",
	} {
		if m, err := DecodeMark([]byte(value)); err == nil || !strings.Contains(err.Error(), want) || m != (Mark{}) {
			t.Errorf("%s is read as %+v, %v; want an error with %q", value, m, err, want)
		}
	}
}

func TestMarksAreNoInstances(t *testing.T) {
	key := MarkKey("kitex/registry-etcd", "Hello", "10.0.0.1:80")
	if want := "kitex/registry-etcd-control/Hello/10.0.0.1:80"; key != want {
		t.Errorf("the key is %s, want %s", key, want)
	}
	if service, _, err := SplitKey("kitex/registry-etcd", key); err == nil {
		t.Errorf("the mark is an instance of %s", service)
	}
	if service, addr, err := SplitMarkKey("kitex/registry-etcd", key); err != nil || service != "Hello" || addr != "10.0.0.1:80" {
		t.Errorf("the key is split into %q, %q, %v", service, addr, err)
	}
	if !strings.HasPrefix(key, ServiceMarkPrefix("kitex/registry-etcd", "Hello")) || !strings.HasPrefix(key, MarkPrefix("kitex/registry-etcd")) {
		t.Error("the key does not begin with its prefixes")
	}
	if _, _, err := SplitMarkKey("kitex/registry-etcd", "kitex/registry-etcd/Hello/10.0.0.1:80"); err == nil {
		t.Error("an instance is a mark")
	}
}

// FuzzDecodeMark: whatever operators write, reading it never panics, and what is accepted is read again as the same.
func FuzzDecodeMark(f *testing.F) {
	for _, s := range []string{`{"drain":true}`, `{"weight":1,"reason":"r"}`, `{}`, `null`, "\xff", `{"DRAIN":true}`, `{"weight":1e9}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		m, err := DecodeMark(value)
		if err != nil {
			return
		}
		s, err := EncodeMark(m)
		if err != nil {
			t.Fatalf("%q cannot be written again: %v", value, err)
		}
		if again, err := DecodeMark([]byte(s)); err != nil || again != m {
			t.Fatalf("%q was read as %+v, written as %s and read as %+v, %v", value, m, s, again, err)
		}
	})
}
