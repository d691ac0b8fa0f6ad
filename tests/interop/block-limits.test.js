// Blocks as large as a block may be pass both ways; what is a byte larger is refused, and said so.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 } from 'multiformats/hashes/sha2'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { WAYS, addressesOf, helia, listensOn } from './lib/helia.js'
import { TRANSFER_MS_MAX } from './lib/limits.js'

const BLOCK_BYTES_MAX = 2 << 20
/** The largest block that Helia puts into a message; it would be half as much for the whole network. */
const SENT_BYTES_MAX = 4_193_648

async function pair (test, way = 'TCP with Noise') {
  const node = await helia(test, WAYS[way].libp2p)
  const repository = await Repository.make(test, listensOn(way))
  const daemon = await repository.daemon()
  await repository.ok('swarm', 'connect', addressesOf(node.libp2p)[0])
  return { node, repository, daemon }
}

/** Gives Helia a block, and gives its CID. */
async function put (node, data) {
  const cid = CID.createV1(raw.code, await sha256.digest(data))
  await node.blockstore.put(cid, data)
  return cid.toString()
}

const limit = () => ({ signal: AbortSignal.timeout(TRANSFER_MS_MAX) })
const get = (node, cid) => collect(node.blockstore.get(CID.parse(cid), limit()))

for (const way of Object.keys(WAYS)) {
  test(`blocks of exactly 2 MiB pass both ways over ${way}`, async (t) => {
    const { node, repository } = await pair(t, way)
    const [ours, theirs] = [bytes(1, BLOCK_BYTES_MAX), bytes(2, BLOCK_BYTES_MAX)]
    const { stdout } = await repository.run(['block', 'put'], { input: ours })
    same(await get(node, stdout.toString().trim()), ours, 'what Helia fetched')
    same(await repository.bytes('block', 'get', await put(node, theirs)), theirs, 'what cairn fetched')
  })
}

test('a file of blocks of exactly 2 MiB arrives', async (t) => {
  const { node, repository } = await pair(t)
  const content = bytes(3, 10 * BLOCK_BYTES_MAX)
  const cid = await unixfs(node).addBytes(content, { chunker: fixedSize({ chunkSize: BLOCK_BYTES_MAX }) })
  same(await repository.bytes('cat', cid.toString()), content, 'the file')
})

test('what is larger than a block may be is refused by name, at once, and the peer is kept', async (t) => {
  const { node, repository, daemon } = await pair(t)
  const [connection] = node.libp2p.getConnections()
  for (const length of [BLOCK_BYTES_MAX + 1, SENT_BYTES_MAX]) {
    const cid = await put(node, bytes(length, length))
    const refused = await repository.run(['block', 'get', cid])
    assert.equal(refused.code, 1)
    const told = `block ${cid} has ${length} bytes, which is more than the limit of ${BLOCK_BYTES_MAX}`
    assert.ok(refused.stderr.includes(told), refused.stderr)
  }
  // A leaf of 2 MiB becomes larger where it is wrapped: nothing of the file is kept back but that.
  const content = bytes(4, BLOCK_BYTES_MAX + 5)
  const chunker = fixedSize({ chunkSize: BLOCK_BYTES_MAX })
  const cid = (await unixfs(node).addBytes(content, { chunker, rawLeaves: false })).toString()
  const refused = await repository.run(['cat', cid])
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /has 2097169 bytes, which is more than the limit of 2097152/)
  assert.equal(await daemon.metric('cairn_bitswap_too_large_blocks_received_total'), 3)
  assert.match(await repository.ok('bitswap', 'stat'), /wantlist \[0 keys\]/)

  const fits = bytes(5, BLOCK_BYTES_MAX)
  same(await repository.bytes('block', 'get', await put(node, fits)), fits, 'the block')
  assert.deepEqual(node.libp2p.getConnections(), [connection])
})

test('what is larger than a block may be is not taken in, so that Helia cannot be given it', async (t) => {
  const { node, repository } = await pair(t)
  const content = bytes(6, BLOCK_BYTES_MAX + 1)
  const refused = await repository.run(['block', 'put'], { input: content })
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /2 MiB/)
  const cid = CID.createV1(raw.code, await sha256.digest(content))
  await assert.rejects(collect(node.blockstore.get(cid, { signal: AbortSignal.timeout(ASKED_MS) })))
  const chunks = await repository.run(['add', '-Q', '--chunker', `size-${BLOCK_BYTES_MAX + 1}`], { input: content })
  assert.equal(chunks.code, 1)
  assert.match(chunks.stderr, /chunks may not have more than \d+ bytes/)
})

/** Helia asks whoever is connected at once, and then waits for ever. */
const ASKED_MS = 1000
