// The official Node.js client against a cluster of ours: one line of JSON for each check, as steps.py describes.
//
//   node client.js CONNECTION-STRING USER PASSWORD BUCKET REPLICAS [CHECK ...]
'use strict'

const { spawn } = require('child_process')
const couchbase = require('couchbase')

const [connection, user, password, bucketName, replicas, ...wanted] = process.argv.slice(2)
const durable = Number(replicas) > 0
const authority = process.env.TLS_CA
const trust = authority ? { security: { trustStorePath: authority } } : {}

const checks = {
  async documents({ collection }) {
    const stored = await collection.upsert('documents', { name: 'Ada', n: 1 })
    const read = await collection.get('documents')
    await refused(() => collection.insert('documents', {}), 'DocumentExists')
    await refused(() => collection.replace('missing', {}), 'DocumentNotFound')
    await refused(() => collection.get('missing'), 'DocumentNotFound')
    await collection.replace('documents', { name: 'Ada', n: 2 }, { cas: read.cas })
    await refused(() => collection.replace('documents', {}, { cas: read.cas }), 'CasMismatch')
    const there = (await collection.exists('documents')).exists
    await collection.remove('documents')
    return [read.content, String(stored.cas) === String(read.cas), there, (await collection.exists('documents')).exists]
  },

  async expiry({ collection }) {
    await collection.upsert('expiry', { v: 1 }, { expiry: 100 })
    const first = (await collection.get('expiry', { withExpiry: true })).expiryTime > 0
    await collection.upsert('expiry', { v: 2 }, { preserveExpiry: true })
    const kept = (await collection.get('expiry', { withExpiry: true })).expiryTime > 0
    await collection.touch('expiry', 200)
    await collection.getAndTouch('expiry', 0)
    const cleared = (await collection.get('expiry', { withExpiry: true })).expiryTime
    await collection.mutateIn('expiry', [couchbase.MutateInSpec.upsert('v', 3)], { expiry: 100 })
    await collection.mutateIn('expiry', [couchbase.MutateInSpec.upsert('v', 4)], { preserveExpiry: true })
    const preserved = (await collection.get('expiry', { withExpiry: true })).expiryTime > 0
    await collection.mutateIn('expiry', [couchbase.MutateInSpec.upsert('v', 5)])
    const dropped = (await collection.get('expiry', { withExpiry: true })).expiryTime
    return [first, kept, !cleared, preserved, !dropped]
  },

  async locks({ collection }) {
    await collection.upsert('locks', 1)
    const locked = await collection.getAndLock('locks', 10)
    await refused(() => collection.upsert('locks', 2, { timeout: 500 }), 'Timeout', 'DocumentLocked')
    await collection.unlock('locks', locked.cas)
    await collection.upsert('locks', 3)
    return (await collection.get('locks')).content
  },

  async binary({ collection }) {
    const binary = collection.binary()
    await collection.upsert('binary', Buffer.from('b'))
    await binary.append('binary', Buffer.from('c'))
    await binary.prepend('binary', Buffer.from('a'))
    const up = (await binary.increment('counter', 5, { initial: 10 })).value
    const more = (await binary.increment('counter', 5)).value
    const down = (await binary.decrement('counter', 7)).value
    return [(await collection.get('binary')).content.toString(), up, more, down]
  },

  async subdocuments({ collection }) {
    const Change = couchbase.MutateInSpec, Look = couchbase.LookupInSpec
    await collection.upsert('subdocuments', { n: 1, list: [1, 3], old: true, gone: 1 })
    await collection.mutateIn('subdocuments', [
      Change.insert('new.deep', 'v', { createPath: true }), Change.upsert('s', 'x'), Change.replace('old', false),
      Change.remove('gone'), Change.arrayAppend('list', 4), Change.arrayPrepend('list', 0), Change.arrayInsert('list[2]', 2),
      Change.arrayInsert('list.[3]', 2.5), Change.arrayAddUnique('unique', 'u', { createPath: true }),
      Change.increment('n', 4), Change.decrement('n', 2),
    ])
    const found = await collection.lookupIn('subdocuments', [
      Look.get('n'), Look.exists('gone'), Look.count('list'), Look.get(''), Look.get('missing'), Look.get('list[-1]'),
    ])
    await refused(() => collection.mutateIn('subdocuments', [Change.insert('s', 1)]), 'PathExists')
    await refused(() => collection.mutateIn('subdocuments', [Change.replace('no.path', 1)]), 'PathNotFound')
    await refused(() => collection.mutateIn('subdocuments', [Change.arrayAppend('s', 1)]), 'PathMismatch')
    await refused(() => collection.mutateIn('subdocuments-missing', [Change.upsert('a', 1)]), 'DocumentNotFound')
    await collection.mutateIn('subdocuments-made', [Change.upsert('a', 1)], { storeSemantics: couchbase.StoreSemantics.Upsert })
    return [found.content.map((entry) => entry.error ? nameOf(entry.error) : entry.value),
      (await collection.get('subdocuments-made')).content]
  },

  async attributes({ collection }) {
    const Change = couchbase.MutateInSpec, Look = couchbase.LookupInSpec
    await collection.upsert('attributes', { body: 1 })
    const changed = await collection.mutateIn('attributes', [
      Change.upsert('app.level', 5, { xattr: true, createPath: true }),
      Change.upsert('_sys.cas', couchbase.MutateInMacro.Cas, { xattr: true, createPath: true }),
      Change.upsert('app.seqno', couchbase.MutateInMacro.SeqNo, { xattr: true, createPath: true }),
      Change.upsert('app.crc', couchbase.MutateInMacro.ValueCrc32c, { xattr: true, createPath: true }),
      Change.upsert('body', 2),
    ])
    const found = await collection.lookupIn('attributes', [
      Look.get('app.level', { xattr: true }), Look.get('_sys.cas', { xattr: true }), Look.get('$document.CAS', { xattr: true }),
      Look.get('$document.exptime', { xattr: true }), Look.exists('app.none', { xattr: true }),
      Look.get('app.crc', { xattr: true }), Look.get('$document.value_crc32c', { xattr: true }), Look.get('body'),
    ])
    const [level, macro, cas, expiry, none, crc, now, body] = found.content.map((entry) => entry.value)
    // The macro's text is the CAS with its bytes reversed.
    const swapped = '0x' + Buffer.from(macro.slice(2), 'hex').reverse().toString('hex')
    await collection.upsert('attributes', { body: 3 })
    const kept = await collection.lookupIn('attributes', [Look.get('app.level', { xattr: true })])
    return [level, BigInt(swapped) === BigInt(cas) && BigInt(cas) === BigInt(String(changed.cas)), expiry, none, crc === now, body,
      kept.content[0].value]
  },

  async collections({ bucket, collection }) {
    const manager = bucket.collections()
    await manager.createScope('node_scope')
    await refused(() => manager.createScope('node_scope'), 'ScopeExists')
    await manager.createCollection('books', 'node_scope', { maxExpiry: 1000 })
    await manager.createCollection('gone', 'node_scope')
    await refused(() => manager.createCollection('books', 'node_scope'), 'CollectionExists')
    await refused(() => manager.createCollection('books', 'nowhere'), 'ScopeNotFound')
    const books = bucket.scope('node_scope').collection('books'), gone = bucket.scope('node_scope').collection('gone')
    await settled(() => books.upsert('one', { v: 1 }))
    await settled(() => gone.upsert('one', { v: 2 }))
    const limited = (await books.get('one', { withExpiry: true })).expiryTime > 0
    await refused(() => collection.get('one'), 'DocumentNotFound')
    await manager.dropCollection('gone', 'node_scope')
    await refused(() => manager.dropCollection('gone', 'node_scope'), 'CollectionNotFound')
    await refused(() => gone.get('one', { timeout: 1000 }), 'Timeout', 'CollectionNotFound')
    await manager.createCollection('gone', 'node_scope')
    const fresh = bucket.scope('node_scope').collection('gone')
    await settled(() => fresh.upsert('two', 1))
    await refused(() => fresh.get('one'), 'DocumentNotFound')
    const scope = (await manager.getAllScopes()).find((each) => each.name === 'node_scope')
    const names = scope.collections.map((each) => [each.name, each.maxExpiry || 0]).sort()
    await manager.dropScope('node_scope')
    return [(await collection.exists('one')).exists, limited, names,
      (await manager.getAllScopes()).some((each) => each.name === 'node_scope')]
  },

  async buckets({ cluster }) {
    const manager = cluster.buckets()
    await manager.createBucket({ name: 'node-made', ramQuotaMB: 100 })
    await refused(() => manager.createBucket({ name: 'node-made', ramQuotaMB: 100 }), 'BucketExists')
    await settled(() => cluster.bucket('node-made').defaultCollection().upsert('x', 1))
    const names = (await manager.getAllBuckets()).map((each) => each.name)
    await manager.updateBucket({ ...(await manager.getBucket('node-made')), ramQuotaMB: 128, flushEnabled: true, maxExpiry: 500 })
    const changed = await manager.getBucket('node-made')
    await manager.flushBucket('node-made')
    const flushed = await settled(() => cluster.bucket('node-made').defaultCollection().exists('x'))
    await manager.dropBucket('node-made')
    await refused(() => manager.getBucket('node-made'), 'BucketNotFound')
    return [names.includes('node-made'), changed.ramQuotaMB, changed.flushEnabled, changed.maxExpiry, flushed.exists]
  },

  async users({ cluster, collection }) {
    const manager = cluster.users()
    await collection.upsert('users', { v: 1 })
    await manager.upsertGroup({ name: 'node_group', description: 'g', roles: [{ name: 'data_reader', bucket: bucketName }] })
    await manager.upsertUser({ username: 'node_user', password: 'secret-1', displayName: 'N', roles: [], groups: ['node_group'] })
    const found = await manager.getUser('node_user')
    const listed = (await manager.getAllUsers()).some((each) => each.username === 'node_user')
    const reader = await couchbase.connect(connection, { username: 'node_user', password: 'secret-1', ...trust })
    const theirs = reader.bucket(bucketName).defaultCollection()
    const read = (await settled(() => theirs.get('users'))).content
    await refused(() => theirs.upsert('users', 2, { timeout: 1500 }), 'Authentication', 'AuthenticationFailure', 'Timeout')
    await manager.upsertUser({ username: 'node_user', displayName: 'N', roles: [{ name: 'bucket_full_access', bucket: bucketName }] })
    await settled(() => theirs.upsert('users', { v: 2 }))
    await reader.close()
    await manager.dropUser('node_user')
    await manager.dropGroup('node_group')
    await refused(() => manager.getUser('node_user'), 'UserNotFound')
    await refused(() => manager.getGroup('node_group'), 'GroupNotFound')
    const roles = (await manager.getRoles()).map((each) => each.name)
    return [found.groups.length, found.effectiveRoles.map((each) => each.name), listed, read, roles.includes('data_reader')]
  },

  async views({ bucket, collection }) {
    const views = bucket.viewIndexes()
    for (const n of [1, 2, 3]) await collection.upsert(`view-${n}`, { view: 'node', n })
    await views.upsertDesignDocument(new couchbase.DesignDocument({ name: 'node', views: {
      numbers: new couchbase.DesignDocument.View({ map: "function (doc, meta) { if (doc.view === 'node') emit(doc.n, null) }", reduce: '_count' }) } }),
      couchbase.DesignDocumentNamespace.Production)
    const rows = await settled(() => bucket.viewQuery('node', 'numbers', { reduce: false, stale: couchbase.ViewScanConsistency.RequestPlus }))
    const reduced = await bucket.viewQuery('node', 'numbers', { reduce: true })
    await views.dropDesignDocument('node', couchbase.DesignDocumentNamespace.Production)
    return [rows.rows.map((row) => row.key), reduced.rows[0].value]
  },

  async durability({ collection }) {
    if (!durable) return 'one copy'
    const level = couchbase.DurabilityLevel.Majority
    await collection.upsert('durable', { v: 1 }, { durabilityLevel: level })
    await collection.mutateIn('durable', [couchbase.MutateInSpec.upsert('v', 2)], { durabilityLevel: level })
    // As on a server, a replica learns that a write is committed after its writer does.
    const any = await settled(async () => {
      const value = (await collection.getAnyReplica('durable')).content
      if (value.v !== 2) throw new Error(`a copy still has ${JSON.stringify(value)}`)
      return value
    })
    const all = (await collection.getAllReplicas('durable')).length
    await collection.remove('durable', { durabilityLevel: level })
    return [any, all > 1, (await collection.exists('durable')).exists]
  },

  async transactions({ cluster, collection }) {
    await collection.upsert('tx-old', { v: 1 })
    await collection.upsert('tx-gone', { v: 1 })
    const done = await cluster.transactions().run(async (attempt) => {
      await attempt.insert(collection, 'tx-new', { v: 'new' })
      await attempt.replace(await attempt.get(collection, 'tx-old'), { v: 2 })
      await attempt.remove(await attempt.get(collection, 'tx-gone'))
      const own = await attempt.get(collection, 'tx-new')
      if (own.content.v !== 'new') throw new Error('a transaction does not see its own writes')
    }, { timeout: 10000 })
    await refused(() => cluster.transactions().run(async (attempt) => {
      await attempt.insert(collection, 'tx-never', { v: 1 })
      await attempt.replace(await attempt.get(collection, 'tx-old'), { v: 3 })
      throw new Error('on purpose')
    }, { timeout: 10000 }), 'TransactionFailed')
    await collection.upsert('tx-count', { n: 0 })
    const add = () => cluster.transactions().run(async (attempt) => {
      const counter = await attempt.get(collection, 'tx-count')
      await attempt.replace(counter, { n: counter.content.n + 1 })
    }, { timeout: 15000 })
    // This client leaves it to the program to try again after a conflict.
    const once = async () => {
      for (;;) {
        try {
          return await add()
        } catch (error) {
          if (nameOf(error) !== 'TransactionFailed') throw error
        }
      }
    }
    await Promise.all([once(), once(), once(), once()])
    const values = [(await collection.get('tx-new')).content, (await collection.get('tx-old')).content,
      (await collection.exists('tx-gone')).exists, (await collection.exists('tx-never')).exists,
      (await collection.get('tx-count')).content.n]
    await collection.remove('tx-new')
    return [done.unstagingComplete, ...values]
  },

  // No check: what `cleanup` starts, to die in the middle of a transaction.
  async abandon({ cluster, collection }) {
    await cluster.transactions().run(async (attempt) => {
      await attempt.insert(collection, 'lost-new', { v: 2 })
      await attempt.replace(await attempt.get(collection, 'lost-old'), { v: 2 })
      await attempt.remove(await attempt.get(collection, 'lost-gone'))
      process.kill(process.pid, 'SIGKILL')
      await pause(10000)
    }, { timeout: 2000 })
  },

  async cleanup({ cluster, collection }) {
    await collection.upsert('lost-old', { v: 1 })
    await collection.upsert('lost-gone', { v: 1 })
    const child = spawn(process.execPath, [...process.argv.slice(1, 7), 'abandon'], { stdio: 'ignore' })
    const signal = await new Promise((resolve) => child.on('exit', (code, name) => resolve(name)))
    const isStaged = async (key) =>
      (await collection.lookupIn(key, [couchbase.LookupInSpec.exists('txn', { xattr: true })])).content[0].value
    const staged = [await isStaged('lost-old'), await isStaged('lost-gone')]
    const insert = (key, value) => cluster.transactions().run((attempt) => attempt.insert(collection, key, value))
    // The first transaction starts the search for those of others.
    await insert('lost-mine', {})
    for (let n = 0; n < 200; n += 1) {
      if (!(await isStaged('lost-old')) && !(await isStaged('lost-gone')) && !(await collection.exists('late-gone')).exists) break
      await pause(200)
    }
    const late = await settled(() => collection.get('late-new'))
    const back = [(await collection.get('lost-old')).content, (await collection.exists('lost-gone')).exists,
      (await collection.exists('lost-new')).exists]
    const done = [(await collection.get('late-old')).content, late.content, (await collection.exists('late-gone')).exists]
    await insert('lost-new', { v: 3 })
    return [signal === 'SIGKILL', staged, back, done, (await collection.get('lost-new')).content]
  },

  async scans({ collection }) {
    await Promise.all(Array.from({ length: 20 }, (_, n) => collection.upsert(`scan-${String(n).padStart(2, '0')}`, { n })))
    const prefix = await collection.scan(new couchbase.PrefixScan('scan-'))
    const range = await collection.scan(new couchbase.RangeScan(new couchbase.ScanTerm('scan-05'), new couchbase.ScanTerm('scan-10')),
      { idsOnly: true })
    const sample = await collection.scan(new couchbase.SamplingScan(5, 42), { idsOnly: true })
    return [prefix.map((each) => each.content.n).sort((a, b) => a - b), range.map((each) => each.id).sort(), sample.length]
  },

  async large({ collection }) {
    const text = 'compressible '.repeat(20000)
    await collection.upsert('large', { text })
    return (await collection.get('large')).content.text === text
  },

  async health({ cluster, bucket }) {
    const ping = await bucket.ping()
    const states = Object.values(ping.services).flat().map((each) => each.state)
    return [states.length > 0, states.every((each) => each === 0 || each === 'ok'), Boolean((await cluster.diagnostics()).id)]
  },
}

