// kubo-rpc-client: files and folders.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { after, test } from 'node:test'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository, folder } from './lib/cairn.js'
import { failure, client } from './lib/rpc.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const ipfs = await client(daemon)

const HELLO = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'
const HELLO_V0 = 'Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD'
const EMPTY_FOLDER = 'bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354'
const ABSENT = 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy'
const ABSENT_NODE = 'bafybeigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy'

test('add names content as everybody does', async () => {
  const added = await ipfs.add('hello world')
  assert.equal(added.cid.toString(), HELLO)
  assert.equal(added.path, HELLO)
  assert.equal(added.size, 11)
  const v0 = await ipfs.add('hello world', { cidVersion: 0 })
  assert.equal(v0.cid.toString(), HELLO_V0)
  assert.equal(v0.size, 19)
})

test('add takes bytes, pieces and streams', async () => {
  const content = bytes(40, 3_000_000)
  const expected = (await ipfs.add(content)).cid.toString()
  const pieces = async function * () { for (let at = 0; at < content.length; at += 99_999) yield content.subarray(at, at + 99_999) }
  assert.equal((await ipfs.add(pieces())).cid.toString(), expected)
  assert.equal((await ipfs.add(new Blob([content]))).cid.toString(), expected)
  assert.equal((await ipfs.add(new Blob([content]).stream())).cid.toString(), expected)
  same(await collect(ipfs.cat(expected)), content, 'the file')
})

test('add keeps to its options', async () => {
  const content = bytes(41, 1_000_000)
  const named = async (options) => (await ipfs.add(content, options)).cid
  const plain = await named({})
  assert.notEqual(String(await named({ chunker: 'size-65536' })), String(plain))
  assert.notEqual(String(await named({ chunker: 'rabin-1024-4096-65536' })), String(plain))
  // More leaves than one node has links, or both layouts would be the same.
  assert.notEqual(String(await named({ trickle: true, chunker: 'size-512' })), String(await named({ chunker: 'size-512' })))
  assert.equal((await named({ rawLeaves: false, chunker: 'size-2000000' })).code, 0x70)
  assert.equal((await named({ hashAlg: 'sha2-512' })).multihash.code, 0x13)
  assert.equal((await named({ hashAlg: 'blake3' })).multihash.code, 0x1e)
  const wrapped = await all(ipfs.addAll([{ path: 'name', content }], { wrapWithDirectory: true }))
  assert.deepEqual(wrapped.map(({ path }) => path), ['name', ''])
  same(await collect(ipfs.cat(`${wrapped[1].cid}/name`)), content, 'the file')
})

test('add only names what it is told not to keep', async () => {
  const named = await ipfs.add(bytes(42, 1000), { onlyHash: true })
  await assert.rejects(ipfs.block.stat(named.cid, { offline: true }), failure(500, /^block was not found: ipld: could not find/))
  await assert.rejects(all(ipfs.pin.ls({ paths: named.cid, offline: true })), failure(500, /is not pinned$/))
})

test('add pins what it adds, unless told otherwise', async () => {
  const pinned = await ipfs.add(bytes(43, 1000))
  const loose = await ipfs.add(bytes(44, 1000), { pin: false })
  const listed = (await all(ipfs.pin.ls({ type: 'recursive' }))).map(({ cid }) => cid.toString())
  assert.ok(listed.includes(pinned.cid.toString()))
  assert.ok(!listed.includes(loose.cid.toString()))
})

test('add tells its progress', async () => {
  const content = bytes(45, 40_000_000)
  const told = []
  const pieces = async function * () { for (let at = 0; at < content.length; at += 500_000) yield content.subarray(at, at + 500_000) }
  const added = await ipfs.add(pieces(), { progress: (count) => told.push(count) })
  assert.ok(told.length > 1, `${told}`)
  assert.equal(told.at(-1), content.length)
  assert.deepEqual(told, told.toSorted((one, other) => one - other))
  same(await collect(ipfs.cat(added.cid)), content, 'the file')
})

const mtime = { secs: 1_700_000_000, nsecs: 123_000 }

test('add keeps modes and times', async () => {
  const added = await ipfs.add({ path: 'name', content: 'hello world', mode: 0o644, mtime })
  const bare = await ipfs.add('hello world', { rawLeaves: false })
  assert.notEqual(added.cid.toString(), HELLO)
  assert.notEqual(added.cid.toString(), bare.cid.toString())
  assert.equal((await collect(ipfs.cat(added.cid))).toString(), 'hello world')
})

