// A load generator for etcd with its own Go client: the same operations and the same report as benchmarks/kv_load.py.
// N goroutines with one request each share one connection, as etcd's client does it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const keys, many = 10000, 50

var value = strings.Repeat("v", 100)

func key(n int) string { return fmt.Sprintf("key:%06d", n) }

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func do(ctx context.Context, client *clientv3.Client, op string, rng *rand.Rand) error {
	var err error
	switch op {
	case "set":
		_, err = client.Put(ctx, key(rng.Intn(keys)), value)
	case "weak":
		_, err = client.Get(ctx, key(rng.Intn(keys)), clientv3.WithSerializable())
	case "strong":
		_, err = client.Get(ctx, key(rng.Intn(keys)))
	case "mset":
		chosen := rng.Perm(keys)[:many] // one transaction may not put a key twice
		ops := make([]clientv3.Op, 0, many)
		for _, n := range chosen {
			ops = append(ops, clientv3.OpPut(key(n), value))
		}
		_, err = client.Txn(ctx).Then(ops...).Commit()
	case "mget":
		ops := make([]clientv3.Op, 0, many)
		for i := 0; i < many; i++ {
			ops = append(ops, clientv3.OpGet(key(rng.Intn(keys)), clientv3.WithSerializable()))
		}
		_, err = client.Txn(ctx).Then(ops...).Commit()
	}
	return err
}

func main() {
	address := flag.String("address", "127.0.0.1:2379", "")
	op := flag.String("op", "set", "")
	outstanding := flag.Int("outstanding", 1, "")
	seconds := flag.Float64("seconds", 2, "")
	flag.Parse()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{*address}, DialTimeout: 5 * time.Second})
	fail(err)
	ctx := context.Background()
	if *op == "fill" {
		for at := 0; at < keys; at += 100 {
			ops := make([]clientv3.Op, 0, 100)
			for n := at; n < at+100; n++ {
				ops = append(ops, clientv3.OpPut(key(n), value))
			}
			_, err := client.Txn(ctx).Then(ops...).Commit()
			fail(err)
		}
		fmt.Println("{}")
		return
	}
	var group sync.WaitGroup
	all := make([][]float64, *outstanding)
	start := time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	for worker := range all {
		group.Add(1)
		go func() {
			defer group.Done()
			rng := rand.New(rand.NewSource(int64(worker)))
			for time.Now().Before(end) {
				before := time.Now()
				fail(do(ctx, client, *op, rng))
				all[worker] = append(all[worker], float64(time.Since(before).Nanoseconds())/1e3)
			}
		}()
	}
	group.Wait()
	took := time.Since(start).Seconds()
	var latencies []float64
	for _, some := range all {
		latencies = append(latencies, some...)
	}
	sort.Float64s(latencies)
	count := len(latencies)
	report := map[string]float64{
		"per_s": float64(count) / took, "p50_us": latencies[count/2], "p99_us": latencies[min(count-1, count*99/100)], "errors": 0,
	}
	fail(json.NewEncoder(os.Stdout).Encode(report))
}
