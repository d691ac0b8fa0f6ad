// Delegated routing over HTTP: Helia's client asks a cairn gateway who has what.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { delegatedRoutingV1HttpApiClient } from '@helia/delegated-routing-v1-http-api-client'
import { unixfs } from '@helia/unixfs'
import { peerIdFromCID } from '@libp2p/peer-id'
import { base36 } from 'multiformats/bases/base36'
import { CID } from 'multiformats/cid'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, dial, hasDhtPeer, helia, lanDht, libp2p } from './lib/helia.js'
import { LOOKUP_MS_MAX, TRANSFER_MS_MAX } from './lib/limits.js'

const CONTENT = bytes(30, 500_000)
const NOBODY_HAS = CID.parse('bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku')

const quiet = Object.assign(() => {}, { enabled: false, error: () => {}, trace: () => {}, newScope: () => quiet })
const logger = { forComponent: () => quiet }

/** Helia's client of a daemon's gateway. It ends with `test`. */
async function client (test, daemon) {
  const made = delegatedRoutingV1HttpApiClient({ url: await daemon.gateway(), cacheTTL: 0, timeout: LOOKUP_MS_MAX })({ logger })
  await made.start()
  test.after(() => made.stop())
  return made
}

async function all (records) {
  const found = []
  for await (const record of records) found.push(record)
  return found
}

// The client gives peers' names as CIDs.
const names = (records) => records.map(({ ID }) => peerIdFromCID(ID).toString())

test('what cairn has is found through its gateway, and fetched', async (t) => {
  const repository = await Repository.make(t)
  const daemon = await repository.daemon()
  const { stdout } = await repository.run(['add', '-Q'], { input: CONTENT })
  const cid = CID.parse(stdout.toString().trim())
  const routing = await client(t, daemon)

  const found = await all(routing.getProviders(cid))
  const peer = await daemon.peer()
  assert.deepEqual(names(found), [peer])
  const [{ ID, Addrs, Protocols }] = found
  assert.deepEqual(Protocols, ['transport-bitswap'])
  assert.deepEqual(names(await all(routing.getPeers(ID))), [peer])

  const asker = await helia(t)
  await dial(asker.libp2p, Addrs.map((address) => `${address}/p2p/${peer}`))
  same(await collect(unixfs(asker).cat(cid, { signal: AbortSignal.timeout(TRANSFER_MS_MAX) })), CONTENT, 'the file')

  const filtered = async (filters) => names(await all(routing.getProviders(cid, filters)))
  assert.deepEqual(await filtered({ filterProtocols: ['unknown'] }), [])
  assert.deepEqual(await filtered({ filterProtocols: ['transport-bitswap'], filterAddrs: ['tcp'] }), [peer])
  assert.deepEqual(await filtered({ filterAddrs: ['webtransport'] }), [])
})

test('a record that Helia put into the DHT is found through cairn, and so are its peers', async (t) => {
  const server = await libp2p(t, { services: lanDht(false) })
  const giver = await helia(t, { services: lanDht(true) })
  await dial(giver.libp2p, addressesOf(server))
  await hasDhtPeer(giver.libp2p)
  const cid = await unixfs(giver).addBytes(CONTENT)
  await giver.libp2p.contentRouting.provide(cid, { signal: AbortSignal.timeout(LOOKUP_MS_MAX) })

  const repository = await Repository.make(t)
  const daemon = await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(server)[0])
  const routing = await client(t, daemon)
  assert.deepEqual(names(await all(routing.getProviders(cid))), [giver.libp2p.peerId.toString()])
  assert.deepEqual(names(await all(routing.getPeers(server.peerId.toCID()))), [server.peerId.toString()])
  assert.deepEqual(names(await all(routing.getClosestPeers(cid))), [server.peerId.toString()])
})

test('what nobody has is an empty answer', async (t) => {
  const repository = await Repository.make(t)
  const daemon = await repository.daemon()
  const routing = await client(t, daemon)
  assert.deepEqual(await all(routing.getProviders(NOBODY_HAS)), [])
  assert.deepEqual(await all(routing.getClosestPeers(NOBODY_HAS)), [])
  const stranger = await libp2p(t)
  assert.deepEqual(await all(routing.getPeers(stranger.peerId.toCID())), [])
  await assert.rejects(routing.getIPNS(stranger.peerId.toCID()), { name: 'NotFoundError' })
})

test('a name that Helia brings to one gateway resolves for whoever asks there, and for cairn beside it', async (t) => {
  const owner = await Repository.make(t)
  const name = await owner.ok('name', 'publish', '-Q', '--allow-offline', '/ipfs/bafkqaaa')
  const record = await owner.bytes('name', 'get', name)

  const keeper = await Repository.make(t)
  await keeper.ok('config', 'set', 'gateway.routing_put', 'true')
  const daemon = await keeper.daemon()
  const routing = await client(t, daemon)
  const key = CID.parse(name, base36)
  await routing.putIPNS(key, record)
  same(await routing.getIPNS(key), record, 'the record')
  const changed = Uint8Array.from(record)
  changed[changed.length - 1] ^= 1
  await assert.rejects(routing.putIPNS(key, changed), { name: 'BadResponseError' })

  const asker = await Repository.make(t)
  await asker.ok('config', 'set', 'routing.endpoints', JSON.stringify([await daemon.gateway()]))
  await asker.daemon()
  assert.equal(await asker.ok('name', 'resolve', name), '/ipfs/bafkqaaa')
})

test('nothing is kept for Helia unless the operator lets it', async (t) => {
  const repository = await Repository.make(t)
  const name = await repository.ok('name', 'publish', '-Q', '--allow-offline', '/ipfs/bafkqaaa')
  const record = await repository.bytes('name', 'get', name)
  const daemon = await repository.daemon()
  const routing = await client(t, daemon)
  await assert.rejects(routing.putIPNS(CID.parse(name, base36), record), { name: 'BadResponseError' })
})
