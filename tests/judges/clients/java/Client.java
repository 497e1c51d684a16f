import com.couchbase.client.core.error.*;
import com.couchbase.client.core.error.TimeoutException;
import com.couchbase.client.core.error.subdoc.*;
import com.couchbase.client.core.msg.kv.DurabilityLevel;
import com.couchbase.client.core.service.ServiceType;
import com.couchbase.client.java.*;
import com.couchbase.client.java.Collection;
import com.couchbase.client.java.codec.RawBinaryTranscoder;
import com.couchbase.client.java.diagnostics.WaitUntilReadyOptions;
import com.couchbase.client.java.json.*;
import com.couchbase.client.java.kv.*;
import com.couchbase.client.java.manager.bucket.BucketSettings;
import com.couchbase.client.java.manager.collection.*;
import com.couchbase.client.java.manager.user.*;
import com.couchbase.client.java.manager.view.*;
import com.couchbase.client.java.transactions.TransactionAttemptContext;
import com.couchbase.client.java.transactions.config.TransactionOptions;
import com.couchbase.client.java.transactions.config.TransactionsCleanupConfig;
import com.couchbase.client.java.transactions.config.TransactionsConfig;
import com.couchbase.client.java.transactions.error.TransactionFailedException;
import com.couchbase.client.java.view.*;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/**
 * The official Java client against a cluster of ours: one line of JSON for each check, as __init__.py describes.
 *
 * <p>{@code Client CONNECTION-STRING USER PASSWORD BUCKET REPLICAS [CHECK ...]}
 */
public final class Client {
  private final String[] arguments;
  private final String connection;
  private final String bucketName;
  private final boolean durable;
  private final Cluster cluster;
  private final Bucket bucket;
  private final Collection collection;

  private interface Check {
    Object run() throws Exception;
  }

  private interface Action {
    void run() throws Exception;
  }

  /** Connects with trust in the authority that TLS_CA names. */
  private static Cluster connect(String connection, String user, String password) {
    String authority = System.getenv("TLS_CA");
    ClusterOptions options = ClusterOptions.clusterOptions(user, password);
    var often = TransactionsCleanupConfig.cleanupWindow(Duration.ofSeconds(4));
    options.environment(env -> {
      env.transactionsConfig(TransactionsConfig.cleanupConfig(often));
      if (authority != null) {
        env.securityConfig(tls -> tls.trustCertificate(Path.of(authority)));
      }
    });
    return Cluster.connect(connection, options);
  }

  private Client(String[] arguments) {
    connection = arguments[0];
    this.arguments = arguments;
    cluster = connect(connection, arguments[1], arguments[2]);
    bucketName = arguments[3];
    bucket = cluster.bucket(bucketName);
    collection = bucket.defaultCollection();
    durable = !arguments[4].equals("0");
    bucket.waitUntilReady(Duration.ofSeconds(20));
  }

  private Object documents() {
    MutationResult stored = collection.upsert("documents", JsonObject.create().put("name", "Ada").put("n", 1));
    GetResult read = collection.get("documents");
    JsonObject empty = JsonObject.create();
    refused(() -> collection.insert("documents", empty), DocumentExistsException.class);
    refused(() -> collection.replace("missing", empty), DocumentNotFoundException.class);
    refused(() -> collection.get("missing"), DocumentNotFoundException.class);
    ReplaceOptions version = ReplaceOptions.replaceOptions().cas(read.cas());
    collection.replace("documents", JsonObject.create().put("n", 2), version);
    refused(() -> collection.replace("documents", empty, version), CasMismatchException.class);
    boolean there = collection.exists("documents").exists();
    collection.remove("documents");
    return list(read.contentAsObject(), stored.cas() == read.cas(), there, collection.exists("documents").exists());
  }

  private boolean expires() {
    GetResult found = collection.get("expiry", GetOptions.getOptions().withExpiry(true));
    return found.expiryTime().filter(when -> when.getEpochSecond() > 0).isPresent();
  }

