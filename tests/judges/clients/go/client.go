// The official Go client against a cluster of ours: one line of JSON for each check, as __init__.py describes.
//
//	client CONNECTION-STRING USER PASSWORD BUCKET REPLICAS [CHECK ...]
package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/couchbase/gocb/v2"
)

type object = map[string]any

// optionsFor returns the options of a connection, which trusts the authority that TLS_CA names.
func optionsFor(user, password string) gocb.ClusterOptions {
	options := gocb.ClusterOptions{Username: user, Password: password}
	if file := os.Getenv("TLS_CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		options.SecurityConfig.TLSRootCAs = x509.NewCertPool()
		options.SecurityConfig.TLSRootCAs.AppendCertsFromPEM(pem)
	}
	return options
}

type place struct {
	connection, bucketName string
	durable                bool
	cluster                *gocb.Cluster
	bucket                 *gocb.Bucket
	collection             *gocb.Collection
}

// failure carries an unexpected error out of a check.
type failure struct{ err error }

func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func got[T any](value T, err error) T {
	must(err)
	return value
}

func refused(err error, wanted ...error) {
	for _, each := range wanted {
		if errors.Is(err, each) {
			return
		}
	}
	panic(failure{fmt.Errorf("expected %v, got %v", wanted, err)})
}

// settled tries again for a while: what was just made may take its time to be seen everywhere.
func settled(act func() error) {
	var err error
	for range 20 {
		if err = act(); err == nil {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
	must(err)
}

func content[T any](p *place, key string) T {
	var value T
	must(got(p.collection.Get(key, nil)).Content(&value))
	return value
}

func documents(p *place) any {
	c := p.collection
	stored := got(c.Upsert("documents", object{"name": "Ada", "n": 1}, nil))
	read := got(c.Get("documents", nil))
	var value object
	must(read.Content(&value))
	_, err := c.Insert("documents", object{}, nil)
	refused(err, gocb.ErrDocumentExists)
	_, err = c.Replace("missing", object{}, nil)
	refused(err, gocb.ErrDocumentNotFound)
	_, err = c.Get("missing", nil)
	refused(err, gocb.ErrDocumentNotFound)
	got(c.Replace("documents", object{"n": 2}, &gocb.ReplaceOptions{Cas: read.Cas()}))
	_, err = c.Replace("documents", object{}, &gocb.ReplaceOptions{Cas: read.Cas()})
	refused(err, gocb.ErrCasMismatch)
	there := got(c.Exists("documents", nil)).Exists()
	got(c.Remove("documents", nil))
	return []any{value, stored.Cas() == read.Cas(), there, got(c.Exists("documents", nil)).Exists()}
}

func expiry(p *place) any {
	c := p.collection
	set := func() bool {
		return !got(c.Get("expiry", &gocb.GetOptions{WithExpiry: true})).ExpiryTime().IsZero() &&
			got(c.Get("expiry", &gocb.GetOptions{WithExpiry: true})).ExpiryTime().Unix() > 0
	}
	change := func(value int, options *gocb.MutateInOptions) {
		got(c.MutateIn("expiry", []gocb.MutateInSpec{gocb.UpsertSpec("v", value, nil)}, options))
	}
	got(c.Upsert("expiry", object{"v": 1}, &gocb.UpsertOptions{Expiry: 100 * time.Second}))
	first := set()
	got(c.Upsert("expiry", object{"v": 2}, &gocb.UpsertOptions{PreserveExpiry: true}))
	kept := set()
	got(c.Touch("expiry", 200*time.Second, nil))
	got(c.GetAndTouch("expiry", 0, nil))
	cleared := !set()
	change(3, &gocb.MutateInOptions{Expiry: 100 * time.Second})
	change(4, &gocb.MutateInOptions{PreserveExpiry: true})
	preserved := set()
	change(5, nil)
	return []any{first, kept, cleared, preserved, !set()}
}

func locks(p *place) any {
	c := p.collection
	got(c.Upsert("locks", 1, nil))
	locked := got(c.GetAndLock("locks", 10*time.Second, nil))
	_, err := c.Upsert("locks", 2, &gocb.UpsertOptions{Timeout: 500 * time.Millisecond})
	refused(err, gocb.ErrDocumentLocked, gocb.ErrTimeout)
	must(c.Unlock("locks", locked.Cas(), nil))
	got(c.Upsert("locks", 3, nil))
	return content[int](p, "locks")
}

func binary(p *place) any {
	c, b := p.collection, p.collection.Binary()
	raw := gocb.NewRawBinaryTranscoder()
	got(c.Upsert("binary", []byte("b"), &gocb.UpsertOptions{Transcoder: raw}))
	got(b.Append("binary", []byte("c"), nil))
	got(b.Prepend("binary", []byte("a"), nil))
	up := got(b.Increment("counter", &gocb.IncrementOptions{Initial: 10, Delta: 5})).Content()
	more := got(b.Increment("counter", &gocb.IncrementOptions{Delta: 5})).Content()
	down := got(b.Decrement("counter", &gocb.DecrementOptions{Delta: 7})).Content()
	var value []byte
	must(got(c.Get("binary", &gocb.GetOptions{Transcoder: raw})).Content(&value))
	return []any{string(value), up, more, down}
}

func subdocuments(p *place) any {
	c, key := p.collection, "subdocuments"
	got(c.Upsert(key, object{"n": 1, "list": []int{1, 3}, "old": true, "gone": 1}, nil))
	got(c.MutateIn(key, []gocb.MutateInSpec{
		gocb.InsertSpec("new.deep", "v", &gocb.InsertSpecOptions{CreatePath: true}), gocb.UpsertSpec("s", "x", nil),
		gocb.ReplaceSpec("old", false, nil), gocb.RemoveSpec("gone", nil), gocb.ArrayAppendSpec("list", 4, nil),
		gocb.ArrayPrependSpec("list", 0, nil), gocb.ArrayInsertSpec("list[2]", 2, nil),
		gocb.ArrayInsertSpec("list.[3]", 2.5, nil),
		gocb.ArrayAddUniqueSpec("unique", "u", &gocb.ArrayAddUniqueSpecOptions{CreatePath: true}),
		gocb.IncrementSpec("n", 4, nil), gocb.DecrementSpec("n", 2, nil),
	}, nil))
	found := got(c.LookupIn(key, []gocb.LookupInSpec{
		gocb.GetSpec("n", nil), gocb.ExistsSpec("gone", nil), gocb.CountSpec("list", nil), gocb.GetSpec("", nil),
		gocb.GetSpec("missing", nil), gocb.GetSpec("list[-1]", nil),
	}, nil))
	values := make([]any, 6)
	for i := range values {
		var value any
		switch err := found.ContentAt(uint(i), &value); {
		case errors.Is(err, gocb.ErrPathNotFound):
			value = "PathNotFound"
		case i == 1:
			value = found.Exists(1)
		default:
			must(err)
		}
		values[i] = value
	}
	one := func(key string, spec gocb.MutateInSpec) error {
		_, err := c.MutateIn(key, []gocb.MutateInSpec{spec}, nil)
		return err
	}
	refused(one(key, gocb.InsertSpec("s", 1, nil)), gocb.ErrPathExists)
	refused(one(key, gocb.ReplaceSpec("no.path", 1, nil)), gocb.ErrPathNotFound)
	refused(one(key, gocb.ArrayAppendSpec("s", 1, nil)), gocb.ErrPathMismatch)
	refused(one("subdocuments-missing", gocb.UpsertSpec("a", 1, nil)), gocb.ErrDocumentNotFound)
	got(c.MutateIn("subdocuments-made", []gocb.MutateInSpec{gocb.UpsertSpec("a", 1, nil)},
		&gocb.MutateInOptions{StoreSemantic: gocb.StoreSemanticsUpsert}))
	return []any{values, content[object](p, "subdocuments-made")}
}

func attributes(p *place) any {
	c, key := p.collection, "attributes"
	made, look := &gocb.UpsertSpecOptions{IsXattr: true, CreatePath: true}, &gocb.GetSpecOptions{IsXattr: true}
	got(c.Upsert(key, object{"body": 1}, nil))
	changed := got(c.MutateIn(key, []gocb.MutateInSpec{
		gocb.UpsertSpec("app.level", 5, made), gocb.UpsertSpec("_sys.cas", gocb.MutationMacroCAS, made),
		gocb.UpsertSpec("app.seqno", gocb.MutationMacroSeqNo, made),
		gocb.UpsertSpec("app.crc", gocb.MutationMacroValueCRC32c, made), gocb.UpsertSpec("body", 2, nil),
	}, nil))
	found := got(c.LookupIn(key, []gocb.LookupInSpec{
		gocb.GetSpec("app.level", look), gocb.GetSpec("_sys.cas", look), gocb.GetSpec("$document.CAS", look),
		gocb.GetSpec("$document.exptime", look), gocb.ExistsSpec("app.none", &gocb.ExistsSpecOptions{IsXattr: true}),
		gocb.GetSpec("app.crc", look), gocb.GetSpec("$document.value_crc32c", look), gocb.GetSpec("body", nil),
	}, nil))
	var level, exptime, body, kept int
	var macro, cas, crc, now string
	for i, into := range []any{&level, &macro, &cas, &exptime, nil, &crc, &now, &body} {
		if into != nil {
			must(found.ContentAt(uint(i), into))
		}
	}
	// The macro's text is the CAS with its bytes reversed.
	bytes := got(hex.DecodeString(macro[2:]))
	slices.Reverse(bytes)
	swapped := got(strconv.ParseUint(hex.EncodeToString(bytes), 16, 64))
	same := swapped == got(strconv.ParseUint(cas, 0, 64)) && swapped == uint64(changed.Cas())
	got(c.Upsert(key, object{"body": 3}, nil))
	must(got(c.LookupIn(key, []gocb.LookupInSpec{gocb.GetSpec("app.level", look)}, nil)).ContentAt(0, &kept))
	return []any{level, same, exptime, found.Exists(4), crc == now, body, kept}
}

func collections(p *place) any {
	manager := p.bucket.CollectionsV2()
	must(manager.CreateScope("go_scope", nil))
	refused(manager.CreateScope("go_scope", nil), gocb.ErrScopeExists)
	must(manager.CreateCollection("go_scope", "books", &gocb.CreateCollectionSettings{MaxExpiry: 1000 * time.Second}, nil))
	must(manager.CreateCollection("go_scope", "gone", nil, nil))
	refused(manager.CreateCollection("go_scope", "books", nil, nil), gocb.ErrCollectionExists)
	refused(manager.CreateCollection("nowhere", "books", nil, nil), gocb.ErrScopeNotFound)
	books, gone := p.bucket.Scope("go_scope").Collection("books"), p.bucket.Scope("go_scope").Collection("gone")
	store := func(c *gocb.Collection, key string, value any) {
		settled(func() error {
			_, err := c.Upsert(key, value, &gocb.UpsertOptions{Timeout: 2 * time.Second})
			return err
		})
	}
	store(books, "one", object{"v": 1})
	store(gone, "one", object{"v": 2})
	limited := got(books.Get("one", &gocb.GetOptions{WithExpiry: true})).ExpiryTime().Unix() > 0
	_, err := p.collection.Get("one", nil)
	refused(err, gocb.ErrDocumentNotFound)
	must(manager.DropCollection("go_scope", "gone", nil))
	refused(manager.DropCollection("go_scope", "gone", nil), gocb.ErrCollectionNotFound)
	_, err = gone.Get("one", &gocb.GetOptions{Timeout: time.Second})
	refused(err, gocb.ErrTimeout, gocb.ErrCollectionNotFound)
	must(manager.CreateCollection("go_scope", "gone", nil, nil))
	fresh := p.bucket.Scope("go_scope").Collection("gone")
	store(fresh, "two", 1)
	_, err = fresh.Get("one", nil)
	refused(err, gocb.ErrDocumentNotFound)
	names := [][]any{}
	for _, scope := range got(manager.GetAllScopes(nil)) {
		for _, each := range scope.Collections {
			if scope.Name == "go_scope" {
				names = append(names, []any{each.Name, each.MaxExpiry.Seconds()})
			}
		}
	}
	sort.Slice(names, func(i, j int) bool { return names[i][0].(string) < names[j][0].(string) })
	must(manager.DropScope("go_scope", nil))
	still := slices.ContainsFunc(got(manager.GetAllScopes(nil)), func(s gocb.ScopeSpec) bool { return s.Name == "go_scope" })
	return []any{got(p.collection.Exists("one", nil)).Exists(), limited, names, still}
}

func buckets(p *place) any {
	manager := p.cluster.Buckets()
	settings := gocb.CreateBucketSettings{BucketSettings: gocb.BucketSettings{
		Name: "go-made", RAMQuotaMB: 100, BucketType: gocb.CouchbaseBucketType}}
	must(manager.CreateBucket(settings, nil))
	refused(manager.CreateBucket(settings, nil), gocb.ErrBucketExists)
	made := p.cluster.Bucket("go-made")
	must(made.WaitUntilReady(10*time.Second, nil))
	settled(func() error { _, err := made.DefaultCollection().Upsert("x", 1, nil); return err })
	_, listed := got(manager.GetAllBuckets(nil))["go-made"]
	changed := *got(manager.GetBucket("go-made", nil))
	changed.RAMQuotaMB, changed.FlushEnabled, changed.MaxExpiry = 128, true, 500*time.Second
	must(manager.UpdateBucket(changed, nil))
	changed = *got(manager.GetBucket("go-made", nil))
	must(manager.FlushBucket("go-made", nil))
	flushed := false
	settled(func() error {
		found, err := made.DefaultCollection().Exists("x", nil)
		if err == nil {
			flushed = !found.Exists()
		}
		return err
	})
	must(manager.DropBucket("go-made", nil))
	_, err := manager.GetBucket("go-made", nil)
	refused(err, gocb.ErrBucketNotFound)
	return []any{listed, changed.RAMQuotaMB, changed.FlushEnabled, changed.MaxExpiry.Seconds(), !flushed}
}

func users(p *place) any {
	manager := p.cluster.Users()
	got(p.collection.Upsert("users", object{"v": 1}, nil))
	role := func(name string) []gocb.Role { return []gocb.Role{{Name: name, Bucket: p.bucketName}} }
	must(manager.UpsertGroup(gocb.Group{Name: "go_group", Description: "g", Roles: role("data_reader")}, nil))
	user := gocb.User{Username: "go_user", Password: "secret-1", DisplayName: "N", Groups: []string{"go_group"}}
	must(manager.UpsertUser(user, nil))
	found := got(manager.GetUser("go_user", nil))
	names := []string{}
	for _, each := range found.EffectiveRoles {
		names = append(names, each.Name)
	}
	listed := slices.ContainsFunc(got(manager.GetAllUsers(nil)), func(u gocb.UserAndMetadata) bool { return u.Username == "go_user" })
	reader := got(gocb.Connect(p.connection, optionsFor("go_user", "secret-1")))
	theirs := reader.Bucket(p.bucketName).DefaultCollection()
	var read object
	settled(func() error {
		found, err := theirs.Get("users", nil)
		if err == nil {
			err = found.Content(&read)
		}
		return err
	})
	_, err := theirs.Upsert("users", 2, &gocb.UpsertOptions{Timeout: 1500 * time.Millisecond})
	refused(err, gocb.ErrAuthenticationFailure, gocb.ErrTimeout)
	must(manager.UpsertUser(gocb.User{Username: "go_user", DisplayName: "N", Roles: role("bucket_full_access")}, nil))
	settled(func() error { _, err := theirs.Upsert("users", object{"v": 2}, nil); return err })
	must(reader.Close(nil))
	must(manager.DropUser("go_user", nil))
	must(manager.DropGroup("go_group", nil))
	_, err = manager.GetUser("go_user", nil)
	refused(err, gocb.ErrUserNotFound)
	_, err = manager.GetGroup("go_group", nil)
	refused(err, gocb.ErrGroupNotFound)
	known := slices.ContainsFunc(got(manager.GetRoles(nil)), func(r gocb.RoleAndDescription) bool { return r.Name == "data_reader" })
	return []any{len(found.Groups), names, listed, read, known}
}

func views(p *place) any {
	manager := p.bucket.ViewIndexes()
	for n := 1; n <= 3; n++ {
		got(p.collection.Upsert(fmt.Sprintf("view-%d", n), object{"view": "go", "n": n}, nil))
	}
	must(manager.UpsertDesignDocument(gocb.DesignDocument{Name: "go", Views: map[string]gocb.View{
		"numbers": {Map: "function (doc, meta) { if (doc.view === 'go') emit(doc.n, null) }", Reduce: "_count"},
	}}, gocb.DesignDocumentNamespaceProduction, nil))
	keys := []any{}
	settled(func() error {
		keys = []any{}
		rows, err := p.bucket.ViewQuery("go", "numbers", &gocb.ViewOptions{ScanConsistency: gocb.ViewScanConsistencyRequestPlus})
		if err != nil {
			return err
		}
		for rows.Next() {
			var key any
			row := rows.Row()
			must(row.Key(&key))
			keys = append(keys, key)
		}
		return rows.Err()
	})
	reduced := got(p.bucket.ViewQuery("go", "numbers", &gocb.ViewOptions{Reduce: true}))
	var count any
	for reduced.Next() {
		row := reduced.Row()
		must(row.Value(&count))
	}
	must(manager.DropDesignDocument("go", gocb.DesignDocumentNamespaceProduction, nil))
	return []any{keys, count}
}

func durability(p *place) any {
	if !p.durable {
		return "one copy"
	}
	c, level := p.collection, gocb.DurabilityLevelMajority
	got(c.Upsert("durable", object{"v": 1}, &gocb.UpsertOptions{DurabilityLevel: level}))
	got(c.MutateIn("durable", []gocb.MutateInSpec{gocb.UpsertSpec("v", 2, nil)}, &gocb.MutateInOptions{DurabilityLevel: level}))
	var any_ object
	// As on a server, a replica learns that a write is committed after its writer does.
	settled(func() error {
		any_ = nil
		must(got(c.GetAnyReplica("durable", nil)).Content(&any_))
		if any_["v"] != 2.0 {
			return fmt.Errorf("a copy still has %v", any_)
		}
		return nil
	})
	all, count := got(c.GetAllReplicas("durable", nil)), 0
	for all.Next() != nil {
		count++
	}
	got(c.Remove("durable", &gocb.RemoveOptions{DurabilityLevel: level}))
	return []any{any_, count > 1, got(c.Exists("durable", nil)).Exists()}
}

// abandon is no check: cleanup starts it, and it dies in the middle of a transaction.
func abandon(p *place) any {
	c := p.collection
	_, err := p.cluster.Transactions().Run(func(ctx *gocb.TransactionAttemptContext) error {
		got(ctx.Insert(c, "lost-new", object{"v": 2}))
		got(ctx.Replace(got(ctx.Get(c, "lost-old")), object{"v": 2}))
		must(ctx.Remove(got(ctx.Get(c, "lost-gone"))))
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}, &gocb.TransactionOptions{Timeout: 2 * time.Second})
	return err
}

func cleanup(p *place) any {
	c := p.collection
	got(c.Upsert("lost-old", object{"v": 1}, nil))
	got(c.Upsert("lost-gone", object{"v": 1}, nil))
	child := exec.Command(os.Args[0], append(slices.Clone(os.Args[1:6]), "abandon")...)
	var died *exec.ExitError
	killed := errors.As(child.Run(), &died) && died.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	isStaged := func(key string) bool {
		exists := gocb.ExistsSpec("txn", &gocb.ExistsSpecOptions{IsXattr: true})
		return got(c.LookupIn(key, []gocb.LookupInSpec{exists}, nil)).Exists(0)
	}
	isThere := func(key string) bool { return got(c.Exists(key, nil)).Exists() }
	content := func(key string) (value object) {
		must(got(c.Get(key, nil)).Content(&value))
		return
	}
	insert := func(key string, value object) {
		got(p.cluster.Transactions().Run(func(ctx *gocb.TransactionAttemptContext) error {
			_, err := ctx.Insert(c, key, value)
			return err
		}, nil))
	}
	staged := []any{isStaged("lost-old"), isStaged("lost-gone")}
	// The first transaction starts the search for those of others.
	insert("lost-mine", object{})
	for range 200 {
		if !isStaged("lost-old") && !isStaged("lost-gone") && !isThere("late-gone") {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	settled(func() error { _, err := c.Get("late-new", nil); return err })
	back := []any{content("lost-old"), isThere("lost-gone"), isThere("lost-new")}
	done := []any{content("late-old"), content("late-new"), isThere("late-gone")}
	insert("lost-new", object{"v": 3})
	return []any{killed, staged, back, done, content("lost-new")}
}

func transactions(p *place) any {
	c, run := p.collection, p.cluster.Transactions().Run
	got(c.Upsert("tx-old", object{"v": 1}, nil))
	got(c.Upsert("tx-gone", object{"v": 1}, nil))
	replace := func(ctx *gocb.TransactionAttemptContext, key string, change func(object)) error {
		found, err := ctx.Get(c, key)
		if err != nil {
			return err
		}
		var value object
		if err = found.Content(&value); err != nil {
			return err
		}
		change(value)
		_, err = ctx.Replace(found, value)
		return err
	}
	done := got(run(func(ctx *gocb.TransactionAttemptContext) error {
		if _, err := ctx.Insert(c, "tx-new", object{"v": "new"}); err != nil {
			return err
		}
		if err := replace(ctx, "tx-old", func(value object) { value["v"] = 2 }); err != nil {
			return err
		}
		gone, err := ctx.Get(c, "tx-gone")
		if err != nil {
			return err
		}
		if err = ctx.Remove(gone); err != nil {
			return err
		}
		_, err = ctx.Get(c, "tx-new")
		return err
	}, nil))
	_, err := run(func(ctx *gocb.TransactionAttemptContext) error {
		if _, err := ctx.Insert(c, "tx-never", object{"v": 1}); err != nil {
			return err
		}
		if err := replace(ctx, "tx-old", func(value object) { value["v"] = 3 }); err != nil {
			return err
		}
		return errors.New("on purpose")
	}, nil)
	var failed *gocb.TransactionFailedError
	if !errors.As(err, &failed) {
		panic(failure{fmt.Errorf("expected TransactionFailed, got %v", err)})
	}
	got(c.Upsert("tx-count", object{"n": 0}, nil))
	var all sync.WaitGroup
	outcomes := make([]error, 4)
	for i := range outcomes {
		all.Add(1)
		go func() {
			defer all.Done()
			_, outcomes[i] = run(func(ctx *gocb.TransactionAttemptContext) error {
				return replace(ctx, "tx-count", func(value object) { value["n"] = value["n"].(float64) + 1 })
			}, nil)
		}()
	}
	all.Wait()
	must(errors.Join(outcomes...))
	values := []any{
		done.UnstagingComplete, content[object](p, "tx-new"), content[object](p, "tx-old"),
		got(c.Exists("tx-gone", nil)).Exists(), got(c.Exists("tx-never", nil)).Exists(), content[object](p, "tx-count")["n"],
	}
	got(c.Remove("tx-new", nil))
	return values
}

func scans(p *place) any {
	for n := range 20 {
		got(p.collection.Upsert(fmt.Sprintf("scan-%02d", n), object{"n": n}, nil))
	}
	numbers, ids, sample := []int{}, []string{}, 0
	prefix := got(p.collection.Scan(gocb.NewRangeScanForPrefix("scan-"), nil))
	for each := prefix.Next(); each != nil; each = prefix.Next() {
		var value struct{ N int }
		must(each.Content(&value))
		numbers = append(numbers, value.N)
	}
	must(prefix.Err())
	from, to := &gocb.ScanTerm{Term: "scan-05"}, &gocb.ScanTerm{Term: "scan-10"}
	ranged := got(p.collection.Scan(gocb.RangeScan{From: from, To: to}, &gocb.ScanOptions{IDsOnly: true}))
	for each := ranged.Next(); each != nil; each = ranged.Next() {
		ids = append(ids, each.ID())
	}
	must(ranged.Err())
	sampled := got(p.collection.Scan(gocb.SamplingScan{Limit: 5, Seed: 42}, &gocb.ScanOptions{IDsOnly: true}))
	for sampled.Next() != nil {
		sample++
	}
	must(sampled.Err())
	sort.Ints(numbers)
	sort.Strings(ids)
	return []any{numbers, ids, sample}
}

func large(p *place) any {
	text := strings.Repeat("compressible ", 20000)
	got(p.collection.Upsert("large", object{"text": text}, nil))
	return content[object](p, "large")["text"] == text
}

func health(p *place) any {
	must(p.cluster.WaitUntilReady(10*time.Second, &gocb.WaitUntilReadyOptions{ServiceTypes: []gocb.ServiceType{gocb.ServiceTypeManagement}}))
	must(p.bucket.WaitUntilReady(10*time.Second, nil))
	// Its ping of the view service refuses its own address ("specific server is invalid").
	asked := &gocb.PingOptions{ServiceTypes: []gocb.ServiceType{gocb.ServiceTypeKeyValue, gocb.ServiceTypeManagement}}
	count, fine := 0, true
	for _, reports := range got(p.bucket.Ping(asked)).Services {
		for _, each := range reports {
			count, fine = count+1, fine && each.State == gocb.PingStateOk
		}
	}
	return []any{count > 0, fine, got(p.cluster.Diagnostics(nil)).ID != ""}
}

type check struct {
	name string
	run  func(*place) any
}

var checks = []check{
	{"documents", documents}, {"expiry", expiry}, {"locks", locks}, {"binary", binary}, {"subdocuments", subdocuments},
	{"attributes", attributes}, {"collections", collections}, {"buckets", buckets}, {"users", users}, {"views", views},
	{"durability", durability}, {"transactions", transactions}, {"cleanup", cleanup}, {"scans", scans}, {"large", large}, {"health", health},
}

func outcome(p *place, each check) (line object) {
	line = object{"check": each.name}
	defer func() {
		switch problem := recover().(type) {
		case nil:
		case failure:
			line["raised"] = problem.err.Error()
		default:
			line["raised"] = fmt.Sprint(problem)
		}
	}()
	line["result"] = each.run(p)
	return
}

func main() {
	connection, user, password, bucketName := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	options := optionsFor(user, password)
	options.TransactionsConfig.CleanupConfig.CleanupWindow = 4 * time.Second
	cluster, err := gocb.Connect(connection, options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	bucket := cluster.Bucket(bucketName)
	p := &place{connection, bucketName, os.Args[5] != "0", cluster, bucket, bucket.DefaultCollection()}
	if err = bucket.WaitUntilReady(10*time.Second, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if slices.Contains(os.Args[6:], "abandon") {
		abandon(p)
	}
	for _, each := range checks {
		if len(os.Args) > 6 && !slices.Contains(os.Args[6:], each.name) {
			continue
		}
		fmt.Println(string(got(json.Marshal(outcome(p, each)))))
	}
	must(cluster.Close(nil))
}
