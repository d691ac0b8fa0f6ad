// What is special about Helia's Bitswap, and must not disturb a peer. Each test also holds it that Helia is like that.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { MemoryBlockstore } from 'blockstore-core'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 } from 'multiformats/hashes/sha2'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { addressesOf, bitswapOf, helia } from './lib/helia.js'
import { IN_VAIN_MS, TRANSFER_MS_MAX } from './lib/limits.js'

const BITSWAP = '/ipfs/bitswap/1.2.0'
/** More than cairn keeps open of one peer's streams. */
const MANY_STREAMS = 300
/** What cairn keeps of one peer's wants. */
const WANTS_MAX = 1024

/** A Helia node with its blocks in sight, and a daemon that dialled it. */
async function pair (test, { bitswap } = {}) {
  const blockstore = new MemoryBlockstore()
  const node = await helia(test, {}, { blockstore }, bitswap)
  const repository = await Repository.make(test)
  const daemon = await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(node.libp2p)[0])
  return { node, blockstore, repository, daemon }
}

/** Counts the streams that Helia's Bitswap opens from now on. */
function watchStreams (node) {
  const streams = { opened: 0 }
  const { libp2p } = bitswapOf(node).network
  const dial = libp2p.dialProtocol.bind(libp2p)
  libp2p.dialProtocol = (...details) => {
    streams.opened++
    return dial(...details)
  }
  return streams
}

/** The lines of want lists that a node sends and hears from now on, and how many messages they came in. */
function watchWants (node) {
  const { network } = bitswapOf(node)
  const seen = { sent: [], heard: [], messages: 0 }
  const send = network.sendMessage.bind(network)
  network.sendMessage = (peer, message, options) => {
    seen.sent.push(...message.wantlist.values())
    return send(peer, message, options)
  }
  network.addEventListener('bitswap:message', ({ detail: { message } }) => {
    seen.messages++
    seen.heard.push(...message.wantlist?.entries ?? [])
  })
  return seen
}

const limit = () => ({ signal: AbortSignal.timeout(TRANSFER_MS_MAX) })
const cat = (node, cid) => collect(unixfs(node).cat(CID.parse(cid), limit()))
const cidOf = async (data) => CID.createV1(raw.code, await sha256.digest(data))

async function add (repository, content, ...options) {
  const { code, stdout, stderr } = await repository.run(['add', '-Q', ...options], { input: content })
  assert.equal(code, 0, stderr)
  return stdout.toString().trim()
}

/** Forgets all blocks of a Helia node. */
async function forget (blockstore) {
  for await (const { cid } of blockstore.getAll()) await blockstore.delete(cid)
}

test('a stream for each message: hundreds of questions are answered', async (t) => {
  const { node, repository } = await pair(t)
  const contents = Array.from({ length: MANY_STREAMS }, (_, at) => Buffer.from(`block ${at}`))
  const { stdout } = await repository.run(['add', '-q', '--chunker=size-10', '--raw-leaves'], {
    input: Buffer.concat(contents)
  })
  const cids = (await repository.ok('refs', stdout.toString().trim())).split('\n')
  const streams = watchStreams(node)
  for (const cid of cids) await collect(node.blockstore.get(CID.parse(cid), limit()))
  assert.ok(cids.length >= 256, `${cids.length} blocks`)
  assert.ok(streams.opened >= cids.length, `${streams.opened} streams`)
})

test('a stream for each message: hundreds of answers are taken', async (t) => {
  const { node, repository } = await pair(t)
  // One below the other, so that each is asked for when the one above it is here.
  let cid = await unixfs(node).addBytes(Buffer.from('at the bottom'))
  for (let depth = 0; depth < MANY_STREAMS; depth++) {
    const empty = await unixfs(node).addDirectory()
    cid = await unixfs(node).cp(cid, empty, 'd')
  }
  const streams = watchStreams(node)
  const got = await repository.ok('cat', `${cid}${'/d'.repeat(MANY_STREAMS)}`)
  assert.equal(got, 'at the bottom')
  assert.ok(streams.opened >= MANY_STREAMS, `${streams.opened} streams`)
})

test('no cancels: what Helia asks for again on the same connection is sent again', async (t) => {
  const { node, blockstore, repository } = await pair(t)
  const content = bytes(1, 3_000_000)
  const cid = await add(repository, content)
  const wants = watchWants(node)
  for (let turn = 0; turn < 3; turn++) {
    same(await cat(node, cid), content, `the file, turn ${turn}`)
    await forget(blockstore)
  }
  assert.deepEqual(wants.sent.filter(({ cancel }) => cancel), [])
  assert.equal(node.libp2p.getConnections().length, 1)
})