  private Object expiry() {
    Duration later = Duration.ofSeconds(100);
    JsonObject value = JsonObject.create().put("v", 1);
    collection.upsert("expiry", value, UpsertOptions.upsertOptions().expiry(later));
    boolean first = expires();
    collection.upsert("expiry", value, UpsertOptions.upsertOptions().preserveExpiry(true));
    boolean kept = expires();
    collection.touch("expiry", later);
    collection.getAndTouch("expiry", Duration.ZERO);
    boolean cleared = !expires();
    List<MutateInSpec> change = List.of(MutateInSpec.upsert("v", 3));
    collection.mutateIn("expiry", change, MutateInOptions.mutateInOptions().expiry(later));
    collection.mutateIn("expiry", change, MutateInOptions.mutateInOptions().preserveExpiry(true));
    boolean preserved = expires();
    collection.mutateIn("expiry", change);
    return list(first, kept, cleared, preserved, !expires());
  }

  private Object locks() {
    collection.upsert("locks", 1);
    GetResult locked = collection.getAndLock("locks", Duration.ofSeconds(10));
    UpsertOptions soon = UpsertOptions.upsertOptions().timeout(Duration.ofMillis(500));
    refused(() -> collection.upsert("locks", 2, soon), TimeoutException.class, DocumentLockedException.class);
    collection.unlock("locks", locked.cas());
    collection.upsert("locks", 3);
    return collection.get("locks").contentAs(Integer.class);
  }

  private Object binary() {
    BinaryCollection binary = collection.binary();
    collection.upsert("binary", bytes("b"), UpsertOptions.upsertOptions().transcoder(RawBinaryTranscoder.INSTANCE));
    binary.append("binary", bytes("c"));
    binary.prepend("binary", bytes("a"));
    long up = binary.increment("counter", IncrementOptions.incrementOptions().initial(10).delta(5)).content();
    long more = binary.increment("counter", IncrementOptions.incrementOptions().delta(5)).content();
    long down = binary.decrement("counter", DecrementOptions.decrementOptions().delta(7)).content();
    GetOptions raw = GetOptions.getOptions().transcoder(RawBinaryTranscoder.INSTANCE);
    byte[] value = collection.get("binary", raw).contentAs(byte[].class);
    return list(new String(value, StandardCharsets.UTF_8), up, more, down);
  }

  private Object subdocuments() {
    String key = "subdocuments";
    JsonArray numbers = JsonArray.from(1, 3);
    collection.upsert(key, JsonObject.create().put("n", 1).put("list", numbers).put("old", true).put("gone", 1));
    collection.mutateIn(key, List.of(
        MutateInSpec.insert("new.deep", "v").createPath(), MutateInSpec.upsert("s", "x"),
        MutateInSpec.replace("old", false), MutateInSpec.remove("gone"),
        MutateInSpec.arrayAppend("list", List.of(4)), MutateInSpec.arrayPrepend("list", List.of(0)),
        MutateInSpec.arrayInsert("list[2]", List.of(2)), MutateInSpec.arrayInsert("list.[3]", List.of(2.5)),
        MutateInSpec.arrayAddUnique("unique", "u").createPath(),
        MutateInSpec.increment("n", 4), MutateInSpec.decrement("n", 2)));
    LookupInResult found = collection.lookupIn(key, List.of(
        LookupInSpec.get("n"), LookupInSpec.exists("gone"), LookupInSpec.count("list"), LookupInSpec.get(""),
        LookupInSpec.get("missing"), LookupInSpec.get("list[-1]")));
    JsonArray values = JsonArray.create();
    for (int i = 0; i < 6; i++) {
      int at = i;
      if (i == 4) {
        refused(() -> found.contentAs(at, Object.class), PathNotFoundException.class);
        values.add("PathNotFound");
      } else {
        values.add(i == 1 ? (Object) found.exists(1) : i == 3 ? found.contentAsObject(3) : found.contentAs(i, Object.class));
      }
    }
    change(key, MutateInSpec.insert("s", 1), PathExistsException.class);
    change(key, MutateInSpec.replace("no.path", 1), PathNotFoundException.class);
    change(key, MutateInSpec.arrayAppend("s", List.of(1)), PathMismatchException.class);
    change("subdocuments-missing", MutateInSpec.upsert("a", 1), DocumentNotFoundException.class);
    collection.mutateIn("subdocuments-made", List.of(MutateInSpec.upsert("a", 1)),
        MutateInOptions.mutateInOptions().storeSemantics(StoreSemantics.UPSERT));
    return list(values, collection.get("subdocuments-made").contentAsObject());
  }

  private void change(String key, MutateInSpec spec, Class<?> refusal) {
    refused(() -> collection.mutateIn(key, List.of(spec)), refusal);
  }