test('add tells modes and times', async () => {
  const added = await ipfs.add({ path: 'name', content: 'hello world', mode: 0o644, mtime })
  assert.deepEqual({ mode: added.mode, mtime: added.mtime }, { mode: 0o644, mtime })
})

test('addAll makes folders of paths', async () => {
  const entries = [
    { path: 'top/empty' },
    { path: 'top/a file.txt', content: 'one' },
    { path: 'top/below/é字.txt', content: bytes(46, 2_000_000) },
    { path: 'top/below/zero', content: '' }
  ]
  const added = await all(ipfs.addAll(entries))
  const by = Object.fromEntries(added.map(({ path, cid }) => [path, cid.toString()]))
  assert.deepEqual(Object.keys(by).sort(), ['top', 'top/a file.txt', 'top/below', 'top/below/zero', 'top/below/é字.txt', 'top/empty'])
  assert.equal(added.at(-1).path, 'top')
  assert.equal((await collect(ipfs.cat(`${by.top}/a file.txt`))).toString(), 'one')
  same(await collect(ipfs.cat(`/ipfs/${by.top}/below/é字.txt`)), bytes(46, 2_000_000), 'the file')
  assert.equal(by['top/empty'], EMPTY_FOLDER)
})

test('addAll takes many files of a request in one go', async () => {
  const entries = Array.from({ length: 500 }, (_, at) => ({ path: `many/${at}`, content: `file ${at}` }))
  const added = await all(ipfs.addAll(entries))
  assert.equal(added.length, 501)
  const listed = await all(ipfs.ls(added.at(-1).cid))
  assert.equal(listed.length, 500)
})

test('cat gives ranges', async () => {
  const content = bytes(47, 3_000_000)
  const { cid } = await ipfs.add(content)
  const range = (options) => collect(ipfs.cat(cid, options))
  same(await range({ offset: 1, length: 3 }), content.subarray(1, 4), 'inside a block')
  same(await range({ offset: (1 << 20) - 1, length: 2 }), content.subarray((1 << 20) - 1, (1 << 20) + 1), 'across blocks')
  same(await range({ offset: 2_999_990 }), content.subarray(2_999_990), 'to the end')
  same(await range({ offset: 2_999_990, length: 100 }), content.subarray(2_999_990), 'beyond the end')
  same(await range({ offset: 4_000_000 }), Buffer.alloc(0), 'after the end')
  same(await range({ length: 5 }), content.subarray(0, 5), 'from the beginning')
})

test('cat refuses what is no file', async () => {
  const folder = (await all(ipfs.addAll([{ path: 'd/f', content: 'x' }]))).at(-1).cid
  await assert.rejects(collect(ipfs.cat(folder)), failure(500, 'this dag node is a directory'))
  await assert.rejects(collect(ipfs.cat(`${folder}/nothing`)), failure(500, /no link named "nothing" under/))
  await assert.rejects(collect(ipfs.cat('not a path')), failure(500, /^invalid path "not a path"/))
  await assert.rejects(collect(ipfs.cat(ABSENT, { offline: true })), failure(500, `block was not found: ipld: could not find ${ABSENT}`))
})

test('a call gives up after its timeout', async () => {
  await assert.rejects(collect(ipfs.cat(ABSENT, { timeout: 100 })), { name: 'TimeoutError' })
})

test('get gives an archive that tar unpacks', async (t) => {
  const added = (await all(ipfs.addAll([
    { path: 'top/one', content: 'one' },
    { path: 'top/below/two', content: bytes(48, 1_500_000) }
  ]))).at(-1)
  for (const options of [{}, { compress: true, compressionLevel: 5 }]) {
    const out = await folder(t)
    const tar = spawn('tar', ['-x', ...(options.compress ? ['-z'] : []), '-C', out], { stdio: ['pipe', 'inherit', 'inherit'] })
    tar.stdin.end(await collect(ipfs.get(added.cid, { archive: true, ...options })))
    assert.deepEqual(await once(tar, 'close'), [0, null])
    assert.equal(await readFile(path.join(out, added.cid.toString(), 'one'), 'utf8'), 'one')
    same(await readFile(path.join(out, added.cid.toString(), 'below', 'two')), bytes(48, 1_500_000), 'the file')
  }
  const [header] = [await collect(ipfs.get(added.cid))]
  assert.equal(header.subarray(257, 262).toString(), 'ustar')
})

