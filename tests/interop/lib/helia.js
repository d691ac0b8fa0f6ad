// Helia and js-libp2p with exactly what is listed here: their defaults would look for the public network.
import { connectionGater } from './loopback.js'
import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import { identify } from '@libp2p/identify'
import { kadDHT, removePublicAddressesMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createHeliaLight } from 'helia'
import { createLibp2p } from 'libp2p'
import { once } from 'node:events'
import { CONNECT_MS_MAX, LOOKUP_MS_MAX } from './limits.js'

export const ENCRYPTIONS = { noise, tls }

/** What every libp2p here is made of. */
function base ({ services, ...over } = {}) {
  return {
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // A peer busy with a transfer may answer a ping late.
    connectionMonitor: { enabled: false },
    connectionGater,
    ...over,
    services: { identify: identify(), ...services }
  }
}

/** A Helia node that speaks Bitswap over TCP. It stops when `test` ends. */
export async function helia (test, libp2p = {}) {
  const node = await withBitswap(withLibp2pLight(createHeliaLight(), base(libp2p))).start()
  test.after(() => node.stop())
  return node
}

/** A bare libp2p node. It stops when `test` ends. */
export async function libp2p (test, options) {
  const node = await createLibp2p(base(options))
  test.after(() => node.stop())
  return node
}

/** The DHT of private networks, as services of a libp2p node. */
export function lanDht (clientMode) {
  const dht = kadDHT({
    protocol: '/ipfs/lan/kad/1.0.0',
    clientMode,
    peerInfoMapper: removePublicAddressesMapper
  })
  return { ping: ping(), dht }
}

/** Dials one of `addresses`, given as texts. */
export async function dial (node, addresses) {
  const signal = AbortSignal.timeout(CONNECT_MS_MAX)
  return await node.dial(addresses.map((address) => multiaddr(address)), { signal })
}

/** Waits until `node` may ask somebody in the DHT. */
export async function hasDhtPeer (node) {
  const { routingTable } = node.services.dht
  if (routingTable.size > 0) return
  await once(routingTable, 'peer:add', { signal: AbortSignal.timeout(LOOKUP_MS_MAX) })
}

/** The addresses of a node as texts, with its peer ID. */
export function addressesOf (node) {
  return node.getMultiaddrs().map((address) => address.toString())
}