  private Object attributes() {
    String key = "attributes";
    collection.upsert(key, JsonObject.create().put("body", 1));
    MutateInResult changed = collection.mutateIn(key, List.of(
        MutateInSpec.upsert("app.level", 5).xattr().createPath(),
        MutateInSpec.upsert("_sys.cas", MutateInMacro.CAS).xattr().createPath(),
        MutateInSpec.upsert("app.seqno", MutateInMacro.SEQ_NO).xattr().createPath(),
        MutateInSpec.upsert("app.crc", MutateInMacro.VALUE_CRC_32C).xattr().createPath(),
        MutateInSpec.upsert("body", 2)));
    LookupInResult found = collection.lookupIn(key, List.of(
        LookupInSpec.get("app.level").xattr(), LookupInSpec.get("_sys.cas").xattr(),
        LookupInSpec.get("$document.CAS").xattr(), LookupInSpec.get("$document.exptime").xattr(),
        LookupInSpec.exists("app.none").xattr(), LookupInSpec.get("app.crc").xattr(),
        LookupInSpec.get("$document.value_crc32c").xattr(), LookupInSpec.get("body")));
    // The macro's text is the CAS with its bytes reversed.
    long macro = new BigInteger(found.contentAs(1, String.class).substring(2), 16).longValue();
    long cas = new BigInteger(found.contentAs(2, String.class).substring(2), 16).longValue();
    boolean same = Long.reverseBytes(macro) == cas && cas == changed.cas();
    boolean sums = found.contentAs(5, String.class).equals(found.contentAs(6, String.class));
    collection.upsert(key, JsonObject.create().put("body", 3));
    LookupInResult kept = collection.lookupIn(key, List.of(LookupInSpec.get("app.level").xattr()));
    return list(found.contentAs(0, Integer.class), same, found.contentAs(3, Integer.class), found.exists(4), sums,
        found.contentAs(7, Integer.class), kept.contentAs(0, Integer.class));
  }

  private Object collections() throws Exception {
    CollectionManager manager = bucket.collections();
    manager.createScope("java_scope");
    refused(() -> manager.createScope("java_scope"), ScopeExistsException.class);
    CreateCollectionSettings limit = CreateCollectionSettings.createCollectionSettings().maxExpiry(Duration.ofSeconds(1000));
    manager.createCollection("java_scope", "books", limit);
    manager.createCollection("java_scope", "gone");
    refused(() -> manager.createCollection("java_scope", "books"), CollectionExistsException.class);
    refused(() -> manager.createCollection("nowhere", "books"), ScopeNotFoundException.class);
    Collection books = bucket.scope("java_scope").collection("books");
    Collection gone = bucket.scope("java_scope").collection("gone");
    settled(() -> books.upsert("one", JsonObject.create().put("v", 1)));
    settled(() -> gone.upsert("one", JsonObject.create().put("v", 2)));
    boolean limited = books.get("one", GetOptions.getOptions().withExpiry(true)).expiryTime().isPresent();
    refused(() -> collection.get("one"), DocumentNotFoundException.class);
    manager.dropCollection("java_scope", "gone");
    refused(() -> manager.dropCollection("java_scope", "gone"), CollectionNotFoundException.class);
    GetOptions soon = GetOptions.getOptions().timeout(Duration.ofSeconds(1));
    refused(() -> gone.get("one", soon), TimeoutException.class, CollectionNotFoundException.class);
    manager.createCollection("java_scope", "gone");
    Collection fresh = bucket.scope("java_scope").collection("gone");
    settled(() -> fresh.upsert("two", 1));
    refused(() -> fresh.get("one"), DocumentNotFoundException.class);
    List<Object> names = new ArrayList<>();
    manager.getAllScopes().stream().filter(scope -> scope.name().equals("java_scope"))
        .flatMap(scope -> scope.collections().stream()).sorted(Comparator.comparing(CollectionSpec::name))
        .forEach(each -> names.add(JsonArray.from(each.name(), Math.max(each.maxExpiry().getSeconds(), 0))));
    manager.dropScope("java_scope");
    boolean still = manager.getAllScopes().stream().anyMatch(scope -> scope.name().equals("java_scope"));
    return list(collection.exists("one").exists(), limited, JsonArray.from(names), still);
  }

