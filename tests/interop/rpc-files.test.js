// kubo-rpc-client: the file tree (MFS).
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { all, bytes, collect, same } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { failure, client } from './lib/rpc.js'

const repository = await Repository.make({ after })
const daemon = await repository.daemon()
const ipfs = await client(daemon)

const EMPTY_FOLDER = 'bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354'
const text = async (path, options) => Buffer.from(await collect(ipfs.files.read(path, options))).toString()
const names = async (path) => (await all(ipfs.files.ls(path))).map(({ name }) => name).sort()

test('an unused tree is an empty folder', async () => {
  const stat = await ipfs.files.stat('/')
  assert.equal(stat.cid.toString(), EMPTY_FOLDER)
  assert.equal(stat.type, 'directory')
  assert.deepEqual(await all(ipfs.files.ls('/')), [])
})

test('write makes and changes files', async () => {
  await ipfs.files.write('/w/a/hello', 'hello world', { create: true, parents: true })
  assert.equal(await text('/w/a/hello'), 'hello world')
  await ipfs.files.write('/w/a/hello', Buffer.from('HE'))
  await ipfs.files.write('/w/a/hello', 'there, and what is cut', { offset: 6, length: 5 })
  assert.equal(await text('/w/a/hello'), 'HEllo there')
  assert.equal(await text('/w/a/hello', { offset: 6, length: 3 }).then((read) => read.slice(0, 3)), 'the')
  await ipfs.files.write('/w/a/hello', 'new', { truncate: true })
  assert.equal(await text('/w/a/hello'), 'new')
  await assert.rejects(ipfs.files.write('/w/gone', 'x'), failure(500, 'file does not exist'))
  await assert.rejects(ipfs.files.write('/w/a', 'x', { create: true }), failure(500, '/w/a was not a file'))
})

test('a large file is what adding it gives', async () => {
  const content = bytes(70, 5_000_001)
  await ipfs.files.write('/large', content, { create: true })
  const { cid } = await ipfs.add(content, { onlyHash: true })
  const stat = await ipfs.files.stat('/large')
  assert.equal(stat.cid.toString(), cid.toString())
  assert.equal(stat.size, content.length)
  assert.equal(stat.type, 'file')
  same(await collect(ipfs.files.read('/large')), content, 'the file')
  same(await collect(ipfs.files.read('/large', { offset: 1_048_570, count: 20 })), content.subarray(1_048_570, 1_048_590), 'a part')
})

test('options name what is made', async () => {
  await ipfs.files.mkdir('/named/v0', { parents: true, cidVersion: 0 })
  assert.equal((await ipfs.files.stat('/named/v0')).cid.version, 0)
  await ipfs.files.write('/named/v0/file', 'x', { create: true })
  assert.equal((await ipfs.files.stat('/named/v0/file')).cid.version, 0)
  await ipfs.files.write('/named/sha512', 'x', { create: true, hashAlg: 'sha2-512' })
  assert.equal((await ipfs.files.stat('/named/sha512')).cid.multihash.code, 0x13)
  await ipfs.files.write('/named/node', 'x', { create: true, rawLeaves: false })
  assert.equal((await ipfs.files.stat('/named/node')).cid.code, 0x70)
})

test('ls tells names, kinds and sizes', async () => {
  await ipfs.files.write('/ls/file', 'x', { create: true, parents: true })
  await ipfs.files.mkdir('/ls/folder')
  const listed = (await all(ipfs.files.ls('/ls'))).sort((a, b) => a.name.localeCompare(b.name))
  assert.deepEqual(listed.map(({ name, type, size }) => [name, type, size]), [['file', 'file', 1], ['folder', 'directory', 0]])
  assert.equal(listed[1].cid.toString(), EMPTY_FOLDER)
  assert.deepEqual((await all(ipfs.files.ls('/ls/file'))).map(({ name, size }) => [name, size]), [['file', 1]])
  await assert.rejects(all(ipfs.files.ls('/gone')), failure(500, 'file does not exist'))
})

test('cp takes content and paths', async () => {
  const { cid } = await ipfs.add('copied', { pin: false })
  await ipfs.files.cp(`/ipfs/${cid}`, '/cp/one', { parents: true })
  await ipfs.files.cp(cid, '/cp/two')
  await ipfs.files.cp('/cp/one', '/cp/three')
  assert.deepEqual(await names('/cp'), ['one', 'three', 'two'])
  assert.equal(await text('/cp/three'), 'copied')
  await assert.rejects(ipfs.files.cp('/cp/one', '/cp/two'), failure(500, /directory already has entry by that name$/))
  await ipfs.files.write('/cp/two', 'other', { truncate: true })
  await ipfs.files.cp('/cp/one', '/cp/two', { force: true })
  assert.equal(await text('/cp/two'), 'copied')
  await assert.rejects(ipfs.files.cp('/cp/gone', '/cp/four'), failure(500, /file does not exist$/))
})

test('mv, mkdir and rm', async () => {
  await ipfs.files.mkdir('/mv/from', { parents: true })
  await ipfs.files.mkdir('/mv/into')
  await ipfs.files.write('/mv/from/file', 'x', { create: true })
  await ipfs.files.mv('/mv/from/file', '/mv/file')
  await ipfs.files.mv('/mv/from', '/mv/into')
  assert.deepEqual(await names('/mv'), ['file', 'into'])
  assert.deepEqual(await names('/mv/into'), ['from'])
  await assert.rejects(ipfs.files.mkdir('/mv/into'), failure(500, 'file already exists'))
  await assert.rejects(ipfs.files.rm('/mv/into'), failure(500, /^\/mv\/into: path is a directory, use -r to remove directories/))
  await ipfs.files.rm('/mv/into', { recursive: true })
  await ipfs.files.rm('/mv/file')
  assert.deepEqual(await names('/mv'), [])
})

test('flush tells the root, and what waits is seen before', async () => {
  await ipfs.files.mkdir('/flush', { flush: false })
  await ipfs.files.write('/flush/file', 'waits', { create: true, flush: false })
  assert.equal(await text('/flush/file'), 'waits')
  const root = await ipfs.files.flush('/')
  assert.equal(root.toString(), (await ipfs.files.stat('/')).cid.toString())
  const folder = await ipfs.files.flush('/flush')
  assert.equal(folder.toString(), (await ipfs.files.stat('/flush')).cid.toString())
})

test('stat tells how much is here', async () => {
  const stat = await ipfs.files.stat('/', { withLocal: true })
  assert.equal(stat.withLocality, true)
  assert.equal(stat.local, true)
  assert.ok(stat.sizeLocal > 0)
})
