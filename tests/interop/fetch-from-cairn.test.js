// Helia fetches over Bitswap what cairn added.
import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { CID } from 'multiformats/cid'
import { bytes, collect, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { ENCRYPTIONS, dial, helia } from './lib/helia.js'
import { TRANSFER_MS_MAX } from './lib/limits.js'

const LARGE = bytes(1, 50_000_000)
const PROFILES = ['unixfs-v1-2025', 'unixfs-v0-2015']

/** A cairn daemon, and a Helia node that dialled it. */
async function pair (test, encryption) {
  const repository = await Repository.make(test)
  const daemon = await repository.daemon()
  const node = await helia(test, { connectionEncrypters: [ENCRYPTIONS[encryption]()] })
  const connection = await dial(node.libp2p, await daemon.addresses())
  assert.equal(connection.encryption, { noise: '/noise', tls: '/tls/1.0.0' }[encryption])
  return { repository, node }
}

const cat = (node, cid) =>
  collect(unixfs(node).cat(CID.parse(cid), { signal: AbortSignal.timeout(TRANSFER_MS_MAX) }))

/** The files below `cid` by path. */
async function files (node, cid, prefix = '') {
  const found = new Map()
  const signal = AbortSignal.timeout(TRANSFER_MS_MAX)
  for await (const entry of unixfs(node).ls(CID.parse(cid), { signal })) {
    const name = `${prefix}${entry.name}`
    const { type } = await unixfs(node).stat(entry.cid, { signal })
    if (type === 'directory') {
      for (const [path, content] of await files(node, entry.cid.toString(), `${name}/`)) found.set(path, content)
    } else {
      found.set(name, await cat(node, entry.cid.toString()))
    }
  }
  return found
}

for (const encryption of Object.keys(ENCRYPTIONS)) {
  for (const profile of PROFILES) {
    test(`a large file of ${profile} arrives over ${encryption}`, async (t) => {
      const { repository, node } = await pair(t, encryption)
      const file = path.join(await folder(t), 'large')
      await writeFile(file, LARGE)
      const cid = await repository.ok('add', '-Q', '--profile', profile, file)
      assert.equal(CID.parse(cid).version, profile === 'unixfs-v0-2015' ? 0 : 1)
      same(await cat(node, cid), LARGE, 'the file')
    })

    test(`a folder of ${profile} arrives over ${encryption}`, async (t) => {
      const { repository, node } = await pair(t, encryption)
      const source = path.join(await folder(t), 'source')
      const expected = tree(100)
      for (const [name, content] of expected) {
        await mkdir(path.join(source, path.dirname(name)), { recursive: true })
        await writeFile(path.join(source, name), content)
      }
      const cid = await repository.ok('add', '-r', '-Q', '--profile', profile, source)
      const got = await files(node, cid)
      assert.deepEqual([...got.keys()].sort(), [...expected.keys()].sort())
      for (const [name, content] of expected) same(got.get(name), content, name)
    })
  }
}

test('a folder in shards arrives', async (t) => {
  const { repository, node } = await pair(t, 'noise')
  const source = path.join(await folder(t), 'source')
  await mkdir(source)
  // More entries than fit into one block of 256 KiB.
  const names = Array.from({ length: 1300 }, (_, at) => `${'a name that takes its room in a folder '.repeat(5)}${at}`)
  for (const name of names) await writeFile(path.join(source, name), name)
  const cid = await repository.ok('add', '-r', '-Q', source)
  const signal = AbortSignal.timeout(TRANSFER_MS_MAX)
  const { unixfs: root } = await unixfs(node).stat(CID.parse(cid), { signal })
  assert.equal(root.type, 'hamt-sharded-directory')
  const found = []
  for await (const { name } of unixfs(node).ls(CID.parse(cid), { signal })) found.push(name)
  assert.deepEqual(found.sort(), names.sort())
  const last = names[names.length - 1]
  const content = await collect(unixfs(node).cat(CID.parse(cid), { path: last, signal }))
  assert.equal(content.toString(), last)
})

test('a peer that asked in vain keeps its connection, and gets what it asks for next', async (t) => {
  const { repository, node } = await pair(t, 'noise')
  const file = path.join(await folder(t), 'file')
  await writeFile(file, bytes(2, 3_000_000))
  const absent = await repository.ok('add', '-Q', '--only-hash', file)
  const signal = AbortSignal.timeout(IN_VAIN_MS)
  await assert.rejects(collect(unixfs(node).cat(CID.parse(absent), { signal })))
  assert.equal(node.libp2p.getConnections().length, 1)
  const here = await repository.ok('add', '-Q', '--chunker', 'size-4096', file)
  same(await cat(node, here), bytes(2, 3_000_000), 'the file')
})

test('what a peer waits for is sent once it is there', async (t) => {
  const { repository, node } = await pair(t, 'noise')
  const file = path.join(await folder(t), 'file')
  await writeFile(file, bytes(3, 3_000_000))
  const wanted = await repository.ok('add', '-Q', '--only-hash', file)
  const fetching = cat(node, wanted)
  await repository.ok('add', '-Q', file)
  same(await fetching, bytes(3, 3_000_000), 'the file')
})

/** How long Helia looks for what nobody has. */
const IN_VAIN_MS = 2000
