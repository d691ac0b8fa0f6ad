// An HTTP server between a client and a gateway: it remembers what was asked, and may answer otherwise than the gateway did.
import './loopback.js'
import { once } from 'node:events'
import http from 'node:http'
import { CALL_MS_MAX } from './limits.js'

/**
 * Passes requests on to the gateway at `url`, and its answers back as `change(body, path)` makes them. Goes when `test` ends.
 * `asked` are the requests as texts, in the order in which they came.
 */
export async function between (test, url, change = (body) => body) {
  const asked = []
  const answer = async (request, response) => {
    asked.push(`${request.method} ${request.url}`)
    const { method, headers: { accept = '*/*' } } = request
    const signal = AbortSignal.timeout(CALL_MS_MAX)
    const got = await fetch(`${url}${request.url}`, { method, headers: { accept }, redirect: 'manual', signal })
    const body = Buffer.from(await got.arrayBuffer())
    response.writeHead(got.status, { 'content-type': got.headers.get('content-type') ?? 'text/plain' })
    response.end(change(body, request.url))
  }
  const server = http.createServer((request, response) => {
    // What the gateway broke off is broken off here.
    answer(request, response).catch(() => response.destroy())
  }).listen(0, '127.0.0.1')
  test.after(() => {
    server.closeAllConnections()
    server.close()
  })
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${server.address().port}`, asked }
}
