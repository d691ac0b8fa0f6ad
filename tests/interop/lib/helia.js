// Helia and js-libp2p with exactly what is listed here: their defaults would look for the public network.
import { connectionGater } from './loopback.js'
import { withBitswap } from '@helia/bitswap'
import { ipns } from '@helia/ipns'
import { withLibp2pLight } from '@helia/libp2p'
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf, publicKeyFromProtobuf } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { kadDHT, removePublicAddressesMapper } from '@libp2p/kad-dht'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { createHeliaLight } from 'helia'
import { createLibp2p } from 'libp2p'
import { once } from 'node:events'
import { CONNECT_MS_MAX, LOOKUP_MS_MAX } from './limits.js'

const overTcp = { addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] }, transports: [tcp()] }
const overWebSocket = { addresses: { listen: ['/ip4/127.0.0.1/tcp/0/ws'] }, transports: [webSockets()] }

/** Every way to a peer: what libp2p is made of for it, and what its connections then say of themselves. */
export const WAYS = {
  'TCP with Noise': { libp2p: { ...overTcp, connectionEncrypters: [noise()] }, encryption: '/noise' },
  'TCP with TLS': { libp2p: { ...overTcp, connectionEncrypters: [tls()] }, encryption: '/tls/1.0.0' },
  'WebSocket with Noise': { libp2p: { ...overWebSocket, connectionEncrypters: [noise()] }, encryption: '/noise' },
  'WebSocket with TLS': { libp2p: { ...overWebSocket, connectionEncrypters: [tls()] }, encryption: '/tls/1.0.0' }
}

/** What a node of this way listens on. */
export const listensOn = (way) => WAYS[way].libp2p.addresses.listen[0]

/** What every libp2p here is made of. */
function base ({ services, ...over } = {}) {
  return {
    ...overTcp,
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    // A peer busy with a transfer may answer a ping late.
    connectionMonitor: { enabled: false },
    connectionGater,
    ...over,
    services: { identify: identify(), ...services }
  }
}

/** A Helia node that speaks Bitswap, over TCP with Noise unless told otherwise. It stops when `test` ends. */
export async function helia (test, libp2p = {}, options = {}, bitswap = {}) {
  const node = await withBitswap(withLibp2pLight(createHeliaLight(options), base(libp2p)), bitswap).start()
  test.after(() => node.stop())
  return node
}

/** Keys of a kind that Helia does not bring along, as it takes them. */
const secp256k1 = {
  type: 'secp256k1',
  code: 2,
  generatePrivateKey: async () => secp256k1.privateKeyFromProtobuf(privateKeyToProtobuf(await generateKeyPair('secp256k1'))),
  privateKeyFromProtobuf: (bytes) => Object.assign(privateKeyFromProtobuf(bytes), { code: 2, toProtobuf: () => bytes }),
  publicKeyFromProtobuf
}

/** Helia without a network, which knows keys of all kinds. */
export const bareHelia = () => createHeliaLight({ cryptos: [secp256k1] })

/** A Helia node that knows keys of all kinds, and its names. Its DHT keeps no record that does not hold. */
export async function namesOf (test, libp2p) {
  const node = await helia(test, libp2p, { cryptos: [secp256k1] })
  return { node, names: ipns(node) }
}

/** The Bitswap of a Helia node, whose inside is private only by type: to see what it hears. */
export const bitswapOf = (node) => node.blockBrokers.find(({ name }) => name === 'bitswap').bitswap

/** Blocks in memory, some of which are held back: whoever asks for one waits. */
export class Gated extends MemoryBlockstore {
  #gates = new Map()

  /** Holds a block back; gives what lets it go, and a promise that somebody asked for it. */
  hold (cid) {
    const gate = Promise.withResolvers()
    const asked = Promise.withResolvers()
    this.#gates.set(cid.toString(), { gate, asked })
    return { open: gate.resolve, asked: asked.promise }
  }

  async * get (cid, options) {
    const held = this.#gates.get(cid.toString())
    if (held) {
      held.asked.resolve()
      await held.gate.promise
    }
    yield * super.get(cid, options)
  }
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