test('no cancels: a list full of what nobody has keeps nobody from what is here', async (t) => {
  const { node, repository } = await pair(t)
  const abort = new AbortController()
  const absent = await Promise.all(Array.from({ length: 2 * WANTS_MAX }, (_, at) => cidOf(Buffer.from(`absent ${at}`))))
  const wants = watchWants(node)
  const waiting = absent.map((cid) => collect(node.blockstore.get(cid, { signal: abort.signal })))
  const content = bytes(2, 3_000_000)
  const cid = await add(repository, content)
  same(await cat(node, cid), content, 'the file')
  abort.abort()
  for (const { status } of await Promise.allSettled(waiting)) assert.equal(status, 'rejected')
  assert.ok(wants.sent.length >= 2 * WANTS_MAX, `${wants.sent.length} wants`)
  const more = bytes(3, 3_000_000)
  same(await cat(node, await add(repository, more)), more, 'another file')
})

test('one answer to a want: what cairn lost is sent again on the same connection', async (t) => {
  const { node, repository } = await pair(t)
  const content = bytes(4, 3_000_000)
  const cid = (await unixfs(node).addBytes(content)).toString()
  const wants = watchWants(node)
  for (let turn = 0; turn < 3; turn++) {
    same(await repository.bytes('cat', cid), content, `the file, turn ${turn}`)
    const here = (await repository.ok('refs', 'local')).split('\n')
    await repository.ok('block', 'rm', ...here)
  }
  assert.ok(wants.heard.some(({ cancel }) => cancel), 'no cancel was heard')
  assert.equal(node.libp2p.getConnections().length, 1)
})

test('one answer to a want: what Helia said it lacks is got once it is there', async (t) => {
  const { node, repository } = await pair(t)
  const content = bytes(5, 3_000_000)
  const cid = await add(repository, content, '--only-hash')
  const { code } = await repository.run(['--timeout', `${IN_VAIN_MS}ms`, 'cat', cid])
  assert.equal(code, 1)
  assert.equal((await unixfs(node).addBytes(content)).toString(), cid)
  same(await repository.bytes('cat', cid), content, 'the file')
})

test('several blocks a message: they are all taken', async (t) => {
  const { node, repository, daemon } = await pair(t)
  const content = bytes(7, 8_000_000)
  const cid = await unixfs(node).addBytes(content, { chunker: fixedSize({ chunkSize: 8 << 10 }) })
  same(await repository.bytes('cat', cid.toString()), content, 'the file')
  const blocks = await daemon.metric('cairn_bitswap_blocks_received_total')
  const messages = await daemon.metric('cairn_bitswap_messages_received_total')
  assert.ok(messages < blocks / 2, `${blocks} blocks in ${messages} messages`)
})

test('a stream on which nothing comes is reset: cairn opens another', async (t) => {
  const { node, repository } = await pair(t, { bitswap: { messageReceiveTimeout: 200 } })
  let resets = 0
  for (let turn = 0; turn < 2; turn++) {
    const content = bytes(8 + turn, 1000)
    const cid = await unixfs(node).addBytes(content)
    same(await repository.bytes('cat', cid.toString()), content, 'the file')
    const [{ streams }] = node.libp2p.getConnections()
    for (const stream of streams.filter(({ protocol, direction }) => protocol === BITSWAP && direction === 'inbound')) {
      await once(stream, 'close', limit())
      assert.equal(stream.status, 'aborted')
      resets++
    }
  }
  assert.ok(resets >= 1)
})

test('a small block is the answer to who has it: two that send it at once are both kept', async (t) => {
  const { node, repository, daemon } = await pair(t)
  const other = await helia(t)
  await repository.ok('swarm', 'connect', addressesOf(other.libp2p)[0])
  const heard = [watchWants(node), watchWants(other)]
  for (const length of [1, 1023]) {
    const content = bytes(length, length)
    const cid = await unixfs(node).addBytes(content)
    await unixfs(other).addBytes(content)
    same(await repository.bytes('block', 'get', cid.toString()), content, 'the block')
  }
  for (const { heard: wants } of heard) assert.ok(wants.some(({ wantType }) => wantType === 'WantHave'))
  assert.equal(await daemon.metric('cairn_bitswap_peers_dropped_total'), 0)
  assert.equal((await repository.ok('swarm', 'peers')).split('\n').length, 2)
})
