// Reads operations on single keys, one JSON object a line, and says of each group whether it is linearizable.
//
// A group is one key during some time; what the key held before is not known. An operation without a reply ("unknown") may
// have happened at any time after its call, or never. The answer is one JSON object a line: {"group": …, "result": …} with
// Ok, Illegal or Unknown (no answer within the time).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

const perGroup = 5 * time.Second

// Value is a key's value; texts and numbers only.
type Value struct {
	Known  bool // false: anything, at the beginning of a group
	There  bool
	Text   string
	Number int64
}

type line struct {
	Group    string          `json:"group"`
	Client   int             `json:"client"`
	Kind     string          `json:"kind"`
	Call     int64           `json:"call"`
	Return   int64           `json:"return"`
	Unknown  bool            `json:"unknown"`
	Written  json.RawMessage `json:"written"`
	Expected json.RawMessage `json:"expected"`
	Seen     json.RawMessage `json:"seen"`
}

type input struct {
	kind              string
	written, expected Value
	by                int64
}

type output struct {
	unknown, applied bool
	seen             Value
}

// value turns JSON into a Value; null is a key that is not there.
func value(raw json.RawMessage) Value {
	if len(raw) == 0 || string(raw) == "null" {
		return Value{Known: true}
	}
	found := Value{Known: true, There: true}
	if json.Unmarshal(raw, &found.Number) != nil {
		if err := json.Unmarshal(raw, &found.Text); err != nil {
			fail(err)
		}
	}
	return found
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// step says which states a key may be in after an operation that was told `out`.
func step(state Value, in input, out output) []Value {
	switch in.kind {
	case "get":
		if state.Known && state != out.seen {
			return nil
		}
		return []Value{out.seen}
	case "set":
		return []Value{in.written}
	case "delete":
		return []Value{{Known: true}}
	case "incr":
		if !state.Known {
			if out.unknown {
				return []Value{state}
			}
			return []Value{out.seen}
		}
		next := Value{Known: true, There: true, Number: state.Number + in.by}
		if !out.unknown && next != out.seen {
			return nil
		}
		return []Value{next}
	case "absent", "cas":
		expected := in.expected
		if in.kind == "absent" {
			expected = Value{Known: true}
		}
		var next []Value
		if (out.unknown || out.applied) && (!state.Known || state == expected) {
			next = append(next, in.written)
		}
		if (out.unknown || !out.applied) && (!state.Known || state != expected) {
			next = append(next, state)
		}
		return next
	}
	fail(fmt.Errorf("unknown kind %q", in.kind))
	return nil
}

var register = porcupine.NondeterministicModel{
	Init: func() []interface{} { return []interface{}{Value{}} },
	Step: func(state, in, out interface{}) []interface{} {
		var states []interface{}
		for _, next := range step(state.(Value), in.(input), out.(output)) {
			states = append(states, next)
		}
		return states
	},
	Equal: func(a, b interface{}) bool { return a.(Value) == b.(Value) },
}

func main() {
	groups := map[string][]porcupine.Operation{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one line
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			fail(err)
		}
		in := input{kind: one.Kind}
		out := output{unknown: one.Unknown}
		if one.Kind == "incr" {
			if err := json.Unmarshal(one.Written, &in.by); err != nil {
				fail(err)
			}
		} else {
			in.written, in.expected = value(one.Written), value(one.Expected)
		}
		if !one.Unknown {
			if one.Kind == "cas" || one.Kind == "absent" {
				if err := json.Unmarshal(one.Seen, &out.applied); err != nil {
					fail(err)
				}
			} else {
				out.seen = value(one.Seen)
			}
		} else {
			one.Return = math.MaxInt64
		}
		groups[one.Group] = append(groups[one.Group], porcupine.Operation{
			ClientId: one.Client, Input: in, Call: one.Call, Output: out, Return: one.Return,
		})
	}
	if err := lines.Err(); err != nil {
		fail(err)
	}
	names := make([]string, 0, len(groups))
	for name := range groups {
		names = append(names, name)
	}
	sort.Strings(names)
	model := register.ToModel()
	for _, name := range names {
		result := porcupine.CheckOperationsTimeout(model, groups[name], perGroup)
		answer, _ := json.Marshal(map[string]string{"group": name, "result": string(result)})
		fmt.Println(string(answer))
	}
}