  private Object buckets() throws Exception {
    var manager = cluster.buckets();
    manager.createBucket(BucketSettings.create("java-made").ramQuotaMB(100));
    refused(() -> manager.createBucket(BucketSettings.create("java-made").ramQuotaMB(100)), BucketExistsException.class);
    Bucket made = cluster.bucket("java-made");
    made.waitUntilReady(Duration.ofSeconds(20));
    settled(() -> made.defaultCollection().upsert("x", 1));
    boolean listed = manager.getAllBuckets().containsKey("java-made");
    Duration most = Duration.ofSeconds(500);
    manager.updateBucket(manager.getBucket("java-made").ramQuotaMB(128).flushEnabled(true).maxExpiry(most));
    BucketSettings changed = manager.getBucket("java-made");
    manager.flushBucket("java-made");
    Object flushed = settled(() -> made.defaultCollection().exists("x").exists());
    manager.dropBucket("java-made");
    refused(() -> manager.getBucket("java-made"), BucketNotFoundException.class);
    return list(listed, changed.ramQuotaMB(), changed.flushEnabled(), changed.maxExpiry().getSeconds(), flushed);
  }

  private Object users() throws Exception {
    UserManager manager = cluster.users();
    collection.upsert("users", JsonObject.create().put("v", 1));
    manager.upsertGroup(new Group("java_group").description("g").roles(new Role("data_reader", bucketName)));
    manager.upsertUser(new User("java_user").password("secret-1").displayName("N").groups("java_group"));
    UserAndMetadata found = manager.getUser(AuthDomain.LOCAL, "java_user");
    List<String> names = found.effectiveRoles().stream().map(Role::name).collect(Collectors.toList());
    boolean listed = manager.getAllUsers().stream().anyMatch(each -> each.user().username().equals("java_user"));
    Object read;
    try (Cluster reader = connect(connection, "java_user", "secret-1")) {
      Collection theirs = reader.bucket(bucketName).defaultCollection();
      read = settled(() -> theirs.get("users").contentAsObject());
      UpsertOptions soon = UpsertOptions.upsertOptions().timeout(Duration.ofMillis(1500));
      // The client has no class of its own for EACCESS.
      refused(() -> theirs.upsert("users", 2, soon), com.couchbase.client.core.error.CouchbaseException.class);
      manager.upsertUser(new User("java_user").displayName("N").roles(new Role("bucket_full_access", bucketName)));
      settled(() -> theirs.upsert("users", JsonObject.create().put("v", 2)));
    }
    manager.dropUser("java_user");
    manager.dropGroup("java_group");
    refused(() -> manager.getUser(AuthDomain.LOCAL, "java_user"), UserNotFoundException.class);
    refused(() -> manager.getGroup("java_group"), GroupNotFoundException.class);
    boolean known = manager.getRoles().stream().anyMatch(each -> each.role().name().equals("data_reader"));
    return list(found.user().groups().size(), JsonArray.from(names), listed, read, known);
  }

  private Object views() throws Exception {
    var manager = bucket.viewIndexes();
    for (int n = 1; n <= 3; n++) {
      collection.upsert("view-" + n, JsonObject.create().put("view", "java").put("n", n));
    }
    String map = "function (doc, meta) { if (doc.view === 'java') emit(doc.n, null) }";
    DesignDocument design = new DesignDocument("java", Map.of("numbers", new View(map, "_count")));
    manager.upsertDesignDocument(design, DesignDocumentNamespace.PRODUCTION);
    ViewOptions fresh = ViewOptions.viewOptions().reduce(false).scanConsistency(ViewScanConsistency.REQUEST_PLUS);
    JsonArray keys = JsonArray.create();
    for (ViewRow row : ((ViewResult) settled(() -> bucket.viewQuery("java", "numbers", fresh))).rows()) {
      keys.add(row.keyAs(Object.class).get());
    }
    ViewResult reduced = bucket.viewQuery("java", "numbers", ViewOptions.viewOptions().reduce(true));
    Object count = reduced.rows().get(0).valueAs(Object.class).get();
    manager.dropDesignDocument("java", DesignDocumentNamespace.PRODUCTION);
    return list(keys, count);
  }

