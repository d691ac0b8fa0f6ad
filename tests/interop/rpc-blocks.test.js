// kubo-rpc-client: single blocks, DAGs and CARs.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { CarReader } from '@ipld/car/reader'
import * as dagPb from '@ipld/dag-pb'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { failure, client } from './lib/rpc.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const ipfs = await client(daemon)

const ABSENT = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy'
const NOT_FOUND = failure(500, /^block was not found: ipld: could not find /)

test('a block is put, got, told of and removed', async () => {
  const content = bytes(60, 1000)
  const cid = await ipfs.block.put(content)
  assert.equal(cid.code, 0x55)
  same(await ipfs.block.get(cid), content, 'the block')
  const stat = await ipfs.block.stat(cid)
  assert.deepEqual([stat.cid.toString(), stat.size], [cid.toString(), 1000])
  const [removed, ...more] = await all(ipfs.block.rm(cid))
  assert.deepEqual([removed.cid.toString(), removed.error, more], [cid.toString(), undefined, []])
  await assert.rejects(ipfs.block.get(cid, { offline: true }), NOT_FOUND)
  await assert.rejects(ipfs.block.stat(cid, { offline: true }), NOT_FOUND)
})

test('an empty block is one too', async () => {
  const cid = await ipfs.block.put(new Uint8Array())
  assert.equal((await ipfs.block.get(cid)).length, 0)
  assert.equal((await ipfs.block.stat(cid)).size, 0)
})

test('a block is put under the codec and hash asked for', async () => {
  const node = dagPb.encode(dagPb.prepare({ Data: new TextEncoder().encode('data') }))
  const put = (options) => ipfs.block.put(node, options)
  const v1 = await put({ format: 'dag-pb' })
  assert.deepEqual([v1.version, v1.code], [1, 0x70])
  const v0 = await put({ format: 'v0' })
  assert.deepEqual([v0.version, v0.toV1().toString()], [0, v1.toString()])
  assert.equal((await put({ format: 'raw', mhtype: 'sha2-512' })).multihash.code, 0x13)
  assert.equal((await put({ format: 'raw', mhtype: 'blake2b-256' })).multihash.code, 0xb220)
})

test('what is refused before it was read is told why', async () => {
  const large = bytes(68, 3_000_000)
  for (const content of [large.subarray(0, 10), large]) {
    for (let turn = 0; turn < 5; turn++) { // The client may use a connection again.
      await assert.rejects(ipfs.block.put(content, { format: 'nonsense' }), failure(400, /^unknown codec "nonsense"/))
      await assert.rejects(ipfs.block.put(content, { mhtype: 'md5' }), failure(500, /^unknown hash function "md5"/))
      await assert.rejects(ipfs.add(content, { chunker: 'nonsense' }), failure(400, /^unrecognized chunker "nonsense"/))
    }
  }
})

test('a block that is pinned is not removed', async () => {
  const cid = await ipfs.block.put(bytes(61, 100), { pin: true })
  const [kept] = await all(ipfs.block.rm(cid))
  assert.equal(kept.error?.message, 'pinned: recursive')
  const [forced] = await all(ipfs.block.rm(cid, { force: true }))
  assert.equal(forced.error?.message, 'pinned: recursive')
  assert.equal((await ipfs.block.stat(cid)).size, 100)
})

test('removing what is not there is told, unless forced', async () => {
  const here = await ipfs.block.put(bytes(62, 100))
  const [absent, removed] = await all(ipfs.block.rm([ABSENT, here]))
  assert.match(absent.error?.message, /could not find/)
  assert.equal(removed.error, undefined)
  assert.deepEqual(await all(ipfs.block.rm(ABSENT, { force: true })), [])
  assert.deepEqual(await all(ipfs.block.rm(await ipfs.block.put(bytes(62, 100)), { quiet: true })), [])
})

