// kubo-rpc-client: pins, and what a collection leaves.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { failure, client } from './lib/rpc.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const ipfs = await client(daemon)

const ABSENT = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy'

/** A folder that is not pinned: its root, and all CIDs below it. */
async function loose (seed) {
  const entries = [
    { path: 'top/a', content: bytes(seed, 1_200_000) },
    { path: 'top/below/b', content: bytes(seed + 1, 100) }
  ]
  const root = (await all(ipfs.addAll(entries, { pin: false }))).at(-1).cid
  const below = (await all(ipfs.refs(root, { recursive: true, unique: true }))).map(({ ref }) => ref)
  return { root, below }
}

/** The pins listed, as texts by CID. */
async function listed (options) {
  return Object.fromEntries((await all(ipfs.pin.ls(options))).map(({ cid, type }) => [cid.toString(), type]))
}

test('a pin is added, listed and removed', async () => {
  const { root, below } = await loose(70)
  assert.equal((await ipfs.pin.add(root)).toString(), root.toString())
  const everything = await listed()
  assert.equal(everything[root], 'recursive')
  for (const cid of below) assert.equal(everything[cid], 'indirect')
  assert.deepEqual(await listed({ paths: root }), { [root]: 'recursive' })
  assert.deepEqual(await listed({ paths: [`/ipfs/${root}/below/b`] }), { [below.at(-1)]: `indirect through ${root}` })
  assert.deepEqual(Object.values(await listed({ type: 'direct' })), [])
  assert.equal((await ipfs.pin.rm(root)).toString(), root.toString())
  await assert.rejects(all(ipfs.pin.ls({ paths: root })), failure(500, `path '${root}' is not pinned`))
})

test('a direct pin holds one block', async () => {
  const { root } = await loose(72)
  await ipfs.pin.add(root, { recursive: false })
  assert.deepEqual(await listed({ type: 'direct' }), { [root]: 'direct' })
  await ipfs.pin.rm(root, { recursive: false })
  assert.deepEqual(await listed({ type: 'direct' }), {})
})

test('a recursive pin is not removed as a direct one', async () => {
  const { root } = await loose(74)
  await ipfs.pin.add(root)
  await assert.rejects(ipfs.pin.rm(root, { recursive: false }), failure(500, `${root} is pinned recursively`))
  await ipfs.pin.rm(root)
})

test('what is not pinned cannot be unpinned', async () => {
  const { root, below } = await loose(76)
  const refused = failure(500, 'not pinned or pinned indirectly')
  await assert.rejects(ipfs.pin.rm(root), refused)
  await ipfs.pin.add(root)
  await assert.rejects(ipfs.pin.rm(below[0]), refused)
  await ipfs.pin.rm(root)
})

test('what cannot be had cannot be pinned', async () => {
  await assert.rejects(ipfs.pin.add(ABSENT, { offline: true }), failure(500, `block was not found: ipld: could not find ${ABSENT}`))
  await assert.rejects(ipfs.pin.add(ABSENT, { timeout: 100 }), { name: 'TimeoutError' })
  await assert.rejects(ipfs.pin.add('nonsense'), failure(500, /^invalid path "nonsense"/))
  await assert.rejects(all(ipfs.pin.ls({ type: 'nonsense' })), failure(500, "invalid type 'nonsense', must be one of {direct, indirect, recursive, all}"))
})

test('a pin has a name', async () => {
  const { root } = await loose(78)
  await ipfs.pin.add(root, { name: 'a name – with a dash' })
  const [named] = await all(ipfs.pin.ls({ paths: root, names: true }))
  assert.deepEqual([named.cid.toString(), named.name], [root.toString(), 'a name – with a dash'])
  const found = await all(ipfs.pin.ls({ name: 'with a' }))
  assert.deepEqual(found.map(({ cid }) => cid.toString()), [root.toString()])
  assert.deepEqual(await all(ipfs.pin.ls({ name: 'nobody' })), [])
  await ipfs.pin.rm(root)
})

test('what pins have beside a name is told only to who asks for it', async () => {
  const { root } = await loose(90)
  const call = async (path) => {
    const response = await fetch(new URL(`/api/v0/${path}`, await daemon.rpc()), { method: 'POST' })
    return response.json()
  }
  assert.deepEqual(await call(`pin/add?arg=${root}&meta=owner=me&expire-in=1h`), { Pins: [root.toString()] })
  const [plain] = await all(ipfs.pin.ls({ paths: root, type: 'recursive' }))
  assert.deepEqual(Object.keys(plain).sort(), ['cid', 'type'])
  const long = (await call(`pin/ls?arg=${root}&long=true`)).Keys[root]
  assert.deepEqual(Object.keys(long), ['Type', 'Name', 'Created', 'Expires', 'Metadata'])
  assert.deepEqual(long.Metadata, { owner: 'me' })
  assert.ok(Date.parse(long.Expires) - Date.parse(long.Created) >= 3_600_000)
  await ipfs.pin.add(root)
  assert.equal((await call(`pin/ls?arg=${root}&long=true`)).Keys[root].Expires, undefined)
  await ipfs.pin.rm(root)
})

