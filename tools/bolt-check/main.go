// bolt-check asks the real bbolt whether a file is sound.
//
// usage: bolt-check FILE
//
// It opens the file read-only, lists everything that bbolt's own check finds, reads every pair of every
// bucket, and prints "OK" with the number of pairs. The exit code is 1 if anything is wrong.
//
// Debian's bbolt (1.3.6) does not look at the order of keys, so that is done here.
package main

import (
	"bytes"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: bolt-check FILE")
		os.Exit(2)
	}
	pairs, findings, err := check(os.Args[1])
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	if findings > 0 {
		fmt.Println(findings, "findings")
		os.Exit(1)
	}
	fmt.Println("OK", pairs, "pairs")
}

// check returns the number of pairs, and of findings, each of which it prints.
func check(path string) (pairs, findings int, err error) {
	options := &bolt.Options{ReadOnly: true, Timeout: 5 * time.Second}
	db, err := bolt.Open(path, 0, options)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		for finding := range tx.Check() {
			fmt.Println(finding)
			findings++
		}
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			count, unsorted := walk(bucket)
			pairs += count
			if unsorted > 0 {
				fmt.Printf("bucket %q: %d keys out of order\n", name, unsorted)
				findings += unsorted
			}
			return nil
		})
	})
	return pairs, findings, err
}

// walk counts the pairs of a bucket and of those inside it, and the keys that do not ascend.
func walk(bucket *bolt.Bucket) (pairs, unsorted int) {
	var last []byte
	cursor := bucket.Cursor()
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		if last != nil && bytes.Compare(last, key) >= 0 {
			unsorted++
		}
		last = key
		if inner := bucket.Bucket(key); value == nil && inner != nil {
			innerPairs, innerUnsorted := walk(inner)
			pairs += innerPairs
			unsorted += innerUnsorted
			continue
		}
		pairs++
	}
	return pairs, unsorted
}
