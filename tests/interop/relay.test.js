// Peers behind a relay: a connection is made through it, and blocks do not pass, since it lends a way with a limit.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { bytes } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, helia, libp2p } from './lib/helia.js'
import { CONNECT_MS_MAX, IN_VAIN_MS } from './lib/limits.js'

/** A node that cannot be reached but through `relay`, and its address there. */
async function hidden (test, relay) {
  const node = await helia(test, {
    addresses: { listen: [`${addressesOf(relay)[0]}/p2p-circuit`] },
    transports: [tcp(), circuitRelayTransport()],
    services: { ping: ping() }
  })
  const signal = AbortSignal.timeout(CONNECT_MS_MAX)
  while (node.libp2p.getMultiaddrs().length === 0) await once(node.libp2p, 'self:peer:update', { signal })
  return { node, address: addressesOf(node.libp2p)[0] }
}

test('a peer behind a js-libp2p relay is reached through it, and no block passes', async (t) => {
  const relay = await libp2p(t, { services: { relay: circuitRelayServer() } })
  const { node, address } = await hidden(t, relay)
  assert.match(address, /\/p2p-circuit\//)
  const cid = await unixfs(node).addBytes(bytes(41, 100_000))

  const repository = await Repository.make(t)
  // There is no way out of here; only this network takes addresses that lead on.
  await repository.ok('config', 'set', 'network', 'public')
  await repository.ok('config', 'set', 'bootstrap', '[]')
  await repository.daemon()
  await repository.ok('swarm', 'connect', address)
  const connected = await repository.ok('swarm', 'peers')
  assert.ok(connected.split('\n').some((line) => line.includes('/p2p-circuit')), connected)
  const [connection] = node.libp2p.getConnections().filter(({ limits }) => limits != null)
  assert.ok(connection, 'the other end has it too')

  const { code, stdout } = await repository.run(['cat', `--timeout=${IN_VAIN_MS}ms`, cid.toString()])
  assert.deepEqual([code, stdout.length], [1, 0])
})
