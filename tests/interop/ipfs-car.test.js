// ipfs-car, a program that makes CARs and takes them apart by itself: what it packs cairn takes, and what the gateway gives
// as a CAR it unpacks to the same files.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { execFile } from 'node:child_process'
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { CarReader } from '@ipld/car'
import { CAREncoderStream, createDirectoryEncoderStream, createFileEncoderStream } from 'ipfs-car'
import { CID } from 'multiformats/cid'
import { create } from 'multiformats/hashes/digest'
import { sha256 } from 'multiformats/hashes/sha2'
import { all, bytes, longNames, same, tree } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { CALL_MS_MAX, COMMAND_MS_MAX } from './lib/limits.js'

const PROGRAM = path.join(import.meta.dirname, 'node_modules/ipfs-car/bin.js')
const OUTPUT_MAX = 16 << 20
const CAR_CODEC = 0x0202

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const gateway = await daemon.gateway()

/** Runs ipfs-car, which must succeed; gives the lines it printed. */
async function ipfsCar (...args) {
  const limits = { timeout: COMMAND_MS_MAX, killSignal: 'SIGKILL', maxBuffer: OUTPUT_MAX }
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM, ...args], limits)
  return stdout.split('\n').filter((line) => line !== '')
}

/** The body of an answer of the gateway that is none of an error. */
async function get (path, accept = '*/*') {
  const answer = await fetch(`${gateway}${path}`, { headers: { accept }, signal: AbortSignal.timeout(CALL_MS_MAX) })
  assert.equal(answer.status, 200, path)
  return Buffer.from(await answer.arrayBuffer())
}

const encoded = (path) => path.split('/').map(encodeURIComponent).join('/')

/** Writes files below a new folder, and gives its path. */
async function written (test, files) {
  const root = path.join(await folder(test), 'root')
  for (const [name, content] of files) {
    await mkdir(path.join(root, path.dirname(name)), { recursive: true })
    await writeFile(path.join(root, name), content)
  }
  return root
}

/** Writes a CAR into a new folder, and gives its path. */
async function saved (test, car) {
  const file = path.join(await folder(test), 'saved.car')
  await writeFile(file, car)
  return file
}

/** The files below a folder, by path. */
async function filesBelow (root) {
  const entries = await readdir(root, { recursive: true, withFileTypes: true })
  return entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => path.relative(root, path.join(parentPath, name)))
}

/** Fails unless a folder holds these files and no others. */
async function holds (root, files) {
  assert.deepEqual((await filesBelow(root)).sort(), [...files.keys()].sort())
  for (const [name, content] of files) same(await readFile(path.join(root, name)), content, name)
}

/** The CIDs of the blocks below `cid`, with its own. */
async function blocksBelow (cid) {
  const below = await repository.ok('refs', '-r', '-u', cid)
  return [cid, ...below.split('\n').filter((line) => line !== '')]
}

test('a folder that ipfs-car packs is taken, and the gateway gives the same bytes', async (t) => {
  const files = tree(700)
  const source = await written(t, files)
  const car = path.join(await folder(t), 'packed.car')
  const [root] = await ipfsCar('pack', source, '--output', car)
  await repository.ok('dag', 'import', car)
  for (const [name, content] of files) same(await get(`/ipfs/${root}/${encoded(name)}`), content, name)
  assert.ok((await repository.ok('pin', 'ls', '--type=recursive')).includes(root), 'its root is pinned')
})

test('a folder has one name, whether cairn or ipfs-car makes it', async (t) => {
  const source = await written(t, tree(710))
  const [theirs] = await ipfsCar('pack', source, '--output', path.join(await folder(t), 'packed.car'))
  assert.equal(await repository.ok('add', '-r', '-Q', '--only-hash', '--profile=unixfs-v1-2025', source), theirs)
})