test('every way to list', async () => {
  const { root, below } = await loose(92)
  await ipfs.pin.add(root, { name: 'listed' })
  assert.equal((await listed({ type: 'all' }))[root], 'recursive')
  for (const cid of below) assert.equal((await listed({ type: 'indirect' }))[cid], 'indirect')
  assert.deepEqual(await listed({ paths: [root], type: 'recursive' }), { [root]: 'recursive' })
  await assert.rejects(all(ipfs.pin.ls({ paths: [root], type: 'direct' })), failure(500, `path '${root}' is not pinned`))
  const [named] = await all(ipfs.pin.ls({ name: 'list' }))
  assert.deepEqual([named.cid.toString(), named.name], [root.toString(), 'listed'])
  await ipfs.pin.rm(root)
})

test('a pin that is only queued is cancelled by unpinning it', async () => {
  const url = new URL(`/api/v0/pin/add?arg=${ABSENT}&background=true`, await daemon.rpc())
  assert.deepEqual(await (await fetch(url, { method: 'POST' })).json(), { Queued: [ABSENT] })
  await assert.rejects(all(ipfs.pin.ls({ paths: ABSENT, offline: true })), failure(500, `path '${ABSENT}' is not pinned`))
  assert.equal((await ipfs.pin.rm(ABSENT)).toString(), ABSENT)
  await assert.rejects(ipfs.pin.rm(ABSENT), failure(500, 'not pinned or pinned indirectly'))
})

test('many pins are added and removed one after the other', async () => {
  const roots = []
  for (let at = 0; at < 20; at++) roots.push((await ipfs.add(bytes(500 + at, 100), { pin: false })).cid)
  const texts = roots.map(String).sort()
  assert.deepEqual((await all(ipfs.pin.addAll(roots))).map(String).sort(), texts)
  const recursive = Object.keys(await listed({ type: 'recursive' }))
  for (const cid of texts) assert.ok(recursive.includes(cid))
  assert.deepEqual((await all(ipfs.pin.rmAll(roots))).map(String).sort(), texts)
})

test('a pin moves', async () => {
  const { root: from } = await loose(80)
  const { root: to } = await loose(82)
  await ipfs.pin.add(from, { name: 'kept' })
  assert.deepEqual((await ipfs.pin.update(from, to)).map(String), [from.toString(), to.toString()])
  const now = await listed({ type: 'recursive' })
  assert.deepEqual([now[from], now[to]], [undefined, 'recursive'])
  await ipfs.pin.update(to, from, { unpin: false })
  const both = await listed({ type: 'recursive' })
  assert.deepEqual([both[from], both[to]], ['recursive', 'recursive'])
  await ipfs.pin.rm(from)
  await ipfs.pin.rm(to)
  await assert.rejects(ipfs.pin.update(from, to), failure(500, "'from' cid was not recursively pinned already"))
})

test('a collection takes what no pin reaches, and tells it', async () => {
  const kept = await loose(84)
  const gone = await loose(86)
  await ipfs.pin.add(kept.root)
  const before = await ipfs.repo.stat()
  const removed = await all(ipfs.repo.gc())
  for (const { err } of removed) assert.equal(err, null)
  const cids = new Set(removed.map(({ cid }) => cid.toString()))
  for (const cid of [gone.root.toString(), ...gone.below]) assert.ok(cids.has(cid), cid)
  for (const cid of [kept.root.toString(), ...kept.below]) assert.ok(!cids.has(cid), cid)
  const after = await ipfs.repo.stat()
  assert.equal(before.numObjects - after.numObjects, BigInt(removed.length))
  assert.ok(after.repoSize < before.repoSize)
  same(await collect(ipfs.cat(`${kept.root}/a`)), bytes(84, 1_200_000), 'the file')
  await assert.rejects(ipfs.block.stat(gone.root, { offline: true }), failure(500, `block was not found: ipld: could not find ${gone.root}`))
  assert.deepEqual(await all(ipfs.repo.gc({ quiet: true })), [])
  await ipfs.pin.rm(kept.root)
})
