// kubo-rpc-client: domains that a name server on loopback tells about.
import assert from 'node:assert/strict'
import dgram from 'node:dgram'
import { once } from 'node:events'
import { after, test } from 'node:test'
import { collect } from './lib/bytes.js'
import { Repository } from './lib/cairn.js'
import { failure, client } from './lib/rpc.js'

const links = {}
const at = await nameServer(links)
const repository = await Repository.make({ after })
await repository.ok('config', 'set', 'dns.resolvers', `{ "." = "udp://127.0.0.1:${at}" }`)
const ipfs = await client(await repository.daemon())

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