test('a block over the limit is refused', async () => {
  await assert.rejects(ipfs.block.put(bytes(63, (2 << 20) + 1)), failure(500, /big blocks can't be exchanged with other peers$/))
})

test('values are put and got in each codec', async () => {
  const value = { text: 'ein Wort', number: -5, big: 2 ** 53 - 1, half: 1.5, list: [true, null], bytes: new Uint8Array([1, 2, 3]) }
  for (const [storeCodec, code] of [['dag-cbor', 0x71], ['dag-json', 0x0129]]) {
    const cid = await ipfs.dag.put(value, { storeCodec })
    assert.equal(cid.code, code)
    assert.deepEqual((await ipfs.dag.get(cid)).value, value)
  }
  const node = { Data: new Uint8Array([8, 1]), Links: [] }
  const cid = await ipfs.dag.put(node, { storeCodec: 'dag-pb' })
  assert.deepEqual((await ipfs.dag.get(cid)).value, node)
})

test('a value is put from one codec into another', async () => {
  const json = new TextEncoder().encode('{"b":1,"a":{"/":{"bytes":"AQID"}}}')
  const cid = await ipfs.dag.put(json, { inputCodec: 'dag-json', storeCodec: 'dag-cbor' })
  assert.deepEqual((await ipfs.dag.get(cid)).value, { a: new Uint8Array([1, 2, 3]), b: 1 })
  const own = await ipfs.dag.put({ a: new Uint8Array([1, 2, 3]), b: 1 })
  assert.equal(cid.toString(), own.toString())
  const other = await ipfs.dag.put(json, { inputCodec: 'dag-json', hashAlg: 'sha2-512' })
  assert.equal(other.multihash.code, 0x13)
  await assert.rejects(ipfs.dag.put(new TextEncoder().encode('{"a":'), { inputCodec: 'dag-json' }), failure(500, /./))
})

test('paths are followed through links and inside values', async () => {
  const leaf = await ipfs.dag.put({ end: [10, 20] })
  const root = await ipfs.dag.put({ to: { leaf } })
  assert.deepEqual((await ipfs.dag.get(root, { path: '/to/leaf/end/1' })).value, 20)
  const resolved = await ipfs.dag.resolve(root, { path: 'to/leaf/end' })
  assert.deepEqual([resolved.cid.toString(), resolved.remainderPath], [leaf.toString(), 'end'])
  const whole = await ipfs.dag.resolve(`/ipfs/${root}/to/leaf`)
  assert.deepEqual([whole.cid.toString(), whole.remainderPath], [leaf.toString(), ''])
  await assert.rejects(ipfs.dag.resolve(`${root}/nothing`), failure(500, /no link named "nothing" under/))
  await assert.rejects(ipfs.dag.get(leaf.constructor.parse(ABSENT), { offline: true }), NOT_FOUND)
})

test('a CAR goes out, and comes in elsewhere', async (t) => {
  const content = bytes(64, 5_000_000)
  const added = await all(ipfs.addAll([{ path: 'top/large', content }, { path: 'top/same', content }, { path: 'top/below/x', content: 'x' }]))
  const root = added.at(-1).cid
  const car = await collect(ipfs.dag.export(root))

  const reader = await CarReader.fromBytes(car)
  assert.deepEqual((await reader.getRoots()).map(String), [root.toString()])
  const order = (await all(reader.cids())).map(String)
  assert.equal(order[0], root.toString())
  assert.equal(new Set(order).size, order.length)
  const below = new Set((await all(ipfs.refs(root, { recursive: true }))).map(({ ref }) => ref))
  assert.deepEqual(new Set(order), new Set([root.toString(), ...below]))

  const other = await Repository.make(t)
  const there = await client(await other.daemon())
  const imported = await all(there.dag.import([car]))
  assert.deepEqual(imported.map(({ root }) => [root.cid.toString(), root.pinErrorMsg]), [[root.toString(), '']])
  same(await collect(there.cat(`${root}/large`, { offline: true })), content, 'the file')
  const pins = (await all(there.pin.ls({ type: 'recursive' }))).map(({ cid }) => cid.toString())
  assert.deepEqual(pins, [root.toString()])
})

test('a CAR is taken without pinning, and several at once', async (t) => {
  const cars = []
  const roots = []
  for (const seed of [65, 66]) {
    const { cid } = await ipfs.add(bytes(seed, 2_000_000))
    roots.push(cid.toString())
    cars.push(await collect(ipfs.dag.export(cid)))
  }
  const other = await Repository.make(t)
  const there = await client(await other.daemon())
  assert.deepEqual(await all(there.dag.import([cars[0]], { pinRoots: false })), [])
  assert.deepEqual(await all(there.pin.ls()), [])
  const imported = await all(there.dag.import(cars.map(piece)))
  assert.deepEqual(imported.map(({ root }) => root.cid.toString()).sort(), roots.sort())
})

test('a CAR that is damaged is refused and pins nothing', async (t) => {
  const { cid } = await ipfs.add(bytes(67, 2_000_000))
  const car = await collect(ipfs.dag.export(cid))
  const damaged = Buffer.from(car)
  damaged[damaged.length - 10] ^= 1
  const other = await Repository.make(t)
  const there = await client(await other.daemon())
  for (const bad of [damaged, car.subarray(0, car.length - 10), Buffer.from('no CAR')]) {
    await assert.rejects(all(there.dag.import([bad])), failure(500, /./))
  }
  assert.deepEqual(await all(there.pin.ls()), [])
})

/** `bytes` as a stream of its own. */
async function * piece (bytes) {
  yield bytes
}
