// Names: what cairn publishes is resolved by Helia, and the other way, over the DHT for private networks.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { IPNSEntry, multihashToIPNSRoutingKey } from '@helia/ipns'
import { unixfs } from '@helia/unixfs'
import { base36 } from 'multiformats/bases/base36'
import { CID } from 'multiformats/cid'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, dial, hasDhtPeer, lanDht, namesOf } from './lib/helia.js'
import { LOOKUP_MS_MAX, TRANSFER_MS_MAX } from './lib/limits.js'
import { client, failure } from './lib/rpc.js'

const DAY_MS = 24 * 3_600_000

// A server that keeps records, and refuses what does not hold for Helia: nobody else is known to both sides.
const middle = await namesOf({ after }, { services: lanDht(false) })
const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const rpc = await client(daemon)
await repository.ok('swarm', 'connect', addressesOf(middle.node.libp2p)[0])

/** A new node of Helia's with keys and names, which knows the server alone. */
async function stranger (test) {
  const { node, names } = await namesOf(test, { services: lanDht(true) })
  await dial(node.libp2p, addressesOf(middle.node.libp2p))
  await hasDhtPeer(node.libp2p)
  return { node, names }
}

const limit = () => ({ signal: AbortSignal.timeout(LOOKUP_MS_MAX) })
const nameOf = (text) => CID.parse(text, base36)

/** Where a name leads for Helia, which is asked anew: every step. */
async function resolved (names, name) {
  const steps = []
  for await (const step of names.resolve(nameOf(name), { nocache: true, ...limit() })) steps.push(step)
  return steps
}

test('what Helia publishes is resolved by cairn', async (t) => {
  const { node, names } = await stranger(t)
  for (const type of ['Ed25519', 'RSA', 'secp256k1']) {
    await t.test(type, async () => {
      await node.keychain.generateKey(type, { type })
      const { name, record } = await names.publish(type, '/ipfs/bafkqaaa/a/path', limit())
      assert.equal(await repository.ok('name', 'resolve', name), '/ipfs/bafkqaaa/a/path')
      assert.deepEqual(await repository.bytes('name', 'get', name), Buffer.from(IPNSEntry.encode(record)))
    })
  }
})

test('a name of Helia is read through, and moves on', async (t) => {
  const { node, names } = await stranger(t)
  const [first, second] = [bytes(60, 300_000), bytes(61, 1000)]
  const publish = async (content) => await names.publish('site', await unixfs(node).addBytes(content), limit())
  const { name } = await publish(first)
  await repository.ok('swarm', 'connect', addressesOf(node.libp2p)[0])
  same(await repository.bytes('cat', name), first, 'the first')
  await publish(second)
  await repository.ok('name', 'resolve', '--nocache', name)
  same(await repository.bytes('cat', name), second, 'the second')
})

test('names lead to names of the other', async (t) => {
  const { names } = await stranger(t)
  const { name: end } = await names.publish('end', '/ipfs/bafkqaaa', limit())
  const { id } = await rpc.key.gen('between')
  await rpc.name.publish(`${end}/below`, { key: 'between', resolve: false })
  const { name: top } = await names.publish('top', `/ipns/${id}`, limit())
  assert.equal(await repository.ok('name', 'resolve', top), '/ipfs/bafkqaaa/below')
  assert.equal(await repository.ok('name', 'resolve', '--recursive=false', top), `/ipns/${id}`)
})

test('what cairn publishes is resolved by Helia', async (t) => {
  const { names } = await stranger(t)
  for (const type of ['ed25519', 'rsa', 'secp256k1']) {
    const { id } = await rpc.key.gen(type, { type, size: type === 'rsa' ? 2048 : undefined })
    for (const v1compat of [true, false]) {
      await t.test(`${type}, ${v1compat ? 'for all readers' : 'version 2 alone'}`, async () => {
        const value = `/ipfs/bafkqaaa/${v1compat}`
        assert.deepEqual(await rpc.name.publish(value, { key: type, resolve: false, v1compat }), { name: id, value })
        const [found, ...more] = await resolved(names, id)
        assert.deepEqual([found.value, more], [value, []])
        assert.equal(found.record.signatureV1 !== undefined, v1compat)
        assert.deepEqual(await repository.bytes('name', 'get', id), Buffer.from(IPNSEntry.encode(found.record)))
      })
    }
  }
})