test('a CAR that repeats blocks and has its root at its end is taken', async (t) => {
  const content = bytes(720, 2_000_000)
  const files = new Map([['first', content], ['second', content]])
  const car = path.join(await folder(t), 'packed.car')
  const [root] = await ipfsCar('pack', await written(t, files), '--output', car)
  const cids = await ipfsCar('blocks', car)
  assert.ok(new Set(cids).size < cids.length)
  assert.equal(cids.at(-1), root)
  await repository.ok('dag', 'import', car)
  for (const [name, content] of files) same(await get(`/ipfs/${root}/${name}`), content, name)
})

/** What the library makes of a stream of blocks: a CAR without roots, and the CID of the last block. */
async function encode (blocks) {
  const encoder = new CAREncoderStream()
  const car = Buffer.concat(await all(blocks.pipeThrough(encoder)))
  return { car, root: encoder.finalBlock.cid.toString() }
}

const fileLike = ([name, content]) => ({ name, stream: () => new Blob([content]).stream() })

test('what the library encodes is taken, without roots too', async (t) => {
  const files = [...tree(730)].filter(([, content]) => content.length > 0)
  const made = await encode(createDirectoryEncoderStream(files.map(fileLike)))
  await repository.ok('dag', 'import', await saved(t, made.car))
  for (const [name, content] of files) same(await get(`/ipfs/${made.root}/${encoded(name)}`), content, name)

  const content = bytes(731, 3_000_001)
  const file = await encode(createFileEncoderStream(fileLike(['file', content])))
  await repository.ok('dag', 'import', await saved(t, file.car))
  same(await get(`/ipfs/${file.root}`), content, 'the file')
})

const FOLDERS = {
  'files and folders in it': [tree(740)],
  'so many names that it is made in shards': [new Map(longNames().map((name) => [name, Buffer.from(name)]))],
  'what it was in 2015': [tree(750), '--profile=unixfs-v0-2015']
}

for (const [name, [files, ...options]] of Object.entries(FOLDERS)) {
  test(`a folder with ${name} is unpacked from the gateway's CAR`, async (t) => {
    const root = await repository.ok('add', '-r', '-Q', ...options, await written(t, files))
    for (const query of ['', '&dag-scope=all', '&car-order=dfs&car-dups=y', '&car-order=dfs&car-dups=n&car-version=1']) {
      const content = await get(`/ipfs/${root}?format=car${query}`)
      const car = await saved(t, content)
      assert.deepEqual(await ipfsCar('roots', car), [root], query)
      assert.deepEqual([...new Set(await ipfsCar('blocks', car))].sort(), (await blocksBelow(root)).sort(), query)
      const into = path.join(await folder(t), 'out')
      await ipfsCar('unpack', car, '--output', into)
      await holds(into, files)
      const hash = create(sha256.code, createHash('sha256').update(content).digest())
      assert.deepEqual(await ipfsCar('hash', car), [CID.createV1(CAR_CODEC, hash).toString()], query)
    }
    const listed = await ipfsCar('ls', await saved(t, await get(`/ipfs/${root}`, 'application/vnd.ipld.car')))
    for (const name of files.keys()) assert.ok(listed.includes(`./${name}`), name)
  })
}

test('the blocks of a CAR are repeated only for who asks', async (t) => {
  const content = bytes(760, 1000)
  const files = new Map([['first', content], ['second', content]])
  const root = await repository.ok('add', '-r', '-Q', await written(t, files))
  const [leaf] = new Set((await repository.ok('refs', root)).split('\n'))
  const blocks = async (query, accept) => ipfsCar('blocks', await saved(t, await get(`/ipfs/${root}${query}`, accept)))
  assert.deepEqual(await blocks('?format=car'), [root, leaf])
  assert.deepEqual(await blocks('?format=car&car-dups=n'), [root, leaf])
  assert.deepEqual(await blocks('?format=car&car-dups=y'), [root, leaf, leaf])
  assert.deepEqual(await blocks('', 'application/vnd.ipld.car; dups=y'), [root, leaf, leaf])
})

