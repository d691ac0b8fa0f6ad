// kubo-rpc-client: names that are published here, and domains that a name server on loopback tells about.
import assert from 'node:assert/strict'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { after, test } from 'node:test'
import { all, collect } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { CALL_MS_MAX } from './lib/limits.js'
import { failure, client } from './lib/rpc.js'

const links = {}
const at = await nameServer(links)
const repository = await Repository.make({ after })
await repository.ok('config', 'set', 'dns.resolvers', `{ "." = "udp://127.0.0.1:${at}" }`)
const daemon = await repository.daemon()
const ipfs = await client(daemon)

test('a domain leads to content through others', async () => {
  const { cid: top } = await ipfs.add('hello world')
  links['site.example'] = `/ipfs/${top}`
  links['chain.example'] = '/ipns/site.example'
  assert.equal(await ipfs.resolve('/ipns/chain.example'), `/ipfs/${top}`)
  assert.equal(await ipfs.resolve('/ipns/chain.example/x', { recursive: false }), '/ipns/site.example/x')
})

test('a file is read through a domain', async () => {
  const { cid } = await ipfs.add('through a name')
  links['file.example'] = `/ipfs/${cid}`
  assert.equal(Buffer.from(await collect(ipfs.cat('/ipns/file.example'))).toString(), 'through a name')
})

test('a domain without a link is told', async () => {
  await assert.rejects(collect(ipfs.cat('/ipns/gone.example')), failure(500, /has no DNSLink/))
  await assert.rejects(ipfs.resolve('/ipns/gone.example'), failure(500, /has no DNSLink/))
})

/** Nobody is there to be told of anything here. */
const alone = { allowOffline: true }

test('a key is made, published under, and followed', async () => {
  const { cid } = await ipfs.add({ path: 'file', content: 'below a name' }, { wrapWithDirectory: true })
  const { id } = await ipfs.key.gen('site')
  assert.deepEqual(await ipfs.name.publish(cid, { key: 'site', ...alone }), { name: id, value: `/ipfs/${cid}` })
  assert.deepEqual(await all(ipfs.name.resolve(id)), [`/ipfs/${cid}`])
  assert.deepEqual(await all(ipfs.name.resolve(`/ipns/${id}/file`)), [`/ipfs/${cid}/file`])
  assert.equal(await ipfs.resolve(`/ipns/${id}`), `/ipfs/${cid}`)
  assert.equal(Buffer.from(await collect(ipfs.cat(`/ipns/${id}/file`))).toString(), 'below a name')
  assert.deepEqual((await all(ipfs.ls(`/ipns/${id}`))).map(({ name }) => name), ['file'])
})

test('the own name is published without a key being named, in every form it is written', async () => {
  const { cid } = await ipfs.add('mine')
  const { id } = await ipfs.id()
  const published = await ipfs.name.publish(`/ipfs/${cid}`, { ipnsBase: 'b58mh', ...alone })
  assert.deepEqual(published, { name: id.toString(), value: `/ipfs/${cid}` })
  const { name } = await ipfs.name.publish(cid, alone)
  assert.match(name, /^k51/)
  for (const form of [name, `/ipns/${name}`, id.toString(), `/ipns/${id}`, `/ipns/${id.toCID()}`]) {
    assert.deepEqual(await all(ipfs.name.resolve(form)), [`/ipfs/${cid}`], form)
  }
})

test('lifetime, time to live and number are as they were asked for', async () => {
  const { id } = await ipfs.key.gen('timed')
  const options = { key: 'timed', resolve: false, ...alone }
  await ipfs.name.publish('/ipfs/bafkqaaa', { ...options, lifetime: '36h30m', ttl: '90s', sequence: 7 })
  const about = await inspected(id)
  assert.deepEqual([about.Sequence, about.TTL], [7, 90_000_000_000])
  const minutes = (new Date(about.Validity.slice(0, 19) + 'Z') - Date.now()) / 60_000
  assert.ok(minutes > 36 * 60 && minutes <= 36.5 * 60, `${minutes} minutes`)
  await assert.rejects(ipfs.name.publish('/ipfs/bafkqaaa', { ...options, sequence: 7 }), failure(400, /^the number 7 is not above 7/))
  await assert.rejects(ipfs.name.publish('/ipfs/bafkqaaa', { ...options, lifetime: 'soon' }), failure(400, /"soon" is not a duration/))
  await ipfs.name.publish('/ipfs/bafkqaaa', options)
  assert.equal((await inspected(id)).Sequence, 8)
})

test('a name that leads to a name is followed as far as it is asked to be', async () => {
  const [{ id: top }, { id: below }] = [await ipfs.key.gen('top'), await ipfs.key.gen('below')]
  await ipfs.name.publish('/ipfs/bafkqaaa', { key: 'below', resolve: false, ...alone })
  await ipfs.name.publish(`/ipns/${below}`, { key: 'top', resolve: false, ...alone })
  assert.deepEqual(await all(ipfs.name.resolve(top)), ['/ipfs/bafkqaaa'])
  for (const recursive of [false, true]) {
    const found = recursive ? '/ipfs/bafkqaaa' : `/ipns/${below}`
    assert.deepEqual(await all(ipfs.name.resolve(top, { recursive })), [found])
  }
  assert.equal(await ipfs.resolve(`/ipns/${top}`, { recursive: false }), `/ipns/${below}`)
  await ipfs.name.publish(`/ipns/${top}`, { key: 'below', resolve: false, ...alone })
  await assert.rejects(all(ipfs.name.resolve(top)), failure(500, /circle/))
})