  private Object durability() {
    if (!durable) {
      return "one copy";
    }
    DurabilityLevel level = DurabilityLevel.MAJORITY;
    collection.upsert("durable", JsonObject.create().put("v", 1), UpsertOptions.upsertOptions().durability(level));
    collection.mutateIn("durable", List.of(MutateInSpec.upsert("v", 2)), MutateInOptions.mutateInOptions().durability(level));
    // As on a server, a replica learns that a write is committed after its writer does.
    Object any = settled(() -> {
      JsonObject value = collection.getAnyReplica("durable").contentAsObject();
      if (value.getInt("v") != 2) {
        throw new CouchbaseException("a copy still has " + value);
      }
      return value;
    });
    boolean several = collection.getAllReplicas("durable").count() > 1;
    collection.remove("durable", RemoveOptions.removeOptions().durability(level));
    return list(any, several, collection.exists("durable").exists());
  }

  private void replace(TransactionAttemptContext attempt, String key, String member, Object value) {
    var found = attempt.get(collection, key);
    JsonObject content = found.contentAsObject();
    attempt.replace(found, content.put(member, value == null ? content.getInt(member) + 1 : value));
  }

  private Object transactions() throws Exception {
    collection.upsert("tx-old", JsonObject.create().put("v", 1));
    collection.upsert("tx-gone", JsonObject.create().put("v", 1));
    var done = cluster.transactions().run(attempt -> {
      attempt.insert(collection, "tx-new", JsonObject.create().put("v", "new"));
      replace(attempt, "tx-old", "v", 2);
      attempt.remove(attempt.get(collection, "tx-gone"));
      attempt.get(collection, "tx-new");
    });
    refused(() -> cluster.transactions().run(attempt -> {
      attempt.insert(collection, "tx-never", JsonObject.create().put("v", 1));
      replace(attempt, "tx-old", "v", 3);
      throw new IllegalStateException("on purpose");
    }), TransactionFailedException.class);
    collection.upsert("tx-count", JsonObject.create().put("n", 0));
    ExecutorService threads = Executors.newFixedThreadPool(4);
    Callable<Object> once = () -> cluster.transactions().run(attempt -> replace(attempt, "tx-count", "n", null));
    for (Future<Object> each : threads.invokeAll(Collections.nCopies(4, once))) {
      each.get();
    }
    threads.shutdown();
    Object values = list(done.unstagingComplete(), collection.get("tx-new").contentAsObject(),
        collection.get("tx-old").contentAsObject(), collection.exists("tx-gone").exists(),
        collection.exists("tx-never").exists(), collection.get("tx-count").contentAsObject().get("n"));
    collection.remove("tx-new");
    return values;
  }

  /** No check: {@link #cleanup} starts it, and it dies in the middle of a transaction. */
  private Object abandon() {
    JsonObject two = JsonObject.create().put("v", 2);
    return cluster.transactions().run(attempt -> {
      attempt.insert(collection, "lost-new", two);
      attempt.replace(attempt.get(collection, "lost-old"), two);
      attempt.remove(attempt.get(collection, "lost-gone"));
      try {
        new ProcessBuilder("kill", "-9", String.valueOf(ProcessHandle.current().pid())).start().waitFor();
        Thread.sleep(10000);
      } catch (java.io.IOException | InterruptedException problem) {
        throw new IllegalStateException(problem);
      }
    }, TransactionOptions.transactionOptions().timeout(Duration.ofSeconds(2)));
  }

  private boolean isStaged(String key) {
    return collection.lookupIn(key, List.of(LookupInSpec.exists("txn").xattr())).exists(0);
  }

