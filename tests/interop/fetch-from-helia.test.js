// cairn dials Helia and fetches over Bitswap what was added there.
import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { CID } from 'multiformats/cid'
import { bytes, longNames, one, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { WAYS, addressesOf, helia, listensOn } from './lib/helia.js'
import { TRANSFER_MS_MAX } from './lib/limits.js'

/** A thousand files take their time to be fetched, so once is enough. */
const ALSO_WRITTEN = 'WebSocket with Noise'
const LIMIT = { limit: TRANSFER_MS_MAX }

/** A Helia node, and a cairn daemon that dialled it. */
async function pair (test, way = 'TCP with Noise') {
  const node = await helia(test, WAYS[way].libp2p)
  const repository = await Repository.make(test, listensOn(way))
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

/** Adds files to Helia as a folder, and gives its CID. */
async function addFolder (node, files) {
  const source = [...files].map(([path, content]) => ({ path: `source/${path}`, content: one(content) }))
  let root
  for await (const entry of unixfs(node).addAll(source)) root = entry
  assert.equal(root.path, 'source')
  return root.cid.toString()
}

/** Has cairn write a folder to the disk, where it must be as expected. */
async function arrives (test, repository, cid, expected) {
  const out = path.join(await folder(test), 'out')
  await cairn(repository, 'get', cid, '-o', out)
  const names = (await readdir(out, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(out, path.join(entry.parentPath, entry.name)))
  assert.deepEqual(names.sort(), [...expected.keys()].sort())
  for (const [name, content] of expected) same(await readFile(path.join(out, name)), content, name)
}

for (const way of Object.keys(WAYS)) {
  test(`a file of 100 MB arrives over ${way}`, async (t) => {
    const { repository, node } = await pair(t, way)
    const content = bytes(3, 100_000_000)
    const cid = await unixfs(node).addBytes(content)
    same(await cairn(repository, 'cat', cid.toString()), content, 'the file')
  })

  test(`a folder arrives on the disk over ${way}`, async (t) => {
    const { repository, node } = await pair(t, way)
    const expected = tree(200)
    await arrives(t, repository, await addFolder(node, expected), expected)
  })

  test(`a folder in shards arrives over ${way}`, async (t) => {
    const { repository, node } = await pair(t, way)
    const names = longNames()
    const expected = new Map(names.map((name) => [name, Buffer.from(name)]))
    const cid = await addFolder(node, expected)
    const { unixfs: root } = await unixfs(node).stat(CID.parse(cid))
    assert.equal(root.type, 'hamt-sharded-directory')
    for (const name of names.filter((_, at) => at % 200 === 0)) {
      same(await cairn(repository, 'cat', `${cid}/${name}`), Buffer.from(name), 'a file')
    }
    const listed = (await cairn(repository, 'ls', '--size=false', '--resolve-type=false', cid)).toString()
    assert.deepEqual(listed.trimEnd().split('\n').map((line) => line.replace(/^\w+ +-? */, '')).sort(), names.sort())
    if (way === ALSO_WRITTEN) await arrives(t, repository, cid, expected)
  })
}

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

test('a pinned folder is whole once its source is gone', async (t) => {
  const { repository, node } = await pair(t)
  const expected = tree(300)
  const cid = await addFolder(node, expected)
  await cairn(repository, 'pin', 'add', cid)
  await node.stop()
  for (const [name, content] of expected) {
    same(await cairn(repository, 'cat', `${cid}/${name}`), content, name)
  }
  assert.equal(await repository.ok('repo', 'gc'), '')
})
