// Fetches that end in the middle: who gave goes on serving, and what was asked for is let go.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { MemoryBlockstore } from 'blockstore-core'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 } from 'multiformats/hashes/sha2'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { Gated, addressesOf, bitswapOf, dial, helia } from './lib/helia.js'
import { IN_VAIN_MS, TRANSFER_MS_MAX } from './lib/limits.js'

const LARGE = 100 << 20
const limit = () => AbortSignal.timeout(TRANSFER_MS_MAX)
const cat = (node, cid, options) => collect(unixfs(node).cat(CID.parse(cid), { signal: limit(), ...options }))

/** A daemon with a large file and a small one. */
async function giver (test) {
  const repository = await Repository.make(test)
  const daemon = await repository.daemon()
  const add = async (content) => (await repository.run(['add', '-Q'], { input: content })).stdout.toString().trim()
  const [large, small] = [bytes(1, LARGE), bytes(2, 3_000_000)]
  return { repository, daemon, large: await add(large), small, smallCid: await add(small) }
}

/** Waits for a message that `node` hears and that is what is looked for. */
async function heard (node, what) {
  const { network } = bitswapOf(node)
  const { promise, resolve } = Promise.withResolvers()
  const listen = ({ detail: { message } }) => what(message) && resolve()
  network.addEventListener('bitswap:message', listen)
  const late = limit()
  late.addEventListener('abort', resolve)
  await promise
  network.removeEventListener('bitswap:message', listen)
  assert.ok(!late.aborted, 'no such message came')
}

const cancels = (cid) => ({ wantlist }) =>
  wantlist?.entries.some((entry) => entry.cancel && CID.decode(entry.cid).equals(cid))

test('Helia gives up in the middle: the same connection and others are served on', async (t) => {
  const { daemon, large, small, smallCid } = await giver(t)
  const [node, other] = [await helia(t), await helia(t)]
  const connection = await dial(node.libp2p, await daemon.addresses())
  await dial(other.libp2p, await daemon.addresses())
  const abort = new AbortController()
  const fetching = cat(node, large, { signal: abort.signal })
  await heard(node, ({ blocks }) => blocks.some(({ data }) => data.length === 1 << 20))
  abort.abort()
  await assert.rejects(fetching)
  same(await cat(other, smallCid), small, 'what another fetched')
  same(await cat(node, smallCid), small, 'what the same fetched next')
  assert.deepEqual(node.libp2p.getConnections().map(({ id }) => id), [connection.id])
})

test('Helia leaves in the middle: what was still queued for it is let go', async (t) => {
  const { repository, daemon, large, small, smallCid } = await giver(t)
  const [node, other] = [await helia(t), await helia(t)]
  const connection = await dial(node.libp2p, await daemon.addresses())
  const abort = new AbortController()
  const fetching = cat(node, large, { signal: abort.signal })
  // By then it has asked for all of it.
  await heard(node, ({ blocks }) => blocks.some(({ data }) => data.length === 1 << 20))
  connection.abort(new Error('leaving'))
  abort.abort()
  await assert.rejects(fetching)
  const late = limit()
  while (await repository.ok('swarm', 'peers') !== '') late.throwIfAborted()

  const sent = () => daemon.metric('cairn_bitswap_block_bytes_sent_total')
  const before = await sent()
  assert.ok(before < LARGE / 2, `${before} bytes were sent`)
  await dial(other.libp2p, await daemon.addresses())
  same(await cat(other, smallCid), small, 'what another fetched')
  const blocks = await all(other.blockstore.getAll())
  const taken = await Promise.all(blocks.map(({ bytes }) => collect(bytes)))
  assert.equal(await sent() - before, Buffer.concat(taken).length)
})

/** Helia, which holds back the last leaf of a file, and a daemon that dialled it. */
async function stuck (test) {
  const blockstore = new Gated()
  const node = await helia(test, {}, { blockstore })
  const content = bytes(3, 12 << 20)
  const cid = (await unixfs(node).addBytes(content)).toString()
  const last = CID.createV1(raw.code, await sha256.digest(content.subarray(11 << 20)))
  const { open, asked } = blockstore.hold(last)
  const repository = await Repository.make(test)
  const daemon = await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(node.libp2p)[0])
  const [connection] = node.libp2p.getConnections()

  /** What must hold after a fetch ended: it goes on where it was, over the same connection. */
  const goesOn = async () => {
    assert.equal(await daemon.metric('cairn_bitswap_peers_dropped_total'), 0)
    open()
    same(await repository.bytes('cat', cid), content, 'the file')
    assert.deepEqual(node.libp2p.getConnections(), [connection])
  }
  return { node, repository, content, cid, last, asked, goesOn }
}

test('the time for a fetch is over in the middle: it is told, cancelled, and goes on when asked again', async (t) => {
  const { node, repository, content, cid, last, goesOn } = await stuck(t)
  const cancelled = heard(node, cancels(last))
  const { code, stdout, stderr } = await repository.run(['--timeout', `${IN_VAIN_MS}ms`, 'cat', cid])
  assert.equal(code, 1)
  assert.match(stderr, /deadline exceeded/)
  same(stdout, content.subarray(0, stdout.length), 'what came so far')
  await cancelled
  await goesOn()
})

test('who fetches goes away in the middle: the fetch is cancelled, and goes on when asked again', async (t) => {
  const { node, repository, content, cid, last, asked, goesOn } = await stuck(t)
  const cancelled = heard(node, cancels(last))
  const child = repository.spawn(['cat', cid], { stdio: ['ignore', 'pipe', 'inherit'] })
  const got = []
  child.stdout.on('data', (piece) => got.push(piece))
  await asked
  child.kill('SIGKILL')
  await once(child, 'close')
  same(Buffer.concat(got), content.subarray(0, Buffer.concat(got).length), 'what came so far')
  await cancelled
  await goesOn()
})

test('a block is missing: it is named, the rest is kept, and the connection too', async (t) => {
  const blockstore = new MemoryBlockstore()
  const node = await helia(t, {}, { blockstore })
  const repository = await Repository.make(t)
  await repository.ok('config', 'set', 'fetch.timeout', `"${IN_VAIN_MS}ms"`)
  await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(node.libp2p)[0])
  const [connection] = node.libp2p.getConnections()
  const content = bytes(4, 5 << 20)
  const cid = (await unixfs(node).addBytes(content)).toString()
  const missing = CID.createV1(raw.code, await sha256.digest(content.subarray(3 << 20, 4 << 20)))
  await blockstore.delete(missing)
  const { code, stdout, stderr } = await repository.run(['cat', cid])
  assert.equal(code, 1)
  assert.ok(stderr.includes(`block ${missing} was not found`), stderr)
  same(stdout, content.subarray(0, 3 << 20), 'what comes before it')
  await blockstore.put(missing, content.subarray(3 << 20, 4 << 20))
  same(await repository.bytes('cat', cid), content, 'the file')
  assert.deepEqual(node.libp2p.getConnections(), [connection])
})
