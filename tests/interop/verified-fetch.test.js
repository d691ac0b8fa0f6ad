// @helia/verified-fetch reads through cairn's gateway: it asks for blocks, checks them, and makes of them itself what the
// gateway makes of the same blocks. Both must come to the same answer.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { withHTTP } from '@helia/http'
import { createVerifiedFetch, createVerifiedFetchWithHelia } from '@helia/verified-fetch'
import { CarReader } from '@ipld/car'
import { createHeliaLight } from 'helia'
import { between } from './lib/between.js'
import { all, bytes, longNames, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { CALL_MS_MAX, COMMAND_MS_MAX } from './lib/limits.js'
import { connectionGater } from './lib/loopback.js'

const repository = await Repository.make({ after })
await repository.ok('config', 'set', 'gateway.retrieval_timeout', '1s')
const daemon = await repository.daemon()
const gateway = await daemon.gateway()

/** Nothing but HTTP on this machine: peers and names of domains cannot be asked. */
const local = {
  allowInsecure: true,
  allowLocal: true,
  dnsResolvers: [async () => { throw new Error('no domain is asked for here') }],
  libp2pConfig: { addresses: { listen: [] }, transports: [], peerDiscovery: [], services: {}, connectionGater }
}

/** A client as its users make it, that knows gateways and nobody else. It ends with `test`. */
async function client (test, gateways = [gateway], routers = []) {
  const made = await createVerifiedFetch({ gateways, routers, ...local })
  test.after(() => made.stop())
  return (resource, options) => made(resource, { signal: AbortSignal.timeout(CALL_MS_MAX), ...options })
}

/**
 * A client without Bitswap, which would wait for peers to the end, and without sessions, which would look for other gateways
 * to the end: it says at once what is wrong with what a gateway gave.
 */
async function strict (test, url) {
  const helia = withHTTP(createHeliaLight(), { delegatedRouters: [url], recursiveGateways: [url], ...local })
  const made = await createVerifiedFetchWithHelia(await helia.start())
  test.after(() => made.stop())
  return (resource, options) => made(resource, { session: false, signal: AbortSignal.timeout(CALL_MS_MAX), ...options })
}

/** What the gateway itself answers to the same. */
async function direct (path, options) {
  return await fetch(`${gateway}${path}`, { redirect: 'manual', signal: AbortSignal.timeout(CALL_MS_MAX), ...options })
}

const body = async (response) => Buffer.from(await response.arrayBuffer())

/** Fails unless both answers have the same status, and the same of these headers. */
function alike (got, expected, headers, what) {
  const of = (response) => [response.status, ...headers.map((name) => `${name}: ${response.headers.get(name)}`)]
  assert.deepEqual(of(got), of(expected), what)
}

/** Adds bytes, and gives their CID. */
async function add (content, ...options) {
  const { code, stdout, stderr } = await repository.run(['add', '-Q', ...options], { input: content })
  assert.equal(code, 0, stderr)
  return stdout.toString().trim()
}

/** Writes files, adds them as a folder, and gives its CID. */
async function addFolder (test, files, ...options) {
  const source = path.join(await folder(test), 'source')
  for (const [name, content] of files) {
    await mkdir(path.join(source, path.dirname(name)), { recursive: true })
    await writeFile(path.join(source, name), content)
  }
  return await repository.ok('add', '-r', '-Q', ...options, source)
}

const encoded = (path) => path.split('/').map(encodeURIComponent).join('/')

const FILE = bytes(600, (5 << 19) + 7)
const FILES = {
  'no bytes': [Buffer.alloc(0)],
  'one byte': [bytes(601, 1)],
  'one block': [bytes(602, 1 << 20)],
  'one block and a byte': [bytes(603, (1 << 20) + 1)],
  'three blocks': [FILE],
  'blocks of 2015': [bytes(604, 1_000_000), '--profile=unixfs-v0-2015'],
  'two levels of small blocks': [bytes(605, 200_000), '--profile=unixfs-v0-2015', '--chunker=size-1000']
}

for (const [name, [content, ...options]] of Object.entries(FILES)) {
  test(`a file of ${name} arrives and is checked`, async (t) => {
    const cid = await add(content, ...options)
    const { url, asked } = await between(t, gateway)
    const fetched = await client(t, [url])
    const got = await fetched(`/ipfs/${cid}`)
    const expected = await direct(`/ipfs/${cid}`)
    alike(got, expected, ['content-length', 'etag', 'x-ipfs-path', 'accept-ranges'])
    same(await body(got), content, 'as the client made it')
    same(await body(expected), content, 'as the gateway made it')
    const blocks = [cid, ...(await repository.ok('refs', '-r', '-u', cid)).split('\n')].filter((line) => line !== '')
    assert.deepEqual(asked.sort(), blocks.map((cid) => `GET /ipfs/${cid}?format=raw`).sort(), 'every block once, and nothing else')
  })
}

// Left out: an end beyond the file, which is cut to its size (RFC 9110, 14.1.2) and which the client refuses with 416.
const RANGES = {
  'bytes=0-0': [0, 1],
  'bytes=1048570-1048590': [1_048_570, 1_048_591],
  'bytes=2000000-': [2_000_000, FILE.length],
  'bytes=-7': [FILE.length - 7, FILE.length]
}

test('ranges of a file are the same', async (t) => {
  const cid = await add(FILE)
  const fetched = await client(t)
  for (const [range, [from, to]] of Object.entries(RANGES)) {
    const options = { headers: { range } }
    const [got, expected] = [await fetched(`ipfs://${cid}`, options), await direct(`/ipfs/${cid}`, options)]
    assert.equal(expected.status, 206, range)
    alike(got, expected, ['content-range', 'content-length'], range)
    same(await body(got), FILE.subarray(from, to), `${range} of the client`)
    same(await body(expected), FILE.subarray(from, to), `${range} of the gateway`)
  }
  const beyond = { headers: { range: `bytes=${FILE.length}-` } }
  alike(await fetched(`ipfs://${cid}`, beyond), await direct(`/ipfs/${cid}`, beyond), [], 'beyond the end')
})

test('a range takes the blocks it needs, and no others', async (t) => {
  const cid = await add(FILE)
  const leaves = (await repository.ok('refs', cid)).split('\n')
  const { url, asked } = await between(t, gateway)
  const fetched = await client(t, [url])
  const got = await fetched(`ipfs://${cid}`, { headers: { range: 'bytes=1048576-1048600' } })
  same(await body(got), FILE.subarray(1_048_576, 1_048_601), 'the range')
  assert.deepEqual(asked, [cid, leaves[1]].map((cid) => `GET /ipfs/${cid}?format=raw`))
})

for (const profile of ['unixfs-v1-2025', 'unixfs-v0-2015']) {
  test(`files in folders are found by their paths: ${profile}`, async (t) => {
    const files = tree(610)
    const cid = await addFolder(t, files, '--profile', profile)
    const fetched = await client(t)
    for (const [name, content] of files) {
      const at = `/ipfs/${cid}/${encoded(name)}`
      const [got, expected] = [await fetched(at), await direct(at)]
      alike(got, expected, ['content-length', 'etag'], name)
      same(await body(got), content, `${name} of the client`)
      same(await body(expected), content, `${name} of the gateway`)
    }
    for (const name of ['nothing', 'below/nothing', 'one byte/below-a-file']) {
      const at = `/ipfs/${cid}/${encoded(name)}`
      assert.equal((await direct(at)).status, 404, name)
      // The client takes a file of dag-pb for what is below it.
      if (!name.startsWith('one byte')) assert.ok((await fetched(at)).status >= 400, name)
    }
  })
}

test('an index.html stands for its folder, which ends with a slash', async (t) => {
  const page = '<!doctype html><title>below</title>'
  const cid = await addFolder(t, [['below/index.html', page], ['below/other', 'other']])
  const fetched = await client(t)
  const at = `/ipfs/${cid}/below`
  const [got, expected] = [await fetched(`ipfs://${cid}/below`, { redirect: 'manual' }), await direct(at)]
  assert.deepEqual([got.status, got.headers.get('location')], [301, `ipfs://${cid}/below/`])
  assert.deepEqual([expected.status, expected.headers.get('location')], [301, `${at}/`])
  for (const [who, answer] of [['client', await fetched(`ipfs://${cid}/below/`)], ['gateway', await direct(`${at}/`)]]) {
    assert.match(answer.headers.get('content-type'), /^text\/html\b/, who)
    assert.equal(await answer.text(), page, who)
  }
})

test('an entry of a folder in shards is found in a few blocks', async (t) => {
  const names = longNames()
  const cid = await addFolder(t, names.map((name) => [name, name]))
  const { url, asked } = await between(t, gateway)
  const fetched = await client(t, [url])
  for (const name of [names[0], names[499], names[999]]) {
    asked.length = 0
    const at = `/ipfs/${cid}/${encoded(name)}`
    const [got, expected] = [await fetched(at), await direct(at)]
    alike(got, expected, ['content-length', 'etag'], name)
    assert.equal(await got.text(), name)
    assert.equal(await expected.text(), name)
    assert.ok(asked.length <= 4, `${asked.length} blocks: root, two shards and the file at most`)
  }
})

/** A document as `dag put` takes it, with a link to a file. */
const documentOf = (cid) => JSON.stringify({ list: [1, 'two', null], file: { '/': cid }, deep: { name: 'x' } })

/** What a document of a codec is given as: what it is, with the name that says less, and its bytes. */
const DOCUMENTS = {
  'dag-cbor': ['application/vnd.ipld.dag-cbor', 'application/cbor', 'application/vnd.ipld.raw'],
  'dag-json': ['application/vnd.ipld.dag-json', 'application/json', 'application/vnd.ipld.raw']
}

for (const [codec, takes] of Object.entries(DOCUMENTS)) {
  test(`a document in ${codec} is the same in every form, and leads on`, async (t) => {
    const file = await add(FILE)
    const put = await repository.run(['dag', 'put', '--store-codec', codec], { input: documentOf(file) })
    assert.equal(put.code, 0, put.stderr)
    const cid = put.stdout.toString().trim()
    const fetched = await client(t)
    for (const accept of new Set(Object.values(DOCUMENTS).flat())) {
      const options = { headers: { accept } }
      const [got, expected] = [await fetched(`ipfs://${cid}`, options), await direct(`/ipfs/${cid}`, options)]
      alike(got, expected, takes.includes(accept) ? ['content-type', 'content-length'] : [], accept)
      assert.equal(expected.status, takes.includes(accept) ? 200 : 406, accept)
      if (got.status === 200) same(await body(got), await body(expected), accept)
    }
    same(await body(await fetched(`ipfs://${cid}/file`)), FILE, 'what the client finds')
    same(await body(await direct(`/ipfs/${cid}/file`)), FILE, 'what the gateway finds')
  })
}

const accepting = (type) => ({ headers: { accept: type } })

test('a block is the same from both', async (t) => {
  const cid = await add(FILE)
  const fetched = await client(t)
  const raw = accepting('application/vnd.ipld.raw')
  const [got, expected] = [await fetched(`ipfs://${cid}`, raw), await direct(`/ipfs/${cid}`, raw)]
  alike(got, expected, ['content-type', 'content-length'])
  const block = await body(got)
  same(block, await body(expected), 'the block')
  same(block, await repository.bytes('block', 'get', cid), 'the block as it is kept')
})

/** The blocks of a CAR, in their order. */
async function blocksOf (car) {
  const reader = await CarReader.fromBytes(car)
  return (await all(reader.cids())).map(String)
}

for (const scope of ['all', 'entity', 'block']) {
  test(`a CAR of scope ${scope} holds the same blocks from both`, async (t) => {
    const cid = await addFolder(t, tree(620))
    const fetched = await client(t)
    for (const below of ['', '/below', '/below/deeper/three-chunks']) {
      const car = accepting('application/vnd.ipld.car; order=dfs; dups=n')
      const query = `${below}?dag-scope=${scope}`
      const got = await blocksOf(await body(await fetched(`ipfs://${cid}${query}`, car)))
      const expected = await blocksOf(await body(await direct(`/ipfs/${cid}${query}`, car)))
      assert.deepEqual(got, expected, below)
      assert.ok(expected.length > 0, below)
    }
  })
}

test('a TAR holds the same files from both', async (t) => {
  const files = tree(630)
  const cid = await addFolder(t, files)
  const fetched = await client(t)
  const tar = accepting('application/x-tar')
  const answers = { client: await fetched(`ipfs://${cid}`, tar), gateway: await direct(`/ipfs/${cid}`, tar) }
  for (const [who, answer] of Object.entries(answers)) {
    assert.deepEqual([answer.status, answer.headers.get('content-type')], [200, 'application/x-tar'], who)
    const out = await unpacked(t, await body(answer))
    assert.deepEqual(await readdir(out), [cid], who)
    for (const [name, content] of files) same(await readFile(path.join(out, cid, name)), content, `${name} of the ${who}`)
  }
})

/** Unpacks a TAR with the system's program, and gives the folder. */
async function unpacked (test, tar) {
  const into = await folder(test)
  const running = promisify(execFile)('tar', ['-x', '-C', into], { timeout: COMMAND_MS_MAX })
  running.child.stdin.end(tar)
  await running
  return into
}

test('a name that cairn published leads to its content, with its record', async (t) => {
  const cid = await addFolder(t, [['below/file', FILE]])
  const name = await repository.ok('name', 'publish', '-Q', '--allow-offline', `/ipfs/${cid}`)
  const { url, asked } = await between(t, gateway)
  const fetched = await client(t, [gateway], [url])
  const got = await fetched(`ipns://${name}/below/file`)
  assert.equal(got.status, 200)
  same(await body(got), FILE, 'what the client finds')
  same(await body(await direct(`/ipns/${name}/below/file`)), FILE, 'what the gateway finds')
  assert.ok(asked.some((request) => request.startsWith('GET /routing/v1/ipns/')), `${asked}`)

  const record = await body(await fetched(`ipns://${name}`, accepting('application/vnd.ipfs.ipns-record')))
  same(record, await repository.bytes('name', 'get', name), 'the record')
})

test('a name that nobody published is an error', async (t) => {
  const key = await repository.ok('key', 'gen', 'silent')
  const fetched = await strict(t, gateway)
  const got = await fetched(`ipns://${key}`)
  assert.ok(got.status >= 400, `${got.status}`)
})

test('a record that was changed on its way is not believed', async (t) => {
  const cid = await add(FILE)
  const key = await repository.ok('key', 'gen', 'changed')
  await repository.ok('name', 'publish', '-Q', '--allow-offline', '--key', 'changed', `/ipfs/${cid}`)
  const liar = await between(t, gateway, (body, path) => path.startsWith('/routing/v1/ipns/') ? flipped(body) : body)
  const believing = await strict(t, gateway)
  assert.equal((await believing(`ipns://${key}`)).status, 200)
  const fetched = await strict(t, liar.url)
  const got = await fetched(`ipns://${key}`)
  assert.ok(got.status >= 400, `${got.status}`)
  assert.ok(liar.asked.length > 0)
})

test('content that nobody has is an error, and the gateway says so', async (t) => {
  const cid = await add(bytes(641, 1000), '--only-hash')
  const { url, asked } = await between(t, gateway)
  const fetched = await strict(t, url)
  const answer = await fetched(`ipfs://${cid}`)
  assert.equal(answer.status, 502)
  assert.ok(asked.includes(`GET /ipfs/${cid}?format=raw`), `${asked}`)
  const told = await direct(`/ipfs/${cid}?format=raw`)
  assert.equal(told.status, 502)
  assert.match(await told.text(), new RegExp(cid))
})

test('a file of which a block is missing ends as an error, from both', async (t) => {
  const content = bytes(640, 5 << 20)
  const cid = await add(content, '--pin=false')
  const leaves = (await repository.ok('refs', cid)).split('\n')
  await repository.ok('block', 'rm', leaves[3])
  const fetched = await strict(t, gateway)
  await assert.rejects(read(fetched(`ipfs://${cid}`)), { name: 'LoadBlockFailedError' })
  await assert.rejects(read(direct(`/ipfs/${cid}`)), { name: 'TypeError', message: 'terminated' })
  await add(content, '--pin=false')
  same(await read(fetched(`ipfs://${cid}`)), content, 'the file, once the block is there')
})

/** The whole of an answer that is none of an error. */
async function read (answering) {
  const answer = await answering
  assert.equal(answer.status, 200)
  return await body(answer)
}

/** As it was, but for a bit of the last byte. */
function flipped (body) {
  if (body.length > 0) body[body.length - 1] ^= 1
  return body
}

/** What is changed, and the client's answer: what it cannot read, and what it could not find. */
const LIES = {
  'the root': { about: (root, path) => path.includes(root), status: 502 },
  'a leaf': { about: (root, path) => !path.includes(root), status: 504 }
}

for (const [name, { about, status }] of Object.entries(LIES)) {
  test(`a gateway that changes a bit of ${name} is not believed`, async (t) => {
    const cid = await add(FILE)
    const isLie = (path) => path.startsWith('/ipfs/') && about(cid, path)
    const liar = await between(t, gateway, (body, path) => isLie(path) ? flipped(body) : body)
    const fetched = await strict(t, liar.url)
    assert.equal((await fetched(`ipfs://${cid}`)).status, status)
    assert.ok(liar.asked.some((request) => isLie(request.slice('GET '.length))), `${liar.asked}`)

    const honest = await between(t, gateway)
    same(await read((await strict(t, honest.url))(`ipfs://${cid}`)), FILE, 'unchanged, the same way')
  })
}

test('beside a gateway that lies, the bytes of cairn arrive', async (t) => {
  const cid = await add(FILE, '--chunker=size-65536')
  const liar = await between(t, gateway, flipped)
  const fetched = await client(t, [liar.url, gateway])
  same(await read(fetched(`ipfs://${cid}`)), FILE, 'the file')
  assert.ok(liar.asked.length > 0)
})

test('a gateway that gives nothing but what can be checked is enough', async (t) => {
  const repository = await Repository.make(t)
  await repository.ok('config', 'set', 'gateway.trustless_only', 'true')
  const daemon = await repository.daemon()
  const { stdout } = await repository.run(['add', '-Q'], { input: FILE })
  const cid = stdout.toString().trim()
  const name = await repository.ok('name', 'publish', '-Q', '--allow-offline', `/ipfs/${cid}`)
  const url = await daemon.gateway()
  assert.notEqual((await fetch(`${url}/ipfs/${cid}`, { signal: AbortSignal.timeout(CALL_MS_MAX) })).status, 200)
  const fetched = await client(t, [url], [url])
  same(await read(fetched(`ipfs://${cid}`)), FILE, 'by its CID')
  same(await read(fetched(`ipns://${name}`)), FILE, 'by its name')
})