test("a name that cairn's own peer has leads Helia to what was added", async (t) => {
  const { node, names } = await stranger(t)
  const content = bytes(62, 100_000)
  const { cid } = await rpc.add(content)
  const { name } = await rpc.name.publish(cid, { lifetime: '876000h', ttl: '1h' })
  const [{ value, record }] = await resolved(names, name)
  assert.ok(new Date(Buffer.from(record.validity).toString().slice(0, 19) + 'Z') - Date.now() > 36_000 * DAY_MS)
  assert.equal(record.ttl, 3_600_000_000_000n)
  assert.equal(value, `/ipfs/${cid}`)
  await dial(node.libp2p, await daemon.addresses())
  const most = { signal: AbortSignal.timeout(TRANSFER_MS_MAX) }
  same(await collect(unixfs(node).cat(CID.parse(value.slice('/ipfs/'.length)), most)), content, 'the file')
})

test('a newer record of cairn replaces the one before it', async (t) => {
  const { names } = await stranger(t)
  const { id } = await rpc.key.gen('moving')
  for (const [at, value] of ['/ipfs/bafkqaaa', '/ipfs/bafkqaaa/second'].entries()) {
    await rpc.name.publish(value, { key: 'moving', resolve: false })
    const [found] = await resolved(names, id)
    assert.equal(found.value, value)
    assert.equal(found.record.sequence, BigInt(at))
  }
})

test("a key that moves from Helia to cairn goes on with Helia's numbers", async (t) => {
  const { node, names } = await stranger(t)
  const key = await node.keychain.generateKey('moved')
  for (let at = 0; at < 3; at++) await names.publish('moved', `/ipfs/bafkqaaa/${at}`, limit())
  const done = await repository.run(['key', 'import', 'moved', '-'], { input: key.toProtobuf() })
  assert.equal(done.code, 0, done.stderr)
  const { name } = await rpc.name.publish('/ipfs/bafkqaaa/of-cairn', { key: 'moved', resolve: false })
  const [found] = await resolved(names, name)
  assert.deepEqual([found.value, found.record.sequence], ['/ipfs/bafkqaaa/of-cairn', 4n])
})

test('a name that nobody has published is told by both', async (t) => {
  const { names } = await stranger(t)
  const { id } = await rpc.key.gen('nobody')
  await assert.rejects(resolved(names, id), { name: 'RecordNotFoundError' })
  await assert.rejects(collect(rpc.name.resolve(id)), failure(500, /^no valid record of/))
})

test("cairn's server keeps what Helia publishes, and nothing older", async (t) => {
  const server = await Repository.make(t).then((repository) => repository.daemon())
  const asker = async () => {
    const { node, names } = await namesOf(t, { services: lanDht(true) })
    await dial(node.libp2p, await server.addresses())
    await hasDhtPeer(node.libp2p)
    return { dht: node.libp2p.services.dht, names }
  }
  const { dht, names } = await asker()
  const { publicKey, record: old } = await names.publish('kept', '/ipfs/bafkqaaa/old', limit())
  const { name, record } = await names.publish('kept', '/ipfs/bafkqaaa/new', limit())
  const isTaken = async (record) => {
    const key = multihashToIPNSRoutingKey(publicKey.toMultihash())
    const events = await all(dht.put(key, IPNSEntry.encode(record), limit()))
    return events.some(({ name, messageName }) => name === 'PEER_RESPONSE' && messageName === 'PUT_VALUE')
  }
  assert.equal(await isTaken(record), true, 'the newest, once more')
  assert.equal(await isTaken(old), false, 'the one before it')
  assert.equal(await isTaken({ ...record, signatureV2: record.signatureV2.toReversed() }), false, 'with a wrong signature')
  const found = await resolved((await asker()).names, name.slice('/ipns/'.length))
  assert.deepEqual(found.map(({ value }) => value), ['/ipfs/bafkqaaa/new'])
})
