// Provider records of the DHT for private networks, through a js-libp2p server in the middle.
import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { MemoryDatastore } from 'datastore-core'
import { CID } from 'multiformats/cid'
import { base32 } from 'multiformats/bases/base32'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, dial, hasDhtPeer, helia, lanDht, libp2p } from './lib/helia.js'
import { LOOKUP_MS_MAX, TRANSFER_MS_MAX } from './lib/limits.js'

const CONTENT = bytes(20, 3_000_000)

/** Memory that tells of what is put into it. */
class Watched extends MemoryDatastore {
  told = new EventEmitter()

  put (key, value) {
    const put = super.put(key, value)
    this.told.emit(key.toString())
    return put
  }

  /** Waits for the record that `peer` has what `cid` names. */
  async provided (cid, peer) {
    const hash = base32.encode(CID.parse(cid).multihash.bytes).slice(1)
    await once(this.told, `/dht/provider/${hash}/${peer}`, { signal: AbortSignal.timeout(LOOKUP_MS_MAX) })
  }
}

/** A server of the DHT that has no content, and its memory. */
async function middle (test) {
  const datastore = new Watched()
  const server = await libp2p(test, { datastore, services: lanDht(false) })
  return { server, datastore }
}

test('a record that cairn put is found by Helia', async (t) => {
  const { server, datastore } = await middle(t)
  const repository = await Repository.make(t)
  const daemon = await repository.daemon()
  const { stdout } = await repository.run(['add', '-Q'], { input: CONTENT })
  const cid = stdout.toString().trim()
  const peer = await daemon.peer()

  const arrived = datastore.provided(cid, peer)
  await repository.ok('swarm', 'connect', addressesOf(server)[0])
  await repository.ok('routing', 'provide', cid)
  await arrived

  const asker = await helia(t, { services: lanDht(true) })
  await dial(asker.libp2p, addressesOf(server))
  await hasDhtPeer(asker.libp2p)
  const signal = AbortSignal.timeout(LOOKUP_MS_MAX)
  const providers = []
  for await (const provider of asker.libp2p.contentRouting.findProviders(CID.parse(cid), { signal })) {
    providers.push(provider)
    break
  }
  assert.deepEqual(providers.map(({ id }) => id.toString()), [peer])
  const told = providers[0].multiaddrs.map((address) => address.toString().replace(/\/p2p\/.*/, ''))
  const [listening] = await daemon.addresses()
  assert.ok(told.includes(listening.replace(/\/p2p\/.*/, '')), `${told} has not ${listening}`)
  const limit = { signal: AbortSignal.timeout(TRANSFER_MS_MAX) }
  same(await collect(unixfs(asker).cat(CID.parse(cid), limit)), CONTENT, 'the file')
})

test('what is added is provided without being asked to', async (t) => {
  const { server, datastore } = await middle(t)
  const repository = await Repository.make(t)
  const daemon = await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(server)[0])
  const content = bytes(21, 100_000)
  const named = await repository.run(['add', '-Q', '--only-hash'], { input: content })
  const cid = named.stdout.toString().trim()
  const arrived = datastore.provided(cid, await daemon.peer())
  await repository.run(['add', '-Q'], { input: content })
  await arrived
})

test('a record that Helia put is found by cairn', async (t) => {
  const { server, datastore } = await middle(t)
  const giver = await helia(t, { services: lanDht(true) })
  await dial(giver.libp2p, addressesOf(server))
  await hasDhtPeer(giver.libp2p)
  const cid = await unixfs(giver).addBytes(CONTENT)
  const peer = giver.libp2p.peerId.toString()
  const arrived = datastore.provided(cid.toString(), peer)
  await giver.libp2p.contentRouting.provide(cid, { signal: AbortSignal.timeout(LOOKUP_MS_MAX) })
  await arrived

  // cairn knows only the server, so without the record it could not know whom to ask.
  const repository = await Repository.make(t)
  await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(server)[0])
  const connected = await repository.ok('swarm', 'peers')
  assert.deepEqual(connected.split('\n').map((line) => line.split('/p2p/')[1]), [server.peerId.toString()])
  assert.equal(await repository.ok('routing', 'findprovs', cid.toString()), peer)
  same(await repository.bytes('cat', cid.toString()), CONTENT, 'the file')
})