test('the newest record counts, whoever is asked', async () => {
  const { id } = await ipfs.key.gen('moving')
  for (const value of ['/ipfs/bafkqaaa/a', '/ipfs/bafkqaaa/b']) {
    await ipfs.name.publish(value, { key: 'moving', resolve: false, ...alone })
    for (const nocache of [false, true]) {
      assert.deepEqual(await all(ipfs.name.resolve(id, { nocache })), [value])
    }
  }
})

test('a domain is resolved as a name is', async () => {
  const { id } = await ipfs.key.gen('behind')
  await ipfs.name.publish('/ipfs/bafkqaaa', { key: 'behind', resolve: false, ...alone })
  links['behind.example'] = `/ipns/${id}`
  assert.deepEqual(await all(ipfs.name.resolve('/ipns/behind.example')), ['/ipfs/bafkqaaa'])
  assert.deepEqual(await all(ipfs.name.resolve('behind.example', { recursive: false })), [`/ipns/${id}`])
})

test('what cannot be published or resolved is told', async () => {
  const { id } = await ipfs.key.gen('unused')
  const publish = (value, options) => ipfs.name.publish(value, { resolve: false, ...alone, ...options })
  await assert.rejects(publish('/ipfs/bafkqaaa', { key: 'nobody' }), failure(500, /^no key named nobody was found/))
  await assert.rejects(publish('/ipfs/bafkqaaa', { allowOffline: false }), failure(500, /told to others again later; so far nobody took it/))
  await assert.rejects(publish('no path'), failure(500, /no path/))
  await assert.rejects(publish('/ipfs/'), failure(500, /./))
  await assert.rejects(publish('/elsewhere/bafkqaaa'), failure(500, /./))
  const { cid } = await ipfs.add({ path: 'file', content: 'here' }, { wrapWithDirectory: true })
  const absent = publish(`/ipfs/${cid}/absent`, { key: 'unused', resolve: true })
  await assert.rejects(absent, failure(500, /^\/ipfs\/\w+\/absent is not there to be pointed at.*--resolve=false/))
  await assert.rejects(all(ipfs.name.resolve(id)), failure(500, /^no valid record of/))
  await assert.rejects(ipfs.resolve(`/ipns/${id}`), failure(500, /no valid record of/))
  await assert.rejects(collect(ipfs.cat(`/ipns/${id}`)), failure(500, /no valid record of/))
  await assert.rejects(all(ipfs.name.resolve('no name')), failure(500, /./))
  await assert.rejects(all(ipfs.name.resolve('/ipfs/bafkqaaa')), failure(400, /content and no name/))
  await assert.rejects(all(ipfs.name.resolve('/ipns/gone.example')), failure(500, /has no DNSLink/))
})

/** What stands in the newest record of a name. */
async function inspected (name) {
  const input = await repository.bytes('name', 'get', name)
  const form = new FormData()
  form.append('file', new Blob([input]))
  const url = new URL(`${await daemon.rpc()}/api/v0/name/inspect`)
  const answer = await fetch(url, { method: 'POST', body: form, signal: AbortSignal.timeout(CALL_MS_MAX) })
  return (await answer.json()).Entry
}

/** Answers with the DNSLinks of domains, or that there is no such name; gives its port. */
async function nameServer (links) {
  const socket = dgram.createSocket('udp4')
  socket.on('message', (question, from) => {
    const labels = []
    let end = 12
    for (; question[end] !== 0; end += question[end] + 1) labels.push(question.toString('latin1', end + 1, end + 1 + question[end]))
    const path = labels.shift() === '_dnslink' ? links[labels.join('.')] : undefined
    const head = Buffer.alloc(12)
    question.copy(head, 0, 0, 2)
    head.writeUInt16BE(path === undefined ? 0x8183 : 0x8180, 2)
    head.writeUInt16BE(1, 4)
    head.writeUInt16BE(path === undefined ? 0 : 1, 6)
    const text = Buffer.from(`dnslink=${path}`)
    const fields = Buffer.from([0xc0, 12, 0, 16, 0, 1, 0, 0, 1, 44, 0, text.length + 1, text.length])
    const answer = path === undefined ? [] : [fields, text]
    socket.send(Buffer.concat([head, question.subarray(12, end + 5), ...answer]), from.port, from.address)
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  after(() => socket.close())
  return socket.address().port
}

test('whether names are followed over pubsub is asked, which ones, and one is let go', async () => {
  assert.deepEqual(await ipfs.name.pubsub.state(), { enabled: false })
  await assert.rejects(ipfs.name.pubsub.subs(), failure(500, /names\.pubsub/))
  const following = await Repository.make({ after })
  await following.ok('config', 'set', 'names.pubsub', 'true')
  const rpc = await client(await following.daemon())
  assert.deepEqual(await rpc.name.pubsub.state(), { enabled: true })
  const { name } = await rpc.name.publish('/ipfs/bafkqaaa', alone)
  assert.deepEqual(await all(rpc.name.resolve(name)), ['/ipfs/bafkqaaa'])
  assert.deepEqual(await rpc.name.pubsub.subs(), [`/ipns/${name}`])
  assert.deepEqual(await rpc.name.pubsub.cancel(name), { canceled: true })
  assert.deepEqual(await rpc.name.pubsub.cancel(name), { canceled: false })
  assert.deepEqual(await rpc.name.pubsub.subs(), [])
})