test('ls tells names, kinds and sizes', async () => {
  const top = (await all(ipfs.addAll([
    { path: 'top/a', content: 'hello world' },
    { path: 'top/b', content: bytes(49, 2_500_000) },
    { path: 'top/c/d', content: 'x' }
  ]))).at(-1).cid
  const listed = await all(ipfs.ls(top))
  assert.deepEqual(listed.map(({ name, size, type }) => ({ name, size, type })), [
    { name: 'a', size: 11, type: 'file' },
    { name: 'b', size: 2_500_000, type: 'file' },
    { name: 'c', size: 0, type: 'dir' }
  ])
  assert.equal(listed[0].cid.toString(), HELLO)
  assert.equal(listed[0].path, `${top}/a`)
  const streamed = await all(ipfs.ls(top, { stream: true }))
  assert.deepEqual(streamed.map(({ name }) => name), ['a', 'b', 'c'])
  const below = await all(ipfs.ls(`/ipfs/${top}/c`))
  assert.deepEqual(below.map(({ name }) => name), ['d'])
  await assert.rejects(all(ipfs.ls(`${top}/nothing`)), failure(500, /no link named "nothing" under/))
  await assert.rejects(all(ipfs.ls(ABSENT, { offline: true })), failure(500, /could not find/))
})

test('ls of a file tells of the file', async () => {
  const { cid } = await ipfs.add('hello world')
  const [entry, ...more] = await all(ipfs.ls(cid))
  assert.equal(entry.cid.toString(), HELLO)
  assert.deepEqual(more, [])
})

test('refs tells links, and paths through them', async () => {
  const top = (await all(ipfs.addAll([
    { path: 'top/a', content: 'hello world' },
    { path: 'top/c/a', content: 'hello world' }
  ]))).at(-1).cid
  const refs = async (cid, options) => (await all(ipfs.refs(cid, options))).map(({ ref, err }) => {
    assert.equal(err, '')
    return ref
  })
  const [a, c] = (await all(ipfs.ls(top))).map(({ cid }) => cid.toString())
  assert.deepEqual(await refs(top), [a, c])
  assert.deepEqual(await refs(top, { recursive: true }), [a, c, a])
  assert.deepEqual(await refs(top, { recursive: true, unique: true }), [a, c])
  assert.deepEqual(await refs(top, { recursive: true, maxDepth: 1 }), [a, c])
  assert.deepEqual(await refs(top, { edges: true }), [`${top} -> ${a}`, `${top} -> ${c}`])
  assert.deepEqual(await refs(top, { format: '<src> <linkname> <dst>' }), [`${top} a ${a}`, `${top} c ${c}`])
  assert.deepEqual(await refs([top, `${top}/c`]), [a, c, a])
  await assert.rejects(all(ipfs.refs(ABSENT_NODE, { offline: true })), failure(500, `block was not found: ipld: could not find ${ABSENT_NODE}`))
})

test('refs of an empty folder are none', async () => {
  await all(ipfs.addAll([{ path: 'empty' }]))
  assert.deepEqual(await all(ipfs.refs(EMPTY_FOLDER)), [])
})

test('refs.local lists every block', async () => {
  const { cid } = await ipfs.add(bytes(50, 2_100_000))
  const below = (await all(ipfs.refs(cid))).map(({ ref }) => ref)
  assert.equal(below.length, 3)
  const here = new Set((await all(ipfs.refs.local())).map(({ ref }) => ref))
  for (const expected of [cid.toString(), ...below]) assert.ok(here.has(expected), expected)
})

test('resolve follows paths', async () => {
  const top = (await all(ipfs.addAll([{ path: 'top/c/a', content: 'hello world' }]))).at(-1).cid
  assert.equal(await ipfs.resolve(`/ipfs/${top}/c/a`), `/ipfs/${HELLO}`)
  assert.equal(await ipfs.resolve(`/ipfs/${top}`), `/ipfs/${top}`)
  const base36 = await ipfs.resolve(`/ipfs/${top}/c/a`, { cidBase: 'base36' })
  assert.match(base36, /^\/ipfs\/k/)
  await assert.rejects(ipfs.resolve(`/ipfs/${top}/nothing`), failure(500, /no link named "nothing" under/))
})