test('a CAR of a path holds the way there, and ipfs-car unpacks what is at its end', async (t) => {
  const files = tree(770)
  const root = await repository.ok('add', '-r', '-Q', await written(t, files))
  const name = 'below/deeper/three-chunks'
  const step = async (path) => await repository.ok('resolve', `/ipfs/${root}/${path}`)
  const ends = (await Promise.all(['below', 'below/deeper', name].map(step))).map((path) => path.slice('/ipfs/'.length))
  const car = await saved(t, await get(`/ipfs/${root}/${name}?format=car&dag-scope=entity`))
  const blocks = await ipfsCar('blocks', car)
  assert.deepEqual(blocks, [root, ends[0], ends[1], ...await blocksBelow(ends[2])])
  const into = path.join(await folder(t), 'file')
  await ipfsCar('unpack', car, '--root', ends[2], '--output', into)
  same(await readFile(into), files.get(name), name)

  const block = await saved(t, await get(`/ipfs/${root}/${name}?format=car&dag-scope=block`))
  assert.deepEqual(await ipfsCar('blocks', block), [root, ...ends])
  const folderAlone = await saved(t, await get(`/ipfs/${root}?format=car&dag-scope=entity`))
  assert.deepEqual(await ipfsCar('blocks', folderAlone), [root])
  await assert.rejects(ipfsCar('unpack', folderAlone, '--output', path.join(await folder(t), 'out')), /Missing block/)
})

/** Which of a file's five blocks of 1 MiB a range takes. */
const RANGES = {
  '0:*': [0, 1, 2, 3, 4],
  '0:0': [0],
  '1048575:1048576': [0, 1],
  '2097152:3145727': [2],
  '-1:*': [4],
  '4194304:-1': [4],
  '-99999999:10': [0]
}

test('a CAR of a range holds the blocks that it needs', async (t) => {
  const { stdout } = await repository.run(['add', '-Q'], { input: bytes(780, (4 << 20) + 1000) })
  const root = stdout.toString().trim()
  const leaves = (await repository.ok('refs', root)).split('\n')
  for (const [range, expected] of Object.entries(RANGES)) {
    const car = await saved(t, await get(`/ipfs/${root}?format=car&entity-bytes=${encodeURIComponent(range)}`))
    assert.deepEqual(await ipfsCar('blocks', car), [root, ...expected.map((at) => leaves[at])], range)
  }
})

test('a CAR goes there and back', async (t) => {
  const files = tree(790)
  const packed = path.join(await folder(t), 'packed.car')
  const [root] = await ipfsCar('pack', await written(t, files), '--output', packed)
  await repository.ok('dag', 'import', packed)
  const back = await saved(t, await get(`/ipfs/${root}?format=car`))
  const distinct = async (car) => [...new Set(await ipfsCar('blocks', car))].sort()
  assert.deepEqual(await distinct(back), await distinct(packed))
  const into = path.join(await folder(t), 'out')
  await ipfsCar('unpack', back, '--output', into)
  await holds(into, files)
  const exported = await saved(t, await repository.bytes('dag', 'export', root))
  assert.deepEqual(await distinct(exported), await distinct(packed), 'what the program exports')
})

test('a CAR of which a block was changed is refused by both', async (t) => {
  const { stdout } = await repository.run(['add', '-Q'], { input: bytes(800, 2_000_000) })
  const root = stdout.toString().trim()
  const whole = await get(`/ipfs/${root}?format=car`)
  assert.equal((await ipfsCar('blocks', await saved(t, whole))).length, (await blocksBelow(root)).length)
  const changed = Buffer.from(whole)
  changed[changed.length - 1] ^= 1
  const car = await saved(t, changed)
  await assert.rejects(ipfsCar('blocks', car), /hash mismatch|InvalidBlock|not match/i)
  const other = await Repository.make(t)
  const refused = await other.run(['dag', 'import', car])
  assert.notEqual(refused.code, 0)
  assert.equal((await other.run(['dag', 'import', await saved(t, whole)])).code, 0)
})