function nameOf(error) {
  return error.constructor.name.replace(/Error$/, '')
}

async function refused(act, ...names) {
  try {
    await act()
  } catch (error) {
    const name = nameOf(error)
    if (!names.some((each) => name === each || (each === 'Timeout' && name.endsWith('Timeout')))) {
      throw new Error(`expected ${names.join(' or ')}, got ${name}: ${error.message}`)
    }
    return name
  }
  throw new Error(`expected ${names.join(' or ')}, got a success`)
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}

// What was just made may take its time to be seen everywhere.
async function settled(act) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await act()
    } catch (error) {
      if (attempt >= 20) throw error
      await pause(250)
    }
  }
}

async function main() {
  const cluster = await couchbase.connect(connection, {
    username: user, password, timeouts: { kvTimeout: 5000 }, transactions: { cleanupConfig: { cleanupWindow: 4000 } },
    ...trust,
  })
  const bucket = cluster.bucket(bucketName)
  const place = { cluster, bucket, collection: bucket.defaultCollection() }
  for (const [name, check] of Object.entries(checks)) {
    if (wanted.length ? !wanted.includes(name) : name === 'abandon') continue
    let line
    try {
      line = { check: name, result: await check(place) }
    } catch (error) {
      line = { check: name, raised: `${nameOf(error)}: ${error.message}` }
    }
    process.stdout.write(JSON.stringify(line) + '\n')
  }
  await cluster.close()
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`)
  process.exitCode = 1
})
