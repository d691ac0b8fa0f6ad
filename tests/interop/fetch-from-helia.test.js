// cairn fetches over Bitswap what Helia added.
import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { bytes, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { ENCRYPTIONS, addressesOf, helia } from './lib/helia.js'
import { TRANSFER_MS_MAX } from './lib/limits.js'

const LIMIT = { limit: TRANSFER_MS_MAX }

/** A Helia node, and a cairn daemon that dialled it. */
async function pair (test, encryption = 'noise') {
  const node = await helia(test, { connectionEncrypters: [ENCRYPTIONS[encryption]()] })
  const repository = await Repository.make(test)
  await repository.daemon()
  const [address] = addressesOf(node.libp2p)
  await repository.ok('swarm', 'connect', address)
  return { repository, node }
}

/** Runs cairn, which must succeed. */
async function cairn (repository, ...args) {
  const done = await repository.run(args, LIMIT)
  assert.equal(done.code, 0, `cairn ${args.join(' ')}: ${done.stderr}`)
  return done.stdout
}

for (const encryption of Object.keys(ENCRYPTIONS)) {
  test(`a large file arrives over ${encryption}`, async (t) => {
    const { repository, node } = await pair(t, encryption)
    const content = bytes(3, 50_000_000)
    const cid = await unixfs(node).addBytes(content)
    same(await cairn(repository, 'cat', cid.toString()), content, 'the file')
  })
}

test('a file of many small blocks arrives', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(4, 2_000_000)
  const cid = await unixfs(node).addBytes(content, { chunker: fixedSize({ chunkSize: 512 }) })
  same(await cairn(repository, 'cat', cid.toString()), content, 'the file')
})

for (const kib of [4, 16, 64, 256, 1024]) {
  test(`a file of blocks of ${kib} KiB arrives`, async (t) => {
    const { repository, node } = await pair(t)
    const content = bytes(kib, 12_000_001)
    const chunker = fixedSize({ chunkSize: kib << 10 })
    const cid = await unixfs(node).addBytes(content, { chunker })
    same(await cairn(repository, 'cat', cid.toString()), content, 'the file')
  })
}

test('a file of blocks in many sizes arrives', async (t) => {
  const { repository, node } = await pair(t)
  const sizes = [4 << 10, 1 << 20, 100, 256 << 10, 1023, 1024, 64 << 10]
  const content = bytes(5, 20_000_000)
  const chunker = async function * (source) {
    const [whole] = await Array.fromAsync(source)
    for (let at = 0, turn = 0; at < whole.length; turn++) {
      const end = at + sizes[turn % sizes.length]
      yield whole.subarray(at, end)
      at = end
    }
  }
  const cid = await unixfs(node).addBytes(content, { chunker })
  same(await cairn(repository, 'cat', cid.toString()), content, 'the file')
})

test('a file as it was made in 2015 arrives', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(6, 50_000_000) // more than one level of 174 links
  const cid = await unixfs(node).addBytes(content, {
    cidVersion: 0,
    rawLeaves: false,
    chunker: fixedSize({ chunkSize: 262144 }),
    layout: balanced({ maxChildrenPerNode: 174 })
  })
  assert.equal(cid.version, 0)
  same(await cairn(repository, 'cat', cid.toString()), content, 'the file')
})

test('a range of a file arrives without the rest', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(7, 20_000_000)
  const cid = await unixfs(node).addBytes(content)
  const got = await cairn(repository, 'cat', '--offset', '9999999', '--length', '2', cid.toString())
  same(got, content.subarray(9_999_999, 10_000_001), 'the range')
  const here = (await repository.ok('refs', 'local')).split('\n')
  assert.ok(here.length <= 4, `${here.length} blocks were fetched`)
})

test('a folder arrives on the disk', async (t) => {
  const { repository, node } = await pair(t)
  const expected = tree(200)
  const source = [...expected].map(([path, content]) => ({ path: `source/${path}`, content: one(content) }))
  let root
  for await (const entry of unixfs(node).addAll(source)) root = entry
  assert.equal(root.path, 'source')
  const out = path.join(await folder(t), 'out')
  await cairn(repository, 'get', root.cid.toString(), '-o', out)
  const names = (await readdir(out, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(out, path.join(entry.parentPath, entry.name)))
  assert.deepEqual(names.sort(), [...expected.keys()].sort())
  for (const [name, content] of expected) same(await readFile(path.join(out, name)), content, name)
})

test('a pinned folder is whole once its source is gone', async (t) => {
  const { repository, node } = await pair(t)
  const expected = tree(300)
  const source = [...expected].map(([path, content]) => ({ path: `source/${path}`, content: one(content) }))
  let root
  for await (const entry of unixfs(node).addAll(source)) root = entry
  await cairn(repository, 'pin', 'add', root.cid.toString())
  await node.stop()
  for (const [name, content] of expected) {
    same(await cairn(repository, 'cat', `${root.cid}/${name}`), content, name)
  }
  assert.equal(await repository.ok('repo', 'gc'), '')
})

/** `content` as the importer takes it: an empty file is no piece at all. */
async function * one (content) {
  if (content.length > 0) yield content
}