  private Object cleanup() throws Exception {
    collection.upsert("lost-old", JsonObject.create().put("v", 1));
    collection.upsert("lost-gone", JsonObject.create().put("v", 1));
    List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java"), "-cp",
        System.getProperty("java.class.path"), "Client"));
    command.addAll(Arrays.asList(arguments).subList(0, 5));
    command.add("abandon");
    int died = new ProcessBuilder(command).redirectErrorStream(true)
        .redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor();
    JsonArray staged = list(isStaged("lost-old"), isStaged("lost-gone"));
    // The first transaction starts the search for those of others.
    cluster.transactions().run(attempt -> attempt.insert(collection, "lost-mine", JsonObject.create()));
    for (int n = 0; n < 200; n++) {
      if (!isStaged("lost-old") && !isStaged("lost-gone") && !collection.exists("late-gone").exists()) {
        break;
      }
      Thread.sleep(200);
    }
    settled(() -> collection.get("late-new"));
    JsonArray back = list(collection.get("lost-old").contentAsObject(), collection.exists("lost-gone").exists(),
        collection.exists("lost-new").exists());
    JsonArray done = list(collection.get("late-old").contentAsObject(), collection.get("late-new").contentAsObject(),
        collection.exists("late-gone").exists());
    cluster.transactions().run(attempt ->
        attempt.insert(collection, "lost-new", JsonObject.create().put("v", 3)));
    return list(died == 128 + 9, staged, back, done, collection.get("lost-new").contentAsObject());
  }

  private Object scans() {
    for (int n = 0; n < 20; n++) {
      collection.upsert(String.format("scan-%02d", n), JsonObject.create().put("n", n));
    }
    List<Object> numbers = collection.scan(ScanType.prefixScan("scan-"))
        .map(each -> each.contentAsObject().getInt("n")).sorted().collect(Collectors.toList());
    ScanOptions ids = ScanOptions.scanOptions().idsOnly(true);
    ScanType range = ScanType.rangeScan(ScanTerm.inclusive("scan-05"), ScanTerm.inclusive("scan-10"));
    List<Object> found = collection.scan(range, ids).map(ScanResult::id).sorted().collect(Collectors.toList());
    long sample = collection.scan(ScanType.samplingScan(5, 42), ids).count();
    return list(JsonArray.from(numbers), JsonArray.from(found), sample);
  }

  private Object large() {
    String text = "compressible ".repeat(20000);
    collection.upsert("large", JsonObject.create().put("text", text));
    return collection.get("large").contentAsObject().getString("text").equals(text);
  }

  private Object health() {
    cluster.waitUntilReady(Duration.ofSeconds(20),
        WaitUntilReadyOptions.waitUntilReadyOptions().serviceTypes(ServiceType.MANAGER));
    var endpoints = bucket.ping().endpoints().values().stream().flatMap(List::stream).collect(Collectors.toList());
    boolean fine = endpoints.stream().allMatch(each -> each.state().toString().equals("OK"));
    return list(!endpoints.isEmpty(), fine, !cluster.diagnostics().id().isEmpty());
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static JsonArray list(Object... values) {
    return JsonArray.from(values);
  }

  private static void refused(Action act, Class<?>... wanted) {
    try {
      act.run();
    } catch (Exception error) {
      if (Arrays.stream(wanted).noneMatch(each -> each.isInstance(error))) {
        throw new IllegalStateException("expected " + Arrays.toString(wanted), error);
      }
      return;
    }
    throw new IllegalStateException("expected " + Arrays.toString(wanted) + ", got a success");
  }

  /** What was just made may take its time to be seen everywhere. */
  private static Object settled(Check act) throws Exception {
    for (int attempt = 0; ; attempt++) {
      try {
        return act.run();
      } catch (CouchbaseException error) {
        if (attempt == 20) {
          throw error;
        }
        Thread.sleep(250);
      }
    }
  }

  public static void main(String[] arguments) {
    Client client = new Client(arguments);
    Map<String, Check> checks = new LinkedHashMap<>();
    checks.put("documents", client::documents);
    checks.put("expiry", client::expiry);
    checks.put("locks", client::locks);
    checks.put("binary", client::binary);
    checks.put("subdocuments", client::subdocuments);
    checks.put("attributes", client::attributes);
    checks.put("collections", client::collections);
    checks.put("buckets", client::buckets);
    checks.put("users", client::users);
    checks.put("views", client::views);
    checks.put("durability", client::durability);
    checks.put("transactions", client::transactions);
    checks.put("cleanup", client::cleanup);
    checks.put("scans", client::scans);
    checks.put("large", client::large);
    checks.put("health", client::health);
    List<String> wanted = List.of(arguments).subList(5, arguments.length);
    if (wanted.contains("abandon")) {
      client.abandon();
    }
    checks.forEach((name, check) -> {
      if (!wanted.isEmpty() && !wanted.contains(name)) {
        return;
      }
      JsonObject line = JsonObject.create().put("check", name);
      try {
        line.put("result", check.run());
      } catch (Exception error) {
        String cause = error.getCause() == null ? "" : " caused by " + error.getCause();
        line.put("raised", error + cause);
      }
      System.out.println(line);
    });
    client.cluster.disconnect();
  }
}
