// Helia dials cairn and fetches over Bitswap what was added there.
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { CID } from 'multiformats/cid'
import { bytes, collect, longNames, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { WAYS, dial, helia, listensOn } from './lib/helia.js'
import { IN_VAIN_MS, TRANSFER_MS_MAX } from './lib/limits.js'

/** Helia lists a folder by fetching all that is in it, one after the other: that takes long, so once is enough. */
const ALSO_LISTED = 'TCP with TLS'

/** A cairn daemon, and a Helia node that dialled it. */
async function pair (test, way = 'TCP with Noise') {
  const repository = await Repository.make(test, listensOn(way))
  const daemon = await repository.daemon()
  const node = await helia(test, WAYS[way].libp2p)
  await dial(node.libp2p, await daemon.addresses())
  return { repository, node }
}

const limit = () => ({ signal: AbortSignal.timeout(TRANSFER_MS_MAX) })
const cat = (node, cid, options) => collect(unixfs(node).cat(CID.parse(cid), { ...limit(), ...options }))

/** Adds bytes, and gives their CID. */
async function add (repository, content, ...options) {
  const { code, stdout, stderr } = await repository.run(['add', '-Q', ...options], { input: content })
  assert.equal(code, 0, stderr)
  return stdout.toString().trim()
}

/** Writes files, adds them as a folder, and gives its CID. */
async function addFolder (test, repository, files, ...options) {
  const source = path.join(await folder(test), 'source')
  for (const [name, content] of files) {
    await mkdir(path.join(source, path.dirname(name)), { recursive: true })
    await writeFile(path.join(source, name), content)
  }
  return await repository.ok('add', '-r', '-Q', ...options, source)
}

/** The files below `cid` by path. */
async function files (node, cid, prefix = '') {
  const found = new Map()
  for await (const entry of unixfs(node).ls(CID.parse(cid), limit())) {
    const name = `${prefix}${entry.name}`
    const { type } = await unixfs(node).stat(entry.cid, limit())
    if (type === 'directory') {
      for (const [path, content] of await files(node, entry.cid.toString(), `${name}/`)) found.set(path, content)
    } else {
      found.set(name, await cat(node, entry.cid.toString()))
    }
  }
  return found
}

async function arrives (node, cid, expected) {
  const got = await files(node, cid)
  assert.deepEqual([...got.keys()].sort(), [...expected.keys()].sort())
  for (const [name, content] of expected) same(got.get(name), content, name)
}

for (const way of Object.keys(WAYS)) {
  test(`a file of 100 MB arrives over ${way}`, async (t) => {
    const { repository, node } = await pair(t, way)
    const content = bytes(1, 100_000_000)
    same(await cat(node, await add(repository, content)), content, 'the file')
  })

  test(`a folder arrives over ${way}`, async (t) => {
    const { repository, node } = await pair(t, way)
    const expected = tree(100)
    await arrives(node, await addFolder(t, repository, expected), expected)
  })

  test(`a folder in shards arrives over ${way}`, async (t) => {
    const { repository, node } = await pair(t, way)
    const names = longNames()
    const cid = await addFolder(t, repository, names.map((name) => [name, name]))
    const { unixfs: root } = await unixfs(node).stat(CID.parse(cid), limit())
    assert.equal(root.type, 'hamt-sharded-directory')
    for (const name of names.filter((_, at) => at % 50 === 0)) {
      assert.equal((await cat(node, cid, { path: name })).toString(), name)
    }
    if (way !== ALSO_LISTED) return
    const found = []
    for await (const { name } of unixfs(node).ls(CID.parse(cid), limit())) found.push(name)
    assert.deepEqual(found.sort(), names.sort())
  })
}

test('a large file as it was made in 2015 arrives', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(2, 50_000_000) // more than one level of 174 links
  const cid = await add(repository, content, '--profile', 'unixfs-v0-2015')
  assert.equal(CID.parse(cid).version, 0)
  same(await cat(node, cid), content, 'the file')
})

test('a folder as it was made in 2015 arrives', async (t) => {
  const { repository, node } = await pair(t)
  const expected = tree(110)
  await arrives(node, await addFolder(t, repository, expected, '--profile', 'unixfs-v0-2015'), expected)
})

test('a peer that asked in vain keeps its connection, and gets what it asks for next', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(3, 3_000_000)
  const absent = await add(repository, content, '--only-hash')
  await assert.rejects(cat(node, absent, { signal: AbortSignal.timeout(IN_VAIN_MS) }))
  assert.equal(node.libp2p.getConnections().length, 1)
  same(await cat(node, await add(repository, content, '--chunker', 'size-4096')), content, 'the file')
})

test('what a peer waits for is sent once it is there', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(4, 3_000_000)
  const fetching = cat(node, await add(repository, content, '--only-hash'))
  await add(repository, content)
  same(await fetching, content, 'the file')
})

test('a file that lacks one block arrives up to there, and whole once the block is there', async (t) => {
  const { repository, node } = await pair(t)
  const content = bytes(5, 5 << 20)
  const cid = await add(repository, content, '--pin=false')
  const leaves = (await repository.ok('refs', cid)).split('\n')
  await repository.ok('block', 'rm', leaves[3])
  const got = []
  const fetching = async () => {
    const signal = AbortSignal.timeout(IN_VAIN_MS)
    for await (const piece of unixfs(node).cat(CID.parse(cid), { signal })) got.push(piece)
  }
  await assert.rejects(fetching())
  same(Buffer.concat(got), content.subarray(0, 3 << 20), 'what comes before the block')
  await add(repository, content)
  same(await cat(node, cid), content, 'the file')
})
