// A repository's log is CAR files that @ipld/car reads without cairn.
import assert from 'node:assert/strict'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { CarBlockIterator } from '@ipld/car/iterator'
import { CarIndexer } from '@ipld/car/indexer'
import { CID } from 'multiformats/cid'
import { base32 } from 'multiformats/bases/base32'
import { identity } from 'multiformats/hashes/identity'
import { sha256, sha512 } from 'multiformats/hashes/sha2'
import { bytes, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'

const HASHERS = new Map([identity, sha256, sha512].map((hasher) => [hasher.code, hasher]))
const SEGMENTS_MIN = 4

const key = (cid) => base32.encode(cid.multihash.bytes)

/** Every block of every segment below `repository`, each checked against its CID. */
async function blocksOf (repository) {
  const blocks = path.join(repository.path, 'blocks')
  const found = new Map()
  const segments = (await readdir(blocks)).filter((name) => name.endsWith('.car'))
  for (const name of segments) {
    const file = path.join(blocks, name)
    for await (const { cid, bytes } of await CarBlockIterator.fromIterable(createReadStream(file))) {
      const hasher = HASHERS.get(cid.multihash.code)
      assert.ok(hasher, `${cid} in ${name} has a hash that nobody asked for`)
      const { digest } = await hasher.digest(bytes)
      assert.deepEqual(digest, cid.multihash.digest, `${cid} in ${name}`)
      found.set(key(cid), bytes.length)
    }
  }
  return { found, segments }
}

/** Fails unless every block that cairn lists is in its segments. */
async function check (repository) {
  const listed = (await repository.ok('refs', 'local')).split('\n').filter((line) => line !== '')
  const { found, segments } = await blocksOf(repository)
  const missing = listed.filter((cid) => !found.has(key(CID.parse(cid))))
  assert.deepEqual(missing, [])
  return { listed, found, segments }
}

/** A repository with folders of both profiles, other codecs and another hash. */
async function filled (test) {
  const repository = await Repository.make(test)
  await repository.ok('config', 'set', 'storage.segment_size', '8MiB')
  const source = path.join(await folder(test), 'source')
  for (const [name, content] of tree(400)) {
    await mkdir(path.join(source, path.dirname(name)), { recursive: true })
    await writeFile(path.join(source, name), content)
  }
  const large = path.join(source, 'large')
  await writeFile(large, bytes(30, 20_000_000))
  await repository.ok('add', '-r', '-Q', source)
  await repository.ok('add', '-r', '-Q', '--profile', 'unixfs-v0-2015', source)
  await repository.ok('add', '-Q', '--hash', 'sha2-512', '--chunker', 'size-4096', path.join(source, 'below/1024'))
  const put = await repository.run(['dag', 'put'], { input: '{"name":"a block of another codec"}' })
  assert.equal(put.code, 0, put.stderr)
  return { repository, source, large }
}

test('every block that cairn lists is in the segments, and hashes to its CID', async (t) => {
  const { repository } = await filled(t)
  const { listed, segments } = await check(repository)
  assert.ok(listed.length > 100, `${listed.length} blocks`)
  assert.ok(segments.length >= SEGMENTS_MIN, `${segments}`)
  for (const stream of ['leaf', 'node']) {
    assert.ok(segments.some((name) => name.startsWith(stream)), `${segments}`)
  }
})

test('a segment is indexed by others, at the places where its blocks are', async (t) => {
  const { repository } = await filled(t)
  const file = path.join(repository.path, 'blocks', 'leaf-000001.car')
  const indexer = await CarIndexer.fromIterable(createReadStream(file))
  assert.equal(indexer.version, 1)
  const roots = await indexer.getRoots()
  assert.deepEqual(roots.map(String), ['bafkqaaa'])
  let end = FIRST_SECTION
  for await (const { offset, length } of indexer) {
    assert.equal(offset, end)
    end = offset + length
  }
  assert.ok(end > FIRST_SECTION)
})

test('the segments can be read while the daemon writes, and after a collection', async (t) => {
  const { repository, large } = await filled(t)
  const daemon = await repository.daemon()
  const unpinned = await repository.run(['add', '-Q', '--pin=false', '--chunker', 'size-65536', large])
  assert.equal(unpinned.code, 0, unpinned.stderr)
  const before = await check(repository)
  const removed = await repository.ok('repo', 'gc', '-q')
  assert.ok(removed.split('\n').length > 300, removed)
  const after = await check(repository)
  assert.ok(after.listed.length < before.listed.length)
  assert.equal(await daemon.stop(), 0)
  await check(repository)
})

test('what came from a peer lies in segments of its own, also after a part of it was pinned and the rest collected', async (t) => {
  const { repository: giver, source, large } = await filled(t)
  const small = path.join(source, 'below/1024')
  const [largeRoot, smallRoot] = [await giver.ok('add', '-Q', large), await giver.ok('add', '-Q', small)]
  const giving = await giver.daemon()
  const taker = await Repository.make(t)
  await taker.ok('config', 'set', 'storage.segment_size', '8MiB')
  const taking = await taker.daemon()
  const [address] = await giving.addresses()
  await taker.ok('swarm', 'connect', address)
  same(await taker.bytes('cat', largeRoot), await readFile(large), 'large')
  same(await taker.bytes('cat', smallRoot), await readFile(small), 'small')
  const before = await check(taker)
  const cached = (segments) => segments.filter((name) => name.startsWith('cache'))
  assert.ok(cached(before.segments).length > 1, `${before.segments}`)

  await taker.ok('pin', 'add', smallRoot)
  const removed = await taker.ok('repo', 'gc', '-q')
  assert.ok(removed.split('\n').length > 10, removed)
  const after = await check(taker)
  assert.ok(after.found.has(key(CID.parse(smallRoot))))
  assert.ok(after.listed.length < before.listed.length)
  assert.notDeepEqual(cached(after.segments), cached(before.segments))
  assert.equal(await taking.stop(), 0)
  await check(taker)
})

/** Where the first section of a segment begins: behind the header and its length. */
const FIRST_SECTION = 26
