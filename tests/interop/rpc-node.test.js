// kubo-rpc-client: the node, its peers, its figures and its settings.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, dial, hasDhtPeer, helia, lanDht } from './lib/helia.js'
import { CONNECT_MS_MAX } from './lib/limits.js'
import { failure, client } from './lib/rpc.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const ipfs = await client(daemon)

const NOBODY = '12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5'

test('id tells who the node is', async () => {
  const me = await ipfs.id()
  assert.equal(me.id.toString(), await daemon.peer())
  assert.deepEqual(me.addresses.map(String), await daemon.addresses())
  assert.match(me.agentVersion, /^cairn\//)
  for (const protocol of ['/ipfs/bitswap/1.2.0', '/ipfs/id/1.0.0', '/ipfs/lan/kad/1.0.0', '/ipfs/ping/1.0.0']) {
    assert.ok(me.protocols.includes(protocol), protocol)
  }
  assert.deepEqual(Buffer.from(me.publicKey, 'base64'), protobuf(me.id.publicKey.raw))
  assert.equal(await ipfs.isOnline(), true)
})

test('version tells the program and its format', async () => {
  const version = await ipfs.version()
  assert.match(version.version, /^\d+\.\d+\.\d+/)
  assert.equal(version.repo, await ipfs.repo.version())
  assert.ok((await ipfs.commands()).Subcommands.some(({ Name }) => Name === 'add'))
})

test('peers are connected, listed and disconnected', async (t) => {
  const node = await helia(t)
  const [address] = addressesOf(node.libp2p)
  const peer = node.libp2p.peerId.toString()
  assert.deepEqual(await ipfs.swarm.connect(address), [`connect ${peer} success`])
  const [row, ...more] = await ipfs.swarm.peers({ verbose: true })
  assert.deepEqual([row.peer.toString(), row.addr.toString(), more], [peer, address.replace(/\/p2p\/.*/, ''), []])
  assert.equal(row.direction, 'outbound')
  const known = (await ipfs.swarm.addrs()).find(({ id }) => id.toString() === peer)
  assert.ok(known.addrs.map((known) => known.toString().replace(/\/p2p\/.*/, '')).includes(address.replace(/\/p2p\/.*/, '')))
  const them = await ipfs.id({ peerId: peer })
  assert.equal(them.id.toString(), peer)
  assert.deepEqual(await ipfs.swarm.connect(address), [`connect ${peer} success`])

  const closed = once(node.libp2p, 'peer:disconnect', { signal: AbortSignal.timeout(CONNECT_MS_MAX) })
  assert.deepEqual(await ipfs.swarm.disconnect(address), [`disconnect ${peer} success`])
  await closed
  assert.deepEqual(await ipfs.swarm.peers(), [])
  await assert.rejects(ipfs.swarm.disconnect(address), failure(500, new RegExp(`^disconnect ${peer} failure: `)))
})

test('what cannot be dialled is told', async () => {
  const nobody = `/ip4/127.0.0.1/tcp/9/p2p/${NOBODY}`
  await assert.rejects(ipfs.swarm.connect(nobody), failure(500, new RegExp(`^connect ${NOBODY} failure: `)))
  await assert.rejects(ipfs.swarm.connect('nonsense'), failure(500, /^invalid peer address /))
  const outside = `/ip4/192.0.2.1/tcp/4001/p2p/${NOBODY}`
  await assert.rejects(ipfs.swarm.connect(outside), failure(500, /outside the network/))
  const self = (await daemon.addresses())[0]
  await assert.rejects(ipfs.swarm.connect(self), failure(500, /failure: /))
  await assert.rejects(ipfs.id({ peerId: NOBODY }), failure(500, new RegExp(`^not connected to ${NOBODY}`)))
})

test('a peer with another name than expected is refused', async (t) => {
  const node = await helia(t)
  const [address] = addressesOf(node.libp2p)
  const wrong = address.replace(/\/p2p\/.*/, `/p2p/${NOBODY}`)
  await assert.rejects(ipfs.swarm.connect(wrong), failure(500, new RegExp(`^connect ${NOBODY} failure: `)))
  assert.deepEqual(await ipfs.swarm.peers(), [])
})

test('localAddrs are where the node listens', async () => {
  const local = (await ipfs.swarm.localAddrs()).map(String)
  const listening = (await daemon.addresses()).map((address) => address.replace(/\/p2p\/.*/, ''))
  assert.deepEqual(local, listening)
})

test('routing finds and provides', async (t) => {
  const node = await helia(t, { services: lanDht(false) })
  await dial(node.libp2p, await daemon.addresses())
  await hasDhtPeer(node.libp2p)
  const { cid } = await ipfs.add(bytes(90, 1000))
  for await (const event of ipfs.routing.provide(cid)) assert.notEqual(event.name, 'QUERY_ERROR')
  const found = await all(ipfs.routing.findProvs(cid))
  const providers = found.filter(({ name }) => name === 'PROVIDER').flatMap(({ providers }) => providers)
  assert.ok(providers.some(({ id }) => id.toString() === NAME), `${providers}`)
  const peer = node.libp2p.peerId.toString()
  const [final] = (await all(ipfs.routing.findPeer(peer))).filter(({ name }) => name === 'FINAL_PEER')
  assert.equal(final.peer.id.toString(), peer)
  const where = final.peer.multiaddrs.map(String)
  assert.ok(addressesOf(node.libp2p).some((address) => where.includes(address.replace(/\/p2p\/.*/, ''))), `${where}`)
  await assert.rejects(all(ipfs.routing.findPeer(NOBODY)), failure(500, /^peer .* was not found/))
  await assert.rejects(all(ipfs.routing.get(`/ipns/${NOBODY}`)), failure(500, /not found/))
  await assert.rejects(all(ipfs.routing.put(`/ipns/${NOBODY}`, bytes(93, 100))), failure(500, /^not a value for this key/))
  const pings = await all(ipfs.ping(peer, { count: 2 }))
  assert.equal(pings.filter(({ success, time }) => success && time > 0).length, 2, JSON.stringify(pings))
  const absent = (await ipfs.add(bytes(91, 1000), { onlyHash: true })).cid
  await assert.rejects(all(ipfs.routing.provide(absent)), failure(500, `block ${absent} not found locally, cannot provide`))
})

test('figures count what was exchanged', async (t) => {
  const node = await helia(t)
  await ipfs.swarm.connect(addressesOf(node.libp2p)[0])
  const content = bytes(92, 400_000)
  const cid = await unixfs(node).addBytes(content)
  const before = await ipfs.bitswap.stat()
  same(await collect(ipfs.cat(cid.toString())), content, 'the file')
  const after = await ipfs.bitswap.stat()
  assert.equal(after.blocksReceived - before.blocksReceived, 1n)
  assert.equal(after.dataReceived - before.dataReceived, 400_000n)
  assert.deepEqual(after.wantlist, [])
  assert.ok(after.peers.map(String).includes(node.libp2p.peerId.toString()))
  assert.deepEqual(await ipfs.stats.bitswap(), after)
  const [bandwidth] = await all(ipfs.stats.bw())
  assert.ok(bandwidth.totalIn > 400_000n && bandwidth.totalOut > 0n, `${bandwidth.totalIn} ${bandwidth.totalOut}`)
  assert.ok(bandwidth.rateIn >= 0 && bandwidth.rateOut >= 0)
})

test('repo.stat tells where and how much', async () => {
  const before = await ipfs.repo.stat()
  await ipfs.add(bytes(93, 10_000))
  const after = await ipfs.repo.stat()
  assert.equal(after.repoPath, repository.path)
  assert.match(after.version, /^fs-repo@\d+$/)
  assert.equal(after.numObjects - before.numObjects, 1n)
  assert.ok(after.repoSize - before.repoSize >= 10_000n)
  assert.ok(after.storageMax > 0n)
  assert.equal((await ipfs.stats.repo()).repoPath, repository.path)
})

test('settings are got and set', async () => {
  const shown = await ipfs.config.getAll()
  assert.equal(shown.Identity.PeerID, NAME)
  assert.equal(await ipfs.config.get('Identity.PeerID'), NAME)
  assert.deepEqual(await ipfs.config.get('Addresses.API'), shown.Addresses.API)
  assert.equal(await ipfs.config.get('network'), 'local')
  await ipfs.config.set('storage.max', '20GiB')
  assert.equal((await ipfs.config.getAll()).Datastore.StorageMax, String(await ipfs.config.get('storage.max')))
  await ipfs.config.set('addresses.swarm', ['/ip4/127.0.0.1/tcp/0'])
  assert.deepEqual(await ipfs.config.get('addresses.swarm'), ['/ip4/127.0.0.1/tcp/0'])
  await assert.rejects(ipfs.config.set('storage.max', 'nonsense'), failure(500, /storage\.max|nonsense/))
  await assert.rejects(ipfs.config.set('storage.maxx', '1GiB'), failure(500, /storage\.max/))
  await assert.rejects(ipfs.config.get('Nothing.Here'), failure(500, /Nothing/))
})

test('bootstrap peers are added, listed and removed', async () => {
  const peer = `/ip4/127.0.0.1/tcp/4001/p2p/${NOBODY}`
  const texts = async (answer) => (await answer).Peers.map(String)
  assert.deepEqual(await texts(ipfs.bootstrap.list()), [])
  assert.deepEqual(await texts(ipfs.bootstrap.add(peer)), [peer])
  assert.deepEqual(await texts(ipfs.bootstrap.list()), [peer])
  assert.deepEqual((await ipfs.config.getAll()).Bootstrap, [peer])
  await assert.rejects(ipfs.bootstrap.add('/ip4/127.0.0.1/tcp/4001'), failure(500, /^invalid peer address/))
  assert.deepEqual(await texts(ipfs.bootstrap.rm(peer)), [peer])
  assert.deepEqual(await texts(ipfs.bootstrap.list()), [])
})

test('log levels are changed', async () => {
  const subsystems = await ipfs.log.ls()
  assert.ok(subsystems.length > 0)
  const { message } = await ipfs.log.level('all', 'error')
  assert.equal(message, "Changed log level of '*' to 'error'\n")
  await ipfs.log.level(subsystems[0], 'debug')
  await ipfs.log.level(subsystems[0], 'error')
  await assert.rejects(ipfs.log.level('all', 'nonsense'), failure(500, /nonsense/))
})

test('what is wanted is listed until nobody waits for it', async () => {
  const absent = (await ipfs.add(bytes(94, 1000), { onlyHash: true })).cid
  const isListed = async () => (await ipfs.bitswap.wantlist()).some((cid) => cid.equals(absent))
  const asking = new AbortController()
  const asked = ipfs.block.get(absent, { signal: asking.signal }).catch((error) => error)
  while (!(await isListed()));
  asking.abort()
  await asked
  while (await isListed());
  assert.deepEqual(await ipfs.bitswap.wantlistForPeer(NOBODY), [])
})

test('provide.stat tells what the network is told of', async () => {
  const { Sweep } = await ipfs.provide.stat()
  assert.equal(Sweep.closed, false)
})

test('what is not there is not found', async () => {
  const { cid } = await ipfs.add('hello')
  const link = { Name: 'a', Hash: cid, Tsize: 5 }
  await assert.rejects(ipfs.object.patch.addLink(cid, link), failure(404, '404 page not found'))
})

test('stop ends the daemon', async (t) => {
  const other = await Repository.make(t)
  const stopping = await other.daemon()
  const { cid } = await (await client(stopping)).add('hello world')
  await (await client(stopping)).stop()
  assert.equal(await stopping.end(), 0)
  assert.equal(await other.ok('cat', cid.toString()), 'hello world')
})

const NAME = await daemon.peer()

/** An Ed25519 public key as libp2p writes it. */
function protobuf (raw) {
  return Buffer.concat([Buffer.from([8, 1, 18, raw.length]), raw])
}
