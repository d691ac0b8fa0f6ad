// The same bytes and options have the same CID here as in ipfs-unixfs-importer, which is Helia's.
import assert from 'node:assert/strict'
import { chmod, mkdir, utimes, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, test } from 'node:test'
import { unixfs } from '@helia/unixfs'
import { MemoryBlockstore } from 'blockstore-core'
import { importFile, importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { trickle } from 'ipfs-unixfs-importer/layout'
import { all, bytes, longNames, one, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { helia } from './lib/helia.js'

const repository = await Repository.make({ after })

/** Sizes at which something changes: no bytes, one chunk and one more, one node of links and one more. */
const SIZES = [0, 1, 1000, 262_144, 262_145, 1 << 20, (1 << 20) + 1, 3_000_001, 174 * 262_144 + 1]
const FILES = SIZES.map((length, at) => [`${at}-of-${length}`, bytes(at, length)])
/** Where there are many chunks. */
const SMALL = FILES.filter(([, content]) => content.length <= 3_000_001)

/**
 * What cairn is told, and what the importer is told; it writes to its options, so they are made anew.
 * Its chunks by content (rabin) are left out: they are others than Kubo's, which ours are (`tests/fixtures/unixfs`).
 */
const WAYS = {
  'unixfs-v1-2025': [FILES, ['--profile=unixfs-v1-2025'], () => ({ profile: 'unixfs-v1-2025' })],
  'unixfs-v0-2015': [FILES, ['--profile=unixfs-v0-2015'], () => ({ profile: 'unixfs-v0-2015' })],
  'no profile': [FILES, [], () => ({ profile: 'unixfs-v1-2025' })],
  'version 1 of 2015': [FILES,
    ['--profile=unixfs-v0-2015', '--cid-version=1', '--raw-leaves=false'],
    () => ({ profile: 'unixfs-v0-2015', cidVersion: 1 })],
  'raw leaves of 2015': [FILES,
    ['--profile=unixfs-v0-2015', '--raw-leaves'],
    () => ({ profile: 'unixfs-v0-2015', rawLeaves: true })],
  'wrapped leaves of 2025': [FILES,
    ['--profile=unixfs-v1-2025', '--raw-leaves=false'],
    () => ({ profile: 'unixfs-v1-2025', rawLeaves: false })],
  'chunks of 1,000 bytes': [SMALL,
    ['--profile=unixfs-v1-2025', '--chunker=size-1000'],
    () => ({ profile: 'unixfs-v1-2025', chunker: fixedSize({ chunkSize: 1000 }) })],
  'chunks of 1,000 bytes in 2015': [SMALL,
    ['--profile=unixfs-v0-2015', '--chunker=size-1000'],
    () => ({ profile: 'unixfs-v0-2015', chunker: fixedSize({ chunkSize: 1000 }) })],
  'early leaves near the root': [SMALL,
    ['--profile=unixfs-v0-2015', '--trickle', '--chunker=size-1000'],
    () => ({
      profile: 'unixfs-v0-2015',
      chunker: fixedSize({ chunkSize: 1000 }),
      layout: trickle({ maxChildrenPerNode: 174 }),
      leafType: 'raw',
      reduceSingleLeafToSelf: false
    })]
}

/** Writes files below a new folder, and gives its path. */
async function written (test, files) {
  const root = path.join(await folder(test), 'root')
  await mkdir(root)
  for (const [name, content] of files) {
    await mkdir(path.join(root, path.dirname(name)), { recursive: true })
    await writeFile(path.join(root, name), content)
  }
  return root
}

/** Gives a file a mode and a time of change, and gives its path back. */
async function dated (file, { secs, nsecs }) {
  await chmod(file, 0o640)
  const time = Number(secs) + nsecs / 1e9
  await utimes(file, time, time)
  return file
}

for (const [name, [files, args, options]] of Object.entries(WAYS)) {
  test(`files have one name: ${name}`, async (t) => {
    const root = await written(t, files)
    const paths = files.map(([name]) => path.join(root, name))
    const ours = (await repository.ok('add', '-q', '--only-hash', ...args, ...paths)).split('\n')
    const theirs = []
    for (const [, content] of files) {
      const { cid } = await importFile({ content: one(content) }, new MemoryBlockstore(), options())
      theirs.push(cid.toString())
    }
    const named = (cids) => Object.fromEntries(files.map(([name], at) => [name, cids[at]]))
    assert.deepEqual(named(ours), named(theirs))
  })
}

const FOLDERS = {
  'files and folders in it': [...tree(1)],
  'so many names that it is made in shards': longNames().map((name) => [name, Buffer.from(name)]),
  'nothing in it': []
}

for (const profile of ['unixfs-v1-2025', 'unixfs-v0-2015']) {
  for (const [name, files] of Object.entries(FOLDERS)) {
    test(`a folder with ${name} has one name: ${profile}`, async (t) => {
      const root = await written(t, files)
      const ours = await repository.ok('add', '-r', '-Q', '--only-hash', '--profile', profile, root)
      const source = files.map(([name, content]) => ({ path: `root/${name}`, content: one(content) }))
      if (files.length === 0) source.push({ path: 'root' })
      const entries = await all(importer(source, new MemoryBlockstore(), { profile }))
      assert.equal(ours, entries.at(-1).cid.toString())
    })
  }
}

test('modes and times are part of a name', async (t) => {
  const root = await written(t, FILES.slice(0, 8))
  // Half a second, which a number of seconds can hold.
  const mtime = { secs: 1_700_000_000n, nsecs: 500_000_000 }
  for (const [name, content] of FILES.slice(0, 8)) {
    const { stdout } = await repository.run(
      ['add', '-Q', '--only-hash', '--preserve-mode', '--preserve-mtime', await dated(path.join(root, name), mtime)])
    const { cid } = await importFile(
      { content: one(content), mode: 0o640, mtime }, new MemoryBlockstore(), { profile: 'unixfs-v1-2025' })
    assert.equal(stdout.toString().trim(), cid.toString(), name)
  }
})

test('Helia names by itself what cairn names by itself', async (t) => {
  const node = await helia(t)
  for (const [name, content] of FILES) {
    const { stdout } = await repository.run(['add', '-Q', '--only-hash'], { input: content })
    assert.equal((await unixfs(node).addByteStream(one(content))).toString(), stdout.toString().trim(), name)
  }
})
